"""The supervisor with small real processes: order, restarts, back-off, and what it leaves."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from service_kit.ports import claim
from service_kit.testing import PATIENT_S, wait_until

from prove.errors import UserError
from prove.stack import control, lifecycle, state
from prove.stack.logview import Record, read
from prove.stack.settings import StackSettings
from prove.stack.spec import ProcessSpec
from prove.stack.state import ProcessState, StackState
from prove.stack.supervisor import Plan
from tests.support.stack import READY_TIMEOUT_S

STANDIN = Path(__file__).parents[1] / "support" / "standin.py"


def standin(
    name: str, *behaviours: str, needs: tuple[str, ...] = (), stop_timeout_s: float = 10
) -> ProcessSpec:
    (port,) = claim()
    return ProcessSpec(
        name=name,
        argv=(sys.executable, str(STANDIN), str(port), *behaviours),
        ready_url=f"http://127.0.0.1:{port}/",
        ports=(port,),
        group="shop",
        needs=needs,
        stop_timeout_s=stop_timeout_s,
    )


class Home:
    """A stack's home, with the supervisors that were started in it."""

    def __init__(self, path: Path, ready_timeout_s: float = READY_TIMEOUT_S) -> None:
        self.settings = StackSettings(
            home=path, restart_delay_min_s=0.05, ready_timeout_s=ready_timeout_s
        )
        self.path = self.settings.home
        self.supervisors: list[subprocess.Popen[bytes]] = []

    def up(self, *specs: ProcessSpec) -> StackState:
        with lifecycle.lock(self.settings) as lock:
            lifecycle.clean_up(self.path)
            plan = Plan(settings=self.settings, specs=list(specs))
            self.supervisors.append(lifecycle.spawn(plan, lock))
        return lifecycle.wait_ready(self.supervisors[-1], self.path, lambda _: None)

    def process(self, name: str) -> ProcessState:
        return state.require(self.path).process(name)

    def ready_again(self, name: str, restarts: int) -> ProcessState:
        def look() -> ProcessState | None:
            seen = self.process(name)
            return seen if seen.phase == "ready" and seen.restarts >= restarts else None

        return wait_until(look, what=f"{name} to be ready after {restarts} restarts")

    def told(self, event: str) -> list[Record]:
        """The supervisor's log lines of one event."""
        lines = read({"supervisor": self.settings.logs_dir / "supervisor.log"}, 10_000)
        return [record for record in lines if record.event == event]

    def end(self) -> None:
        for supervisor in self.supervisors:
            supervisor.kill()
            supervisor.wait()
        state.end(state.leftovers(self.path))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    opened = Home(tmp_path / "home")
    yield opened
    opened.end()


def kill(process: ProcessState) -> None:
    assert process.id
    os.kill(process.id.pid, signal.SIGKILL)


def test_starts_in_order_behind_readiness_and_stops_in_reverse(home: Home) -> None:
    home.up(standin("c", needs=("a", "b")), standin("a"), standin("b", needs=("a",)))

    order = [record.fields["process"] for record in home.told("process_ready")]
    assert order == ["a", "b", "c"]
    started = {record.fields["process"]: record.time for record in home.told("process_starting")}
    ready = {record.fields["process"]: record.time for record in home.told("process_ready")}
    assert ready["a"] <= started["b"]
    assert ready["b"] <= started["c"]

    assert lifecycle.stop(home.path)
    assert [record.fields["process"] for record in home.told("process_stopped")] == ["c", "b", "a"]
    assert state.leftovers(home.path) == []
    assert state.load(home.path) is None


def test_restarts_a_crashed_process(home: Home) -> None:
    home.up(standin("a"), standin("b"))
    before = home.process("a")

    kill(before)

    after = home.ready_again("a", restarts=1)
    assert after.id != before.id
    assert after.last_exit == "was ended by SIGKILL"
    assert home.process("b").restarts == 0


