"""`provectl alerts`: what fires now."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from prove.clients.alertmanager import Alert

WIDTH = 100


def alerts(
    matchers: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MATCHER]...", help="label=value, !=, =~ or !~; or a name."),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Show the alerts that fire: pages first, since when, and whether anybody is told.

    "silenced" is by `provectl silence`; "inhibited" is a ticket whose SLO pages already. Each
    alert's impact and links are in `--json`; its runbook is docs/runbooks/<alert>.md.

    Examples:

        provectl alerts

        provectl alerts sloth_severity=page --json | jq -r '.alerts[].annotations.runbook_url'
    """
    from prove.clients.alertmanager import Alertmanager, Matcher
    from prove.stack import settings as stack_settings

    settings = stack_settings.load()
    wanted = [Matcher.parse(text) for text in matchers or ()]
    found = Alertmanager(settings.url(settings.alertmanager_port)).alerts(wanted)
    if as_json:
        typer.echo(json.dumps({"alerts": [_document(alert) for alert in found]}))
    elif found:
        _print(found)
    else:
        typer.echo("Nothing that matches fires." if wanted else "Nothing fires.")


def _document(alert: "Alert") -> dict[str, object]:
    return {
        "name": alert.name,
        "severity": alert.severity,
        "state": alert.state,
        "since": alert.starts_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "silenced_by": alert.silenced_by,
        "labels": alert.labels,
        "annotations": alert.annotations,
    }


def _print(alerts: "list[Alert]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from prove.units import count

    style = {"page": "bold red", "ticket": "yellow"}
    console = Console(highlight=False)
    wide = min(WIDTH, console.width)
    columns = ("alert", "severity", "state", "for", "what")
    table = Table(*columns, box=None, pad_edge=False, width=wide)
    for alert in alerts:
        muted = alert.state != "firing"
        table.add_row(
            Text(alert.name, "dim" if muted else style.get(alert.severity, "")),
            Text(alert.severity),
            Text(alert.state, "dim" if muted else ""),
            _age(alert.starts_at),
            Text(alert.annotations.get("summary", "")),
        )
    console.print(table)
    told = sum(alert.state == "firing" for alert in alerts)
    console.print(f"\n{count(told, 'alert')} told, {len(alerts) - told} muted")


def _age(since: datetime) -> str:
    minutes, seconds = divmod(max(0, int((datetime.now(UTC) - since).total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{seconds:02}s"
