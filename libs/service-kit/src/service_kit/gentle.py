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
    if not isinstance(body, dict):
        return
    known = _HARMLESS.get(_kind(case, body), {})
    # An incident has a harmful value where none is given.
    given = body.get("params", {} if known and "type" not in body else None)
    if not isinstance(given, dict):
        return
    missing = {} if "type" in body else {name: one.value for name, one in known.items()}
    params = {name: _instead(known.get(name), value) for name, value in given.items()}
    case.body = {**body, "params": {**missing, **params}}


def _kind(case: "schemathesis.Case[Any]", body: dict[str, Any]) -> str:
    """The type of the fault; an incident's name ends with it, after its service's."""
    kind = body.get("type")
    if kind is None and "/incidents/{name}" in case.operation.path:
        kind = str((case.path_parameters or {}).get("name", "")).partition("-")[2]
    return kind if isinstance(kind, str) else ""


def _instead(harmless: _Harmless | None, value: Any) -> Any:
    """The harmless value for a valid one."""
    if harmless is None or not isinstance(value, int | float) or isinstance(value, bool):
        return value
    valid = harmless.least <= value <= harmless.most and value != 0
    whole = isinstance(harmless.value, float) or value == int(value)
    return harmless.value if valid and whole else value
