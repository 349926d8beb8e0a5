"""The repository, on SQLite and on a real PostgreSQL."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from payment_service.model import Charge, Payment, Status
from payment_service.repository import Repository, unix_ms
from service_kit import testing
from service_kit.database import Database, migrate
from sqlalchemy import make_url, text


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("database") / "payment.db"
        yield from open_database(f"sqlite:///{path}")
    else:
        with testing.postgres() as url:
            yield from open_database(url.replace("postgresql:", "postgresql+psycopg:"))


def open_database(url: str) -> Iterator[Database]:
    database = Database(make_url(url))
    migrate(database, "payment_service")
    yield database
    database.close()


@pytest.fixture
def repository(database: Database) -> Repository:
    with database.write() as connection:
        connection.execute(text("DELETE FROM payments"))
    return Repository(database)


def charge(key: str = "k", amount: int = 10) -> Charge:
    return Charge(key, "o1", amount, "GBP", "tok_approve")


def open_one(repository: Repository, key: str = "k", lease_ms: int | None = None) -> Payment:
    until = unix_ms() + 60_000 if lease_ms is None else lease_ms
    return repository.open(charge(key), until, "00-trace")[0]


def test_what_is_written_is_what_is_read(repository: Repository) -> None:
    opened, new = repository.open(charge(), unix_ms() + 60_000, "00-trace")
    assert new
    assert repository.get(opened.id) == opened
    assert repository.open(charge(), 0, None) == (opened, False)
    assert repository.by_order("o1", 10) == [opened]
    assert repository.get("other") is None


def test_concurrent_opens_make_one_row(repository: Repository) -> None:
    barrier = threading.Barrier(8)

    def race(_: int) -> tuple[Payment, bool]:
        barrier.wait()
        return repository.open(charge("raced"), unix_ms() + 60_000, None)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(race, range(8)))
    assert sum(new for _, new in results) == 1
    assert len({payment for payment, _ in results}) == 1


def test_only_one_outcome_is_written(repository: Repository) -> None:
    payment = open_one(repository)
    settled = repository.settle(payment, Status.CAPTURED, 0, reference="ch_1")
    assert settled is not None
    assert (settled.status, settled.acquirer_reference) == ("captured", "ch_1")
    assert settled.lease_until_ms is None
    assert repository.settle(payment, Status.DECLINED, 0, reason="late") is None
    assert repository.get(payment.id) == settled


def test_a_refund_begins_once_and_keeps_what_was_charged(repository: Repository) -> None:
    payment = open_one(repository)
    assert repository.begin_refund(payment.id, 0, None) is None, "nothing captured yet"
    captured = repository.settle(payment, Status.CAPTURED, 0, reference="ch_1")
    refunding = repository.begin_refund(payment.id, unix_ms() + 60_000, None)
    assert refunding is not None
    assert refunding.status == "refund_pending"
    assert repository.begin_refund(payment.id, 0, None) is None
    refunded = repository.settle(refunding, Status.REFUNDED, 0)
    assert refunded is not None
    assert (refunded.status, refunded.acquirer_reference) == ("refunded", "ch_1")
    assert captured is not None
    assert refunded.as_charged() == Payment(
        **{
            **{name: getattr(captured, name) for name in Payment.__slots__},
            "traceparent": refunded.traceparent,
        }
    )


def test_only_expired_leases_are_claimed_each_once(repository: Repository) -> None:
    due = {open_one(repository, f"due{n}", lease_ms=unix_ms() - 1).id for n in range(30)}
    held = open_one(repository, "held")
    settled = open_one(repository, "settled", lease_ms=unix_ms() - 1)
    repository.settle(settled, Status.CAPTURED, 0)
    with ThreadPoolExecutor(6) as pool:
        until = unix_ms() + 60_000
        claims = list(pool.map(lambda _: repository.claim(until, 7), range(12)))
    claimed = [payment for claim in claims for payment in claim]
    # A race may leave some for the next poll, never give one away twice.
    claimed += repository.claim(unix_ms() + 60_000, 100)
    assert sorted(payment.id for payment in claimed) == sorted(due)
    assert {payment.attempts for payment in claimed} == {2}
    assert repository.get(held.id) == held


def test_a_postponed_payment_is_due_then(repository: Repository) -> None:
    payment = open_one(repository)
    repository.postpone(payment, unix_ms() - 1)
    assert [due.id for due in repository.claim(unix_ms() + 60_000, 10)] == [payment.id]
    settled = repository.settle(payment, Status.CAPTURED, 0)
    assert settled is not None
    repository.postpone(payment, unix_ms() - 1)
    assert repository.get(payment.id) == settled, "what is settled is not taken up again"


def test_the_schema_refuses_a_bad_amount(database: Database, repository: Repository) -> None:
    with pytest.raises(Exception, match="payments_amount"):
        repository.open(charge(amount=0), 0, None)


def test_migrating_down_and_up_again(tmp_path: Path) -> None:
    database = Database(make_url(f"sqlite:///{tmp_path}/m.db"))
    migrate(database, "payment_service")
    migrate(database, "payment_service")
    with database.read() as connection:
        tables = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'"))
        assert "payments" in set(tables.scalars())
    database.close()
