"""`provectl data`: goods for the shop."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prove.errors import UserError

if TYPE_CHECKING:
    from prove.clients.shop import Imported
    from prove.importer import Reading

app = typer.Typer(
    name="data",
    help="Goods for the shop.",
    epilog="Start with: provectl data import",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

SAMPLE = Path("load") / "sample" / "corner-shop.csv"


@app.callback()
def _group() -> None:
    """Keeps `import` a subcommand although it is the only one."""


@app.command("import")
def import_file(
    file: Annotated[
        Path | None,
        typer.Argument(help="A .csv or .csv.gz file; without one, the small set of prove itself."),
    ] = None,
    *,
    stock: Annotated[
        int, typer.Option(min=0, max=1_000_000_000, help="Pieces of each product that is new.")
    ] = 1_000,
    restock: Annotated[
        bool, typer.Option("--restock", help="Give --stock to products that are there, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Fill the catalogue from sales lines, as in the UCI data set "Online Retail".

    Columns: InvoiceNo, StockCode, Description, Quantity, InvoiceDate, UnitPrice, CustomerID,
    Country (Online Retail II calls them Invoice, Price, Customer ID).

    A product is a stock code, in capitals. Its name and price (GBP) are those that most of its
    lines have; a tie goes to the first name and the lower price. Its category follows from the
    words of its name: the table is in src/prove/catalogue.py.

    Lines that sell no goods are counted by reason and listed in
    .prove/reports/import-rejected-TIME.csv: cancellations, postage and other bookings, missing
    names, zero prices, whatever cannot be read. A file that cannot be read to its end imports
    nothing. Products go in by batches of 1,000, each whole or not at all; importing again changes
    nothing.

    Examples:

        provectl data import online-retail-2010-12.csv.gz

        provectl data import sales.csv --stock 50 --json | jq .rejected
    """
    from rich.console import Console
    from rich.progress import Progress

    from prove import importer
    from prove.clients.shop import Shop
    from prove.retail import SalesFile
    from prove.stack import settings as stack_settings
    from prove.tools import repository_root

    settings = stack_settings.load()
    path = file or repository_root() / SAMPLE
    started = time.monotonic()
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bars:
        with SalesFile(path) as sales:
            shop = Shop(settings)
            shop.check()  # before minutes of reading
            task = bars.add_task("reading", total=sales.size_bytes)
            reading = importer.read(
                sales, settings.home / "reports", lambda done: bars.update(task, completed=done)
            )
            bars.update(task, completed=sales.size_bytes)
        if not reading.accepted:
            listed = f"; {reading.rejected_file} says why" if reading.rejected_file else ""
            raise UserError(f"{path} has no line to import (lines read: {reading.lines}){listed}")
        task = bars.add_task("importing", total=len(reading.articles))
        imported = importer.send(
            shop,
            reading.articles,
            stock=stock,
            restock=restock,
            tick=lambda done: bars.update(task, completed=done),
        )
    if as_json:
        typer.echo(json.dumps(_report(path, reading, imported, time.monotonic() - started)))
    else:
        _print(path, reading, imported)


def _report(
    path: Path, reading: "Reading", imported: "Imported", duration_s: float
) -> dict[str, object]:
    return {
        "file": str(path),
        "lines": reading.lines,
        "accepted": reading.accepted,
        "rejected": dict(reading.rejected),
        "rejected_file": str(reading.rejected_file) if reading.rejected_file else None,
        "products": len(reading.articles),
        **imported.model_dump(),
        "duration_s": round(duration_s, 2),
    }


def _print(path: Path, reading: "Reading", imported: "Imported") -> None:
    from rich.console import Console
    from rich.table import Table

    from prove import units

    table = Table("", "lines", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    table.add_row("read", f"{reading.lines:,}")
    for reason, count in reading.rejected.most_common():
        table.add_row(f"  rejected: {reason}", f"{count:,}")
    table.add_row("accepted", f"{reading.accepted:,}")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(
        f"\n{units.count(len(reading.articles), 'product')}: {imported.created:,} created, "
        f"{imported.updated:,} updated, {imported.unchanged:,} unchanged"
    )
    if reading.rejected_file:
        console.print(f"rejected lines: {reading.rejected_file}")
