"""Spans and log records of one or more traces as one story, in order of time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from rich.text import Text

from prove import tracetree
from prove.stack import logview, render
from prove.stack.logview import Record
from prove.tracetree import Span

ORDER_ID = "order_id"
"""In the headline, and so not in every line."""
SERVICE_WIDTH = 8
LEVEL_WIDTH = 5


@dataclass(frozen=True)
class Trace:
    """What is known of one trace; `records` are as the log store has them."""

    trace_id: str
    spans: Sequence[Span]
    records: Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Entry:
    """A span's begin, an event in it, or what was logged; `depth` is that in the tree of spans.

    `at_us` is Unix time in microseconds; `document` is all there is of it, for JSON.
    """

    at_us: int
    kind: Literal["span", "event", "log"]
    trace_id: str
    service: str
    depth: int
    text: str
    failed: bool = False
    level: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)


def entries(traces: Sequence[Trace]) -> list[Entry]:
    """Everything that happened, the earliest first; of what is simultaneous parents first."""
    found = [entry for trace in traces for entry in _of_trace(trace)]
    return sorted(found, key=lambda entry: entry.at_us)  # stable: the tree's order stays


def lines(shown: Sequence[Entry], width: int = tracetree.WIDTH) -> list[Text]:
    """One line an entry, `width` columns at most, and one wherever another trace goes on.

    Times are milliseconds since the first entry.
    """
    if not shown:
        return []
    start_us = shown[0].at_us
    offset_width = max(len("ms"), *(len(f"{_ms(entry, start_us)}") for entry in shown))
    heading = f"{'ms':>{offset_width}}  {'service':<{SERVICE_WIDTH}} {'level':<{LEVEL_WIDTH}} "
    told = [Text(heading + "span (took), · event, log record", "dim")]
    trace_id = None
    for entry in shown:
        if entry.trace_id != trace_id:
            trace_id = entry.trace_id
            told.append(Text(f"trace {trace_id}", "bold"))
        line = Text(f"{_ms(entry, start_us):>{offset_width}}", "dim")
        line.append(f"  {entry.service.removesuffix('-service'):<{SERVICE_WIDTH}.8}", "cyan")
        style = render.LEVEL_STYLE.get(entry.level, "")
        level = render.LEVEL_SHORT.get(entry.level, entry.level)
        line.append(f" {level:<{LEVEL_WIDTH}.5} ", style)
        line.append("  " * entry.depth)
        if entry.failed:
            line.append("! ", "red")
        line.append(entry.text, style or ("bold" if entry.kind == "span" else ""))
        if entry.fields:
            line.append(f" {tracetree.fields(entry.fields)}", "" if entry.level else "dim")
        line.truncate(width, overflow="ellipsis")
        told.append(line)
    return told


def document(entry: Entry) -> dict[str, Any]:
    """The entry as one flat JSON object: `_time`, `kind`, `service.name`, and what its kind has."""
    return {
        "_time": _rfc3339(entry.at_us),
        "kind": entry.kind,
        "trace_id": entry.trace_id,
        "service.name": entry.service,
        **entry.document,
    }


def _of_trace(trace: Trace) -> list[Entry]:
    found: list[Entry] = []
    depths = {}
    for node in tracetree.walk(trace.spans, merge_from=len(trace.spans) + 1):
        depths[node.span.span_id] = node.depth
        found += _of_span(trace.trace_id, node.span, node.depth, node.self_us)
    for stored in trace.records:
        record = logview.from_store(stored)
        depth = depths.get(str(record.fields.get("span_id", "")), -1) + 1
        found.append(
            Entry(
                at_us=_us(record),
                kind="log",
                trace_id=trace.trace_id,
                service=stored.get("service.name", ""),
                depth=depth,
                text=record.event,
                failed=record.level in ("error", "critical"),
                level=record.level,
                fields={k: v for k, v in render.told(record).items() if k != ORDER_ID},
                document=stored,
            )
        )
    return found


def _of_span(trace_id: str, span: Span, depth: int, self_us: int) -> list[Entry]:
    took = f"{span.name} ({span.duration_us / 1000:,.1f} ms)"
    begin = Entry(
        at_us=span.start_us,
        kind="span",
        trace_id=trace_id,
        service=span.service,
        depth=depth,
        text=took + (f": {span.why}" if span.why else ""),
        failed=span.failed,
        document={
            "name": span.name,
            "span_id": span.span_id,
            "parent_id": span.parent_id,
            "duration_us": span.duration_us,
            "self_us": self_us,
            "failed": span.failed,
            "message": span.message,
            "attributes": span.attributes,
            "links": [{"trace_id": to.trace_id, "span_id": to.span_id} for to in span.links],
        },
    )
    events = [
        Entry(
            at_us=event.at_us,
            kind="event",
            trace_id=trace_id,
            service=span.service,
            depth=depth + 1,
            text=f"· {event.name}",
            fields=event.attributes,
            document={
                "name": event.name,
                "span_id": span.span_id,
                "attributes": event.attributes,
            },
        )
        for event in span.told_events
    ]
    return [begin, *events]


def _ms(entry: Entry, start_us: int) -> str:
    return f"{(entry.at_us - start_us) / 1000:,.1f}"


def _us(record: Record) -> int:
    since = datetime.fromisoformat(record.time) - datetime.fromtimestamp(0, UTC)
    return round(since.total_seconds() * 1_000_000)


def _rfc3339(at_us: int) -> str:
    moment = datetime.fromtimestamp(at_us // 1_000_000, UTC).replace(microsecond=at_us % 1_000_000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
