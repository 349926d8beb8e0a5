"""Were orders lost, charged twice, or promised and not kept, whatever an incident did to them?"""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import psycopg

from prove.clients.server import Server
from prove.errors import UserError
from prove.incident import judge
from prove.incident.record import Entry
from prove.incident.target import Target
from prove.units import count
from prove.verify import audit, books
from prove.verify.books import Sources

GRACE_S = 10.0
"""What changed less than this ago is in progress: customers go on arriving."""
ASKED = 500
"""Orders that are asked for one by one, where there are no books to read."""
UNFINISHED = "SELECT count(*) FROM orders WHERE step <> '' AND created_at_us < {before_us}"


class Integrity:
    """Of one installation, from now on: what its books had wrong before is not counted."""

    def __init__(self, target: Target) -> None:
        self._sources = Sources.of(target.settings) if target.settings else None
        self._orders = Server("order service", target.urls["order"])
        self._known: set[tuple[str, str]] = set()
        self._latest: set[tuple[str, str]] = set()
        if self._sources:
            self._known = {
                (each.kind, each.subject)
                for each in audit.audit(books.read(self._sources), grace_s=0)
            }

    def unfinished(self, before_s: float) -> int:
        """Orders older than a moment that still wait for a step; raises UserError."""
        if self._sources is None:
            return 0
        query = UNFINISHED.format(before_us=round(before_s * 1_000_000))
        url = self._sources.order
        try:
            if url.startswith("sqlite:///"):
                uri = f"{Path(url.removeprefix('sqlite:///')).as_uri()}?mode=ro"
                with closing(sqlite3.connect(uri, uri=True)) as connection:
                    return int(connection.execute(query).fetchone()[0])
            with psycopg.connect(url) as server:
                row = server.execute(query.encode()).fetchone()
                return int(row[0]) if row else 0
        except (sqlite3.Error, psycopg.Error) as error:
            raise UserError(f"the order database cannot be read: {error}") from None

    def differences(self, entries: Sequence[Entry]) -> tuple[list[str], str]:
        """What differs and is new, and what was compared; raises UserError."""
        if self._sources is None:
            return self._asked(entries)
        read = books.read(self._sources)
        found = audit.audit(read, GRACE_S)
        new = [each for each in found if (each.kind, each.subject) not in self._known]
        self._latest = {(each.kind, each.subject) for each in new}
        told = [
            f"{each.kind} {each.order_id or each.subject}: {each.expected}, found {each.found}"
            for each in new
        ]
        now_us = time.time_ns() // 1000
        settled = [e for e in entries if e.done_unix_us < now_us - GRACE_S * 1_000_000]
        orders = {order.id: (order.status, order.total_minor) for order in read.orders}
        told += judge.broken_promises(settled, orders)
        compared = (
            f"{count(len(read.orders), 'order')}, {count(len(read.payments), 'payment')}, "
            f"{count(len(read.entries), 'line')} of the acquirer's ledger"
        )
        return told, compared

    def remember(self) -> None:
        """What differed at last isn't new any more."""
        self._known |= self._latest

    def _asked(self, entries: Sequence[Entry]) -> tuple[list[str], str]:
        """Without books: what the Order Service says of the orders that customers were told of."""
        promised = [e for e in entries if e.kind == "checkout" and e.outcome == "ok" and e.order_id]
        some = promised[:: max(1, -(-len(promised) // ASKED))]
        orders = {}
        for entry in some:
            answer = self._orders.ask("GET", f"/api/v1/orders/{entry.order_id}")
            if answer.is_success:
                body = answer.json()
                orders[entry.order_id] = (str(body["status"]), int(body["total_minor"]))
        told = judge.broken_promises(some, orders)
        return told, f"{count(len(some), 'order')} asked for; books aren't to be read from here"
