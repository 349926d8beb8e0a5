"""`provectl incident timeline | query | export | import`: of records, without a stack."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from prove.incident.tables import Tables
    from prove.incident.timeline import Timeline

NARROW = 36
"""Columns of a value (a trace's id has 32) that stays on one line."""
EVIDENCE_WIDTH = 25
"""Columns at the most: more of it than a line is wrapped between words."""

Name = Annotated[
    str,
    typer.Argument(
        metavar="INCIDENT", help="Its id, the name of its scenario (the latest run), or its path."
    ),
]
Asked = Annotated[
    str,
    typer.Argument(
        metavar="INCIDENT",
        help="Its id, the name of its scenario (the latest run), or its path; or a bundle's.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def register(app: typer.Typer) -> None:
    """Make them subcommands of `provectl incident`."""
    app.command("timeline")(show_timeline)
    app.command("query")(query)
    app.command("export")(export)
    app.command("import")(import_incident)


def show_timeline(incident: Name, *, json_output: Json = False) -> None:
    """Show what happened in INCIDENT and when, each row with its evidence.

    Built from the record each time. `known` is the evidence's own time, `inferred` is worked out.
    --json also tells how to ask for each piece of evidence again.

    Examples:

        provectl incident timeline payment-errors

        provectl incident timeline payment-errors --json | jq '.rows[] | select(.source == "known")'
    """
    from prove.incident import record, timeline
    from prove.stack import settings as stack_settings

    built = timeline.build(record.find(stack_settings.load().home, incident))
    if json_output:
        typer.echo(built.model_dump_json(indent=2))
        return
    _print(built)


def query(
    incident: Asked,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A question in DuckDB's SQL.")],
    *,
    json_output: Json = False,
) -> None:
    """Ask the record of INCIDENT a question in SQL, as a review's evidence states them.

    Tables: requests, purchases (the clients' ledger); spans, metrics, logs, baseline_spans (the
    bundle). rca_spans, rca_metrics and rca_logs are the bundle as `provectl rca` sees it, which
    asks them: `part` of each row is healthy, just before, or incident. Nothing else is within reach
    of a question.

    Examples:

        provectl incident query payment-errors "SELECT outcome, count(*) FROM purchases GROUP BY 1"

        provectl incident query payment-errors "SELECT service, count(*) FROM spans GROUP BY 1"
    """
    from rich.table import Table
    from rich.text import Text

    from prove import text

    answers = _tables(incident, with_analysis="rca_" in sql)
    answers.seal()
    names, rows = answers.table(sql)
    if json_output:
        told = [dict(zip(names, row, strict=True)) for row in rows]
        typer.echo(json.dumps({"rows": told}, indent=2, default=str))
        return
    cells = [[str(value) for value in row] for row in rows]
    table, least = Table(box=None, pad_edge=False), 0
    for name, *column in zip(names, *cells, strict=True):
        widest = max(map(len, (name, *column)))
        table.add_column(Text(name), no_wrap=widest <= NARROW, overflow="fold")
        least += min(widest, NARROW) + 2
    for row in cells:
        table.add_row(*map(Text, row))
    console = text.console()
    console.width = max(console.width, least)  # rather a long line than a value that isn't whole
    console.print(table, highlight=False)


def _tables(name: str, *, with_analysis: bool) -> "Tables":
    """Of a record, or of a bundle alone."""
    from prove.cause import asked, sources
    from prove.incident import views

    answers = views.tables(*sources.place(name))
    if with_analysis:
        asked.add(answers, sources.kept(name))
    return answers


def export(
    incident: Name,
    *,
    out: Annotated[
        Path,
        typer.Option("-o", "--out", metavar="DIR|FILE.tar", help="Where to; also .tgz."),
    ],
    blind: Annotated[
        bool, typer.Option("--blind", help="The bundle alone: neither the cause nor the record.")
    ] = False,
) -> None:
    """Write INCIDENT for another machine: bundle, truth and record, each apart.

    With --blind it is what a person on call could have seen: spans, metrics and logs.

    Examples:

        provectl incident export payment-errors -o /tmp/incidents

        provectl incident export payment-errors --blind -o /tmp/riddle.tar
    """
    from prove.incident import archive, record
    from prove.stack import settings as stack_settings

    directory = record.find(stack_settings.load().home, incident)
    for name in archive.export(directory, out, blind=blind):
        typer.echo(f"{out}: {name}" if out.suffix in archive.SUFFIXES else out / name)


def import_incident(
    source: Annotated[
        Path, typer.Argument(metavar="DIR|FILE.tar", help="What `export` has written.")
    ],
) -> None:
    """Take in an incident that was exported elsewhere, so that it can be studied here.

    Examples:

        provectl incident import /tmp/riddle.tar
    """
    from prove.errors import UserError
    from prove.incident import archive, record
    from prove.stack import settings as stack_settings
    from prove.stack.hints import command

    if not source.exists():
        raise UserError(f"{source} is not there")
    target = archive.take_in(source, stack_settings.load().home)
    typer.echo(target)
    if (target / record.INCIDENT).exists():
        typer.echo(f"{command(f'review {target.name}')} tells what happened.")
    else:
        typer.echo("It is a bundle alone: spans, metrics and logs, without a record to review.")


def _print(built: "Timeline") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from prove.incident import timeline
    from prove.text import WIDTH

    table = Table(box=None, pad_edge=False)
    table.add_column("since", justify="right", no_wrap=True)
    table.add_column("UTC", no_wrap=True)
    table.add_column("what", ratio=1)
    table.add_column("", no_wrap=True)
    table.add_column("evidence", max_width=EVIDENCE_WIDTH)
    for *row, evidence in timeline.lines(built):
        # Of a moment in the record its name is enough; `--json` has the whole of it.
        table.add_row(*(Text(each) for each in (*row, evidence.removesuffix("_unix_us"))))
    Console(highlight=False, width=WIDTH).print(table)
