"""The injector's contract, journal, leases and inbox, with effects that only take note."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from service_kit.problem import Problem

from prove.injector import journal, pages, recovery
from prove.injector.effects import Effects, FailedError
from prove.injector.faults import TYPES, Fault, Lease, fault_adapter
from prove.injector.journal import Entry, Journal
from prove.injector.leases import Leases
from prove.injector.pages import Inbox
from prove.stack import drill, state
from prove.stack.settings import StackSettings

GOOD: tuple[dict[str, Any], ...] = (
    {"type": "kill", "params": {"process": "product"}},
    {"type": "pause", "params": {"process": "payment"}},
    {"type": "down", "params": {"process": "collector"}},
    {"type": "link", "params": {"link": "order-product", "kind": "latency", "latency_ms": 300}},
    {"type": "link", "params": {"link": "order-payment", "kind": "reset"}},
    {"type": "link", "params": {"link": "payment-acquirer", "kind": "black-hole"}},
    {"type": "link", "params": {"link": "payment-acquirer", "kind": "half-open"}},
    {"type": "link", "params": {"link": "order-product", "kind": "bandwidth", "kib_per_s": 10}},
    {"type": "disk-full", "params": {"process": "order"}},
    {"type": "database-stop"},
    {"type": "certificate", "params": {"identity": "payment", "expires_in_s": 60}},
    {"type": "load", "params": {"kind": "checkouts", "per_s": 50, "retries": 3, "burst_s": 5}},
)


def a_fault(**fields: Any) -> Fault:
    return fault_adapter.validate_json(json.dumps({"ttl_s": 60, **fields}))


def test_every_type_and_kind_is_taken() -> None:
    assert {a_fault(**each).type for each in GOOD} == set(TYPES)


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ({"type": "earthquake", "params": {}}, ()),
        ({"type": "pause", "params": {}}, ("pause", "params", "process")),
        ({"type": "pause", "params": {"process": "../x"}}, ("pause", "params", "process")),
        ({**GOOD[0], "ttl_s": 0}, ("kill", "ttl_s")),
        ({**GOOD[0], "ttl_s": 901}, ("kill", "ttl_s")),
        ({**GOOD[0], "ttl_s": "60"}, ("kill", "ttl_s")),
        ({**GOOD[0], "match": {"route": "/"}}, ("kill", "match")),
        (
            {"type": "link", "params": {"link": "order-moon", "kind": "reset"}},
            ("link", "params", "reset", "link"),
        ),
        (
            {"type": "link", "params": {"link": "order-product", "kind": "latency"}},
            ("link", "params", "latency", "latency_ms"),
        ),
        (
            {"type": "load", "params": {"kind": "reads", "per_s": 1e9}},
            ("load", "params", "per_s"),
        ),
    ],
)
def test_what_is_wrong_is_named(fault: dict[str, Any], where: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        a_fault(**fault)
    assert caught.value.errors()[0]["loc"] == where


class Noted(Effects):
    """Takes note of what it is to do; `fails` counts how often it can't take a fault back."""

    def __init__(self, settings: StackSettings) -> None:
        super().__init__(settings)
        self.did: list[str] = []
        self.fails = 0
        self.begins = True

    def note(self, fault: Fault) -> dict[str, Any]:
        return {"of": fault.type}

    async def begin(self, entry: Entry) -> None:
        self.did.append(f"begin {entry.lease.name}")
        if not self.begins:
            raise FailedError("no such luck")

    async def end(self, entry: Entry) -> None:
        self.did.append(f"end {entry.lease.name}")
        if self.fails:
            self.fails -= 1
            raise FailedError("not yet")

    async def keep(self, fault: Fault) -> None:
        pass


@pytest.fixture
def settings(tmp_path: Path) -> StackSettings:
    made = StackSettings.model_validate({"home": tmp_path, "profile": "drill"})
    made.data_dir.mkdir()
    made.run_dir.mkdir()
    processes: dict[str, Any] = {
        name: {"name": name, "group": "shop", "ports": [], "ready_url": "", "log": "log"}
        for name in ("product", "order", "payment", "injector", "toxiproxy")
    }
    document = {
        "version": "1",
        "home": str(tmp_path),
        "supervisor": {"pid": 1, "create_time": 0},
        "started_at": 0,
        "ports": {},
        "processes": processes,
    }
    state.save(state.StackState.model_validate(document))
    return made


