"""`provectl logs`: the log files of the stack, or the story of one order or trace."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from prove.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from prove.clients.logs import LogStore
    from prove.stack.logview import Record
    from prove.stack.settings import StackSettings
    from prove.timeline import Trace

LINES = 50
T = TypeVar("T")


def logs(
    service: Annotated[
        str | None, typer.Argument(help="One process (as in `status`); without it, the shop's.")
    ] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    order: Annotated[
        str | None, typer.Option(help="The story of one order: its id, or 8 characters of it.")
    ] = None,
    trace: Annotated[
        str | None, typer.Option(help="The story of one trace: 8 to 32 digits of its id.")
    ] = None,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=0, help="How many of the last.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON, one object a line.")] = False,
) -> None:
    """Show logs in order of time, or the story of one order or trace.

    Of the logs: time, level, service, event, fields, beginning of the trace id. Request and span
    ids are left out, and durations rounded; --json has them.

    --order and --trace join what all services logged with the spans it was logged in, from the
    stores: one line for each span's begin, event and log record. An order's story has all its
    traces, also those of its recovery. With a SERVICE, they show its log records alone.

    Examples:

        provectl logs payment -f

        provectl logs --order 01a20b86-7ecf

        provectl logs --trace 4bf92f35 --json | jq 'select(.kind == "log")._msg'
    """
    from prove.stack import logview
    from prove.stack import settings as stack_settings

    settings = stack_settings.load()
    if order is not None or trace is not None:
        if order is not None and trace is not None:
            raise UserError(
                "--order and --trace exclude each other; an order's traces are all told"
            )
        if follow:
            raise UserError(
                f"--{'trace' if order is None else 'order'} shows what is stored already; "
                "leave --follow out"
            )
        _tell(settings, order, trace, service, lines, as_json=as_json)
        return
    files = _files(settings, service)
    lines = LINES if lines is None else lines
    if not follow:
        _show(logview.read(files, lines), as_json=as_json)
        return
    try:
        for batch in logview.follow(files, lines):
            _show(batch, as_json=as_json)
    except KeyboardInterrupt:
        return


def _tell(
    settings: "StackSettings",
    order: str | None,
    trace: str | None,
    service: str | None,
    lines: int | None,
    *,
    as_json: bool,
) -> None:
    from rich.console import Console

    from prove import signals, timeline
    from prove.clients.jaeger import Jaeger
    from prove.clients.logs import LogStore
    from prove.stack import observability

    store = LogStore(settings.url(settings.victorialogs_port))
    jaeger = Jaeger(settings.url(settings.jaeger_port))
    if order is not None:
        about, trace_ids = signals.order_and_traces(store, jaeger, order)
        about = f"order {about}"
    else:
        trace_ids = [signals.full_trace_id(store, trace or "", "--trace")]
        about = f"trace {trace_ids[0]}"
    if service is not None:
        _show(_last(_records(store, trace_ids, service, about), lines), as_json=as_json)
        return
    span_file = observability.span_file(settings)
    traces = [
        timeline.Trace(
            trace_id,
            signals.kept_trace(jaeger, span_file, trace_id),
            store.by_trace(trace_id),
        )
        for trace_id in trace_ids
    ]
    entries = timeline.entries(traces)
    if not entries:
        raise UserError(
            f"the log store has no record of {about}, and Jaeger no span; both get there about a "
            "second after they are written, and stay for two days at most"
        )
    if as_json:
        for entry in _last(entries, lines):
            typer.echo(json.dumps(timeline.document(entry)))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(_headline(about, traces))
    for line in timeline.lines(_last(entries, lines)):
        console.print(line)


def _headline(about: str, traces: "list[Trace]") -> str:
    from prove import signals, tracetree
    from prove.units import count

    spans = [span for trace in traces for span in trace.spans]
    records = sum(len(trace.records) for trace in traces)
    orders = {str(id_) for span in spans if (id_ := span.attributes.get(signals.ORDER_ID))}
    if about.startswith("trace ") and len(orders) == 1:
        about += f" of order {orders.pop()}"
    return (
        f"{about}\n{count(len(traces), 'trace')}, {count(len(spans), 'span')} of "
        f"{count(len(tracetree.services(spans)), 'service')}, {count(records, 'log record')}"
    )


def _records(store: "LogStore", trace_ids: list[str], service: str, about: str) -> "list[Record]":
    from prove.stack import logview

    found = [
        logview.from_store(stored) for trace_id in trace_ids for stored in store.by_trace(trace_id)
    ]
    process = service.removesuffix("-service")
    records = [record for record in found if record.process == process]
    if not records:
        raise UserError(
            f"the log store has no record of {about} by {service}; a record gets there about a "
            "second after it is written, and stays for two days"
        )
    return sorted(records, key=lambda record: record.time)


def _last(items: list[T], lines: int | None) -> list[T]:
    return items if lines is None else items[max(0, len(items) - lines) :]


def _files(settings: "StackSettings", service: str | None) -> "dict[str, Path]":
    from prove.stack.lifecycle import SUPERVISOR
    from prove.stack.processes import SHOP

    found = {path.stem: path for path in sorted(settings.logs_dir.glob("*.log"))}
    if not found:
        raise UserError(f"there are no logs in {settings.logs_dir} yet; nothing was started there")
    if service is None:
        return {name: path for name, path in found.items() if name in {*SHOP, SUPERVISOR}}
    name = service.removesuffix("-service")
    if name not in found:
        raise UserError(f"there is no log of {service}; choose one of {', '.join(found)}")
    return {name: found[name]}


def _show(records: "Iterable[Record]", *, as_json: bool) -> None:
    if as_json:
        for record in records:
            typer.echo(record.raw)
        return
    from rich.console import Console

    from prove.stack import render

    console = Console(soft_wrap=True, highlight=False)
    for record in records:
        console.print(render.record(record))
