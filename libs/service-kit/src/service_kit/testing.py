"""What the services' tests share: free ports, polling, real PostgreSQL, real service processes."""

import glob
import os
import pwd
import shutil
import signal
import socket
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

T = TypeVar("T")


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_until(probe: Callable[[], T], timeout_s: float = 30.0, what: str = "") -> T:
    """Poll until `probe` returns something true, and return it.

    Raises:
        TimeoutError: it did not within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        result = probe()
        if result:
            return result
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what or probe}")
        time.sleep(0.02)


def status_of(url: str) -> int:
    """The HTTP status of a GET, or 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310
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


@contextmanager
def postgres() -> Iterator[str]:
    """A real PostgreSQL server of its own; yields its URL, or skips the test saying why."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        pytest.skip("PostgreSQL's server programs are not installed (apt install postgresql)")
    programs = Path(found[-1]) if found else Path(str(on_path)).parent
    user = _unprivileged()
    data = Path(tempfile.mkdtemp(prefix="prove-pg-"))
    try:
        if user is not None:
            os.chown(data, user.pw_uid, user.pw_gid)
        yield from _serve_postgres(programs, data, user.pw_name if user else None)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _unprivileged() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: the account to use instead, or None if we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("running as root, and there is no account 'postgres' to run PostgreSQL as")


def _serve_postgres(programs: Path, data: Path, user: str | None) -> Iterator[str]:
    port = free_port()
    subprocess.run(
        [programs / "initdb", "-D", data / "db", "-U", "prove", "-A", "trust", "-E", "UTF8"],
        check=True,
        capture_output=True,
        user=user,
        cwd="/",
    )
    server = subprocess.Popen(
        [
            programs / "postgres",
            *("-D", data / "db", "-p", str(port), "-k", data, "-h", "127.0.0.1"),
            *("-c", "fsync=off", "-c", "max_connections=200"),
        ],
        user=user,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def accepts() -> bool:
            if server.poll() is not None:
                raise AssertionError(f"postgres exited with {server.returncode}")
            check = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
            return subprocess.run(check, capture_output=True).returncode == 0

        wait_until(accepts, what="PostgreSQL accepts connections")
        yield f"postgresql://prove@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # its "fast shutdown"
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
