"""Hooks for schemathesis (SCHEMATHESIS_HOOKS=tests.support.basket): orders of goods there are.

With skus and tokens out of the air no order would be placed, so none could be read or cancelled.
"""

import re
from typing import Any

import schemathesis
from service_kit import gentle as gentle  # its hooks, too

SKUS = ("HB1001", "HB5001", "HB8004")
"""Of the sample that the test imports."""

_SKU = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_METHOD = re.compile(r"tok_[a-z0-9_]{1,60}")


@schemathesis.hook
def before_call(
    _context: schemathesis.HookContext, case: "schemathesis.Case[Any]", **_options: Any
) -> None:
    """Good values are replaced by others that are as good, and known to the shop."""
    body: Any = case.body
    if case.operation.label != "POST /api/v1/orders" or not isinstance(body, dict):
        return
    if _fits(_METHOD, body.get("payment_method")):
        body = {**body, "payment_method": "tok_approve"}
    if _fits(_CURRENCY, body.get("currency")):
        body = {**body, "currency": "GBP"}
    if isinstance(body.get("lines"), list):
        body = {**body, "lines": [_known(n, line) for n, line in enumerate(body["lines"])]}
    case.body = body


def _known(number: int, line: Any) -> Any:
    if isinstance(line, dict) and _fits(_SKU, line.get("sku")):
        return {**line, "sku": SKUS[number % len(SKUS)]}
    return line


def _fits(pattern: "re.Pattern[str]", value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
