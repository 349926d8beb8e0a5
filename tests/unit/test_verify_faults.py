"""What `verify faults` breaks and what it tells; the run itself is in tests/e2e."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest
from pydantic import TypeAdapter
from rich.console import Console
from service_kit import faultmodel, postgres

from prove.bench.measure import this_run
from prove.clients.faults import PLACES
from prove.injector import faults as outside
from prove.stack import disks, links
from prove.stack.settings import StackSettings
from prove.verify import faultcases, faults_report
from prove.verify.faultcases import Case, World
from prove.verify.faults import NotRecoveredError, Order, Result, Siege, Tally
from tests.support.verify import enterable, needs_postgres

OF_SERVICES: dict[str, TypeAdapter[Any]] = {
    "product": faultmodel.product_fault,
    "order": faultmodel.plain_fault,
    "payment": faultmodel.plain_fault,
}


@pytest.fixture
def settings(tmp_path: Path) -> StackSettings:
    return StackSettings.model_validate({"home": tmp_path, "profile": "drill"})


def test_every_type_there_is_gets_broken(settings: StackSettings) -> None:
    cases = faultcases.catalogue(settings)
    at = {place: {case.type for case in cases if case.place == place} for place in PLACES}
    everywhere = {"latency", "error", "hang", "crash", "drip", "crash-loop", "cpu", "memory"}
    everywhere |= {"pool", "lock"}
    assert at["order"] == at["payment"] == everywhere
    assert at["product"] == everywhere | {"wrong-data"}
    # Disks need root, a database of the stack's own another run, certificates a mesh.
    assert at["injector"] == set(outside.TYPES) - {"disk-full", "database-stop", "certificate"}
    kinds = {case.params["kind"] for case in cases if case.type == "link"}
    assert kinds == {"latency", "reset", "black-hole", "half-open", "bandwidth"}


def test_disks_are_filled_where_there_are_any(
    settings: StackSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = settings.model_copy(update={"disk_mb": 8})
    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    filled = {case.process for case in faultcases.catalogue(small) if case.type == "disk-full"}
    assert filled == set(disks.SERVICES)


def test_on_postgresql_its_links_and_the_server_are_broken_as_well(
    on_postgres: StackSettings,
) -> None:
    cases = faultcases.catalogue(on_postgres)
    assert {case.type for case in cases if case.place == "injector"} == set(outside.TYPES) - {
        "disk-full",
        "certificate",  # with --mesh
    }
    assert {case.params["link"] for case in cases if case.type == "link"} == set(links.LINKS)
    alone = {case.name.removeprefix("injector ") for case in cases if case.alone}
    assert alone == {"database-stop", "kill database", "pause database", "down database"}


@pytest.fixture
def on_postgres(settings: StackSettings) -> StackSettings:
    return settings.model_copy(update={"database": "postgres"})


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_every_case_is_one_that_its_place_takes(settings: StackSettings, database: str) -> None:
    cases = faultcases.catalogue(settings.model_copy(update={"database": database}))
    names = [faultcases.lease_name(case) for case in cases]
    assert len(set(names)) == len(names)
    for case in cases:
        outside.name_adapter.validate_python(faultcases.lease_name(case))
        text = json.dumps(case.body(3))
        if case.place == "injector":
            outside.fault_adapter.validate_json(text)
        elif case.place in OF_SERVICES:
            OF_SERVICES[case.place].validate_json(text)


def looked_at(settings: StackSettings, *cases: Case) -> Iterator[bool]:
    async def look() -> list[bool]:
        async with aiohttp.ClientSession() as http:
            return [await case.look(World(settings, http), case) for case in cases]

    yield from asyncio.run(look())


def a_case(settings: StackSettings, name: str) -> Case:
    return next(case for case in faultcases.catalogue(settings) if case.name == name)


def test_what_nobody_answers_is_broken(settings: StackSettings) -> None:
    names = (
        *("order error", "order hang", "product wrong-data", "acquirer declining"),
        *("injector link order-product half-open", "injector down order", "injector kill order"),
    )
    broken = StackSettings.model_validate(
        {
            **settings.model_dump(),
            **{f"{name}_port": 1 + i for i, name in enumerate(settings.ports)},
        }
    )
    assert all(looked_at(broken, *(a_case(broken, name) for name in names)))


def test_a_locked_database_is_seen_and_an_open_one_too(settings: StackSettings) -> None:
    settings.data_dir.mkdir()
    case = a_case(settings, "order lock")
    with closing(sqlite3.connect(settings.data_dir / "order.db")) as connection:
        assert not any(looked_at(settings, case))
        connection.execute("BEGIN IMMEDIATE")
        assert all(looked_at(settings, case))
        connection.rollback()
    assert not any(looked_at(settings, case))


def test_a_locked_table_is_seen_and_an_open_one_too(on_postgres: StackSettings) -> None:
    needs_postgres()
    case = a_case(on_postgres, "order lock")
    with enterable() as directory, postgres.server(directory / "postgres") as url:
        own = on_postgres.model_copy(update={"order_database_url": url})
        with psycopg.connect(own.order_database_url, autocommit=True) as connection:
            connection.execute("CREATE TABLE orders ()")
            assert not any(looked_at(own, case))
            with connection.transaction():
                connection.execute("LOCK TABLE orders IN EXCLUSIVE MODE")
                assert all(looked_at(own, case))
            assert not any(looked_at(own, case))
    assert all(looked_at(own, case))  # nobody can write where there is no server


def test_who_breaks_what_all_need_is_alone() -> None:
    """And is not kept waiting by others who come and go."""
    at_work: list[str] = []
    done: list[str] = []

    async def work(name: str, order: Order, *, alone: bool) -> None:
        for _ in range(3):
            async with order.turn(alone=alone):
                at_work.append(name)
                for _ in range(3):
                    await asyncio.sleep(0)
                    assert not (alone and len(at_work) > 1)
                    assert alone or "alone" not in at_work
                at_work.remove(name)
        done.append(name)

    async def all_of_them() -> None:
        order = Order()
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for name in ("a", "b", "c"):
                tasks.create_task(work(name, order, alone=False))
            tasks.create_task(work("alone", order, alone=True))

    asyncio.run(all_of_them())
    assert sorted(done) == ["a", "alone", "b", "c"]
    assert not at_work


def test_what_does_not_recover_is_a_verdict(settings: StackSettings, tmp_path: Path) -> None:
    class Stuck(Siege):
        @contextmanager
        def _stack(self) -> Iterator[StackSettings]:
            yield settings

        async def _besiege(self, _: StackSettings, result: Result) -> None:
            result.kills = 7
            raise NotRecoveredError("order hang")

    result = Stuck(tmp_path, 200, 1, faults_report.Bar()).run()
    assert result.kills == 7
    assert [(each.kind, each.subject) for each in result.violations] == [
        ("not-recovered", "order hang")
    ]
    assert faults_report.document(result, None)["verdict"] == "does not hold"


@pytest.fixture
def result() -> Result:
    return Result(
        seed=7,
        kills=200,
        early=40,
        clients=11,
        refused=3,
        cases={
            "order hang": Tally(set=12, unknown=1, seen=12, late_s=0.2),
            "injector down order": Tally(set=4, seen=4, late_s=1.25),
        },
        late_s=[0.0, 0.1, 0.2, 1.25],
        ready_s=[0.0, 0.0, 0.0, 3.5],
        seconds=660.0,
    )


def test_the_document_has_the_form_of_all_of_verify(result: Result) -> None:
    document = faults_report.document(result, None)
    assert document["verdict"] == "holds"
    assert document["violations"] == []
    figures = document["figures"]
    assert (figures["kills"], figures["faults"], figures["left"]) == (200, 17, 0)
    assert figures["late"]["max_s"] == 1.25
    assert figures["ready"]["max_s"] == 3.5
    assert figures["cases"][0] == {
        "fault": "order hang",
        "set": 12,
        "unknown": 1,
        "seen": 12,
        "late_s": 0.2,
    }


def test_what_stayed_is_told_everywhere(result: Result, tmp_path: Path) -> None:
    result.violated("stayed", "order hang", "gone 10 s after its time", "it was still to be seen")
    line = "stayed: order hang: expected gone 10 s after its time, found it was still to be seen"
    console = Console(width=120, record=True, file=(tmp_path / "shown").open("w"))
    faults_report.show(result, console)
    console.file.close()
    assert line in console.export_text()
    page = faults_report.write(tmp_path, result, this_run(), "provectl verify faults")
    assert "**Verdict: does not hold**, violations: 1." in page.read_text()
    assert f"- {line}" in page.read_text()
    assert json.loads(page.with_suffix(".json").read_text())
    assert faults_report.document(result, page)["violations"][0]["kind"] == "stayed"
