"""`provectl buy`: one order and all that its telemetry tells."""

import json
import secrets
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from prove.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from prove.clients.prometheus import Exemplar
    from prove.clients.shop import Order, OrderAnswer, Shop
    from prove.stack.settings import StackSettings
    from prove.tracetree import Span

CUSTOMER = "provectl"
ARRIVAL_TIMEOUT_S = 10.0
"""How long the signals may take to get to their stores; a second is usual."""
SETTLE_TIMEOUT_S = 30.0
POLL_S = 0.2
FINAL = frozenset({"confirmed", "rejected", "cancelled"})
OUTCOMES = {
    "declined": "declined",
    "stock-short": "short",
    "unknown-sku": "refused",
    "currency-mismatch": "refused",
    "unknown-payment-method": "refused",
    "invalid-order": "refused",
}
"""What the shop counts a rejected order as, by the code of its failure; all others: failed."""
WIDTH = 100

T = TypeVar("T")


@dataclass
class Purchase:
    """What was bought and what is known of it. `told` are signals that could not be asked for."""

    key: str
    trace_id: str
    client_span_id: str
    since_s: float
    answer: "OrderAnswer"
    order: "Order | None"
    spans: "Sequence[Span]" = ()
    records: Sequence[dict[str, str]] = ()
    outcome: str = "failed"
    before: dict[str, int] | None = None
    after: dict[str, int] | None = None
    exemplars: "Sequence[Exemplar]" = ()
    told: list[str] = field(default_factory=list)

    @property
    def confirmed(self) -> bool:
        """Whether the goods are sold and paid."""
        return self.order is not None and self.order.status == "confirmed"


