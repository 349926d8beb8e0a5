"""A server of the stack, asked over HTTP."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from prove.errors import UserError
from prove.stack.hints import command

RETRIES = 5
RETRY_MAX_S = 2

T = TypeVar("T")


class NoAnswerInTimeError(UserError):
    """No answer came in time; what the server did is unknown."""


class Server:
    """Requests to `url`; `name` is what messages call it. Never through a proxy."""

    def __init__(
        self,
        name: str,
        url: str,
        timeout_s: float = 10,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.name = name
        self.url = url
        self._http = httpx.Client(
            base_url=url, timeout=timeout_s, trust_env=False, transport=transport
        )

    def close(self) -> None:
        """Close its connections; only who asks much of many needs to."""
        self._http.close()

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer, whatever its status.

        Raises UserError when nothing answers at the URL, NoAnswerInTimeError after the time limit.
        """
        try:
            return self._http.request(method, path, **options)
        except httpx.TimeoutException:
            raise NoAnswerInTimeError(
                f"the {self.name} at {self.url} did not answer in time; "
                f"{command('status')} shows how it is"
            ) from None
        except httpx.TransportError:
            raise UserError(
                f"the {self.name} does not answer at {self.url}; {command('up')} starts it, "
                f"{command('status')} shows how it is"
            ) from None

    def read(self, read: Callable[[Any], T], method: str, path: str, **options: Any) -> T:
        """What `read` makes of the JSON of a successful answer.

        A server that is busy, and says when to come back (RFC 9110, 10.2.3), is asked again a few
        times. Raises UserError for any other answer, and for none in time.
        """
        answer = self.ask(method, path, **options)
        for _ in range(RETRIES):
            wait = answer.headers.get("Retry-After", "")
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or not wait.isdecimal():
                break
            time.sleep(min(int(wait), RETRY_MAX_S))
            answer = self.ask(method, path, **options)
        return self.content(read, answer)

    def content(self, read: Callable[[Any], T], answer: httpx.Response) -> T:
        """What `read` makes of the JSON of a successful answer; raises UserError for any other."""
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not answer.is_success:
            detail = body.get("detail") or body.get("error") if isinstance(body, dict) else None
            raise UserError(
                f"the {self.name} at {self.url} answered {answer.status_code}"
                + (f": {detail}" if detail else "")
            )
        try:
            return read(body)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            raise UserError(
                f"what answers at {self.url} is not the {self.name}; "
                f"{command('doctor')} shows who has the port"
            ) from None
