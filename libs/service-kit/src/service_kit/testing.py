"""What the services' tests share: free ports, polling, real PostgreSQL, real service processes."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from service_kit import ports
from service_kit.postgres import MissingError, server

T = TypeVar("T")

PATIENT_S = 120.0
"""How long a test waits for what takes no time on a quiet machine: it ends hangs, measures none."""


def free_port() -> int:
    """A TCP port that nothing listens on, and that no other test is given."""
    return ports.claim()[0]


def wait_until(probe: Callable[[], T | None], timeout_s: float = PATIENT_S, what: str = "") -> T:
    """Poll until `probe` returns something true, and return it.

    The deadline is there to end a hang, not to measure: keep it generous.

    Raises:
        TimeoutError: it did not within `timeout_s`; names `what` it waited for.
    """
    deadline = time.monotonic() + timeout_s
    while not (result := probe()):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what or probe}; last saw {result!r}")
        time.sleep(0.02)
    return result


def status_of(url: str, timeout_s: float = 5) -> int:
    """The HTTP status of a GET, or 0 when nobody answers in time."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as response:  # noqa: S310
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@dataclass(frozen=True)
class Running:
    """A service process under test."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def logs(self) -> str:
        """Everything it has written so far."""
        return self.log.read_text(encoding="utf-8")


@contextmanager
def running(
    command: Sequence[str],
    env: Mapping[str, str],
    port: int,
    directory: Path,
    probe: str = "/readyz",
) -> Iterator[Running]:
    """Start a service, wait until `probe` answers 200, and stop it at the end.

    Raises:
        AssertionError: it exits before it is ready; the message has its output.
    """
    log = directory / f"service-{port}.log"
    environment = {**os.environ, **env, "PORT": str(port)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=directory,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    service = Running(process, f"http://127.0.0.1:{port}", log)

    def ready() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"exit {process.returncode} at start:\n{service.logs()}")
        return status_of(service.url + probe) == 200

    try:
        wait_until(ready, what=f"{command[0]} is ready")
        yield service
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def script(name: str) -> str:
    """The path of a console script of this environment."""
    return str(Path(sys.executable).parent / name)


def schemathesis(
    url: str, config: Path, directory: Path, *options: str, hooks: str = "service_kit.gentle"
) -> None:
    """Every check of schemathesis, stateful ones too, of the service at `url`; seeded.

    What the service does wrong it does again, and what a busy machine did (an answer that came too
    late, a request refused because it had queued too long) it does not: so there is a second try.

    Raises:
        AssertionError: both failed; the message has their reports.
    """
    command = [script("schemathesis"), "--config-file", str(config), "run", "--checks", "all"]
    command += ["--max-examples", "25", "--request-timeout", "60", "--no-color", "--seed", "1"]
    env = {**os.environ, "SCHEMATHESIS_HOOKS": hooks, "PYTHONPATH": os.pathsep.join(sys.path)}
    reports = []
    for _ in range(2):
        done = subprocess.run(
            [*command, *options, f"{url}/openapi.json"],
            cwd=directory,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return
        reports.append(done.stdout + done.stderr)
    raise AssertionError("\n".join(reports))


@contextmanager
def postgres() -> Iterator[str]:
    """A real PostgreSQL server of its own; yields its URL, or skips the test saying why."""
    directory = Path(tempfile.mkdtemp(prefix="prove-pg-"))
    try:
        with server(directory) as url:
            yield url
    except MissingError as error:
        pytest.skip(str(error))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
