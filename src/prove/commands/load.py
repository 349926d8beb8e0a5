"""`provectl load`: customers, at a constant rate or as they really came."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prove.errors import UserError
from prove.loadtest import Mix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from prove.clients.shop import Shop
    from prove.k6 import Run
    from prove.loadtest import Request, Result

MAX_OFFERS = 5_000
"""Products a load at a constant rate draws from, the first by sku."""
TELL_EVERY_S = 10
"""Between lines of progress where there is no terminal to draw a bar on."""
INTERRUPTED = 130
"""Exit code of what Ctrl-C ended, as shells have it: 128 + SIGINT."""


def load(
    *,
    rate: Annotated[str, typer.Option(help="Arrivals: 50/s, 90/m.")] = "50/s",
    duration: Annotated[
        str | None, typer.Option(help="60s, 5m (60s if not given); of a replay, what to play.")
    ] = None,
    mix: Annotated[Mix, typer.Option(help="What arrives.")] = Mix.MIXED,
    replay: Annotated[
        Path | None, typer.Option(help="Place the orders of this sales file, not at --rate.")
    ] = None,
    speed: Annotated[
        float, typer.Option(min=1, max=1_000_000, help="Of a replay: an hour in 3600/SPEED s.")
    ] = 600,
    decline: Annotated[str, typer.Option(help="Payments that are refused.")] = "2%",
    seed: Annotated[int, typer.Option(help="The same seed, the same requests.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Send customers to the shop by k6, whether or not it keeps up, and time its answers.

    --mix **checkout**: orders of one to five products. **browse**: 30% lists, 10% searches, 60%
    items. **mixed**: 10% checkouts, the rest as browse.

    --replay FILE (as for `provectl data import`) places its invoices with their baskets, customers
    and spacing, 600 times as fast. Invoices of one minute are spread evenly over it; lines of one
    product are added up, to 10,000 at most; baskets of over 500 products become several orders;
    who has no number is guest-INVOICE; products the shop doesn't have are left out, and counted.

    Every order has a fresh idempotency key. Declined payments (402) and shortages (409) are
    business, not failures. Exit code 1 when a request failed or could not be sent in time (dropped;
    in a replay: over a second late). Ctrl-C ends it early and still shows the figures.

    Examples:

        provectl load --rate 20/s --duration 30s --mix checkout

        provectl load --replay online-retail-2010-12.csv.gz --speed 3600 --duration 1m
    """
    from prove import k6, loadtest, tools, units
    from prove.clients.shop import Shop
    from prove.stack import settings as stack_settings

    arrivals = units.rate(rate, "--rate")
    declined = units.share(decline, "--decline")
    limit_s = units.duration_s(duration, "--duration") if duration else None
    shop = Shop(stack_settings.load())
    planned: int | None = None
    if replay is None:
        length_s = limit_s or 60.0
        count = round(arrivals.per_s * length_s) + 1
        requests = _drawn(shop, mix, count, seed, declined)
        scenario = k6.constant_rate(arrivals, length_s)
    else:
        requests = _replayed(shop, replay, speed, limit_s, seed, declined)
        planned = len(requests)
        length_s = max((request.at_ms or 0) / 1000 for request in requests)
        if length_s > units.MAX_DURATION_S:
            raise UserError("the replay would last over a week; raise --speed or give --duration")
        scenario = k6.timed(planned, length_s)
    with tools.ConsoleProgress() as progress:
        binary = tools.ensure("k6", progress=progress)["k6"]
    run = _play(binary, requests, scenario, shop.urls, length_s)
    result = loadtest.result(run.summary, None if run.interrupted else planned)
    asked = {"rate_asked_per_s": None if replay else arrivals.per_s, "seed": seed}
    if as_json:
        typer.echo(json.dumps({**asked, "interrupted": run.interrupted, **result.as_json()}))
    else:
        _print(result, None if replay else arrivals.per_s)
    if run.interrupted:
        raise typer.Exit(INTERRUPTED)
    if not result.holds:
        raise typer.Exit(1)


