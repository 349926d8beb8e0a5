"""Real stacks for tests, run by `provectl` as a user runs it."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service_kit.testing import wait_until

from prove.stack import state
from prove.stack.settings import StackSettings, on_free_ports
from prove.stack.state import StackState

SHARED = "PROVE_TEST_SHARED"
"""Environment variable: the directory that all workers of a run share."""

PROVECTL = Path(sys.executable).with_name("provectl")
RUN_TIMEOUT_S = 400
READY_TIMEOUT_S = 300
"""Of each process of a stack; the usual minute is too short for a machine that runs several."""


@dataclass(frozen=True)
class Stack:
    """A home and its ports, and `provectl` run upon them."""

    settings: StackSettings

    @classmethod
    def at(cls, home: Path) -> "Stack":
        """A stack in `home` with ports of its own; not started."""
        return cls(on_free_ports(home).model_copy(update={"ready_timeout_s": READY_TIMEOUT_S}))

    @classmethod
    def shared(cls, directory: Path) -> "Stack":
        """The one stack of this run, started by whoever comes first.

        Raises AssertionError, for everyone alike, when it didn't start.
        """
        told = directory / "stack.json"
        with (directory / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not told.exists():
                stack = cls.at(directory / "home")
                answer = stack.run("up", "--detach")
                told.write_text(
                    json.dumps(
                        {
                            "settings": stack.settings.model_dump(mode="json"),
                            "failure": answer.stderr if answer.returncode else None,
                        }
                    )
                )
        document = json.loads(told.read_text())
        assert not document["failure"], f"the shared stack did not start: {document['failure']}"
        return cls(StackSettings.model_validate(document["settings"]))

    @property
    def env(self) -> dict[str, str]:
        """What makes `provectl` mean this stack."""
        return self.settings.environment()

    @property
    def home(self) -> Path:
        return self.settings.home

    @property
    def token(self) -> str:
        """The admin token of this install."""
        return self.settings.admin_token_file.read_text().strip()

    def url(self, name: str) -> str:
        """Where a process listens, by the name of its port: `product`, `prometheus` …"""
        return self.settings.url(self.settings.ports[name])

    def state(self) -> StackState:
        """As the supervisor sees it; raises UserError when it doesn't run."""
        return state.require(self.home)

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> "Running":
        """`provectl ARGUMENTS…`, in the background."""
        return subprocess.Popen(
            [PROVECTL, *arguments],
            env={**os.environ, **self.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_hear_signals,
        )

    def run(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        timeout_s: float = RUN_TIMEOUT_S,
    ) -> "subprocess.CompletedProcess[str]":
        """`provectl ARGUMENTS…`, to its end."""
        with self.start(*arguments, env=env) as process:
            out, err = process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def buy(self, *arguments: str) -> dict[str, Any]:
        """The report of an order that is confirmed: placed as often as a busy shop makes it.

        That refuses orders which it can't end in time, and rests from what fails.
        """

        def confirmed() -> dict[str, Any] | None:
            done = self.run("buy", "--json", "--timeout", "30s", *arguments)
            assert done.returncode in (0, 1) or " 503" in done.stderr, done.stderr
            report: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
            assert (done.returncode == 0) == report.get("confirmed", False), done.stderr
            return report if done.returncode == 0 else None

        return wait_until(confirmed, what="an order that is confirmed", timeout_s=RUN_TIMEOUT_S)

    def ready(self) -> dict[str, Any]:
        """The report of `status`, once all is ready: a busy process may miss a probe."""

        def all_ready() -> dict[str, Any] | None:
            done = self.run("status", "--json")
            report: dict[str, Any] = json.loads(done.stdout)
            return report if done.returncode == 0 else None

        return wait_until(all_ready, what="everything to be ready")


def _hear_signals() -> None:
    """Under nohup, or in the background of a script, tests inherit that signals are ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


Running = subprocess.Popen[str]


def take_down_shared(directory: Path) -> None:
    """Stop the run's shared stack, if one was started."""
    if (directory / "stack.json").exists():
        document = json.loads((directory / "stack.json").read_text())
        Stack(StackSettings.model_validate(document["settings"])).run("down")
