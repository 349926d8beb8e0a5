"""The proof itself: real services, real kills, both databases; and every planted bug is caught.

`provectl verify` as it is called, on shops of its own: parallel to everything else.
"""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import psutil
import pytest
from service_kit.testing import wait_until

from prove.errors import UserError
from prove.stack import toxiproxy
from prove.verify import books, nemesis, plan
from prove.verify.books import Books, Sources
from prove.verify.experiment import Experiment, Silent
from prove.verify.mutants import MUTANTS
from prove.verify.shop import Setup
from tests.support.verify import TIMEOUT_S, enterable, left, needs_postgres, verdict, verify

pytestmark = pytest.mark.timeout(TIMEOUT_S)


@pytest.fixture
def home() -> Iterator[Path]:
    with enterable() as directory:
        yield directory


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_no_order_is_lost_or_charged_twice(database: str, home: Path) -> None:
    _needs(database)

    document = verdict(
        home,
        *("orders", "--orders", "2000", "--kills", "30", "--partitions"),
        *("--seed", "4", "--database", database),
    )

    assert document["verdict"] == "holds", json.dumps(document["violations"], indent=1)
    figures = document["figures"]
    assert sum(figures["purchases"].values()) == 2000
    assert "open" not in figures["purchases"]
    assert figures["purchases"]["confirmed"] > 1000
    assert sum(figures["kills"].values()) == 30
    assert figures["crash_points"]
    assert figures["cuts"]
    assert figures["stuck"] == 0
    assert not left(home)
    assert not list((home / "verify").iterdir()), "a run that holds leaves nothing behind"


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_bug_is_caught(mutant: str, home: Path) -> None:
    _caught(mutant, "sqlite", home)


@pytest.mark.parametrize("mutant", ["lost-update", "double-recovery", "stale-read"])
def test_a_planted_bug_is_caught_on_postgresql(mutant: str, home: Path) -> None:
    """Those that hang on how the database keeps writers apart."""
    _needs("postgres")
    _caught(mutant, "postgres", home)


def _caught(mutant: str, database: str, home: Path) -> None:
    arguments = (mutant, "--database", database, "--report", str(home / "evidence"))
    document = verdict(home, "mutants", *arguments)

    assert document["figures"]["caught_by"][mutant], document["stderr"]
    assert document["verdict"] == "holds"
    page = home / "evidence" / f"verify-mutants-{database}.md"
    assert document["report"] == str(page)
    assert f"| {mutant} |" in page.read_text()


def test_a_run_that_does_not_hold_keeps_its_history_and_tells_its_story(home: Path) -> None:
    arguments = ("--orders", "60", "--kills", "0", "--mutant", "lost-refund", "--seed", "3")
    with verify(home, "orders", *arguments) as run:
        out, err = run.communicate(timeout=TIMEOUT_S)

    assert run.returncode == 1, out + err
    assert "does not hold" in out
    assert "unrefunded-charge" in out
    (kept,) = (home / "verify").iterdir()
    assert str(kept) in err.replace("\n", "")
    assert (kept / "history-001.jsonl").stat().st_size
    assert not left(home)


def test_an_interrupted_run_leaves_nothing_behind_and_can_go_on(home: Path) -> None:
    arguments = ("orders", "--orders", "30", "--kills", "0", "--resume", str(home / "full"))
    with verify(home, *arguments, "--rate", "5") as run:
        history = home / "full" / "history-001.jsonl"
        wait_until(lambda: history.exists() and history.stat().st_size, what="a first purchase")
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=TIMEOUT_S)
    assert run.returncode == 130, out + err
    assert not left(home)

    with verify(home, *arguments) as run:
        out, err = run.communicate(timeout=TIMEOUT_S)
    assert (run.returncode, "other options" in err) == (2, True), out + err

    document = verdict(home, *arguments, "--rate", "5")
    assert document["verdict"] == "holds", document["stderr"]
    assert sum(document["figures"]["purchases"].values()) == 30


class Interrupted(Silent):
    """Is stopped by its user in the second round."""

    def __init__(self) -> None:
        self.heals = 0

    def phase(self, text: str) -> None:
        self.heals += text == "healing"
        if self.heals == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_run_of_rounds_goes_on_after_the_last_that_was_finished(
    database: Literal["sqlite", "postgres"], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _needs(database)
    running: list[psutil.Process] = []

    def read(of: Sources) -> Books:
        running.extend(process for process in left(home) if process.name() != "postgres")
        return books_of(of)

    books_of = books.read
    monkeypatch.setattr(books, "read", read)
    planned = plan.make(45, 3, 2, rate_per_s=10)
    setup = Setup(home / "full", database)

    with pytest.raises(KeyboardInterrupt):
        Experiment(planned, setup, Interrupted(), round_orders=15).run()
    result = Experiment(planned, setup, Silent(), round_orders=15).run()

    assert result.holds, result.story
    assert (result.figures.rounds, result.figures.sent, result.figures.killed) == (3, 45, 3)
    assert not running, "books are read when nobody writes them"


class Frozen(Silent):
    """Its Toxiproxy stops answering as soon as something is bought."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.frozen: list[psutil.Process] = []

    def count(self, sent: int, kills: int, open_: int) -> None:
        if sent and not self.frozen:
            self.frozen = [each for each in left(self.home) if "toxiproxy" in each.name()]
            for each in self.frozen:
                each.suspend()


def test_a_toxiproxy_that_hangs_does_not_hold_the_run_up(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nemesis, "MEND_TIMEOUT_S", 1.0)
    monkeypatch.setattr(toxiproxy, "PROXY_TIMEOUT_S", 1.0)
    planned = plan.make(30, 0, 4, partitions=True, rate_per_s=10)
    frozen = Frozen(home)

    result = Experiment(planned, Setup(home / "full", partitions=True), frozen).run()

    assert frozen.frozen
    assert result.figures.missed
    assert result.holds, result.story


def test_a_directory_with_something_else_is_left_alone(home: Path) -> None:
    (home / "data").mkdir()
    (home / "data" / "order.db").touch()

    with pytest.raises(UserError, match="another directory"):
        Experiment(plan.make(1, 0, 1), Setup(home), Silent(), round_orders=1).run()

    assert (home / "data" / "order.db").exists()


def _needs(database: str) -> None:
    if database == "postgres":
        needs_postgres()
