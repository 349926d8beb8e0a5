"""A trace as a tree of spans, as text."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

WIDTH = 100
BAR_WIDTH = 20
MERGED_FROM = 4
"""So many spans of one name in a row, without children, become one line."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened within a span; Unix microseconds."""

    at_us: int
    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """A span of another trace that this one goes back to."""

    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class Span:
    """One span; times are Unix microseconds, `kind` as OpenTelemetry has it in lower case.

    `answered`: it is of an HTTP request that had an answer, whatever its status. `message` is that
    of its status.
    """

    span_id: str
    parent_id: str | None
    service: str
    name: str
    start_us: int
    duration_us: int
    kind: str = "internal"
    failed: bool = False
    answered: bool = False
    trace_id: str = ""
    message: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    links: tuple[Link, ...] = ()

    @property
    def end_us(self) -> int:
        """When it ended."""
        return self.start_us + self.duration_us

    @property
    def why(self) -> str:
        """What is known of why it failed; empty when it didn't, or nothing is."""
        if not self.failed:
            return ""
        reason = self.message or str(self.attributes.get("error.type", ""))
        status = self.attributes.get("http.response.status_code")
        told = [reason or (f"status {status}" if status else "")]
        if fault := self.attributes.get("prove.fault.name"):
            told.append(f"injected by the fault {fault}")
        return ", ".join(filter(None, told))

    @property
    def told_events(self) -> list[Event]:
        """Its events without the exception that `message` tells already."""
        return [
            event
            for event in self.events
            if not (self.message and self.message == event.attributes.get("exception.message"))
        ]


@dataclass(frozen=True, slots=True)
class Node:
    """A span, or a run of spans that are alike, at its depth in the tree."""

    span: Span
    depth: int
    self_us: int
    merged: tuple[Span, ...] = ()


def services(spans: Sequence[Span]) -> set[str]:
    """The services that took part."""
    return {span.service for span in spans}


def self_time_us(span: Span, children: Sequence[Span]) -> int:
    """The part of a span in which none of its children ran."""
    covered = 0
    reached = span.start_us
    for child in sorted(children, key=lambda child: child.start_us):
        start, end = max(child.start_us, reached), min(child.end_us, span.end_us)
        if end > start:
            covered += end - start
            reached = end
    return span.duration_us - covered


def documents(spans: Sequence[Span]) -> list[dict[str, Any]]:
    """Every span as JSON has it, with its depth and self time, in the order of the tree."""
    return [
        asdict(node.span) | {"depth": node.depth, "self_us": node.self_us}
        for node in walk(spans, merge_from=len(spans) + 1)
    ]


def render(spans: Sequence[Span], width: int = WIDTH, *, notes: bool = False) -> list[str]:
    """Lines of `width` columns at most: span, service, duration, self time, and when it ran.

    A span whose parent isn't there is a root. `!` marks a failed one. With `notes` what spans tell
    beyond that has lines of its own below them: why they failed, events, links.
    """
    nodes = list(walk(spans))
    if not nodes:
        return []
    start = min(span.start_us for span in spans)
    total = max(1, max(span.end_us for span in spans) - start)
    service_width = max(len(node.span.service) for node in nodes)
    name_width = width - BAR_WIDTH - service_width - len("  99999.9 ms  99999.9 ms  ") - 2
    lines = [f"{'span':<{name_width}}  {'service':<{service_width}}  {'took':>10}  {'itself':>10}"]
    for node in nodes:
        label = "  " * node.depth + ("! " if node.span.failed else "") + node.span.name
        if node.merged:
            count = f" ×{len(node.merged)}"  # noqa: RUF001 - a multiplication sign is meant
            label = _cut(label, name_width - len(count)) + count
        drawn = node.merged or (node.span,)
        lines.append(
            f"{_cut(label, name_width):<{name_width}}  {node.span.service:<{service_width}}"
            f"  {_ms(sum(span.duration_us for span in drawn))}  {_ms(node.self_us)}"
            f"  {_bar(drawn, start, total)}".rstrip()
        )
        if notes:
            indent = "  " * (node.depth + 2)
            lines += [_cut(indent + note, width) for note in _notes(node.span)]
    return lines


def fields(attributes: Mapping[str, Any]) -> str:
    """`name=value name=value`, on one line."""
    return " ".join(f"{key}={value}" for key, value in attributes.items()).replace("\n", " ")


def _notes(span: Span) -> list[str]:
    told = [f"failed: {span.why}"] if span.why else []
    for event in span.told_events:
        after = (event.at_us - span.start_us) / 1000
        told.append(f"{after:+.1f} ms {event.name} {fields(event.attributes)}".rstrip())
    told += [f"goes back to trace {link.trace_id}" for link in span.links]
    return [note.replace("\n", " ") for note in told]


def walk(spans: Sequence[Span], merge_from: int = MERGED_FROM) -> Iterator[Node]:
    """Every span once: parents before their children, siblings by time.

    `merge_from` or more childless siblings in a row that are alike, and tell nothing else, are one.
    """
    by_id = {span.span_id: span for span in spans}
    children: dict[str | None, list[Span]] = defaultdict(list)
    for span in sorted(by_id.values(), key=lambda span: (span.start_us, span.span_id)):
        parent = span.parent_id
        children[parent if parent in by_id and parent != span.span_id else None].append(span)
    seen: set[str] = set()

    def below(siblings: Sequence[Span], depth: int) -> Iterator[Node]:
        def alike(span: Span) -> tuple[object, ...]:
            plain = span.span_id not in children and not (span.why or span.events or span.links)
            return (span.service, span.name, span.failed) if plain else (span.span_id,)

        for _, group in groupby(siblings, key=alike):
            run = list(group)
            seen.update(span.span_id for span in run)
            if len(run) >= merge_from:
                yield Node(run[0], depth, sum(span.duration_us for span in run), tuple(run))
                continue
            for span in run:
                own = children.get(span.span_id, [])
                yield Node(span, depth, self_time_us(span, own))
                yield from below(own, depth + 1)

    yield from below(children[None], 0)
    # What is left are parents that are each other's children: no clock or tree is to be trusted.
    for span in by_id.values():
        if span.span_id not in seen:
            yield Node(span, 0, span.duration_us)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _ms(microseconds: int) -> str:
    return f"{microseconds / 1000:>7.1f} ms"


def _bar(drawn: Sequence[Span], start: int, total: int) -> str:
    cells = [" "] * BAR_WIDTH
    for span in drawn:
        first = (span.start_us - start) * BAR_WIDTH // total
        last = (span.end_us - start) * BAR_WIDTH // total
        for cell in range(min(first, BAR_WIDTH - 1), min(max(last, first + 1), BAR_WIDTH)):
            cells[cell] = "█"
    return "".join(cells)
