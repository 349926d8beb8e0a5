"""The real catalogue in the real shop."""

import json

import httpx
from service_kit.testing import PATIENT_S

from tests.support.december import december
from tests.support.stack import Stack

# The shop's catalogue is changed here: one after the other.


def test_real_goods_are_imported_once(stack: Stack) -> None:
    file = str(december())
    first = stack.run("data", "import", file, "--json")
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert (report["lines"], report["accepted"], report["products"]) == (39_529, 38_512, 2_692)
    assert sum(report["rejected"].values()) == 39_529 - 38_512
    assert report["created"] + report["updated"] + report["unchanged"] == 2_692
    with open(report["rejected_file"]) as listed:
        assert sum(1 for _ in listed) == 1 + 39_529 - 38_512

    again = json.loads(stack.run("data", "import", file, "--json").stdout)
    assert (again["created"], again["updated"], again["unchanged"]) == (0, 0, 2_692)

    product = httpx.get(f"{stack.url('product')}/api/v1/products/85123A", timeout=PATIENT_S).json()
    assert product["name"] == "WHITE HANGING HEART T-LIGHT HOLDER"
    assert (product["price_minor"], product["currency"]) == (295, "GBP")
    assert product["category"] == "lighting"


def test_the_sample_needs_no_file(stack: Stack) -> None:
    answer = stack.run("data", "import", "--stock", "100000", "--restock")
    assert answer.returncode == 0, answer.stderr
    assert "41 products" in answer.stdout
    assert "rejected: cancellation" in answer.stdout
    assert all(len(line) <= 100 for line in answer.stdout.splitlines() if "/" not in line)


def test_a_wrong_token_imports_nothing(stack: Stack) -> None:
    other = stack.home / "data"
    answer = stack.run("data", "import", env={"PROVE_HOME": str(other)})
    assert answer.returncode == 2
    assert "admin-token is missing;" in answer.stderr
    assert answer.stderr.count("\n") == 1
