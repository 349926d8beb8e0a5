"""`provectl rca`: the root cause of an incident, with evidence, or why none can be named."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from prove.commands import rca_collect, rca_score
from prove.errors import UserError

if TYPE_CHECKING:
    from prove.cause.asked import Source
    from prove.rca.bundle import Bundle

DEFAULT = "find"
ABSTAINED = 3
"""Exit code: no cause is named."""


class _Group(TyperGroup):
    """`rca BUNDLE` is `rca find BUNDLE`; so is `rca --live`, and `rca --help` tells of both."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the base class does."""
        if not args or args[0] not in self.commands:
            args = [DEFAULT, *(args or ["--help"])]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


app = typer.Typer(name="rca", cls=_Group, help="Find the root cause of an incident.")


@app.command(DEFAULT, epilog="More: provectl rca score --help, provectl rca collect --help")
def find(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="[BUNDLE]", help="A bundle's directory, or a file of OTLP or Jaeger JSON."
        ),
    ] = None,
    *,
    live: Annotated[bool, typer.Option("--live", help="Of the stack that runs, just now.")] = False,
    since: Annotated[
        str, typer.Option(metavar="10m", help="With --live: how far back is looked.")
    ] = "10m",
    incident: Annotated[
        str | None,
        typer.Option(metavar="ID", help="One that was run: id, scenario (its latest), or path."),
    ] = None,
    begin: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Of a file: when the incident began."),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="… and ended; its end without.")
    ] = None,
    alert: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Of a file, instead: when the alert came; begin not known."
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False, help="Write one page that needs nothing else."
        ),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Find the cause of an incident in traces, metrics and logs, or say why none can be named.

    Services are ranked by what speaks against them after what their callees explain is taken off;
    each candidate comes with its evidence, baseline against incident, and with a confidence that is
    calibrated. Where nothing stands out, where there is only more load, or two candidates can't be
    told apart, it abstains and says so.

    --live asks the running stack: the time comes from the page and the course of its SLI. A bundle
    is what `provectl incident run` keeps and `incident export` gives (docs/reference/
    incident-bundle.md); a file of spans from elsewhere needs --from or --alert.

    Exit code 0: a cause is named. 3: it abstains. 2: it could not look, and says what to do.

    Examples:

        provectl rca --live --since 10m

        provectl rca --incident payment-errors --html /tmp/cause.html

        provectl rca prove-20261129T201500/ --json | jq '.causes[0].evidence[].sentence'

        provectl rca jaeger.json --from 2026-11-29T20:15:00Z --to 2026-11-29T20:20:00Z
    """
    from prove.cause import sources, text

    found, notes, source = _bundle(bundle, live, since, incident, begin, end, alert)
    analysis = sources.explained(found, notes)
    if html is not None:
        from prove import files
        from prove.cause import page

        files.write(html, page.html(analysis, found, source))
    if json_output:
        told = text.document(analysis, source) | {"html": str(html) if html else None}
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        for line in text.lines(analysis, source):
            typer.echo(line)
        if html is not None:
            typer.echo(f"\nwrote {html}")
    if analysis.abstained is not None:
        raise typer.Exit(ABSTAINED)


def _bundle(
    path: Path | None,
    live: bool,
    since: str,
    incident: str | None,
    begin: str | None,
    end: str | None,
    alert: str | None,
) -> "tuple[Bundle, tuple[str, ...], Source | None]":
    """What is asked for, notes on it, and how its telemetry is asked again."""
    from prove import units
    from prove.cause import asked, foreign, sources
    from prove.incident import record
    from prove.stack import settings as stack_settings

    if sum((path is not None, live, incident is not None)) != 1:
        raise UserError("give one of: a BUNDLE, --live, --incident ID")
    if begin is not None and alert is not None:
        raise UserError("give either --from or --alert: when it began, or when its alert came")
    if (live or incident is not None) and (begin or end or alert):
        raise UserError("--from, --to and --alert are for files of spans")
    if live:
        from prove.cause import live as stores

        now = stores.read(stack_settings.load(), units.duration_s(since, "--since"))
        return now.bundle, now.notes, now.source
    if incident is not None:
        directory = record.find(stack_settings.load().home, incident)
        found = sources.of_record(directory)
        return found, (), asked.Kept(directory.name, not found.logs.is_empty())
    times = {
        name: None if given is None else foreign.moment(given, option)
        for name, option, given in (
            ("start_s", "--from", begin),
            ("end_s", "--to", end),
            ("alert_s", "--alert", alert),
        )
    }
    place = Path(str(path))
    found = sources.at(place, **times)
    kept = asked.Kept(str(path), not found.logs.is_empty()) if place.is_dir() else None
    return found, (), kept


rca_collect.register(app)
rca_score.register(app)
