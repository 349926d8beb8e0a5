"""The caller's remaining time, as Envoy spells it."""

import time
from contextvars import ContextVar

from service_kit.problem import Problem

HEADER = "x-envoy-expected-rq-timeout-ms"

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def start(header: str | None) -> None:
    """Begin a request whose caller waits for `header` milliseconds (None or junk: no limit)."""
    if header and header.isascii() and header.isdigit():
        _deadline.set(time.monotonic() + int(header[:9]) / 1000)
    else:
        _deadline.set(None)


def remaining_s(default: float) -> float:
    """Seconds the caller still waits, at most `default`, never negative."""
    at = _deadline.get()
    if at is None:
        return default
    return max(0.0, min(default, at - time.monotonic()))


def check() -> None:
    """Stop work nobody waits for any more.

    Raises:
        Problem: 503 when the deadline has passed.
    """
    at = _deadline.get()
    if at is not None and time.monotonic() >= at:
        raise Problem(503, "unavailable", "The caller's time ran out before the work began.")
