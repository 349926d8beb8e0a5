"""Reading sales files, good and bad."""

import csv
import gzip
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prove.errors import UserError
from prove.retail import MAX_LINE_BYTES, Reason, Rejection, Sale, SalesFile
from prove.tools import repository_root
from tests.support.december import december

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
GOOD = "536365,85123a,WHITE  HEART ,6,01/12/2010 08:26,2.55,17850,United Kingdom"
SAMPLE = repository_root() / "load" / "sample" / "corner-shop.csv"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sales.csv"


def read(path: Path) -> list[Sale | Rejection]:
    with SalesFile(path) as sales:
        return list(sales)


def only(path: Path, *lines: str) -> Sale | Rejection:
    """What the one line after the header becomes."""
    path.write_text("\n".join((HEADER, *lines)) + "\n")
    (line,) = read(path)
    return line


def line(**changes: str) -> str:
    """A good line with some cells changed."""
    cells = dict(zip(HEADER.split(","), GOOD.split(","), strict=True)) | changes
    out = StringIO()
    csv.writer(out, lineterminator="").writerow(cells.values())
    return out.getvalue()


def test_a_sale(file: Path) -> None:
    assert only(file, GOOD) == Sale(
        invoice="536365",
        sku="85123A",
        name="WHITE HEART",
        quantity=6,
        sold_at=datetime(2010, 12, 1, 8, 26, tzinfo=UTC),
        price_minor=255,
        customer="17850",
    )


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (line(InvoiceNo="C536365", Quantity="-6"), Reason.CANCELLED),
        (line(StockCode="POST"), Reason.NOT_GOODS),
        (line(StockCode="m"), Reason.NOT_GOODS),
        (line(StockCode="BANK CHARGES"), Reason.NOT_GOODS),
        (line(StockCode="gift_0001_40"), Reason.NOT_GOODS),
        (line(InvoiceNo=""), Reason.BAD_INVOICE),
        (line(InvoiceNo="5363 65"), Reason.BAD_INVOICE),
        (line(StockCode=""), Reason.BAD_STOCK_CODE),
        (line(StockCode="85/123"), Reason.BAD_STOCK_CODE),
        (line(StockCode="8" * 33), Reason.BAD_STOCK_CODE),
        (line(Quantity="six"), Reason.BAD_QUANTITY),
        (line(Quantity="6.5"), Reason.BAD_QUANTITY),
        (line(Quantity="٦"), Reason.BAD_QUANTITY),
        (line(Quantity="9" * 5000), Reason.BAD_QUANTITY),
        (line(InvoiceDate="12/13/2010 08:26"), Reason.BAD_DATE),
        (line(InvoiceDate="yesterday"), Reason.BAD_DATE),
        (line(InvoiceDate="0001-01-01T00:00:00+12:00"), Reason.BAD_DATE),
        (line(UnitPrice="2,55"), Reason.BAD_PRICE),
        (line(UnitPrice="nan"), Reason.BAD_PRICE),
        (line(UnitPrice="0.001"), Reason.BAD_PRICE),
        (line(UnitPrice="10000000.01"), Reason.BAD_PRICE),
        (line(Description=""), Reason.NO_NAME),
        (line(Description=" ?? "), Reason.NO_NAME),
        (line(UnitPrice="0"), Reason.NO_PRICE),
        (line(UnitPrice="-2.55"), Reason.NO_PRICE),
        (line(Quantity="0"), Reason.NOT_SOLD),
        (line(Quantity="-6"), Reason.NOT_SOLD),
        (GOOD + ",more", Reason.MALFORMED),
        ("536365,85123A", Reason.MALFORMED),
        ('536365,85123A,"WHITE HEART,6,01/12/2010 08:26,2.55,17850,UK', Reason.MALFORMED),
        (line(Description="NUL \0 BYTE"), Reason.MALFORMED),
    ],
)
def test_a_rejection_has_the_line_and_one_reason(file: Path, bad: str, reason: Reason) -> None:
    # The other lines settle that days come first.
    file.write_text("\n".join((HEADER, bad, *[line(InvoiceDate="20/12/2010 08:26")] * 2)))
    rejected, *accepted = read(file)
    assert rejected == Rejection(2, reason, bad)
    assert all(isinstance(each, Sale) for each in accepted)


@pytest.mark.parametrize(
    "header",
    [
        "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country",
        HEADER.lower(),
        "\ufeff" + HEADER,
        HEADER.replace("InvoiceNo", '"Invoice No"'),
    ],
)
def test_column_names_vary(file: Path, header: str) -> None:
    file.write_text(f"{header}\r\n{GOOD}\r\n", encoding="utf-8", newline="")
    (sale,) = read(file)
    assert isinstance(sale, Sale)
    assert sale.customer == "17850"


def test_columns_may_come_in_any_order_and_the_customer_is_optional(file: Path) -> None:
    file.write_text(
        "UnitPrice,Description,StockCode,InvoiceNo,InvoiceDate,Quantity\n"
        "2.55,HEART,85123A,536365,2010-12-01 08:26:30,6\n"
    )
    (sale,) = read(file)
    assert isinstance(sale, Sale)
    assert (sale.price_minor, sale.customer) == (255, "")
    assert sale.sold_at == datetime(2010, 12, 1, 8, 26, 30, tzinfo=UTC)


def test_months_come_first_where_a_date_says_so(file: Path) -> None:
    months_first = [line(InvoiceDate="12/1/2010 8:26"), line(InvoiceDate="12/13/2010 9:02")]
    file.write_text("\n".join((HEADER, *months_first)))
    dates = [sale.sold_at.date().isoformat() for sale in read(file) if isinstance(sale, Sale)]
    assert dates == ["2010-12-01", "2010-12-13"]


