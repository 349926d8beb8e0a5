"""`provectl silence`: alerts that are not to be told for a while."""

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from prove.errors import UserError

if TYPE_CHECKING:
    from prove.clients.alertmanager import Alertmanager, Matcher, Silence

app = typer.Typer(
    name="silence",
    help="Keep alerts from being told for a while: during maintenance, or while one is worked on.",
    epilog="Start with: provectl alerts",
    no_args_is_help=True,
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
SHORT_ID = 8
WIDTH = 100
"""Digits of an id that are shown, and enough to name it."""


@app.command()
def add(
    matchers: Annotated[
        list[str],
        typer.Argument(
            metavar="MATCHER...",
            help="label=value, !=, =~ or !~, all of which must hold; or an alert's name.",
        ),
    ],
    *,
    duration: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 1h30m.")] = "1h",
    comment: Annotated[str, typer.Option(help="Why, for whoever wonders.")],
    by: Annotated[str, typer.Option(help="Who; by default you.")] = "",
    as_json: Json = False,
) -> None:
    """Silence the alerts that match, from now on.

    They go on firing and `provectl alerts` shows them; nobody is told. Prints the silence's id,
    and how many of the alerts that fire now it covers.

    Examples:

        provectl silence add PaymentsErrors --for 30m --comment "acquirer is being replaced"

        provectl silence add team=orders sloth_severity=ticket --for 2h --comment migration
    """
    import getpass

    from prove import units
    from prove.clients.alertmanager import Matcher
    from prove.stack.hints import command

    wanted = [Matcher.parse(text) for text in matchers]
    until = datetime.now(UTC) + timedelta(seconds=units.duration_s(duration, "--for"))
    alertmanager = _alertmanager()
    try:
        who = by or getpass.getuser()
    except (KeyError, OSError):  # no such account, as in a container
        raise UserError("who silences it? say so with --by") from None
    silence_id = alertmanager.silence(wanted, until, who, comment)
    covered = alertmanager.alerts(wanted)
    if as_json:
        alerts = [alert.name for alert in covered]
        typer.echo(json.dumps({"id": silence_id, "ends_at": _rfc3339(until), "alerts": alerts}))
        return
    typer.echo(f"{silence_id[:SHORT_ID]} until {_clock(until)}: {_words(wanted)}")
    names = ", ".join(sorted({alert.name for alert in covered}))
    typer.echo(f"of what fires now it covers {names}" if names else "nothing it covers fires now")
    typer.echo(f"end it with {command(f'silence expire {silence_id[:SHORT_ID]}')}")


@app.command("list")
def list_silences(
    *,
    expired: Annotated[bool, typer.Option("--expired", help="Those that are over, too.")] = False,
    as_json: Json = False,
) -> None:
    """Show the silences that hold, those that end soonest first.

    Example:

        provectl silence list --json | jq -r '.silences[].comment'
    """
    silences = [each for each in _alertmanager().silences() if expired or each.state != "expired"]
    if as_json:
        typer.echo(json.dumps({"silences": [_document(each) for each in silences]}))
        return
    if not silences:
        typer.echo("There are no silences.")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    columns = ("id", "state", "until", "what", "by", "why")
    table = Table(*columns, box=None, pad_edge=False, width=min(WIDTH, console.width))
    for each in silences:
        what = "\n".join(map(str, each.matchers))
        cells = (each.state, _clock(each.ends_at), what, each.created_by, each.comment)
        table.add_row(each.id[:SHORT_ID], *map(Text, cells))
    console.print(table)


@app.command()
def expire(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="As `list` shows them.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every silence that holds.")] = False,
    as_json: Json = False,
) -> None:
    """End silences now: what they cover and still fires is told.

    Examples:

        provectl silence expire 1f0c9a2b

        provectl silence expire --all
    """
    if every == bool(ids):
        raise UserError("name the silences to end, or give --all")
    alertmanager = _alertmanager()
    holding = [each for each in alertmanager.silences() if each.state != "expired"]
    found = holding if every else [_named(holding, beginning) for beginning in ids or ()]
    for silence in found:
        alertmanager.expire(silence.id)
    if as_json:
        typer.echo(json.dumps({"expired": [silence.id for silence in found]}))
        return
    if not found:
        typer.echo("There are no silences.")
    for silence in found:
        typer.echo(f"{silence.id[:SHORT_ID]} is over: {_words(silence.matchers)}")


def _named(silences: "list[Silence]", beginning: str) -> "Silence":
    from prove.stack.hints import command

    found = [silence for silence in silences if silence.id.startswith(beginning)]
    if len(found) != 1:
        how_many = "several silences begin" if found else "no silence that holds begins"
        raise UserError(f"{how_many} with {beginning!r}; {command('silence list')} shows them")
    return found[0]


def _alertmanager() -> "Alertmanager":
    from prove.clients.alertmanager import Alertmanager
    from prove.stack import settings as stack_settings

    settings = stack_settings.load()
    return Alertmanager(settings.url(settings.alertmanager_port))


def _document(silence: "Silence") -> dict[str, object]:
    return {
        "id": silence.id,
        "state": silence.state,
        "matchers": [str(matcher) for matcher in silence.matchers],
        "starts_at": _rfc3339(silence.starts_at),
        "ends_at": _rfc3339(silence.ends_at),
        "created_by": silence.created_by,
        "comment": silence.comment,
    }


def _words(matchers: "list[Matcher] | tuple[Matcher, ...]") -> str:
    return " ".join(map(str, matchers))


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _clock(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%m-%d %H:%M UTC")
