"""What is known of an incident: spans, metrics, logs and edges, each row with the window it is of.

The form read is `incident-bundle/1` (docs/reference/incident-bundle.md). Any file may be missing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from prove.errors import UserError

BASELINE, LOCAL, INCIDENT = 0, 1, 2
"""Windows: the healthy time that is compared with, the incident's own minute before, the incident.

The two healthy ones are kept apart, for what differs between them can't be the incident.
"""

SPANS = {
    "trace_id": pl.String,
    "span_id": pl.String,
    "parent_span_id": pl.String,
    "service": pl.String,
    "instance": pl.String,
    "name": pl.String,
    "start_unix_nano": pl.Int64,
    "end_unix_nano": pl.Int64,
    "status": pl.String,
    "peer": pl.String,
}
"""Columns and types; `peer` names an uninstrumented dependency of a client span, where known."""
METRICS = {
    "time_unix_s": pl.Float64,
    "service": pl.String,
    "instance": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
}
LOGS = {
    "time_unix_nano": pl.Int64,
    "service": pl.String,
    "instance": pl.String,
    "severity": pl.String,
    "body": pl.String,
    "trace_id": pl.String,
    "span_id": pl.String,
}
EDGES = {"caller": pl.String, "callee": pl.String}
_MAY_LACK = {"instance", "status", "peer", "severity", "parent_span_id"}
"""Columns that may be absent; these, and the ids of a log line's trace, may be null."""


@dataclass(frozen=True)
class Window:
    """Seconds since 1970."""

    start_unix_s: float
    end_unix_s: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end_unix_s - self.start_unix_s


@dataclass(frozen=True)
class Alert:
    """What paged, where that is known."""

    service: str
    signal: str = ""
    metric: str = ""


def empty(schema: Mapping[str, Any]) -> pl.DataFrame:
    """A table of these columns and `window`, without a row."""
    return pl.DataFrame(schema={**schema, "window": pl.Int8})


@dataclass(frozen=True)
class Bundle:
    """An incident as its telemetry has it; tables that there are none of have no rows.

    Each table has its columns above and `window` (BASELINE, LOCAL or INCIDENT).
    """

    id: str
    incident: Window
    alert: Alert | None = None
    baseline: Window | None = None
    local: Window | None = None
    services: tuple[str, ...] = ()
    spans: pl.DataFrame = field(default_factory=lambda: empty(SPANS))
    metrics: pl.DataFrame = field(default_factory=lambda: empty(METRICS))
    logs: pl.DataFrame = field(default_factory=lambda: empty(LOGS))
    edges: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=EDGES))

    @property
    def baseline_seconds(self) -> float:
        """Of both healthy windows together."""
        return sum(each.seconds for each in (self.baseline, self.local) if each is not None)


def read(directory: Path) -> Bundle:
    """The bundle in a directory; raises UserError where it is not in the form, naming the file."""
    path = directory / "bundle.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise UserError(f"{path} cannot be read ({why}): name the directory of a bundle") from None
    if not isinstance(told, dict) or told.get("format") != "incident-bundle/1":
        raise UserError(f"{path} is not of the form incident-bundle/1")
    try:
        incident = _window(told["incident"])
        baseline, local = (
            None if told.get(name) is None else _window(told[name])
            for name in ("baseline", "baseline_local")
        )
        alert = told.get("alert") and Alert(
            *(str(told["alert"].get(each) or "") for each in ("service", "signal", "metric"))
        )
        services = tuple(str(each) for each in told.get("services") or ())
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(
            f"{path} needs an `incident` with start_unix_s and end_unix_s, and windows alike"
        ) from None
    before = directory / str(told["baseline_dir"]) if told.get("baseline_dir") else None
    windows = (incident, local)
    return Bundle(
        id=str(told.get("id") or directory.name),
        incident=incident,
        alert=alert or None,
        baseline=baseline,
        local=local,
        services=services,
        spans=place_spans(*_two(directory, before, "spans", SPANS), *windows),
        metrics=place(*_two(directory, before, "metrics", METRICS), "time_unix_s", 1.0, *windows),
        logs=place(*_two(directory, before, "logs", LOGS), "time_unix_nano", 1e9, *windows),
        edges=_parquet(directory / "edges.parquet", EDGES).unique(maintain_order=True),
    )


