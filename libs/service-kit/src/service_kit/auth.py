"""The admin bearer token (RFC 6750)."""

import hmac

from service_kit.problem import Problem


def require_admin(authorization: str | None, token: str | None) -> None:
    """Check an Authorization header against the configured admin token, in constant time.

    Raises:
        Problem: 404 when no token is configured (the path does not exist), 401 when it is wrong.
    """
    if token is None:
        raise Problem(404, "not-found", "There is nothing at this path.")
    scheme, _, given = (authorization or "").partition(" ")
    matches = hmac.compare_digest(given.strip().encode(), token.encode())
    if scheme.lower() != "bearer" or not matches:
        raise Problem(
            401,
            "unauthorized",
            "This needs the admin token: Authorization: Bearer <token>.",
            headers={"WWW-Authenticate": "Bearer"},
        )
