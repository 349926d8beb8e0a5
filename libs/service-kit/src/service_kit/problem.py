"""Problem details for HTTP APIs (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus

from pydantic import ValidationError

from service_kit import logs

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 - it is the RFC's word
    """An error answer: raised by a service, rendered by its framework's one error handler.

    `slug` becomes `type: /problems/<slug>`; `extras` join the body, `headers` the answer.
    """

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str,
        *,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        **extras: object,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.slug = slug
        self.detail = detail
        self.title = title or slug.replace("-", " ").capitalize()
        self.headers = dict(headers or {})
        self.extras = extras

    def as_dict(self, instance: str) -> dict[str, object]:
        """The body, for the request path `instance`, with the ids that find its logs and trace."""
        trace_id, _ = logs.trace_ids()
        return {
            "type": f"/problems/{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "trace_id": trace_id,
            "request_id": logs.request_id.get(),
            **self.extras,
        }


_SLUGS = {
    400: "malformed",
    401: "unauthorized",
    404: "not-found",
    405: "method-not-allowed",
    413: "body-too-large",
    414: "uri-too-long",
    415: "unsupported-media-type",
    422: "validation",
    431: "headers-too-large",
    503: "unavailable",
}


def from_status(
    status: int, detail: str | None = None, headers: Mapping[str, str] | None = None
) -> Problem:
    """The problem for an error that only has an HTTP status (raised by a framework)."""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"
    default = "internal" if status >= 500 else phrase.lower().replace(" ", "-")
    slug = _SLUGS.get(status, default)
    return Problem(status, slug, detail or f"{phrase}.", title=phrase, headers=headers)


_MAX_ERRORS = 20


def from_validation(error: ValidationError, where: str) -> Problem:
    """422 for a body or query that pydantic refused; 400 when the body is not JSON at all."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        return Problem(400, "malformed", f"The body is not JSON: {found[0]['msg']}.")
    errors = [
        {"loc": [where, *item["loc"]], "msg": item["msg"].removeprefix("Value error, ")}
        for item in found[:_MAX_ERRORS]
    ]
    first = ".".join(str(part) for part in errors[0]["loc"])
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return Problem(422, "validation", f"{first}: {errors[0]['msg']}{more}.", errors=errors)
