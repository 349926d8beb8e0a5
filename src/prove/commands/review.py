"""`provectl review`: a post-incident review out of an incident's record."""

import json
from pathlib import Path
from typing import Annotated

import typer


def review(
    incident: Annotated[
        str, typer.Argument(help="Its id, the name of its scenario (the latest run), or its path.")
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Where it goes; the record, if not given."),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Write a review of INCIDENT: a page (HTML) that needs nothing else, and the same as Markdown.

    What broke, when, how it was noticed and what it cost, measured in the clients' own ledger and
    beside it by the servers; detection against theory; the timeline; root cause and contributing
    factors as far as evidence carries. Every figure leads to its query. Needs no running stack.
    What data can't say (why, what follows, who, until when) is left for people to fill in.

    Examples:

        provectl review payment-errors

        provectl review 20261129T201500-payment-errors -o /tmp/review
    """
    from dataclasses import asdict

    from prove import text
    from prove.incident import record
    from prove.incident import review as reviews
    from prove.stack import settings as stack_settings

    directory = record.find(stack_settings.load().home, incident)
    made = reviews.make(directory)
    written = reviews.write(made, out or directory)
    if json_output:
        told = {
            "incident": made.found.incident.id,
            "severity": made.severity[0],
            "summary": {name: reviews.plain(words) for name, words in asdict(made.cards).items()},
            "figures": reviews.figures(made),
            "files": [str(path) for path in written],
        }
        typer.echo(json.dumps(told, indent=2))
        return
    for name, words in asdict(made.cards).items():
        typer.echo(text.paragraph(reviews.plain(words), f"{name + ':':<9} ", " " * 10))
    for path in written:
        typer.echo(path)
