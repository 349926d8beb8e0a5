"""The clients' ledger and the bundle as tables, and what words such as `failed` mean in them.

`requests` has a row for each request that is a read or a checkout (a customer's later looks at an
order are left out), with its line in ledger.jsonl. `purchases` has one for each key: what became of
a checkout after all its attempts and looks. `spans`, `metrics` and `logs` are those of the bundle,
and `baseline_spans` the spans of its baseline.
"""

from pathlib import Path

from prove.incident import bundle, record
from prove.incident.tables import Tables

SLOW_MS = 500
"""The objective of latency, of reads and checkouts alike."""
NOTABLE = 0.01
"""A smaller share of requests is not told as something that customers felt."""

FAILED = "outcome IN ('failed', 'no-answer')"
SLOW = f"outcome IN ('ok', 'unsettled', 'refused') AND latency_ms > {SLOW_MS}"
UNSETTLED = "outcome = 'unsettled'"
REFUSED = "outcome = 'refused'"
ERROR_LOG = "upper(severity) IN ('ERROR', 'CRITICAL', 'FATAL')"

_LEDGER = {
    "at_unix_us": "BIGINT",
    "done_unix_us": "BIGINT",
    "kind": "VARCHAR",
    "method": "VARCHAR",
    "route": "VARCHAR",
    "status": "INTEGER",
    "outcome": "VARCHAR",
    "latency_ms": "DOUBLE",
    "trace_id": "VARCHAR",
    "key": "VARCHAR",
    "order_id": "VARCHAR",
    "asked_minor": "BIGINT",
    "amount_minor": "BIGINT",
    "attempt": "INTEGER",
    "final": "BOOLEAN",
    "detail": "VARCHAR",
}

REQUESTS = (
    "SELECT * FROM (SELECT row_number() OVER () AS line, * FROM ledger)"
    " WHERE kind = 'read' OR method = 'POST'"
)
PURCHASES = (
    "SELECT key, min(at_unix_us) AS at_unix_us, max(done_unix_us) AS done_unix_us,"
    " min(done_unix_us) AS first_done_unix_us,"
    " count(*) FILTER (method = 'POST') AS attempts, arg_max(outcome, done_unix_us) AS outcome,"
    " coalesce(max(amount_minor), max(asked_minor)) AS amount_minor,"
    " (max(done_unix_us) - min(at_unix_us)) / 1000 AS took_ms"
    " FROM ledger WHERE kind = 'checkout' GROUP BY key"
)


def tables(directory: Path, kept: Path = Path(record.BUNDLE)) -> Tables:
    """Of an incident's directory, in which its bundle is kept."""
    found = Tables(
        directory,
        {
            "ledger": (Path(record.LEDGER), _LEDGER),
            **{name: (kept / f"{name}.parquet", of) for name, of in bundle.COLUMNS.items()},
            "baseline_spans": (kept / bundle.BASELINE / "spans.parquet", bundle.COLUMNS["spans"]),
        },
    )
    found.ask(f"CREATE VIEW requests AS {REQUESTS}")
    found.ask(f"CREATE VIEW purchases AS {PURCHASES}")
    return found
