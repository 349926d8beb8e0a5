"""Faults that hit a process as a whole: they last as long as their lease, and put back all."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from service_kit import burden, faults
from service_kit.burden import Burdens
from service_kit.database import Database
from service_kit.faultmodel import Lease, any_fault
from service_kit.faults import LeaseStore
from service_kit.testing import PATIENT_S, postgres, wait_until
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(make_url(f"sqlite:///{tmp_path / 'x.db'}"), pool_size=2)
    with database.write() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER)"))
    yield database
    database.close()


@pytest.fixture
def leases(tmp_path: Path, database: Database) -> Iterator[LeaseStore]:
    """Leases that a thread follows."""
    store = LeaseStore(tmp_path / "faults.json")
    following = Burdens(store, database)
    following.start()
    yield store
    following.stop()
    following.join(PATIENT_S)
    assert not following.is_alive()


def put(store: LeaseStore, kind: str, ttl_s: int = 900, **params: Any) -> Lease:
    fault = {"type": kind, "params": params, "ttl_s": ttl_s}
    return store.put("x", any_fault.validate_python(fault))


@pytest.mark.parametrize("end", ["revoked", "file removed", "over"])
def test_a_pool_is_emptied_and_filled_again(
    leases: LeaseStore, database: Database, tmp_path: Path, end: str
) -> None:
    # Long enough to be seen in force on a busy machine: who follows looks once a second.
    put(leases, "pool", ttl_s=10 if end == "over" else 900, all=True)
    wait_until(lambda: not database.has_free)
    if end == "revoked":
        leases.delete("x")
    elif end == "file removed":
        (tmp_path / "faults.json").unlink()
    wait_until(lambda: database.has_free)
    wait_until(lambda: database.engine.pool.checkedout() == 0)  # type: ignore[attr-defined]
    database.ping()


def test_some_connections_are_taken(leases: LeaseStore, database: Database) -> None:
    pool: Any = database.engine.pool
    put(leases, "pool", connections=3)
    wait_until(lambda: pool.checkedout() == 3)
    database.ping()
    put(leases, "pool", connections=1)  # set anew
    wait_until(lambda: pool.checkedout() == 1)


def test_taking_connections_waits_for_those_in_use_and_not_for_ever(database: Database) -> None:
    over = threading.Event()
    with database.read():
        thread = threading.Thread(target=burden.occupy, args=(database, 100, over))
        thread.start()
        wait_until(lambda: not database.has_free)
        over.set()
        thread.join(PATIENT_S)
        assert not thread.is_alive()
    database.ping()


def hold(database: Database, over: threading.Event) -> threading.Thread:
    thread = threading.Thread(target=burden.lock, args=(database, 30_000, 30_000, over))
    thread.start()
    return thread


def test_a_lock_keeps_writers_out_and_readers_not(database: Database) -> None:
    over = threading.Event()
    thread = hold(database, over)

    def locked() -> bool:
        try:
            with database.read() as connection:
                connection.exec_driver_sql("PRAGMA busy_timeout = 0")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                connection.exec_driver_sql("ROLLBACK")
        except OperationalError:
            return True
        return False

    wait_until(locked)
    database.ping()
    over.set()
    thread.join(PATIENT_S)
    assert not thread.is_alive()
    with database.write() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))


def test_a_lock_in_postgresql() -> None:
    with postgres() as url:
        database = Database(make_url(url).set(drivername="postgresql+psycopg"))
        with database.write() as connection:
            connection.execute(text("CREATE TABLE t (n INTEGER)"))
        over = threading.Event()
        thread = hold(database, over)

        def locked() -> bool:
            try:
                with database.write() as connection:
                    connection.execute(text("SET LOCAL lock_timeout = '10ms'"))
                    connection.execute(text("INSERT INTO t VALUES (1)"))
            except OperationalError:
                return True
            return False

        wait_until(locked)
        with database.read() as connection:
            connection.execute(text("SELECT count(*) FROM t"))
        over.set()
        thread.join(PATIENT_S)
        assert not thread.is_alive()
        assert not locked()
        database.close()


def test_memory_grows_to_its_cap_and_is_given_back() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    over = threading.Event()
    thread = threading.Thread(target=burden.leak, args=(500, 100, over))
    thread.start()
    wait_until(lambda: process.memory_info().rss - before > 90 * 2**20)
    over.set()
    thread.join(PATIENT_S)
    wait_until(lambda: process.memory_info().rss - before < 50 * 2**20)


def test_cpu_is_burnt_until_the_end(leases: LeaseStore) -> None:
    before = time.process_time()
    put(leases, "cpu", share=0.5)
    wait_until(lambda: time.process_time() - before > 0.3)
    leases.delete("x")
    wait_until(lambda: not any(t.name == "fault-x" for t in threading.enumerate()))


def test_a_process_of_an_age_crashes(leases: LeaseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    crashed: list[Lease] = []
    monkeypatch.setattr(faults, "crash", crashed.append)
    lease = put(leases, "crash-loop", after_s=1)
    wait_until(lambda: crashed)
    assert crashed[0].as_dict() == lease.as_dict()


def test_what_cannot_be_done_is_tried_again(tmp_path: Path) -> None:
    nowhere = Database(make_url(f"sqlite:///{tmp_path}/missing/x.db"))
    store = LeaseStore(tmp_path / "faults.json")
    following = Burdens(store, nowhere)
    lease = put(store, "pool", connections=1)
    following.follow([lease])
    assert following._burdens["x"].thread.is_alive()
    following.follow([])
    assert following._burdens == {}


def test_a_pool_without_a_free_connection_says_so(database: Database) -> None:
    database.engine.pool._timeout = 0.05  # type: ignore[attr-defined]
    over = threading.Event()
    thread = threading.Thread(target=burden.occupy, args=(database, 100, over))
    thread.start()
    wait_until(lambda: not database.has_free)
    with pytest.raises(PoolTimeoutError):
        database.ping()
    over.set()
    thread.join(PATIENT_S)
