"""`provectl orders`: what the services' books say about orders."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from prove.verify.audit import Difference
    from prove.verify.books import Books

app = typer.Typer(
    name="orders",
    help="What the services' books say about orders.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
SHOWN = 20


@app.callback()
def _group() -> None:
    """Keeps `reconcile` a subcommand although it is the only one."""


@app.command()
def reconcile(
    *,
    grace: Annotated[
        str,
        typer.Option(help="What changed less than this ago is in progress, and not judged yet."),
    ] = "60s",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Compare orders, payments, the acquirer's ledger and reservations, and tell what differs.

    Reads the databases of the stack in PROVE_HOME, running or stopped, and changes nothing.
    Every difference comes with its trace. Exit code 0 when there is none, 1 when there is one,
    2 when a database can't be read.
    """
    from rich.console import Console

    from prove import units
    from prove.stack import settings as stack_settings
    from prove.verify import audit, books

    grace_s = units.duration_s(grace, "--grace")
    sources = books.Sources.of(stack_settings.load())
    with Console(stderr=True).status("reading …") as status:
        read = books.read(sources, lambda name: status.update(f"reading the {name} database …"))
        status.update(f"comparing {len(read.orders):,} orders …")
        differences = audit.audit(read, grace_s)
    if as_json:
        typer.echo(_document(read, differences))
    else:
        _show(Console(highlight=False), read, differences)
    if differences:
        raise typer.Exit(1)


def _document(books: "Books", differences: "list[Difference]") -> str:
    import json
    from collections import Counter
    from dataclasses import asdict

    from prove.verify import audit

    return json.dumps(
        {
            "orders": {
                "all": len(books.orders),
                "unfinished": sum(bool(order.step) for order in books.orders),
                "by_status": Counter(order.status for order in books.orders),
            },
            "money": {
                currency: {
                    "captured_minor": sums.captured,
                    "refunded_minor": sums.refunded,
                    "net_minor": sums.net,
                    "confirmed_minor": sums.confirmed,
                }
                for currency, sums in audit.money_by_currency(books).items()
            },
            "payments": Counter(payment.status for payment in books.payments),
            "reservations": Counter(reservation.status for reservation in books.reservations),
            "differences": [asdict(difference) for difference in differences],
        }
    )


def _show(console: "Console", books: "Books", differences: "list[Difference]") -> None:
    from rich.markup import escape

    from prove.stack.hints import command
    from prove.units import count

    console.print(_compared(books))
    for difference in differences[:SHOWN]:
        about = f"order {difference.order_id}" if difference.order_id else difference.subject
        console.print(f"\n[red]{difference.kind}[/red]  {escape(about)}")
        console.print(f"  expected  {escape(difference.expected)}")
        console.print(f"  found     {escape(difference.found)}")
        if difference.trace_id:
            console.print(f"  its logs  {command(f'logs --trace {difference.trace_id}')}")
    if len(differences) > SHOWN:
        console.print(f"\n… and {len(differences) - SHOWN:,} more: `--json` has them all")
    if differences:
        console.print(f"\n[red]{count(len(differences), 'difference')}[/red]")
    else:
        console.print("\n[green]no difference[/green]")


def _compared(books: "Books") -> "Table":
    from collections import Counter

    from rich.table import Table

    from prove.units import money
    from prove.verify import audit

    table = Table("", "", box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(justify="right")

    def rows(what: str, counts: dict[str, str]) -> None:
        for position, (name, amount) in enumerate(counts.items()):
            table.add_row("" if position else what, name, amount)

    def by_status(statuses: "Counter[str]") -> dict[str, str]:
        return {status: f"{count:,}" for status, count in sorted(statuses.items())}

    unfinished = sum(bool(order.step) for order in books.orders)
    rows(
        "orders",
        by_status(Counter(order.status for order in books.orders))
        | {"of these unfinished": f"{unfinished:,}"},
    )
    rows("payments", by_status(Counter(payment.status for payment in books.payments)))
    for currency, sums in audit.money_by_currency(books).items():
        rows(
            "acquirer's ledger",
            {
                "captured": money(sums.captured, currency),
                "refunded": money(sums.refunded, currency),
                "net": money(sums.net, currency),
            },
        )
        rows("confirmed orders", {"sum": money(sums.confirmed, currency)})
    rows("reservations", by_status(Counter(kept.status for kept in books.reservations)))
    free = sum(stock.quantity for stock in books.stock)
    rows("stock", {"products": f"{len(books.stock):,}", "pieces free": f"{free:,}"})
    return table