def buy(
    *,
    sku: Annotated[
        str | None, typer.Option(help="What to buy; without it, the first product in stock.")
    ] = None,
    quantity: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 1,
    method: Annotated[
        str, typer.Option(help="Paid by; tok_decline, tok_slow, tok_unknown do as they say.")
    ] = "tok_approve",
    timeout: Annotated[str, typer.Option(help="Time the order may take: 5s, 500ms.")] = "5s",
    key: Annotated[
        str | None,
        typer.Option(help="Idempotency key: the same purchase, never a second one."),
    ] = None,
    customer: Annotated[str, typer.Option(help="Who buys; orders are listed by it.")] = CUSTOMER,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Place one order; show it, its trace, its logs and its metrics.

    The order starts a trace of its own, which is then asked for by its id: the spans from Jaeger,
    the log records from VictoriaLogs, the order count and the exemplar from Prometheus.

    Exit code 0 when the order is confirmed, else 1.

    Examples:

        provectl buy

        provectl buy --sku 85123A --quantity 2 --method tok_decline
    """
    from prove import units
    from prove.clients.server import NoAnswerInTimeError
    from prove.clients.shop import Shop
    from prove.stack import settings as stack_settings

    timeout_s = units.duration_s(timeout, "--timeout")
    settings = stack_settings.load()
    shop = Shop(settings)
    chosen = sku or _in_stock(shop, quantity)
    used_key = key or f"buy-{secrets.token_hex(8)}"
    body = {
        "customer_id": customer,
        "lines": [{"sku": chosen, "quantity": quantity}],
        "payment_method": method,
    }
    try:
        purchase = _place(settings, shop, body, used_key, timeout_s)
    except NoAnswerInTimeError:
        same = ["--key", used_key, "--customer", customer]
        same += ["--sku", chosen, "--quantity", str(quantity), "--method", method]
        _tell_unknown(same, timeout, shop.orders_url(customer))
        raise typer.Exit(1) from None
    _observe(settings, purchase)
    if as_json:
        typer.echo(json.dumps(_report(settings, purchase)))
    else:
        _print(settings, purchase)
    if not purchase.confirmed:
        raise typer.Exit(1)


def _in_stock(shop: "Shop", quantity: int) -> str:
    from prove.stack.hints import command

    for product in shop.products():
        if product.stock >= quantity:
            return product.sku
    raise UserError(
        f"no product has {quantity} in stock; {command('data import')} fills the shop "
        f"({command('data import --restock')} again)"
    )


def _place(
    settings: "StackSettings", shop: "Shop", body: dict[str, Any], key: str, timeout_s: float
) -> Purchase:
    """Send the order in a trace of its own (W3C Trace Context, sampled) and see it settled.

    Raises NoAnswerInTimeError when the time was over before the shop could know the outcome.
    """
    from prove import signals
    from prove.clients.prometheus import Prometheus

    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    told: list[str] = []
    prometheus = Prometheus(settings.url(settings.prometheus_port))
    before = _or_told(told, None, lambda: signals.orders(prometheus))
    since_s = time.time()
    answer = _answer(shop, body, key, f"00-{trace_id}-{span_id}-01", timeout_s)
    order = answer.order
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while order and order.status not in FINAL and time.monotonic() < deadline:
        time.sleep(POLL_S)
        order = shop.order(order.id)
    if answer.replayed and order and order.trace_id:
        trace_id = order.trace_id  # of the request that was answered first
    return Purchase(
        key=key,
        trace_id=trace_id,
        client_span_id=span_id,
        since_s=since_s,
        answer=answer,
        order=order,
        outcome=_outcome(answer, order),
        before=before,
        told=told,
    )


def _answer(
    shop: "Shop", body: dict[str, Any], key: str, traceparent: str, timeout_s: float
) -> "OrderAnswer":
    """The shop's answer; while the key's first request is still under way, asked for again.

    Raises NoAnswerInTimeError also for an answer that the end of the time is the reason of: the
    shop keeps to it as we do, and blames whatever it was waiting for.
    """
    from prove.clients.server import NoAnswerInTimeError

    deadline = time.monotonic() + timeout_s
    while True:
        left_s = max(0.001, deadline - time.monotonic())
        answer = shop.place_order(body, key, traceparent, left_s)
        in_flight = answer.problem.get("type") == "/problems/key-in-flight"
        if time.monotonic() >= deadline and (in_flight or answer.status_code in (503, 504)):
            raise NoAnswerInTimeError(f"{timeout_s:g} s were over")
        if not in_flight:
            return answer
        time.sleep(POLL_S)


def _outcome(answer: "OrderAnswer", order: "Order | None") -> str:
    if order is None:
        return OUTCOMES.get(str(answer.problem.get("type")).removeprefix("/problems/"), "failed")
    if order.status == "rejected":
        return OUTCOMES.get(order.failure.code if order.failure else "", "failed")
    return order.status if order.status in FINAL else "unsettled"


def _observe(settings: "StackSettings", purchase: Purchase) -> None:
    """Ask the stores; one that doesn't answer takes nothing from the others."""
    from prove import signals
    from prove.clients.jaeger import Jaeger
    from prove.clients.logs import LogStore
    from prove.clients.prometheus import Prometheus

    deadline = time.monotonic() + ARRIVAL_TIMEOUT_S
    trace_id, told = purchase.trace_id, purchase.told
    root_parent_id = None if purchase.answer.replayed else purchase.client_span_id
    jaeger = Jaeger(settings.url(settings.jaeger_port))
    store = LogStore(settings.url(settings.victorialogs_port))
    no_spans: list[Span] = []
    spans = _or_told(
        told, no_spans, lambda: signals.trace(jaeger, trace_id, root_parent_id, deadline)
    )
    purchase.spans = spans
    purchase.records = _or_told(told, [], lambda: signals.records(store, trace_id, spans, deadline))
    if purchase.answer.replayed or purchase.before is None:
        return
    prometheus = Prometheus(settings.url(settings.prometheus_port))
    before, outcome = purchase.before, purchase.outcome
    purchase.after = _or_told(
        told, None, lambda: signals.orders_after(prometheus, before, outcome, deadline)
    )
    purchase.exemplars = _or_told(
        told, [], lambda: signals.exemplars(prometheus, trace_id, purchase.since_s, deadline)
    )


def _or_told(told: list[str], otherwise: T, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except UserError as error:
        if str(error) not in told:
            told.append(str(error))
        return otherwise


def _tell_unknown(same: Sequence[str], timeout: str, orders_url: str) -> None:
    from prove.stack.hints import command

    typer.echo(
        f"provectl: --timeout {timeout} ended the wait, so the order may or may not be placed; "
        "ask again under\n"
        f"  its key, which never buys twice: {command(shlex.join(['buy', *same]))}\n"
        f"  or look among the customer's orders: {orders_url}",
        err=True,
    )


def _links(settings: "StackSettings", purchase: Purchase) -> dict[str, str]:
    from prove.signals import ORDERS

    trace_id, order = purchase.trace_id, purchase.order
    placed = f"{settings.url(settings.order_port)}/api/v1/orders/{order.id}" if order else None
    return ({"order": placed} if placed else {}) | {
        "trace": f"{settings.url(settings.jaeger_port)}/api/traces/{trace_id}",
        "logs": f"{settings.url(settings.victorialogs_port)}/select/vmui/#/"
        f"?query=trace_id:={trace_id}",
        "metrics": f"{settings.url(settings.prometheus_port)}/api/v1/query?query={ORDERS}",
    }


def _report(settings: "StackSettings", purchase: Purchase) -> dict[str, Any]:
    return {
        "confirmed": purchase.confirmed,
        "key": purchase.key,
        "replayed": purchase.answer.replayed,
        "order": purchase.order.model_dump() if purchase.order else None,
        "problem": dict(purchase.answer.problem) or None,
        "trace_id": purchase.trace_id,
        "spans": [asdict(span) for span in purchase.spans],
        "logs": list(purchase.records),
        "orders": {
            "outcome": purchase.outcome,
            "before": purchase.before,
            "after": purchase.after,
        },
        "exemplars": [asdict(each) for each in purchase.exemplars],
        "not_available": purchase.told,
        "links": _links(settings, purchase),
    }


def _print(settings: "StackSettings", purchase: Purchase) -> None:
    from rich.console import Console

    console = Console(highlight=False, width=WIDTH)
    _print_order(console, purchase)
    _print_trace(console, purchase)
    _print_logs(console, purchase)
    _print_metrics(console, purchase)
    for text in purchase.told:
        console.print(f"\n[yellow]not available:[/yellow] {text}")
    console.print("\n[bold]open[/bold]")
    for name, url in _links(settings, purchase).items():
        console.print(f"  {name:<8} {url}", soft_wrap=True)


def _print_order(console: "Console", purchase: Purchase) -> None:
    from rich.table import Table

    from prove.units import money

    order, problem = purchase.order, purchase.answer.problem
    if order is None:
        said = problem.get("detail") or problem.get("title") or "no reason given"
        console.print(f"[red]order refused[/red] ({purchase.answer.status_code}): {said}")
        return
    style = "green" if purchase.confirmed else "red"
    again = " (answered before, under the same key)" if purchase.answer.replayed else ""
    console.print(f"order {order.id} is [{style}]{order.status}[/{style}]{again}")
    table = Table("", "sku", "name", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("price", "total"):
        table.add_column(heading, justify="right")
    for line in order.lines:
        total = money(line.quantity * line.price_minor, order.currency)
        price = money(line.price_minor, order.currency)
        table.add_row(f"{line.quantity}", line.sku, line.name, price, total)
    paid_by = f"payment {order.payment_id}" if order.payment_id else "no payment yet"
    table.add_row("", "", paid_by, "", money(order.total_minor, order.currency))
    console.print(table)
    if order.status not in FINAL:
        console.print("not settled yet; the shop keeps at it: look the order up below")


def _print_trace(console: "Console", purchase: Purchase) -> None:
    from rich.text import Text

    from prove import tracetree
    from prove.units import count

    spans = count(len(purchase.spans), "span")
    services = count(len(tracetree.services(purchase.spans)), "service")
    console.print(f"\n[bold]trace[/bold] {purchase.trace_id}: {spans} of {services}")
    for line in tracetree.render(purchase.spans):
        console.print(Text(line))


def _print_logs(console: "Console", purchase: Purchase) -> None:
    from prove.stack import logview, render
    from prove.stack.hints import command
    from prove.units import count

    records = count(len(purchase.records), "record")
    console.print(f"\n[bold]logs[/bold] with this trace id: {records}")
    for stored in purchase.records:
        line = render.record(logview.from_store(stored), with_trace=False)
        console.print(line, no_wrap=True, overflow="ellipsis")
    console.print(f"in full: {command(f'logs --trace {purchase.trace_id}')}")


def _print_metrics(console: "Console", purchase: Purchase) -> None:
    from prove.signals import ORDERS

    console.print("\n[bold]metrics[/bold]")
    if purchase.before is not None and purchase.after is not None:
        outcome = purchase.outcome
        before, after = (count.get(outcome, 0) for count in (purchase.before, purchase.after))
        others = ", with those of others" if after > before + 1 else ""
        console.print(
            f'  {ORDERS}{{prove_outcome="{outcome}"}}: {before} → {after}{others}',
            markup=False,
        )
    for each in purchase.exemplars:
        console.print(
            f"  exemplar with this trace id: {each.value * 1000:.1f} ms, in the request durations "
            f"of {each.series.get('service_name')}",
            markup=False,
        )
    if purchase.answer.replayed:
        console.print("  an order is counted once, not when it is answered again")
    elif not purchase.exemplars:
        console.print("  no exemplar points to this trace: histograms keep a few of many requests")