def test_lines_that_are_no_utf_8_are_latin_1(file: Path) -> None:
    lines = [line(Description="CAFÉ £ SIGN").encode("latin-1"), line(Description="CAFÉ").encode()]
    file.write_bytes(b"\n".join((HEADER.encode(), *lines)))
    assert [sale.name for sale in read(file) if isinstance(sale, Sale)] == ["CAFÉ £ SIGN", "CAFÉ"]


def test_blank_lines_count_as_nothing(file: Path) -> None:
    file.write_text(f"{HEADER}\n\n{GOOD}\n   \n\n")
    assert len(read(file)) == 1


def test_an_endless_line_is_one_rejection(file: Path) -> None:
    file.write_bytes(b"\n".join((HEADER.encode(), b"x" * 3 * MAX_LINE_BYTES, GOOD.encode())))
    rejected, sale = read(file)
    assert isinstance(rejected, Rejection)
    assert (rejected.line_number, rejected.reason) == (2, Reason.MALFORMED)
    assert isinstance(sale, Sale)


def test_gzip_is_known_by_its_content(file: Path) -> None:
    file.write_bytes(gzip.compress(f"{HEADER}\n{GOOD}\n".encode()))
    assert len(read(file)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (gzip.compress(b""), "is empty"),
        (b"a,b\n1,2\n", "lacks the columns InvoiceNo, StockCode"),
        (HEADER.replace("UnitPrice", "Cost").encode(), "lacks the column UnitPrice "),
        (HEADER.encode("utf-16"), "lacks the columns"),
        (bytes(range(256)) * 400, "lacks the columns"),
        (HEADER.encode() + b",Price\n", "names a column twice"),
        (gzip.compress(HEADER.encode() + b"\n" + GOOD.encode())[:-12], "is cut off"),
        (b"\x1f\x8b" + b"no gzip at all", "is damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_cannot_be_read_is_told_in_one_sentence(
    file: Path, content: bytes, message: str
) -> None:
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damage_in_the_middle_of_a_gzip_file_is_seen(file: Path) -> None:
    lines = [line(InvoiceNo=str(n), UnitPrice=f"{n % 97}.{n % 89:02}") for n in range(20_000)]
    content = bytearray(gzip.compress("\n".join((HEADER, *lines)).encode()))
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"(damaged|cut off) after line \d+"):
        read(file)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a file"):
        SalesFile(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        SalesFile(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="is not a file"):
        SalesFile(Path("/dev/zero"))


def counts_add_up(path: Path, content: bytes) -> None:
    """Every line becomes exactly one thing; or the file cannot be read at all."""
    path.write_bytes(content)
    try:
        found = read(path)
    except UserError:
        return
    blank = sum(not each.strip() for each in content.split(b"\n")[1:])
    assert len(found) == len(content.split(b"\n")) - 1 - blank
    for each in found:
        if isinstance(each, Sale):
            assert each.quantity > 0
            assert 0 < each.price_minor <= 1_000_000_000
            assert each.name.isprintable()
            assert 0 < len(each.name) <= 200


fuzzed = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@fuzzed
@given(content=st.binary(max_size=2_000), headed=st.booleans())
def test_random_bytes(file: Path, content: bytes, headed: bool) -> None:
    counts_add_up(file, f"{HEADER}\n".encode() * headed + content)


cells = st.one_of(
    st.text(max_size=40),
    st.sampled_from(GOOD.split(",")),
    st.integers().map(str),
    st.floats().map(str),
    st.decimals().map(str),
    st.datetimes().map(lambda when: when.strftime("%d/%m/%Y %H:%M")),
    st.datetimes(timezones=st.timezones()).map(str),
)


@fuzzed
@given(rows=st.lists(st.lists(cells, min_size=6, max_size=9), max_size=8))
def test_random_csv(file: Path, rows: Sequence[Sequence[str]]) -> None:
    out = StringIO()
    csv.writer(out).writerows(rows)
    counts_add_up(file, f"{HEADER}\r\n{out.getvalue()}".encode())


@fuzzed
@given(seed=st.integers())
def test_mutated_real_lines(file: Path, seed: int) -> None:
    draw = random.Random(seed)
    content = bytearray(b"".join(draw.choices(SAMPLE.read_bytes().splitlines(keepends=True), k=8)))
    for _ in range(draw.randint(1, 12)):
        at = draw.randrange(len(content))
        content[at : at + draw.randint(0, 3)] = draw.randbytes(draw.randint(0, 3))
    counts_add_up(file, f"{HEADER}\n".encode() + content)


def test_the_sample_has_goods_and_what_is_none() -> None:
    found = read(SAMPLE)
    reasons = Counter(each.reason for each in found if isinstance(each, Rejection))
    assert reasons == {Reason.NOT_GOODS: 2, Reason.CANCELLED: 1, Reason.NO_NAME: 1}
    sales = [each for each in found if isinstance(each, Sale)]
    assert (len(sales), len({sale.sku for sale in sales})) == (211, 41)


def test_december_2010() -> None:
    found = read(december())
    reasons = Counter(each.reason for each in found if isinstance(each, Rejection))
    assert len(found) == 39_529
    assert reasons == {
        Reason.CANCELLED: 680,
        Reason.NOT_GOODS: 135,
        Reason.NO_NAME: 126,
        Reason.NO_PRICE: 76,
    }
    assert sum(isinstance(each, Sale) for each in found) == 38_512
