import os
import subprocess
import sys
from pathlib import Path

import pytest
from service_kit.testing import wait_until

from prove.errors import UserError
from prove.stack import state
from prove.stack.state import ProcessId, ProcessState, StackState


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path


def a_state(home: Path, supervisor: ProcessId) -> StackState:
    process = ProcessState(
        name="order", group="shop", ports=(8002,), ready_url="http://127.0.0.1:8002/", log=home
    )
    return StackState(
        version="1",
        home=home,
        supervisor=supervisor,
        started_at=1.5,
        ports={"order": 8002},
        processes={"order": process},
    )


def test_what_is_saved_is_loaded(home: Path) -> None:
    saved = a_state(home, ProcessId.of(os.getpid()))
    state.save(saved)
    assert state.load(home) == saved
    assert [file.name for file in (home / "run").iterdir()] == [state.FILE]


@pytest.mark.parametrize("content", ["", "{", '{"version": 1}', "\0"])
def test_a_file_that_is_no_state_is_no_stack(home: Path, content: str) -> None:
    (home / "run" / state.FILE).write_text(content)
    assert state.load(home) is None
    with pytest.raises(UserError, match="no stack is running"):
        state.require(home)


def test_nothing_half_written_stays_when_saving_fails(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        state.save(a_state(home, ProcessId.of(os.getpid())))
    assert list((home / "run").iterdir()) == []


def test_a_pid_alone_is_not_enough() -> None:
    me = ProcessId.of(os.getpid())
    assert me.find()
    assert ProcessId(pid=me.pid, create_time=me.create_time - 60).find() is None


def test_a_zombie_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        seen = ProcessId.of(process.pid)
        wait_until(lambda: seen.find() is None, what="the process to end")
        # Not waited for yet: the pid is still there.
        os.kill(process.pid, 0)


def test_a_supervisor_that_is_gone_is_not_running(home: Path) -> None:
    state.save(a_state(home, ProcessId(pid=os.getpid(), create_time=1.0)))
    with pytest.raises(UserError, match="no stack is running"):
        state.require(home)


def test_an_unknown_process_is_told_the_known_ones(home: Path) -> None:
    with pytest.raises(UserError, match="no process called shop; choose one of order"):
        a_state(home, ProcessId.of(os.getpid())).process("shop")


def test_leftovers_carry_the_marker_of_their_home(home: Path, tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    env = {**os.environ, state.MARKER: str(home)}
    other = {**os.environ, state.MARKER: str(tmp_path / "other")}
    with (
        subprocess.Popen(sleeper, env=env, stdout=subprocess.PIPE) as mine,
        subprocess.Popen(sleeper, env=other, stdout=subprocess.PIPE) as foreign,
    ):
        assert mine.stdout
        assert foreign.stdout
        mine.stdout.readline()
        foreign.stdout.readline()
        assert [process.pid for process in state.leftovers(home)] == [mine.pid]
        state.end(state.leftovers(home))
        assert mine.wait() < 0
        assert foreign.poll() is None
        foreign.kill()


def test_whoever_asks_is_no_leftover(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asker = "from prove.stack import state; from pathlib import Path; import sys\n"
    asker += "print(len(state.leftovers(Path(sys.argv[1]))))"
    answer = subprocess.run(
        [sys.executable, "-c", asker, str(home)],
        env={**os.environ, state.MARKER: str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == "0"
