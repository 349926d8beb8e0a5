"""`provectl demo`: the whole story in one go."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prove.stack.settings import StackSettings

INCIDENT = "payment-errors"
DECEMBER = Path("data") / "online-retail-2010-12.csv.gz"
"""The real sales of December 2010, where PROVE_SHARED or ../shared has them."""


def demo(
    *,
    rate: Annotated[str, typer.Option(help="Load: requests that arrive.")] = "30/s",
    duration: Annotated[str, typer.Option(help="Load: for how long.")] = "15s",
) -> None:
    """The whole story: a shop with real goods, load, one order, and an incident to its review.

    The shop is a drill: its alerts are 60 times as fast. Payments fail, the page comes, the fault
    is taken back, and what happened is told, by a timeline and a review. Everything it does is a
    command of its own, shown as it is run. The shop is left running.
    """
    from prove.stack import settings as stack_settings
    from prove.stack import state
    from prove.stack.hints import command

    settings = stack_settings.load().model_copy(update={"profile": "drill"})
    try:
        _story(settings, rate, duration)
    except KeyboardInterrupt:
        left = state.load(settings.home)
        runs = f" The shop runs on: {command('down')} stops it." if left and left.alive else ""
        typer.echo(f"Stopped; a fault that was set is taken back.{runs}", err=True)
        raise typer.Exit(130) from None


def _story(settings: "StackSettings", rate: str, duration: str) -> None:
    from prove import signals
    from prove.clients.prometheus import Prometheus
    from prove.commands import buy, data, incident_records, load, review, up

    started = time.monotonic()
    sales = _sales_file()
    _step("provectl up --drill --detach")
    up.ensure_running(settings)
    before = signals.orders(Prometheus(settings.url(settings.prometheus_port)))
    _step(f"provectl data import {sales}" if sales else "provectl data import")
    if sales is None:
        typer.echo(
            "No real sales at hand (PROVE_SHARED, ../shared): the small set of prove itself."
        )
    data.import_file(sales)
    _step(f"provectl load --rate {rate} --duration {duration}")
    loaded = _exit_code(lambda: load.load(rate=rate, duration=duration))
    _step("provectl buy")
    bought = _exit_code(buy.buy)
    _step(f"provectl incident run {INCIDENT}")
    incident_id = _incident(settings)
    if incident_id:
        _step(f"provectl incident timeline {INCIDENT}")
        incident_records.show_timeline(incident_id)
        _step(f"provectl review {INCIDENT}")
        review.review(incident_id)
    _sum_up(settings, math.ceil(time.monotonic() - started), before)
    if loaded or bought or not incident_id:
        raise typer.Exit(1)


def _exit_code(step: Callable[[], None]) -> int:
    """Of a step; what doesn't hold is told by it, and the story goes on."""
    try:
        step()
    except typer.Exit as ended:
        if ended.exit_code != 1:
            raise
        return 1
    return 0


def _incident(settings: "StackSettings") -> str | None:
    """The id of one that was run, None when nothing was injected; how it went is shown."""
    from rich.console import Console

    from prove.commands import incident
    from prove.incident import catalogue, report, target

    running = target.running(settings)
    found = incident.carry_out(catalogue.chosen([INCIDENT]), settings.home, running)
    report.show(found, Console())
    return found[0].id if found[0].windows else None


def _sales_file() -> Path | None:
    from prove.tools import repository_root

    shared = Path(os.environ.get("PROVE_SHARED") or repository_root() / ".." / "shared")
    file = (shared / DECEMBER).resolve()
    return file if file.exists() else None


def _step(title: str) -> None:
    from rich.console import Console
    from rich.rule import Rule

    Console(width=100, highlight=False).print(Rule(title, align="left"))


def _sum_up(settings: "StackSettings", since_s: int, before: "Mapping[str, int]") -> None:
    """What happened, as the telemetry has it, and what to look at next."""
    from rich.console import Console
    from rich.table import Table

    from prove import signals
    from prove.clients.prometheus import Prometheus
    from prove.stack import report as stack_report
    from prove.stack.hints import command

    prometheus = Prometheus(settings.url(settings.prometheus_port))
    report = stack_report.report(settings)
    mebibytes = {group: total.rss_bytes / 2**20 for group, total in report.totals.items()}
    orders = {
        outcome: count - before.get(outcome, 0)
        for outcome, count in signals.orders(prometheus).items()
    }
    latency = {
        sample.labels["service_name"]: sample.value * 1000
        for sample in prometheus.query(
            "histogram_quantile(0.95, sum by (service_name, le) "
            f"(rate({signals.LATENCY}[{since_s}s])))"
        )
    }
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_row("orders", ", ".join(f"{n:,} {name}" for name, n in sorted(orders.items()) if n))
    for service, p95_ms in sorted(latency.items()):
        if p95_ms > 0:  # NaN where nobody asked
            table.add_row(f"P95 of {service}", f"{p95_ms:,.1f} ms")
    memory = ", ".join(f"{group} {size:,.0f} MiB" for group, size in mebibytes.items())
    table.add_row("memory", f"{sum(mebibytes.values()):,.0f} MiB: {memory}")
    table.add_row("open", f"{settings.url(settings.victorialogs_port)}/select/vmui   logs")
    table.add_row("", f"{settings.url(settings.product_port)}/api/v1/products   goods")
    table.add_row(
        "", f"{settings.url(settings.prometheus_port)}/api/v1/query?query=prove_orders_total"
    )
    for what in ("status", "incident list", "buy --method tok_decline", "logs -f", "down"):
        table.add_row("try" if what == "status" else "", command(what).strip("`"))
    _step(f"summary: what Prometheus saw in these {since_s} s")
    Console(width=100, highlight=False).print(table)
