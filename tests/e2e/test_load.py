"""Load on the real shop by the real k6."""

import json
import signal
from typing import Any

import psutil
import pytest

from prove.tools import repository_root
from tests.support.december import december
from tests.support.stack import RUN_TIMEOUT_S, Stack

SAMPLE = str(repository_root() / "load" / "sample" / "corner-shop.csv")
TRIES = 5


@pytest.fixture(scope="module")
def goods(stack: Stack) -> Stack:
    """The shop with the sample in stock."""
    answer = stack.run("data", "import", "--stock", "100000", "--restock")
    assert answer.returncode == 0, answer.stderr
    return stack


def load(goods: Stack, *arguments: str) -> tuple[dict[str, Any], int]:
    """What is reported, and the exit code.

    A busy shop may refuse requests, or answer them too late: it has a few tries to fail none.
    """
    for _ in range(TRIES):
        answer = goods.run("load", *arguments, "--json")
        assert answer.stdout, answer.stderr
        report: dict[str, Any] = json.loads(answer.stdout)
        if not report["failures"]:
            break
    assert report["failures"] == 0, report
    return report, answer.returncode


@pytest.mark.parametrize("mix", ["checkout", "browse", "mixed"])
def test_a_constant_rate(goods: Stack, mix: str) -> None:
    report, code = load(
        goods, *("--rate", "10/s", "--duration", "3s", "--mix", mix, "--decline", "50%")
    )
    assert report["requests"] + report["dropped"] >= 30
    assert report["holds"] == (report["dropped"] == 0)
    assert code == (0 if report["holds"] else 1)
    assert ("checkout" in report["operations"]) == (mix != "browse")
    if mix == "checkout":
        assert report["outcomes"]["confirmed"] > 0
        assert report["outcomes"]["declined"] > 0


def test_the_sample_replayed(goods: Stack) -> None:
    report, _ = load(goods, "--replay", SAMPLE, "--speed", "10000")
    assert report["requests"] == 61
    assert set(report["operations"]) == {"checkout"}


def test_december_replayed(goods: Stack) -> None:
    file = str(december())
    imported = goods.run("data", "import", file, "--stock", "100000")
    assert imported.returncode == 0, imported.stderr
    report, _ = load(goods, "--replay", file, "--speed", "1000", "--duration", "4s")
    assert report["requests"] > 10


def test_what_is_shown(goods: Stack) -> None:
    answer = goods.run("load", "--rate", "10/s", "--duration", "2s")
    assert "P95 ms" in answer.stdout
    assert "of 10/s asked for" in answer.stdout
    assert all(len(line) <= 100 for line in answer.stdout.splitlines())


def test_ctrl_c_shows_what_was_sent_and_leaves_no_k6(goods: Stack) -> None:
    with goods.start("load", "--rate", "10/s", "--duration", "5m") as process:
        assert process.stderr is not None
        assert any("requests" in line for line in process.stderr)  # it has begun
        k6 = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == 130
    assert "P95 ms" in out
    assert k6
    assert not any(child.is_running() for child in k6)
