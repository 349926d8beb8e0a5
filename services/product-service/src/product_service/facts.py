"""What a request is about, for the fault leases that ask: its goods, their categories, its key."""

import json
import re
from typing import Any

from flask import request
from opentelemetry.instrumentation.utils import suppress_instrumentation
from service_kit.database import Database
from service_kit.faults import Facts
from werkzeug.exceptions import HTTPException

from product_service import repository
from product_service.model import MAX_LINES, SKU_PATTERN


class RequestFacts:
    """Looks at Flask's current request, and into the catalogue for categories."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __call__(self) -> Facts:
        """Of the path, the query, and the body of a reservation."""
        path = request.view_args or {}
        body = _body() if request.path.endswith("/reservations") else {}
        skus = frozenset(sku for sku in _skus(path, body) if re.fullmatch(SKU_PATTERN, sku))
        categories = {request.args.get("category")} if not path else set()
        if skus:
            # Nobody but the fault asks for this: it makes no span.
            with suppress_instrumentation(), self._database.read() as connection:
                categories |= repository.categories(connection, skus)
        key = path.get("reservation_id") or body.get("order_id") or request.full_path
        return Facts(skus, frozenset(c for c in categories if c), key=str(key))


def _skus(path: dict[str, Any], body: dict[str, Any]) -> list[str]:
    if "sku" in path:
        return [path["sku"]]
    lines = body.get("lines")
    if not isinstance(lines, list):
        return []
    skus = [line.get("sku") for line in lines[:MAX_LINES] if isinstance(line, dict)]
    return [sku for sku in skus if isinstance(sku, str)]


def _body() -> dict[str, Any]:
    """What is wrong with a body the handler tells."""
    try:
        body = json.loads(request.get_data())
    except (ValueError, RecursionError, HTTPException):
        return {}
    return body if isinstance(body, dict) else {}
