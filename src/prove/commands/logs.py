"""`provectl logs`: the log files of the stack, or one trace's records from the log store."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from prove.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from prove.stack.logview import Record
    from prove.stack.settings import StackSettings


def logs(
    service: Annotated[
        str | None, typer.Argument(help="One process (as in `status`); without it, the shop's.")
    ] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    trace: Annotated[
        str | None,
        typer.Option(help="All services' records of one trace (8 to 32 digits), from the store."),
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="The lines as written.")] = False,
) -> None:
    """Show logs in order of time: time, level, service, event, fields, beginning of the trace id.

    Request and span ids are left out, and durations rounded; --json has them.
    """
    from prove.stack import logview
    from prove.stack import settings as stack_settings

    settings = stack_settings.load()
    if trace is not None:
        if follow:
            raise UserError("--trace shows what is stored already; leave --follow out")
        _show(_of_trace(settings, trace, service, lines), as_json=as_json)
        return
    files = _files(settings, service)
    if not follow:
        _show(logview.read(files, lines), as_json=as_json)
        return
    try:
        for batch in logview.follow(files, lines):
            _show(batch, as_json=as_json)
    except KeyboardInterrupt:
        return


def _of_trace(
    settings: "StackSettings", trace: str, service: str | None, lines: int
) -> "list[Record]":
    from prove.clients.logs import SHORT_ID, LogStore
    from prove.stack import logview

    if not re.fullmatch(f"[0-9a-f]{{{SHORT_ID},32}}", trace):
        raise UserError(f"--trace wants a trace id, {SHORT_ID} to 32 hex digits (got {trace!r})")
    found = LogStore(settings.url(settings.victorialogs_port)).by_trace(trace)
    records = [logview.from_store(record) for record in found]
    if service:
        records = [
            record for record in records if record.process == service.removesuffix("-service")
        ]
    if not records:
        raise UserError(
            f"the log store has no record of trace {trace}"
            + (f" by {service}" if service else "")
            + "; a record gets there about a second after it is written, and stays for two days"
        )
    return records[-lines:] if lines else []


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
