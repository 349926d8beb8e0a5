"""VictoriaLogs over HTTP: records by a LogsQL query."""

import json

import httpx

from prove.clients.server import Server
from prove.errors import UserError
from prove.stack.hints import command

SHORT_ID = 8
"""Digits of a trace id that are enough to tell it from others of the same days."""


class LogStore:
    """The VictoriaLogs at `url`."""

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        self._server = Server("log store", url, transport=transport)

    def query(self, logsql: str, limit: int = 1000) -> list[dict[str, str]]:
        """The latest `limit` records a LogsQL query finds, oldest first.

        A record's `_time` is RFC 3339 in UTC, `_msg` its body, the rest its attributes. Raises
        UserError when the store doesn't answer or refuses the query.
        """
        answer = self._server.ask(
            "POST", "/select/logsql/query", data={"query": logsql, "limit": str(limit)}
        )
        if not answer.is_success:
            raise UserError(f"the log store refuses {logsql!r}: {answer.text.strip()[:300]}")
        try:
            records = [json.loads(line) for line in answer.text.splitlines()]
            return sorted(records, key=lambda record: str(record["_time"]))
        except (LookupError, TypeError, ValueError):
            raise UserError(
                f"what answers at {self._server.url} is not the log store; "
                f"{command('doctor')} shows who has the port"
            ) from None

    def by_trace(self, trace_id: str, limit: int = 1000) -> list[dict[str, str]]:
        """All services' records of one trace, in the order of their times.

        Of its id, 32 hex digits, the first `SHORT_ID` are enough.
        """
        wanted = f'"{trace_id}"' if len(trace_id) == 32 else f'"{trace_id}"*'
        return self.query(f"trace_id:={wanted}", limit)

    def orders(self, beginning: str, limit: int = 1000) -> dict[str, list[str]]:
        """Orders by the beginning of their ids, each with its traces, the oldest first."""
        found: dict[str, dict[str, None]] = {}
        logsql = f"order_id:={_text(beginning)}* | fields _time, order_id, trace_id"
        for record in self.query(logsql, limit):
            traces = found.setdefault(record["order_id"], {})
            if trace_id := record.get("trace_id"):
                traces[trace_id] = None
        return {order_id: list(traces) for order_id, traces in found.items()}

    def trace_ids(self, beginning: str, limit: int = 1000) -> list[str]:
        """The ids of traces that begin so and have a record, the oldest first."""
        logsql = f"trace_id:={_text(beginning)}* | fields _time, trace_id"
        return list(dict.fromkeys(record["trace_id"] for record in self.query(logsql, limit)))


def _text(value: str) -> str:
    """A LogsQL string."""
    return json.dumps(value)
