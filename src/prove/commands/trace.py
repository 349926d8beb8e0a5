"""`provectl trace`: one trace as a tree of spans."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prove.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prove.tracetree import Span


def trace(
    source: Annotated[
        str,
        typer.Argument(
            metavar="ID|FILE", help="A trace's id (8 to 32 digits), or a file of OTLP JSON."
        ),
    ],
    *,
    within: Annotated[
        str | None,
        typer.Option(
            "--in", metavar="INCIDENT", help="Of a bundle's directory, or an incident's record."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Show the spans of a trace as a tree: how long each took, and how long it was itself at work.

    "itself" is the time in which none of a span's children ran. `!` marks a failed span; why it
    failed, its events, and links to other traces are below it. Spans come from Jaeger, and from the
    Collector's file when Jaeger has forgotten them.

    Examples:

        provectl trace 4bf92f35

        provectl trace observability/traces/decline.json

        provectl trace 4bf92f35 --in payment-errors

        provectl trace 4bf92f35 --json | jq '.spans[] | select(.failed) | .name'
    """
    if within is not None:
        traces = [_of_bundle(within, source)]
    else:
        traces = _of_file(Path(source)) if _is_file(source) else [_of_stack(source)]
    if as_json:
        documents = [_document(spans) for spans in traces]
        typer.echo(json.dumps(documents[0] if len(documents) == 1 else {"traces": documents}))
        return
    for position, spans in enumerate(traces):
        if position:
            typer.echo()
        _print(spans)


def _is_file(source: str) -> bool:
    return "/" in source or source.endswith(".json")


def _of_file(file: Path) -> "list[list[Span]]":
    """A file may hold several traces: an order's, say, and that of its recovery."""
    from prove import otlp

    traces: dict[str, list[Span]] = {}
    for span in otlp.read(file):
        traces.setdefault(span.trace_id, []).append(span)
    if not traces:
        raise UserError(f"{file} holds no spans")
    return sorted(traces.values(), key=lambda spans: min(span.start_us for span in spans))


def _of_bundle(name: str, beginning: str) -> "list[Span]":
    from prove.cause import examples, sources

    found = examples.traces(sources.kept(name), beginning)
    if len(found) != 1:
        what = f"{len(found)} traces begin with" if found else "no span is of trace"
        raise UserError(f"{what} {beginning} in {name}: give the whole id of one that is there")
    return found[0]


def _of_stack(beginning: str) -> "list[Span]":
    from prove import signals
    from prove.clients.jaeger import Jaeger
    from prove.clients.logs import LogStore
    from prove.stack import observability
    from prove.stack import settings as stack_settings
    from prove.stack.hints import command

    settings = stack_settings.load()
    store = LogStore(settings.url(settings.victorialogs_port))
    trace_id = signals.full_trace_id(store, beginning, "provectl trace")
    jaeger = Jaeger(settings.url(settings.jaeger_port))
    spans = signals.kept_trace(jaeger, observability.span_file(settings), trace_id)
    if not spans:
        raise UserError(
            f"no span of trace {trace_id} is kept; a span arrives about a second after it ended, "
            f"and the oldest are dropped; {command('buy')} makes a trace, "
            f"{command('logs')} shows the ids of others, "
            f"{command(f'logs --trace {trace_id}')} what was logged in this one"
        )
    return spans


def _document(spans: "Sequence[Span]") -> dict[str, object]:
    from prove import tracetree

    start, end = _interval(spans)
    return {
        "trace_id": spans[0].trace_id,
        "start_us": start,
        "duration_us": end - start,
        "services": sorted(tracetree.services(spans)),
        "failed": sum(span.failed for span in spans),
        "spans": tracetree.documents(spans),
    }


def _print(spans: "Sequence[Span]") -> None:
    from rich.console import Console
    from rich.text import Text

    from prove import signals, tracetree
    from prove.stack.hints import command
    from prove.units import count

    console = Console(highlight=False, soft_wrap=True)
    start, end = _interval(spans)
    began = datetime.fromtimestamp(start / 1_000_000, UTC)
    console.print(f"[bold]trace[/bold] {spans[0].trace_id}")
    console.print(
        f"{began:%Y-%m-%d %H:%M:%S} UTC, {(end - start) / 1000:,.1f} ms, "
        f"{count(len(spans), 'span')} of {count(len(tracetree.services(spans)), 'service')}, "
        f"{sum(span.failed for span in spans)} failed"
    )
    for line in tracetree.render(spans, notes=True):
        console.print(Text(line))
    orders = {str(id_) for span in spans if (id_ := span.attributes.get(signals.ORDER_ID))}
    if len(orders) == 1:
        console.print(f"its order's story: {command(f'logs --order {orders.pop()}')}")


def _interval(spans: "Sequence[Span]") -> tuple[int, int]:
    return min(span.start_us for span in spans), max(span.end_us for span in spans)