class Clock:
    """In milliseconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def with_leases(
    settings: StackSettings, use: Callable[[Leases, Noted, Clock], Awaitable[None]]
) -> None:
    async def run() -> None:
        effects, clock = Noted(settings), Clock()
        leases = Leases(settings, effects, clock)
        await leases.recover()
        running = asyncio.create_task(leases.run())
        try:
            await asyncio.wait_for(use(leases, effects, clock), 120)
        finally:
            running.cancel()
            await leases.close()

    asyncio.run(run())


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - it polls
        await asyncio.sleep(0.01)


def test_a_lease_is_journalled_before_it_begins_and_ends_by_the_clock(
    settings: StackSettings,
) -> None:
    async def use(leases: Leases, effects: Noted, clock: Clock) -> None:
        lease = await leases.put("a", a_fault(**GOOD[1]))
        assert [each.as_dict() for each in leases.items()] == [lease.as_dict()]
        (entry,) = journal.in_force(journal.path(settings.home))
        assert entry == Entry(lease, {"of": "pause"})
        clock.now += 59_999
        await asyncio.sleep(0.5)
        assert effects.did == ["begin a"]
        clock.now += 1
        await until(lambda: not leases.items())
        assert effects.did == ["begin a", "end a"]

    with_leases(settings, use)
    assert not journal.in_force(journal.path(settings.home))


def test_what_cannot_be_taken_back_stays_in_the_list_until_it_is(settings: StackSettings) -> None:
    async def use(leases: Leases, effects: Noted, clock: Clock) -> None:
        await leases.put("a", a_fault(**GOOD[1]))
        effects.fails = 2
        with pytest.raises(Problem, match="not yet"):
            await leases.delete("a")
        assert [each.name for each in leases.items()] == ["a"]
        clock.now += 60_000
        await until(lambda: not leases.items())
        assert effects.did == ["begin a", "end a", "end a", "end a"]
        await leases.delete("a")

    with_leases(settings, use)


def test_what_does_not_come_about_leaves_nothing(settings: StackSettings) -> None:
    async def use(leases: Leases, effects: Noted, _: Clock) -> None:
        effects.begins = False
        with pytest.raises(Problem, match="no such luck") as caught:
            await leases.put("a", a_fault(**GOOD[1]))
        assert caught.value.status == 503
        assert not leases.items()
        assert effects.did == ["begin a", "end a"]

    with_leases(settings, use)
    assert not journal.in_force(journal.path(settings.home))


def test_one_lease_at_a_time_has_a_process_and_may_be_replaced(settings: StackSettings) -> None:
    async def use(leases: Leases, effects: Noted, _: Clock) -> None:
        await leases.put("a", a_fault(type="pause", params={"process": "order"}))
        with pytest.raises(Problem, match="The lease a has the process order") as caught:
            await leases.put("b", a_fault(type="down", params={"process": "order"}))
        assert caught.value.status == 409
        await leases.put("a", a_fault(type="down", params={"process": "order"}))
        await leases.put("b", a_fault(type="pause", params={"process": "product"}))
        assert effects.did == ["begin a", "end a", "begin a", "begin b"]
        assert [each.fault.type for each in leases.items()] == ["down", "pause"]

    with_leases(settings, use)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"type": "kill", "params": {"process": "injector"}}, "injector is what faults are made"),
        ({"type": "down", "params": {"process": "prod"}}, "there is no prod; there are product, o"),
        ({"type": "link", "params": {"link": "order-database", "kind": "reset"}}, "PostgreSQL"),
        ({"type": "database-stop"}, "PROVE_DATABASE=postgres"),
        ({"type": "certificate", "params": GOOD[-2]["params"]}, "provectl up --drill --mesh"),
        ({"type": "disk-full", "params": {"process": "order"}}, "PROVE_DISK_MB=64"),
        ({"type": "disk-full", "params": {"process": "toxiproxy"}}, "what faults are made with"),
    ],
)
def test_what_this_stack_cannot_have_is_refused_and_nothing_is_done(
    settings: StackSettings, fault: dict[str, Any], says: str
) -> None:
    async def use(leases: Leases, effects: Noted, _: Clock) -> None:
        with pytest.raises(Problem, match=says) as caught:
            await leases.put("a", a_fault(**fault))
        assert caught.value.status == 422
        assert caught.value.extras["errors"]
        assert not effects.did

    with_leases(settings, use)
    assert not journal.path(settings.home).exists()


def test_a_new_injector_takes_back_what_the_one_before_left(settings: StackSettings) -> None:
    async def left() -> None:
        leases = Leases(settings, Noted(settings))
        await leases.recover()
        await leases.put("a", a_fault(**GOOD[1]))
        await leases.put("b", a_fault(**GOOD[3]))

    asyncio.run(left())
    with journal.path(settings.home).open("ab") as torn:
        torn.write(b'{"did": "begin", "na')

    async def after() -> Noted:
        effects = Noted(settings)
        effects.fails = 1
        leases = Leases(settings, effects)
        with pytest.raises(Problem, match="being taken back"):
            await leases.put("c", a_fault(**GOOD[0]))
        await leases.recover()
        assert leases.recovered
        await leases.put("c", a_fault(**GOOD[0]))
        return effects

    effects = asyncio.run(after())
    assert sorted(effects.did) == ["begin c", "end a", "end a", "end b"]
    assert [each.lease.name for each in journal.in_force(journal.path(settings.home))] == ["c"]


def test_a_lost_injectors_holds_and_fillers_are_cleaned_up(settings: StackSettings) -> None:
    disk = settings.home / "disk"
    disk.mkdir()
    filler = disk / recovery.FILLER
    filler.touch()
    held = state.hold_file(settings.home, "product")
    held.parent.mkdir()
    held.touch()
    book = Journal(journal.path(settings.home))
    for name, fault, noted in (
        ("a", GOOD[2] | {"params": {"process": "product"}}, {}),
        ("b", GOOD[8], {recovery.DISK: str(disk)}),
    ):
        document = {
            "name": name,
            "fault": {"ttl_s": 9, **fault},
            "created_at_unix_ms": 1,
            "expires_at_unix_ms": 2,
        }
        book.begin(Entry(Lease.model_validate_json(json.dumps(document)), noted))

    assert recovery.clean_up(settings.home) == ["a", "b"]
    assert not held.exists()
    assert not filler.exists()
    assert recovery.clean_up(settings.home) == []


def test_links_of_a_drill(settings: StackSettings) -> None:
    assert set(drill.routes(settings)) == {"order-product", "order-payment", "payment-acquirer"}
    assert drill.peer_url(settings, "order", "payment") == "http://127.0.0.1:8012"
    assert drill.database_url(settings, "order") == "sqlite:///data/order.db"

    standard = settings.model_copy(update={"profile": "standard"})
    assert drill.routes(standard) == {}
    assert drill.peer_url(standard, "order", "payment") == "http://127.0.0.1:8003"

    given = {"order_database_url": "postgresql://me:secret@db.example/orders?sslmode=require"}
    elsewhere = settings.model_copy(update=given)
    assert drill.routes(elsewhere)["order-database"] == (8015, "db.example:5432")
    assert drill.database_url(elsewhere, "order") == (
        "postgresql://me:secret@127.0.0.1:8015/orders?sslmode=require"
    )

    own = settings.model_copy(update={"database": "postgres"})
    assert len(drill.routes(own)) == 6
    assert drill.database_url(own, "payment") == "postgresql://prove@127.0.0.1:8016/payment"
    assert drill.database_url(own, "acquirer") == "sqlite:///data/acquirer.db"


def test_a_disk_is_where_the_database_is(settings: StackSettings) -> None:
    small = settings.model_copy(update={"disk_mb": 8})
    assert drill.database_url(small, "order") == "sqlite:///data/disk/order/order.db"
    assert drill.disk(small, "order") == settings.data_dir / "disk" / "order"
    assert drill.disk(small, "acquirer") is None
    assert drill.disk(small.model_copy(update={"database": "postgres"}), "order") is None


def message(*alerts: tuple[str, str]) -> bytes:
    made = [
        {
            "status": status,
            "labels": {"alertname": name},
            "annotations": {"summary": "It hurts."},
            "startsAt": "2026-01-02T03:04:05Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "fingerprint": name,
        }
        for name, status in alerts
    ]
    return json.dumps({"version": "4", "receiver": "on-call", "alerts": made}).encode()


def test_the_inbox_keeps_each_news_once_and_over_its_own_end(tmp_path: Path) -> None:
    file = tmp_path / "pages.jsonl"
    inbox = Inbox(file)
    first = inbox.take(message(("Slow", "firing"), ("Slow", "firing")))
    inbox.take(message(("Slow", "firing"), ("Down", "firing")))
    with file.open("ab") as torn:
        torn.write(b'{"status": "fir')
    again = Inbox(file)
    assert again.since(0) == inbox.since(0)
    again.take(message(("Slow", "resolved"), ("Down", "firing")))
    told = [(page.labels["alertname"], page.status) for page in again.since(0)]
    assert told == [("Slow", "firing"), ("Down", "firing"), ("Slow", "resolved")]
    assert again.since(first[0].received_at_unix_us + 1) == again.since(0)[1:]
    assert [page.status for page in pages.read(file)] == [page.status for page in again.since(0)]
    with pytest.raises(ValidationError):
        again.take(b"{}")
