"""The nemesis against real processes, and the requests it makes of Toxiproxy."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from service_kit.ports import claim

from prove.errors import UserError
from prove.stack import state
from prove.stack.settings import StackSettings
from prove.stack.state import ProcessId, ProcessState, StackState
from prove.verify import nemesis
from prove.verify import shop as shop_module
from prove.verify.nemesis import Act, Journal, Nemesis
from prove.verify.plan import CrashPoint, Cut, Fault, Kill
from prove.verify.shop import Setup, Shop

PARENT = (
    "import subprocess, sys, time; "
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); time.sleep(600)"
)
CUT = Cut(
    after_op=0,
    link="order-payment",
    name="half-open",
    toxic="timeout",
    stream="downstream",
    attributes={"timeout": 0},
    duration_s=0.01,
)


@pytest.fixture
def service() -> Iterator[psutil.Process]:
    """A process with a child, in a group of their own, as the supervisor starts services."""
    started = subprocess.Popen([sys.executable, "-c", PARENT], start_new_session=True)
    process = psutil.Process(started.pid)
    deadline = time.monotonic() + 60
    while not process.children() and time.monotonic() < deadline:
        time.sleep(0.01)
    children = process.children()
    yield process
    for each in (process, *children):
        if each.is_running():
            each.kill()
    started.wait()


@pytest.fixture
def shop(tmp_path: Path, service: psutil.Process) -> Shop:
    """A shop whose Order Service, and whose Toxiproxy, is that process."""
    setup = Setup(tmp_path)
    setup.crash_dir.mkdir()
    (tmp_path / "run").mkdir()
    leader = ProcessState(
        name="order",
        group="shop",
        phase="ready",
        id=ProcessId.of(service.pid),
        ports=(),
        ready_url="",
        log=tmp_path / "order.log",
    )
    state.save(
        StackState(
            version="",
            home=tmp_path,
            supervisor=ProcessId.of(os.getpid()),
            started_at=0,
            ports={},
            processes={"order": leader, "toxiproxy": leader},
        )
    )
    return Shop(setup, StackSettings(home=tmp_path), {}, None, stop=lambda: None)


def carry_out(shop: Shop, *faults: Fault, last_op: int = 0) -> list[Act]:
    """Run the faults; returns the journal."""
    file = shop.setup.home / "faults.jsonl"
    with Journal(file) as journal:
        asyncio.run(Nemesis(shop, journal, lambda: last_op).run(faults))
    return nemesis.read(file)


def gone(process: psutil.Process) -> bool:
    deadline = time.monotonic() + 60
    while state.runs(process) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not state.runs(process)


def test_a_service_is_killed_with_all_its_processes(shop: Shop, service: psutil.Process) -> None:
    worker = service.children()[0]

    (act,) = carry_out(shop, Kill(0, "order"))

    assert (act.did, act.target, act.detail["pid"]) == ("kill", "order", service.pid)
    assert gone(service)
    assert gone(worker)


def test_a_single_worker_is_killed_alone(shop: Shop, service: psutil.Process) -> None:
    worker = service.children()[0]

    (act,) = carry_out(shop, Kill(0, "order", worker=True))

    assert (act.did, act.detail["pid"]) == ("kill-worker", worker.pid)
    assert gone(worker)
    assert state.runs(service)


def test_a_crash_point_that_is_passed_counts_as_a_kill(
    shop: Shop, service: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nemesis, "CRASH_POINT_S", 120.0)
    armed = shop.setup.crash_dir / "order.charge.after"

    def pass_it() -> None:
        while not armed.exists():
            time.sleep(0.01)
        armed.rename(f"{armed}.fired.4711")

    passing = threading.Thread(target=pass_it)
    passing.start()
    (act,) = carry_out(shop, CrashPoint(0, "order", "charge.after"))
    passing.join()

    assert (act.did, act.target) == ("crash-point", "order.charge.after")
    assert act.detail == {"pids": [4711]}
    assert state.runs(service)
    assert not list(shop.setup.crash_dir.iterdir())


def test_a_crash_point_that_nobody_passes_becomes_a_kill(
    shop: Shop, service: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nemesis, "CRASH_POINT_S", 0.05)

    (act,) = carry_out(shop, CrashPoint(0, "order", "release.before"))

    assert (act.did, act.target) == ("kill-instead", "order.release.before")
    assert gone(service)
    assert not list(shop.setup.crash_dir.iterdir())


def test_what_cannot_be_killed_is_told(
    shop: Shop, service: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nemesis, "KILL_TIMEOUT_S", 0.05)
    service.kill()
    service.wait()

    (act,) = carry_out(shop, Kill(0, "order"))

    assert act.did == "missed"


def test_a_toxiproxy_that_does_not_end_a_cut_is_killed(shop: Shop, service: psutil.Process) -> None:
    nobody = f"http://127.0.0.1:{claim()[0]}"

    acts = carry_out(replace(shop, proxy_url=nobody), CUT)

    assert [act.did for act in acts] == ["missed", "mend"]
    assert "Toxiproxy" in acts[1].detail["sooner"]
    assert gone(service)


def test_a_fault_waits_for_its_purchase(shop: Shop, service: psutil.Process) -> None:
    with Journal(shop.setup.home / "faults.jsonl") as journal:
        sent = iter([0, 3, 4])
        seen: list[int] = []

        def last_op() -> int:
            seen.append(next(sent))
            return seen[-1]

        asyncio.run(Nemesis(shop, journal, last_op).run([Kill(4, "order")]))

    assert seen == [0, 3, 4]


def test_without_postgresql_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glob.glob", lambda _: [])
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(shop_module, "ensure_binaries", lambda _: {})

    with (
        pytest.raises(UserError, match="apt install postgresql"),
        shop_module.running(Setup(tmp_path / "home", "postgres")),
    ):
        pass
