from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from prove.cli import app
from prove.commands import demo
from prove.stack import state


def test_the_version_is_that_of_the_package() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.output) == (0, f"provectl {version('prove')}\n")


@pytest.mark.parametrize("runs", [True, False])
def test_a_demo_that_is_stopped_says_what_runs_on(
    runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stack:
        alive = runs

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_story", stopped)
    monkeypatch.setattr(state, "load", lambda _home: Stack())
    told = CliRunner().invoke(app, ["demo"])
    assert told.exit_code == 130
    assert told.stderr.startswith("Stopped; a fault that was set is taken back.")
    assert ("The shop runs on: " in told.stderr) == runs