def place(
    rows: pl.DataFrame,
    before: pl.DataFrame,
    time: str,
    per_s: float,
    incident: Window,
    local: Window | None,
) -> pl.DataFrame:
    """Each row with its window: by its time among `rows`, all of `before` being the baseline's.

    What lies between two windows belongs to neither and is left out.
    """
    at = pl.col(time) / per_s
    inside = _between(at, incident)
    rows = rows.with_columns(
        _window_of(inside, None if local is None else _between(at, local)).alias("window")
    )
    return pl.concat(
        [
            before.with_columns(pl.lit(BASELINE, dtype=pl.Int8).alias("window")),
            rows.filter(pl.col("window").is_not_null()),
        ]
    )


def place_spans(
    rows: pl.DataFrame, before: pl.DataFrame, incident: Window, local: Window | None
) -> pl.DataFrame:
    """As `place`, whole traces at a time: one that lasts into the incident is the incident's."""
    of = rows.group_by("trace_id").agg(
        (pl.col("start_unix_nano").min() / 1e9).alias("from"),
        (pl.col("end_unix_nano").max() / 1e9).alias("until"),
    )
    inside = (pl.col("until") >= incident.start_unix_s) & (pl.col("from") <= incident.end_unix_s)
    before_it = None if local is None else _between(pl.col("from"), local)
    of = of.with_columns(_window_of(inside, before_it).alias("window"))
    of = of.filter(pl.col("window").is_not_null())
    placed = rows.join(of.select("trace_id", "window"), on="trace_id", how="inner")
    return pl.concat([before.with_columns(pl.lit(BASELINE, dtype=pl.Int8).alias("window")), placed])


def _between(at: pl.Expr, window: Window) -> pl.Expr:
    return (at >= window.start_unix_s) & (at <= window.end_unix_s)


def _window_of(inside: pl.Expr, before_it: pl.Expr | None) -> pl.Expr:
    local = pl.lit(None) if before_it is None else pl.when(before_it).then(LOCAL)
    return pl.when(inside).then(INCIDENT).otherwise(local).cast(pl.Int8)


def _window(told: Mapping[str, Any]) -> Window:
    return Window(float(told["start_unix_s"]), float(told["end_unix_s"]))


def _two(
    directory: Path, before: Path | None, name: str, schema: Mapping[str, Any]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    own = _parquet(directory / f"{name}.parquet", schema)
    if before is None:
        return own, pl.DataFrame(schema=schema)
    return own, _parquet(before / f"{name}.parquet", schema)


def _parquet(path: Path, schema: Mapping[str, Any]) -> pl.DataFrame:
    """The columns of `schema`, rows without a service, name or time left out."""
    if not path.exists():
        return pl.DataFrame(schema=schema)
    try:
        # From memory: a file that is cut short must not be mapped.
        table = pl.read_parquet(path.read_bytes(), use_pyarrow=False)
        lacking = [each for each in schema if each not in table.columns and each not in _MAY_LACK]
        if lacking:
            raise UserError(f"{path} lacks the column `{lacking[0]}`")
        columns = [
            (pl.col(name) if name in table.columns else pl.lit(None)).cast(kind).alias(name)
            for name, kind in schema.items()
        ]
        table = table.select(columns)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except pl.exceptions.PolarsError as error:
        why = (str(error).splitlines() or ["it is damaged"])[0]
        raise UserError(f"{path} is no parquet file in the form of a bundle: {why}") from None
    may_be_null = _MAY_LACK | ({"trace_id", "span_id"} if "body" in schema else set())
    return table.drop_nulls([name for name in schema if name not in may_be_null])