def test_back_off_doubles_until_the_process_is_ready_again(home: Home, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    home.up(standin("a", f"dies-if={broken}"))
    broken.touch()
    kill(home.process("a"))
    wait_until(lambda: len(home.told("process_backoff")) >= 4, what="four failed restarts")
    broken.unlink()
    ready = home.ready_again("a", restarts=4)
    kill(ready)
    home.ready_again("a", restarts=ready.restarts + 1)

    delays = [record.fields["delay_s"] for record in home.told("process_backoff")]
    assert delays[:4] == [0.05, 0.1, 0.2, 0.4]
    assert delays[-1] == 0.05


def test_a_crashed_leader_leaves_no_worker_on_its_port(home: Home) -> None:
    home.up(standin("a", "parent"))
    before = home.process("a")
    assert before.id
    (worker,) = psutil.Process(before.id.pid).children()

    kill(before)

    home.ready_again("a", restarts=1)
    assert not state.runs(worker)


def test_says_why_a_process_does_not_become_ready_and_stops_the_rest(home: Home) -> None:
    with pytest.raises(lifecycle.StartError) as caught:
        home.up(standin("a"), standin("b", "dies", needs=("a",)))

    lines = str(caught.value).splitlines()
    assert lines[0] == f"b exited with code 3; its log {home.path}/logs/b.log ends with:"
    assert [line.strip() for line in lines[1:]] == [f"standin: reason {n}" for n in range(2, 7)]
    assert state.leftovers(home.path) == []
    with pytest.raises(UserError, match="no stack is running"):
        state.require(home.path)


def test_gives_up_on_a_process_that_is_never_ready(tmp_path: Path) -> None:
    home = Home(tmp_path / "home", ready_timeout_s=0.5)
    with pytest.raises(lifecycle.StartError, match=r"a was not ready within 0\.5 s"):
        home.up(standin("a", "unready"))
    assert state.leftovers(home.path) == []


def test_names_a_program_that_is_not_there(home: Home) -> None:
    spec = ProcessSpec("a", ("/nowhere/a",), "http://127.0.0.1:1/", (), "shop")
    with pytest.raises(lifecycle.StartError, match=r"No such file or directory \(/nowhere/a\)"):
        home.up(spec)


def test_kills_what_does_not_heed_sigterm(home: Home) -> None:
    home.up(standin("a", "deaf", stop_timeout_s=0.2))
    assert lifecycle.stop(home.path)
    assert state.leftovers(home.path) == []


def test_stops_a_suspended_process(home: Home) -> None:
    started = home.up(standin("a"))
    pid = started.process("a").id
    assert pid
    os.kill(pid.pid, signal.SIGSTOP)
    assert lifecycle.stop(home.path)
    assert home.told("process_stopped")
    assert state.leftovers(home.path) == []


def test_second_signal_stops_at_once(home: Home) -> None:
    home.up(standin("a", "deaf", stop_timeout_s=600))
    (supervisor,) = home.supervisors
    supervisor.terminate()
    wait_until(lambda: home.process("a").phase == "stopping", what="the stop to begin")
    supervisor.terminate()
    assert supervisor.wait(PATIENT_S) == 0
    assert state.leftovers(home.path) == []


def test_cleans_up_after_a_killed_supervisor(home: Home) -> None:
    before = home.up(standin("a"), standin("b", "parent"), standin("c", "deaf"))
    (supervisor,) = home.supervisors
    with pytest.raises(UserError, match="another provectl is starting or stopping the stack"):
        home.up()
    supervisor.kill()
    supervisor.wait()
    assert len(state.leftovers(home.path)) == 4

    with lifecycle.lock(home.settings):
        told = lifecycle.clean_up(home.path)

    expected = {f"{p.name} (pid {p.id.pid})" for p in before.processes.values() if p.id}
    assert expected <= set(told)
    assert len(told) == 4
    assert state.leftovers(home.path) == []


def test_never_ends_a_process_that_got_a_leftover_pid(home: Home) -> None:
    home.up(standin("a"))
    (supervisor,) = home.supervisors
    supervisor.kill()
    supervisor.wait()
    stale = state.load(home.path)
    assert stale
    with subprocess.Popen(["sleep", "600"]) as foreign:
        # As if the pid had gone round: same number, other creation time.
        stale.processes["a"].id = state.ProcessId(pid=foreign.pid, create_time=1.0)
        state.save(stale)
        with lifecycle.lock(home.settings):
            lifecycle.clean_up(home.path)
        assert foreign.poll() is None
        foreign.kill()


def test_two_stacks_do_not_touch_each_other(tmp_path: Path) -> None:
    one, two = Home(tmp_path / "one"), Home(tmp_path / "two")
    try:
        one.up(standin("a"))
        two.up(standin("a"))
        one.supervisors[0].kill()
        one.supervisors[0].wait()
        with lifecycle.lock(one.settings):
            assert len(lifecycle.clean_up(one.path)) == 1
        assert two.process("a").restarts == 0
        assert state.require(two.path).phase == "ready"
    finally:
        one.end()
        two.end()


def test_a_held_process_stays_down_until_it_is_released(home: Home) -> None:
    home.up(standin("a"), standin("b"))

    with control.held(home.path, "a"):
        assert home.process("a").phase == "held"
        assert home.process("b").phase == "ready"

    home.ready_again("a", restarts=1)
