"""What a run does, in which order, and that it takes back what it did, however it ends."""

import asyncio
import gc
import json
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import pytest
from service_kit.testing import wait_until
from typer.testing import CliRunner

from prove.cli import app
from prove.incident import catalogue, evidence, record, runner
from prove.incident.catalogue import Entry
from prove.incident.record import Incident
from prove.incident.runner import Session
from prove.incident.target import Target
from tests.support.installation import SLO, Installation, serving

# Chaos Toolkit leaves its connections to the garbage collector, which warns of each.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

NAME = "order-release-errors"
OBJECTIVES = catalogue.objectives("drill")


class Watch:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.lines: list[str] = []

    def run(self, number: int, of: int, name: str) -> None:
        self.lines.append(f"{name} {number}/{of}")

    def phase(self, text: str, lasts_s: float) -> None:
        self.phases.append(text)

    def count(self, sent: int, bad: int, pages: int) -> None:
        pass

    def told(self, text: str) -> None:
        self.lines.append(text.strip())


@pytest.fixture(autouse=True)
def _connections_end() -> Iterator[None]:
    """Before the next test, which may be one that wants no warning."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {
        "BASELINE_S": 0.3,
        "STEADY_S": 20.0,
        "CHECK_S": 0.1,
        "POLL_S": 0.1,
        "LATE_S": 0.5,
        "GRACE_S": 0.0,
        "EXPORT_S": 1.5,
        "RECOVERY_S": 60.0,
    }
    for name, value in times.items():
        monkeypatch.setattr(runner, name, value)


def entry(within_s: float = 60.0) -> Entry:
    """The scenario, whose page is waited for for so long at the most."""
    found = catalogue.find(NAME)
    ours = found.prove
    pages = [ours.expect.pages[0].model_copy(update={"within_s": within_s})]
    expect = ours.expect.model_copy(update={"pages": pages, "may_page": [], "customers": []})
    extension = ours.model_copy(update={"expect": expect, "hold_s": 0.5})
    scenario = found.scenario.model_copy(update={"extensions": [extension]})
    return Entry(found.name, scenario, found.document)


def session(target: Target, records: Path, watch: Watch, abort_on: float = 0.5) -> Session:
    return Session(target, OBJECTIVES, records, 1, abort_on, watch)


def carried_out(
    installation: Installation,
    records: Path,
    *,
    of: Entry | None = None,
    abort_on: float = 0.5,
    watch: Watch | None = None,
) -> Incident:
    async def run() -> Incident:
        async with serving(installation) as target:
            told = session(target, records, watch or Watch(), abort_on)
            return (await told.run([[of or entry()]]))[0]

    return asyncio.run(run())


@pytest.fixture
def shop() -> Installation:
    return Installation(list(OBJECTIVES.slos))


def test_an_incident_that_goes_as_told(shop: Installation, tmp_path: Path) -> None:
    watch = Watch()
    incident = carried_out(shop, tmp_path, watch=watch)

    assert incident.verdict == "holds", incident.expectations
    assert [phase.partition(" ")[0] for phase in watch.phases] == [
        *("steady", "inject", "wait", "hold", "roll", "recovery", "drain"),
    ]
    assert [(each.phase, each.method, each.ok) for each in incident.actions] == [
        ("inject", "PUT", True),
        ("rollback", "DELETE", True),
    ]
    assert incident.detections[0].slo == SLO
    assert incident.detections[0].paged_s is not None
    assert incident.figures.recovery_s is not None
    assert not shop.leases
    assert "secret" not in incident.model_dump_json()

    directory = tmp_path / incident.id
    assert record.read(directory) == incident
    assert record.find(tmp_path.parent, str(directory)) == directory
    ledger = list(record.lines(directory / record.LEDGER, record.Entry))
    assert {each.kind for each in ledger} == {"read", "checkout"}
    assert {each.outcome for each in ledger} == {"ok", "failed"}
    pages = list(record.lines(directory / record.PAGES, record.Page))
    assert [page.slo for page in pages] == [SLO]
    truth = record.read_document(directory / record.TRUTH, record.Truths)
    assert truth.scenarios[0].cause.service == "order-service"
    assert incident.windows is not None
    assert incident.windows.baseline.end_unix_s == incident.windows.incident.start_unix_s


def test_a_page_that_nobody_expects_is_wrong(shop: Installation, tmp_path: Path) -> None:
    shop.pages = (SLO, "product-reads-errors")
    incident = carried_out(shop, tmp_path)

    assert incident.verdict == "does not hold"
    assert [each.what for each in incident.expectations if not each.holds] == ["no other page"]
    assert incident.figures.wrong_pages == 1


def test_a_page_that_does_not_come_is_waited_for_and_missed(
    shop: Installation, tmp_path: Path
) -> None:
    shop.pages = ()
    incident = carried_out(shop, tmp_path, of=entry(within_s=2.0))

    assert incident.verdict == "does not hold"
    missed = [each for each in incident.expectations if not each.holds]
    assert [(each.what, each.found) for each in missed] == [
        ("page CheckoutErrors", "it did not come")
    ]
    assert not shop.leases


def test_the_guard_ends_it(shop: Installation, tmp_path: Path) -> None:
    shop.pages = ()
    incident = carried_out(shop, tmp_path, abort_on=0.0005)

    assert incident.verdict == "aborted"
    assert "of the error budget of checkout-errors is gone" in incident.why
    assert not shop.leases
    assert shop.deleted == [NAME]


@pytest.mark.parametrize(("status", "verdict"), [(422, "not possible"), (401, "aborted")])
def test_what_is_refused_is_not_done(
    shop: Installation, tmp_path: Path, status: int, verdict: str
) -> None:
    shop.refuses = status
    incident = carried_out(shop, tmp_path)

    assert incident.verdict == verdict
    assert "can't be had here" in incident.why
    assert incident.windows is None
    assert not shop.leases


def test_without_a_steady_state_nothing_is_done(
    shop: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "STEADY_S", 2.0)
    shop.ready = False
    incident = carried_out(shop, tmp_path)

    assert incident.verdict == "aborted"
    assert "product-service is ready: 503" in incident.why
    assert not incident.actions


def test_a_steady_state_that_comes_too_late_says_what_was_last_in_its_way(
    shop: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mended(Watch):
        def told(self, line: str) -> None:
            shop.ready = True

    for name, value in {"STEADY_S": 3.0, "BASELINE_S": 60.0, "WORD_S": 0.0}.items():
        monkeypatch.setattr(runner, name, value)
    shop.ready = False
    incident = carried_out(shop, tmp_path, watch=Mended())

    assert shop.ready
    assert "within 3 s: product-service is ready: 503" in incident.why


def test_what_interrupts_it_finds_it_taken_back(shop: Installation, tmp_path: Path) -> None:
    shop.pages = ()

    async def run() -> None:
        async with serving(shop) as target:
            task = asyncio.create_task(session(target, tmp_path, Watch()).run([[entry()]]))
            await _until(lambda: shop.broken)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()

    asyncio.run(run())
    assert not shop.leases
    directory = record.known(_as_home(tmp_path))[0]
    kept = record.read(directory)
    assert kept.verdict == "interrupted"
    assert [each.phase for each in kept.actions] == ["inject", "rollback"]


def test_two_at_once_are_one_run(shop: Installation, tmp_path: Path) -> None:
    other = catalogue.find("orders-refused")
    first = entry()
    quiet = other.prove.model_copy(update={"expect": first.prove.expect, "hold_s": 0.5})
    second = Entry(
        other.name, other.scenario.model_copy(update={"extensions": [quiet]}), other.document
    )

    async def run() -> Incident:
        async with serving(shop) as target:
            return (await session(target, tmp_path, Watch()).run([[first, second]]))[0]

    incident = asyncio.run(run())
    assert incident.scenario == f"{NAME}+orders-refused"
    assert [each.phase for each in incident.actions] == [*["inject"] * 2, *["rollback"] * 2]
    assert shop.deleted == ["orders-refused", NAME]
    truth = record.read_document(tmp_path / incident.id / record.TRUTH, record.Truths)
    assert [each.scenario for each in truth.scenarios] == [NAME, "orders-refused"]


def test_by_url_from_a_home_without_a_stack(
    shop: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command as it is called: a file with URLs, a token in the environment, and no more."""
    monkeypatch.setattr(evidence, "ARRIVAL_S", 0.0)
    home = tmp_path / "elsewhere"
    monkeypatch.setenv("PROVE_HOME", str(home))
    monkeypatch.setenv("PROVE_ADMIN_TOKEN", "secret")
    with _in_a_thread(shop) as target:
        file = tmp_path / "shop.yaml"
        file.write_text(json.dumps({"profile": "drill", "urls": dict(target.urls)}))
        arguments = ["incident", "run", NAME, "--on", str(file), "--json"]
        done = CliRunner().invoke(app, arguments)

    assert done.exit_code in (0, 1), done.output
    (told,) = json.loads(done.stdout)["incidents"]
    # Of this installation all is as told but how many customers meet the fault, and when it pages.
    assert told["verdict"] in ("holds", "does not hold"), told
    assert told["detections"][0]["paged_s"] is not None
    directory = Path(told["record"])
    assert directory.parent == home / record.DIRECTORY
    assert sorted(each.name for each in home.iterdir()) == [record.DIRECTORY]
    assert record.read(directory).urls == target.urls
    assert not shop.leases


@contextmanager
def _in_a_thread(shop: Installation) -> Iterator[Target]:
    """It is served while somebody else has an event loop of their own."""
    begun: Queue[Target] = Queue()
    over = threading.Event()

    async def serve() -> None:
        async with serving(shop) as target:
            begun.put(target)
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield begun.get(timeout=60)
    finally:
        over.set()
        thread.join()


async def _until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition, what="the fault")


def _as_home(records: Path) -> Path:
    """A home whose incidents are those of `records`."""
    home = records.parent / f"{records.name}-home"
    home.mkdir()
    (home / record.DIRECTORY).symlink_to(records, target_is_directory=True)
    return home
