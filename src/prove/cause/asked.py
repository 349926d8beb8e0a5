"""How the evidence of an analysis is asked for again: commands to paste, with their times.

A bundle at rest is asked in SQL, by `provectl incident query`, which gives the numbers of the
sentences: tables rca_spans, rca_metrics and rca_logs have the bundle's rows as the analysis saw
them, with `part` (of time): `healthy`, `just before`, `incident`. Running stores are asked by their
own APIs.
"""

import re
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl

from prove.incident import bundle as exported
from prove.incident.objectives import Objectives
from prove.incident.tables import Tables
from prove.rca import logs, spans
from prove.rca.bundle import BASELINE, INCIDENT, LOCAL, Bundle, Window
from prove.rca.model import Evidence
from prove.stack.hints import command
from prove.stack.settings import StackSettings

PREFIX = "rca_"
PARTS = {BASELINE: "healthy", LOCAL: "just before", INCIDENT: "incident"}
MOST_TRACES = 1500
"""Of an answer of Jaeger's."""
_FIXED = re.compile(r"^[^*=\"]*(?= |$)")
"""What a log template begins with, whole words without a value."""


class Source(Protocol):
    """Where telemetry is, and how it is asked."""

    def numbers(self, each: Evidence) -> list[tuple[str, str]]:
        """What is answered, and the command that asks."""

    def trace(self, trace_id: str) -> str:
        """The command that shows a trace."""

    def lines(self, trace_id: str) -> str:
        """The command that shows what was logged in it; '' where there is none."""

    def state(self) -> str:
        """The command that shows which processes are well now; '' where there is none."""


@dataclass(frozen=True)
class Kept:
    """A bundle at rest; `name` is as `provectl incident query` takes it: an id, or a path."""

    name: str
    has_logs: bool = True

    def numbers(self, each: Evidence) -> list[tuple[str, str]]:
        """As said above."""
        if not each.query:
            return []
        return [("now and before, by part of time", self._query(each.query))]

    def trace(self, trace_id: str) -> str:
        """As said above."""
        return _provectl(f"trace {_word(trace_id)} --in {_word(self.name)}")

    def lines(self, trace_id: str) -> str:
        """As said above."""
        if not self.has_logs:
            return ""
        wanted = trace_id.replace("'", "''")
        return self._query(
            "SELECT service, severity, body FROM rca_logs WHERE trace_id ="  # noqa: S608
            f" '{wanted}' ORDER BY time_unix_nano"
        )

    def state(self) -> str:
        """As said above."""
        return ""

    def _query(self, sql: str) -> str:
        quoted = re.sub(r'([\\"$`!])', r"\\\1", sql)
        return _provectl(f'incident query {_word(self.name)} "{quoted}"')


