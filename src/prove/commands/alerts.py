"""`provectl alerts`: what fires now, and traces that show it."""

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from prove.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prove.clients.alertmanager import Alert
    from prove.clients.prometheus import Exemplar

WIDTH = 100
BEFORE_S = 3600
"""What made an alert fire was before it: within the long window of most pages."""


def alerts(
    matchers: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MATCHER]...", help="label=value, !=, =~ or !~; or a name."),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Show the alerts that fire: pages first, since when, and whether anybody is told.

    "silenced" is by `provectl silence`; "inhibited" is a ticket whose SLO pages already. Below are
    traces of bad events of each SLO that fires, newest first, where its histogram points to some.
    Each alert's impact and links are in `--json`; its runbook is docs/runbooks/<alert>.md.

    Examples:

        provectl alerts

        provectl alerts sloth_severity=page --json | jq -r '.alerts[].annotations.runbook_url'
    """
    from prove.clients.alertmanager import Alertmanager, Matcher
    from prove.stack import settings as stack_settings

    settings = stack_settings.load()
    wanted = [Matcher.parse(text) for text in matchers or ()]
    found = Alertmanager(settings.url(settings.alertmanager_port)).alerts(wanted)
    exemplars = _exemplars(found, settings.url(settings.prometheus_port))
    if as_json:
        typer.echo(json.dumps({"alerts": [_document(alert, exemplars) for alert in found]}))
    elif found:
        _print(found)
        _print_exemplars(found, exemplars)
    else:
        typer.echo("Nothing that matches fires." if wanted else "Nothing fires.")


def _exemplars(alerts: "Sequence[Alert]", url: str) -> "dict[str, list[Exemplar]]":
    """Of bad events of the SLOs that fire, by `sloth_id`; without them alerts are shown as well."""
    from prove.clients.prometheus import Prometheus
    from prove.slo import exemplars

    since_s: dict[str, float] = {}
    for alert in alerts:
        if slo := _slo(alert):
            starts_s = alert.starts_at.timestamp() - BEFORE_S
            since_s[slo] = min(starts_s, since_s.get(slo, starts_s))
    if not since_s:
        return {}
    prometheus = Prometheus(url)
    try:
        queries = exemplars.queries(prometheus)
        return {
            slo: exemplars.of_bad_events(prometheus, queries[slo], start_s, time.time())
            for slo, start_s in since_s.items()
            if slo in queries
        }
    except UserError as error:
        typer.echo(f"note: no traces are shown: {error}", err=True)
        return {}


def _slo(alert: "Alert") -> str:
    """The SLO whose bad events made the alert fire; missing data are no events."""
    return "" if alert.name.endswith("NoData") else alert.labels.get("sloth_id", "")


def _document(alert: "Alert", exemplars: "Mapping[str, list[Exemplar]]") -> dict[str, object]:
    of_slo = exemplars.get(_slo(alert), [])
    return {
        "name": alert.name,
        "severity": alert.severity,
        "state": alert.state,
        "since": alert.starts_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "silenced_by": alert.silenced_by,
        "labels": alert.labels,
        "annotations": alert.annotations,
        "traces": [exemplar.labels["trace_id"] for exemplar in of_slo],
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


def _print_exemplars(alerts: "Sequence[Alert]", exemplars: "Mapping[str, list[Exemplar]]") -> None:
    from prove.stack.hints import command

    for slo, found in exemplars.items():
        if not found:
            continue
        name = next(alert.name for alert in alerts if _slo(alert) == slo)
        typer.echo(f"\n{name}, for example:")
        for exemplar in found:
            at = datetime.fromtimestamp(exemplar.time_s, UTC)
            trace = command(f"trace {exemplar.labels['trace_id']}")
            typer.echo(f"  {at:%H:%M:%S} UTC  {trace}")


def _age(since: datetime) -> str:
    minutes, seconds = divmod(max(0, int((datetime.now(UTC) - since).total_seconds())), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{seconds:02}s"
