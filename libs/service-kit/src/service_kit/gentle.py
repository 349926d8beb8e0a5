"""Hooks for schemathesis (SCHEMATHESIS_HOOKS=service_kit.gentle): valid faults, but harmless ones.

A fault that the contract allows may end the service under test, or take the machine's memory.
"""

from typing import Any, NamedTuple

import schemathesis


class _Harmless(NamedTuple):
    """Which values are valid, and the one to take instead."""

    least: float
    most: float
    value: float


_HARMLESS = {
    "crash-loop": {"after_s": _Harmless(1, 900, 900.0)},
    "cpu": {"share": _Harmless(0, 1, 0.001)},
    "memory": {"cap_mb": _Harmless(1, 512, 1)},
}


@schemathesis.hook
def before_call(
    _context: schemathesis.HookContext, case: "schemathesis.Case[Any]", **_options: Any
) -> None:
    """Keeps what is wrong with a body: only good numbers are replaced by other good ones."""
    body: Any = case.body
    if not isinstance(body, dict) or not isinstance(body.get("params"), dict):
        return
    known = _HARMLESS.get(body["type"], {}) if isinstance(body.get("type"), str) else {}
    params = {name: _instead(known.get(name), value) for name, value in body["params"].items()}
    case.body = {**body, "params": params}


def _instead(harmless: _Harmless | None, value: Any) -> Any:
    """The harmless value for a valid one."""
    if harmless is None or not isinstance(value, int | float) or isinstance(value, bool):
        return value
    valid = harmless.least <= value <= harmless.most and value != 0
    whole = isinstance(harmless.value, float) or value == int(value)
    return harmless.value if valid and whole else value
