"""Faults of all types in a real drill, whose injector is killed; `make prove` does it 200 times."""

import signal
from pathlib import Path

import pytest
from service_kit.testing import wait_until

from tests.support.verify import TIMEOUT_S, enterable, left, needs_postgres, verdict, verify

pytestmark = pytest.mark.timeout(TIMEOUT_S)


def test_no_fault_stays(tmp_path: Path) -> None:
    document = verdict(tmp_path, "faults", "--kills", "6")

    assert document["violations"] == []
    figures = document["figures"]
    assert figures["kills"] == 6
    assert figures["left"] == 0
    assert all(case["seen"] for case in figures["cases"])
    assert not left(tmp_path)
    assert not list(tmp_path.glob("verify/*"))


def test_no_fault_of_the_database_stays() -> None:
    """The rest of it is as on SQLite."""
    needs_postgres()
    with enterable() as home:
        document = verdict(
            home, "faults", "--kills", "3", "--database", "postgres", "--only", "database"
        )
        assert not left(home)

    assert document["violations"] == []
    figures = document["figures"]
    assert (figures["kills"], figures["left"]) == (3, 0)
    told = {case["fault"]: case["seen"] for case in figures["cases"]}
    assert {"injector database-stop", "injector link order-database half-open"} <= told.keys()
    assert all(told.values())


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    with verify(tmp_path, "faults") as run:
        wait_until(
            lambda: list(tmp_path.glob("verify/*/stack/data/injector.jsonl")),
            what="the first fault",
            timeout_s=400,
        )
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=TIMEOUT_S)

    assert run.returncode == 130, out + err
    assert not left(tmp_path)
    assert not list(tmp_path.glob("verify/*"))
