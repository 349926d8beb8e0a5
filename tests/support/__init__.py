"""Helpers of the tests."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(look: Callable[[], T | None], what: str, timeout_s: float = 60) -> T:
    """What `look` answers once it is neither None nor False; fails naming `what` it waited for.

    The deadline is there to end a hang, not to measure: keep it generous.
    """
    deadline = time.monotonic() + timeout_s
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain for {what}; last saw {seen!r}")
        time.sleep(0.05)
    return seen
