"""Sales files with the columns of the UCI data set "Online Retail" (or "Online Retail II").

Every line after the header becomes a `Sale` or a `Rejection` with one reason; a file that cannot
be read to its end raises UserError. Lines are read one at a time and stand by themselves: a record
never spans two. Blank lines count as nothing.
"""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

from prove.errors import UserError

MAX_LINE_BYTES = 65_536
MAX_PRICE_MINOR = 1_000_000_000
MAX_NAME_LENGTH = 200
SURE = 10
"""So many more dates for one order of day and month than for the other settle it."""

NOT_GOODS = frozenset(
    {
        *("POST", "DOT", "C2", "C3"),  # postage, carriage
        *("M", "D", "S", "B"),  # manual entry, discount, samples, bad debt
        *("AMAZONFEE", "BANK CHARGES", "CRUK"),  # fees, a charity's commission
        *("ADJUST", "ADJUST2", "TEST001", "TEST002", "GIFT"),
    }
)
"""Stock codes that are bookings rather than goods; so are all that begin with `GIFT_`."""

_COLUMNS = {
    "invoiceno": "InvoiceNo",
    "invoice": "InvoiceNo",
    "stockcode": "StockCode",
    "description": "Description",
    "quantity": "Quantity",
    "invoicedate": "InvoiceDate",
    "unitprice": "UnitPrice",
    "price": "UnitPrice",
    "customerid": "CustomerID",
    "country": "Country",
}
_REQUIRED = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice")

_INVOICE = re.compile(r"[A-Za-z0-9._-]{1,40}")
_SKU = re.compile(r"[A-Z0-9][A-Z0-9._-]{0,31}")
_WHOLE = re.compile(r"-?\d{1,9}", re.ASCII)
_PRICE = re.compile(r"-?\d{1,9}(?:\.\d{1,9})?", re.ASCII)
_SLASH_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/\d{4} ", re.ASCII)
_LETTER = re.compile(r"[^\W\d_]")


class Reason(StrEnum):
    """Why a line is no sale; the first that applies, in this order."""

    MALFORMED = "malformed line"
    CANCELLED = "cancellation"
    NOT_GOODS = "not goods"
    BAD_INVOICE = "bad invoice number"
    BAD_STOCK_CODE = "bad stock code"
    BAD_QUANTITY = "bad quantity"
    BAD_DATE = "bad date"
    BAD_PRICE = "bad price"
    NO_NAME = "missing name"
    NO_PRICE = "zero or negative price"
    NOT_SOLD = "zero or negative quantity"


class Sale(NamedTuple):
    """One line of an invoice. The file's times carry no zone and are taken as UTC."""

    invoice: str
    sku: str
    name: str
    quantity: int
    sold_at: datetime
    price_minor: int
    customer: str


class Rejection(NamedTuple):
    """A line that is no sale; `line_number` counts from 1, the header."""

    line_number: int
    reason: Reason
    line: str


