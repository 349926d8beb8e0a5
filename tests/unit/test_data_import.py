"""Importing into a shop that keeps what it is sent."""

import csv
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from prove import cli, importer
from prove.catalogue import Article
from prove.clients.shop import PAGE, Imported, Shop
from prove.errors import UserError
from prove.retail import SalesFile
from prove.stack.settings import StackSettings

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"


class Products:
    """The product service's list and bulk import, in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.batches: list[int] = []
        self.fail_from_batch: int | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/products":
            after = request.url.params.get("cursor", "")
            skus = sorted(sku for sku in self.rows if sku > after)
            page = skus[: int(request.url.params["limit"])]
            cursor = page[-1] if len(page) < len(skus) else None
            rows = [self.rows[sku] for sku in page]
            return httpx.Response(200, json={"items": rows, "next_cursor": cursor})
        if request.headers["Authorization"] != "Bearer secret":
            return httpx.Response(401, json={"detail": "wrong token"})
        items = json.loads(request.content)["items"]
        self.batches.append(len(items))
        if self.fail_from_batch is not None and len(self.batches) > self.fail_from_batch:
            return httpx.Response(503, json={"detail": "the database is locked"})
        counts = {"created": 0, "updated": 0, "unchanged": 0}
        for item in items:
            old = self.rows.get(item["sku"])
            new = (old or {}) | item
            counts["created" if old is None else "unchanged" if new == old else "updated"] += 1
            assert "stock" in new, "a new product needs stock"
            self.rows[item["sku"]] = new
        return httpx.Response(200, json=counts)


@pytest.fixture
def products() -> Products:
    return Products()


@pytest.fixture
def shop(products: Products, tmp_path: Path) -> Shop:
    (tmp_path / "admin-token").write_text("secret\n")
    return Shop(StackSettings(home=tmp_path), httpx.MockTransport(products))


def articles(count: int) -> list[Article]:
    return [Article(f"S{n:05}", f"MUG {n}", "kitchen", 100 + n) for n in range(count)]


def send(shop: Shop, goods: list[Article], stock: int = 10, *, restock: bool = False) -> Imported:
    return importer.send(shop, goods, stock=stock, restock=restock, tick=lambda _: None)


def test_products_go_in_by_batches_and_again_without_a_change(
    shop: Shop, products: Products
) -> None:
    goods = articles(2 * importer.BATCH + PAGE + 1)
    assert send(shop, goods) == Imported(created=len(goods), updated=0, unchanged=0)
    assert products.batches == [importer.BATCH, importer.BATCH, PAGE + 1]
    assert send(shop, goods) == Imported(created=0, updated=0, unchanged=len(goods))


def test_what_was_sold_since_is_not_put_back_unless_asked_for(
    shop: Shop, products: Products
) -> None:
    goods = articles(2)
    send(shop, goods, stock=10)
    products.rows[goods[0].sku]["stock"] = 3
    assert send(shop, goods, stock=10).unchanged == 2
    assert products.rows[goods[0].sku]["stock"] == 3
    assert send(shop, goods, stock=10, restock=True) == Imported(created=0, updated=1, unchanged=1)
    assert products.rows[goods[0].sku]["stock"] == 10


def test_a_batch_that_fails_says_what_is_in(shop: Shop, products: Products) -> None:
    products.fail_from_batch = 1
    goods = articles(importer.BATCH + 1)
    with pytest.raises(
        UserError, match=r"503: the database is locked .*first 1000 of 1001"
    ) as told:
        send(shop, goods)
    assert "\n" not in str(told.value)
    assert len(products.rows) == importer.BATCH


def test_a_wrong_token_is_told(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "admin-token").write_text("other")
    with pytest.raises(UserError, match="answered 401: wrong token"):
        send(shop, articles(1))
    (tmp_path / "admin-token").unlink()
    with pytest.raises(UserError, match=r"admin-token is missing; `provectl up` makes it"):
        send(shop, articles(1))


@pytest.mark.parametrize("answer", [b"<html>", b'{"items": 1}', b"[]", b"null"])
def test_another_program_at_the_port_is_told(tmp_path: Path, answer: bytes) -> None:
    other = httpx.MockTransport(lambda _: httpx.Response(200, content=answer))
    with pytest.raises(UserError, match="is not the product service"):
        Shop(StackSettings(home=tmp_path), other).check()


def test_rejected_lines_are_listed_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "sales.csv"
    bad = ['C1,A1,"MUG, BLUE",-1,01/12/2010 08:26,2.55,1,UK', "1,A1,,1,01/12/2010 08:26,2.55,1,UK"]
    file.write_text("\n".join((HEADER, bad[0], "1,A1,MUG,1,01/12/2010 08:26,2.55,1,UK", bad[1])))
    with SalesFile(file) as sales:
        reading = importer.read(sales, tmp_path / "reports", lambda _: None)
    assert (reading.lines, reading.accepted, len(reading.articles)) == (3, 1, 1)
    assert reading.rejected_file is not None
    with reading.rejected_file.open(newline="") as listed:
        rows = list(csv.reader(listed))
    assert rows == [
        ["line_number", "reason", "line"],
        ["2", "cancellation", bad[0]],
        ["4", "missing name", bad[1]],
    ]


def test_no_list_is_made_when_nothing_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "sales.csv"
    file.write_text(f"{HEADER}\n1,A1,MUG,1,01/12/2010 08:26,2.55,1,UK\n")
    with SalesFile(file) as sales:
        reading = importer.read(sales, tmp_path / "reports", lambda _: None)
    assert reading.rejected_file is None
    assert not (tmp_path / "reports").exists()


def test_a_list_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    file = tmp_path / "sales.csv"
    file.write_text(f"{HEADER}\nC1,A1,MUG,1,01/12/2010 08:26,2.55,1,UK\n")
    (tmp_path / "reports").write_text("a file where a directory should be")
    with (
        SalesFile(file) as sales,
        pytest.raises(UserError, match=r"import-rejected-.*\.csv cannot be written"),
    ):
        importer.read(sales, tmp_path / "reports", lambda _: None)


@pytest.fixture
def no_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home without a stack, and a port nobody listens on."""
    monkeypatch.setenv("PROVE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PROVE_PRODUCT_PORT", "1")


@pytest.mark.usefixtures("no_stack")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "import"], "the product service does not answer at http://127.0.0.1:1;"),
        (["data", "import", "/nowhere.csv"], "/nowhere.csv does not exist"),
        (["load", "--duration", "1s"], "the product service does not answer"),
        (["load", "--duration", "soon"], "--duration wants a duration such as"),
        (["load", "--rate", "0"], "--rate must be more than 0"),
        (["load", "--decline", "101%"], "--decline wants a percentage"),
        (["load", "--replay", "/nowhere.csv"], "/nowhere.csv does not exist"),
        (["buy"], "the product service does not answer"),
        (["buy", "--timeout", "5"], "--timeout wants a duration such as"),
    ],
)
def test_errors_are_one_sentence(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["provectl", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("provectl: ")
    assert message in err
    assert err.count("\n") == 1