@dataclass(frozen=True)
class Stores:
    """Of a stack that runs."""

    settings: StackSettings
    promised: Objectives
    window: Window
    healthy: Window

    def numbers(self, each: Evidence) -> list[tuple[str, str]]:
        """As said above."""
        ask = {"metrics": self._prometheus, "logs": self._logs}.get(each.signal, self._jaeger)
        found = [
            (when, ask(each, window, when))
            for when, window in (("now", self.window), ("before", self.healthy))
        ]
        return [(when, asked) for when, asked in found if asked]

    def trace(self, trace_id: str) -> str:
        """As said above."""
        return _provectl(f"trace {_word(trace_id)}")

    def lines(self, trace_id: str) -> str:
        """As said above."""
        return _provectl(f"logs --trace {_word(trace_id)}")

    def state(self) -> str:
        """As said above."""
        return _provectl("status")

    def _prometheus(self, each: Evidence, window: Window, when: str) -> str:
        own = {"service_name": each.service, "service_instance_id": each.instance or ""}
        query = exported.metric_queries(self.promised, own).get(each.subject)
        if query is None:
            return ""
        over = f"({query})[{max(1, round(window.seconds))}s:{self.promised.interval_s}s]"
        over += f" @ {window.end_unix_s:.3f}"
        told = f"avg_over_time({over})" if when == "now" else f"quantile_over_time(0.5, {over})"
        url = self.settings.url(self.settings.prometheus_port)
        return f"curl -sG {url}/api/v1/query --data-urlencode {_word(f'query={told}')}"

    def _logs(self, each: Evidence, window: Window, _when: str) -> str:
        begin, end = (exported.rfc3339(at) for at in (window.start_unix_s, window.end_unix_s))
        fixed = _FIXED.match(each.template)
        words = fixed[0].strip() if fixed else ""
        phrase = f' _msg:"{words}"' if words else ""
        query = f'_time:[{begin}, {end}] "service.name":="{each.service}"{phrase} | sort by (_time)'
        url = self.settings.url(self.settings.victorialogs_port)
        return f"curl -s {url}/select/logsql/query --data-urlencode {_word(f'query={query}')}"

    def _jaeger(self, each: Evidence, window: Window, _when: str) -> str:
        start, end = (round(at * 1e6) for at in (window.start_unix_s, window.end_unix_s))
        name = each.subject.replace("\\", "\\\\").replace('"', '\\"')
        of = each.service.replace("\\", "\\\\").replace('"', '\\"')
        mine = (
            "[.data[] | .processes as $of | .spans[] | select(.operationName =="
            f' "{name}" and $of[.processID].serviceName == "{of}")]'
        )
        failed = 'map(select(any(.tags[]; .key == "error" and .value == true))) | length'
        median = "map(.duration / 1000) | sort | .[length / 2 | floor]"
        told = f"{mine} | {{spans: length, failed: ({failed}), median_ms: ({median})}}"
        url = self.settings.url(self.settings.jaeger_port)
        asked = f"-d start={start} -d end={end} -d limit={MOST_TRACES}"
        return (
            f"curl -sG {url}/api/traces --data-urlencode {_word(f'service={each.service}')}"
            f" --data-urlencode {_word(f'operation={each.subject}')} {asked} | jq {_word(told)}"
        )


def add(tables: Tables, found: Bundle) -> None:
    """A bundle's rows, as the analysis sees them, to tables that are asked."""
    with tempfile.TemporaryDirectory() as directory:
        for name, frame in _frames(found).items():
            path = Path(directory) / f"{name}.parquet"
            frame.write_parquet(path)
            tables.ask(f"CREATE TABLE {PREFIX}{name} AS FROM read_parquet('{path}')")


def _frames(found: Bundle) -> dict[str, pl.DataFrame]:
    part = pl.col("window").replace_strict(PARTS, return_dtype=pl.String).alias("part")
    trees = spans.grow(found.spans)
    rows, names = trees.spans, trees.ops["name"]
    up, answer = rows["parent"], rows["callee_op"]
    mothers, answers = rows["span_id"].gather(up.clip(0)), names.gather(answer.clip(0))
    none = pl.lit(None, dtype=pl.String)
    return {
        "spans": rows.select(
            part,
            trees.trace_ids.gather(rows["trace"]).alias("trace_id"),
            "span_id",
            pl.when(up >= 0).then(mothers).otherwise(none).alias("parent_span_id"),
            "service",
            "instance",
            names.gather(rows["op"]).alias("name"),
            pl.col("start_ns").alias("start_unix_nano"),
            pl.col("end_ns").alias("end_unix_nano"),
            ((pl.col("end_ns") - pl.col("start_ns")) / 1e6).alias("ms"),
            "own_ms",
            pl.col("callee").alias("asks"),
            pl.when(answer >= 0).then(answers).otherwise(none).alias("asks_for"),
            "failed",
            pl.col("hurt").alias("failed_below"),
            pl.col("shadowed").alias("gave_up"),
        ),
        "metrics": found.metrics.select(part, pl.exclude("window")),
        "logs": logs.templates(found.logs).select(part, pl.exclude("window")),
    }


def _word(text: str) -> str:
    return shlex.quote(text)


def _provectl(arguments: str) -> str:
    return command(arguments).strip("`")