class SalesFile:
    """A sales file, plain or gzipped; to be used as a context manager and iterated over once.

    Text is UTF-8, and any line that isn't is Latin-1. Dates are `dd/mm/yyyy hh:mm`, ISO 8601, or
    `mm/dd/yyyy hh:mm` in a file where most of the first dates with a number over 12 say so.
    """

    def __init__(self, path: Path) -> None:
        """Raises UserError when there is no such file or its header lacks a column."""
        self._path = path
        try:
            if not path.is_file():
                what = "is not a file" if path.exists() else "does not exist"
                raise UserError(f"{path} {what}; give a .csv or .csv.gz file")
            self.size_bytes = path.stat().st_size
            self._raw: IO[bytes] = path.open("rb")
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None
        try:
            self._day_first = self._decide_day_first()
            self._columns, self._width = self._read_header()
        except BaseException:
            self._raw.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._raw.close()

    @property
    def position_bytes(self) -> int:
        """How far the file was read, out of `size_bytes`."""
        return self._raw.tell()

    def __iter__(self) -> Iterator[Sale | Rejection]:
        """Raises UserError where the file cannot be read on, such as a gzip file that is cut."""
        for number, line in self._lines():
            if number == 1 or (line is not None and not line.strip()):
                continue
            if line is None:
                yield Rejection(number, Reason.MALFORMED, f"(longer than {MAX_LINE_BYTES} bytes)")
                continue
            text = _decode(line)
            sale = self._parse(text)
            yield sale if isinstance(sale, Sale) else Rejection(number, sale, text)

    def _lines(self) -> Iterator[tuple[int, bytes | None]]:
        """Numbered lines without their ends; None for one that is too long."""
        self._raw.seek(0)
        stream: IO[bytes] | gzip.GzipFile = self._raw
        if self._raw.read(2) == b"\x1f\x8b":
            stream = gzip.GzipFile(fileobj=self._raw)
        self._raw.seek(0)
        number = 0
        try:
            while line := stream.readline(MAX_LINE_BYTES):
                number += 1
                whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
                yield number, line.rstrip(b"\r\n") if whole else None
                while not whole:
                    rest = stream.readline(MAX_LINE_BYTES)
                    whole = rest.endswith(b"\n") or len(rest) < MAX_LINE_BYTES
        except EOFError:
            raise UserError(
                f"{self._path} is cut off after line {number}: its gzip stream has no end; "
                "get a whole copy"
            ) from None
        except (OSError, zlib.error) as error:
            raise UserError(
                f"{self._path} is damaged after line {number} ({error}); get a whole copy"
            ) from None

    def _read_header(self) -> tuple[dict[str, int], int]:
        _, first = next(self._lines(), (0, b""))
        if first == b"":
            raise UserError(f"{self._path} is empty; its first line must name the columns")
        try:
            cells = next(csv.reader([_decode((first or b"").removeprefix(b"\xef\xbb\xbf"))]))
        except (csv.Error, StopIteration):
            cells = []
        if any("\0" in cell for cell in cells):
            cells = []  # UTF-16
        known = [_COLUMNS.get(re.sub("[^a-z]", "", cell.lower())) for cell in cells]
        columns = {name: index for index, name in enumerate(known) if name}
        if missing := [name for name in _REQUIRED if name not in columns]:
            raise UserError(
                f"{self._path} is no Online Retail file: its first line lacks the "
                f"{'column' if len(missing) == 1 else 'columns'} {', '.join(missing)} "
                "(comma-separated, UTF-8 or Latin-1)"
            )
        if len(columns) < sum(name is not None for name in known):
            raise UserError(f"{self._path} names a column twice in its first line")
        return columns, len(cells)

    def _decide_day_first(self) -> bool:
        for_days = 0
        for number, line in self._lines():
            for found in _SLASH_DATE.finditer(_decode(line or b"")) if number > 1 else ():
                for_days += (int(found[1]) > 12) - (int(found[2]) > 12)
            if abs(for_days) == SURE:
                break
        return for_days >= 0

    def _parse(self, text: str) -> Sale | Reason:
        try:
            cells = next(csv.reader([text], strict=True))
        except (csv.Error, StopIteration):
            return Reason.MALFORMED
        if len(cells) != self._width or "\0" in text:
            return Reason.MALFORMED
        column = self._columns
        invoice = cells[column["InvoiceNo"]].strip()
        sku = cells[column["StockCode"]].strip().upper()
        quantity = cells[column["Quantity"]].strip()
        price = cells[column["UnitPrice"]].strip()
        name = clean_name(cells[column["Description"]])
        sold_at = _date(cells[column["InvoiceDate"]].strip(), self._day_first)
        price_minor = _minor(price)
        if invoice[:1] in ("C", "c"):
            return Reason.CANCELLED
        if sku in NOT_GOODS or sku.startswith("GIFT_"):
            return Reason.NOT_GOODS
        if not _INVOICE.fullmatch(invoice):
            return Reason.BAD_INVOICE
        if not _SKU.fullmatch(sku):
            return Reason.BAD_STOCK_CODE
        if not _WHOLE.fullmatch(quantity):
            return Reason.BAD_QUANTITY
        if sold_at is None:
            return Reason.BAD_DATE
        if price_minor is None:
            return Reason.BAD_PRICE
        if not _LETTER.search(name):
            return Reason.NO_NAME
        if price_minor <= 0:
            return Reason.NO_PRICE
        if int(quantity) <= 0:
            return Reason.NOT_SOLD
        customer = cells[column["CustomerID"]].strip() if "CustomerID" in column else ""
        return Sale(invoice, sku, name, int(quantity), sold_at, price_minor, customer)


def clean_name(text: str) -> str:
    """A description without unprintable characters, double spaces, and `*` and `,` around it."""
    if not text.isprintable():
        text = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(text.split()).strip(" *,")[:MAX_NAME_LENGTH].rstrip()


def _decode(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _minor(text: str) -> int | None:
    """Pence; None when it is no number of whole pence the shop can ask for."""
    if not _PRICE.fullmatch(text):
        return None
    pence = Decimal(text) * 100
    return int(pence) if pence == int(pence) and pence <= MAX_PRICE_MINOR else None


@lru_cache(maxsize=4096)  # all lines of an invoice have one date
def _date(text: str, day_first: bool) -> datetime | None:
    try:
        if "/" in text:
            form = "%d/%m/%Y %H:%M" if day_first else "%m/%d/%Y %H:%M"
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        parsed = datetime.fromisoformat(text)
        # A stamp with an offset may lie outside the years 1 to 9999 in UTC.
        return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
