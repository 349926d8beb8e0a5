"""Importing a sales file: read it, list what is rejected, send the products to the shop."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from prove.catalogue import Article, Catalogue
from prove.clients.shop import Imported, Shop
from prove.errors import UserError
from prove.retail import Rejection, Sale, SalesFile

BATCH = 1_000
TICK_LINES = 1_000


@dataclass
class Reading:
    """What a sales file holds; `lines` are those after the header that aren't blank."""

    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    rejected_file: Path | None = None
    articles: Sequence[Article] = ()

    @property
    def lines(self) -> int:
        """All that were read."""
        return self.accepted + self.rejected.total()


def read(sales: SalesFile, reports: Path, tick: Callable[[int], None]) -> Reading:
    """Read a sales file, listing the lines that are rejected in a new file in `reports`.

    `tick` is told the bytes read. Raises UserError when the file cannot be read to its end, or the
    list cannot be written.
    """
    reading = Reading()
    catalogue = Catalogue()
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    listed = reports / f"import-rejected-{stamp}.csv"
    with _rejections(listed) as reject:
        for line in sales:
            if isinstance(line, Sale):
                reading.accepted += 1
                catalogue.add(line)
            else:
                reading.rejected[line.reason] += 1
                reject(line)
            if reading.lines % TICK_LINES == 0:
                tick(sales.position_bytes)
    reading.rejected_file = listed if reading.rejected else None
    reading.articles = list(catalogue.articles())
    return reading


def send(
    shop: Shop,
    articles: Sequence[Article],
    *,
    stock: int,
    restock: bool,
    tick: Callable[[int], None],
) -> Imported:
    """Import products by batches, each whole or not at all; `tick` is told how many are in.

    New products get `stock`; those that are there keep theirs, unless `restock`. Raises UserError.
    """
    there = set() if restock else {product.sku for product in shop.products()}
    total = Imported(created=0, updated=0, unchanged=0)
    for first in range(0, len(articles), BATCH):
        batch = articles[first : first + BATCH]
        items = [
            asdict(article) | ({} if article.sku in there else {"stock": stock})
            for article in batch
        ]
        try:
            done = shop.import_products(items)
        except UserError as error:
            if first == 0:
                raise
            raise UserError(
                f"{error} (the first {first} of {len(articles)} products are in; import again to "
                "complete them)"
            ) from None
        total.created += done.created
        total.updated += done.updated
        total.unchanged += done.unchanged
        tick(first + len(batch))
    return total


@contextmanager
def _rejections(path: Path) -> Iterator[Callable[[Rejection], None]]:
    """A function that lists a line in the file, which is made when there is one."""
    file: IO[str] | None = None

    def add(rejection: Rejection) -> None:
        nonlocal file
        if file is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("x", encoding="utf-8", newline="")
            csv.writer(file).writerow(("line_number", "reason", "line"))
        csv.writer(file).writerow(rejection)

    try:
        try:
            yield add
        finally:
            if file is not None:
                file.close()
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