def _drawn(shop: "Shop", mix: Mix, count: int, seed: int, decline: float) -> "list[Request]":
    from prove import loadtest
    from prove.stack.hints import command

    offers = [
        loadtest.Offer(product.sku, product.name, product.category)
        for product in shop.products(limit=MAX_OFFERS)
        if product.stock > 0
    ]
    if not offers:
        raise UserError(
            f"the shop has nothing in stock; {command('data import')} fills it "
            f"({command('data import --restock')} again)"
        )
    return loadtest.requests(offers, mix, count, seed, decline)


def _replayed(
    shop: "Shop", path: Path, speed: float, limit_s: float | None, seed: int, decline: float
) -> "list[Request]":
    from prove import replay, units
    from prove.retail import Sale, SalesFile
    from prove.stack.hints import command

    with SalesFile(path) as sales:
        invoices = replay.Invoices({product.sku for product in shop.products()})
        for line in sales:
            if isinstance(line, Sale):
                invoices.add(line)
    if not len(invoices):
        raise UserError(
            f"{path} sells nothing that the shop has; {command(f'data import {path}')} first"
        )
    if invoices.unknown_lines:
        left_out = units.count(invoices.unknown_lines, "line")
        _tell(f"left out, of products the shop doesn't have: {left_out}")
    requests = replay.requests(invoices.timed(), speed, seed, decline)
    if limit_s is not None:
        requests = [each for each in requests if (each.at_ms or 0) <= limit_s * 1000]
    last_s = (requests[-1].at_ms or 0) / 1000
    orders = units.count(len(requests), "order")
    _tell(f"{orders} in {last_s:,.0f} s, {speed:g} times as fast as they came")
    return requests


def _play(
    binary: Path,
    requests: "Sequence[Request]",
    scenario: "Mapping[str, Any]",
    shop: "Mapping[str, str]",
    length_s: float,
) -> "Run":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from prove import k6

    console = Console(stderr=True)
    with Progress(
        TextColumn("load"),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=console,
        disable=not console.is_terminal,
    ) as bars:
        task = bars.add_task("starting k6", total=length_s)
        tell_at_s = 0.0

        def show(now: k6.Progress) -> None:
            nonlocal tell_at_s
            p95 = f" · P95 {now.p95_ms:.1f} ms" if now.p95_ms is not None else ""
            text = f"{now.requests:,} requests{p95} · {now.failures:,} failed"
            bars.update(task, completed=min(now.elapsed_s, length_s), description=text)
            if not console.is_terminal and now.requests and now.elapsed_s >= tell_at_s:
                _tell(f"{now.elapsed_s:.0f} s: {text}")
                tell_at_s = now.elapsed_s + TELL_EVERY_S

        return k6.play(binary, requests, scenario, shop, show)


def _print(result: "Result", asked_per_s: float | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("operation", box=None, pad_edge=False)
    for heading in ("requests", "P50 ms", "P95 ms", "P99 ms", "max ms", "failed"):
        table.add_column(heading, justify="right")
    for name, figures in result.operations.items():
        times = (figures.p50_ms, figures.p95_ms, figures.p99_ms, figures.max_ms)
        table.add_row(
            name,
            f"{figures.requests:,}",
            *("-" if time is None else f"{time:,.1f}" for time in times),
            f"{figures.failures:,}",
        )
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    of_asked = f" of {asked_per_s:g}/s asked for" if asked_per_s is not None else ""
    console.print(
        f"\n{result.requests:,} requests in {result.duration_s:,.1f} s: "
        f"{result.rate_per_s:,.1f}/s{of_asked}, {result.dropped:,} dropped, "
        f"{result.failures:,} failed{_counts(result.failed_by, ' (', ')')}"
    )
    if any(result.outcomes.values()):
        console.print(f"orders: {_counts(result.outcomes)}")


def _counts(counts: "Mapping[str, int]", before: str = "", after: str = "") -> str:
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return f"{before}{told}{after}" if told else ""


def _tell(text: str) -> None:
    typer.echo(text, err=True)
