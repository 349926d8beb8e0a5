"""A real PostgreSQL server on a data directory and a port of its own, for tests and experiments."""

import glob
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service_kit import ports

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.02
SUPERUSER = "prove"


class MissingError(Exception):
    """PostgreSQL's programs, or an account to run them, are not there; the message says what to do.

    A test that needs the server is then skipped.
    """


class ServerError(Exception):
    """The server could not be made or started; the message holds what PostgreSQL said."""


@contextmanager
def server(
    directory: Path, *, fsync: bool = False, max_connections: int = 200, port: int | None = None
) -> Iterator[str]:
    """Run a server upon `directory` until the end of the block; yields the URL of its superuser.

    A directory that already holds a server's data goes on with it, else one is made. Without
    `fsync` a commit is safe from the end of any process, not from that of the machine. Listens on
    the loopback address only, without passwords: what is in it is no secret of anyone's.

    Raises:
        MissingError: PostgreSQL is not installed, or there is no account to run it as.
        ServerError: it does not start.
    """
    programs = programs_directory()
    user = _account()
    data = directory / "data"
    directory.mkdir(parents=True, exist_ok=True)
    if user is not None:
        os.chown(directory, user.pw_uid, user.pw_gid)
    if not (data / "PG_VERSION").exists():
        _initialise(programs, data, user.pw_name if user else None)
    port = port or ports.claim()[0]
    argv, name = command(directory, port, max_connections, fsync=fsync)
    with (directory / "server.log").open("ab") as log:
        process = subprocess.Popen(
            argv,
            user=name,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C must not stop it before those that use it
        )
    try:
        _until_ready(process, programs, port, directory / "server.log")
        yield f"postgresql://{SUPERUSER}@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)  # its "fast shutdown"
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def command(
    directory: Path, port: int, max_connections: int, *, fsync: bool
) -> tuple[tuple[str, ...], str | None]:
    """What starts the server of a `directory` that has its data, and the account to run it as.

    None: the own account. Raises MissingError.
    """
    user = _account()
    argv = (
        str(programs_directory() / "postgres"),
        *("-D", str(directory / "data"), "-p", str(port), "-h", "127.0.0.1"),
        *_options(unix_socket_directories="", max_connections=max_connections),
        *_options(fsync="on" if fsync else "off"),
    )
    return argv, user.pw_name if user else None


def programs_directory() -> Path:
    """Where `postgres` and `initdb` are: Debian keeps them off PATH. Raises MissingError."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    initdb = found[-1] if found else shutil.which("initdb")
    if initdb is None:
        raise MissingError(
            "PostgreSQL's server programs are not installed: apt install postgresql "
            "(or put initdb and postgres on PATH)"
        )
    return Path(initdb).parent


def _account() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: the account to use instead, or None if we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise MissingError("running as root, and there is no account 'postgres' to run PostgreSQL as")


def _initialise(programs: Path, data: Path, user: str | None) -> None:
    made = subprocess.run(
        [programs / "initdb", "-D", data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "-N"],
        capture_output=True,
        text=True,
        user=user,
        cwd="/",
    )
    if made.returncode != 0:
        said = made.stderr.strip().splitlines()
        hint = f"; the account {user!r} must be able to enter that directory" if user else ""
        told = said[-1] if said else "no reason told"
        raise ServerError(f"initdb could not make {data}: {told}{hint}")


def _options(**settings: object) -> list[str]:
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _until_ready(process: "subprocess.Popen[bytes]", programs: Path, port: int, log: Path) -> None:
    check = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
    deadline = time.monotonic() + START_TIMEOUT_S
    while subprocess.run(check, capture_output=True).returncode != 0:
        if process.poll() is not None:
            raise ServerError(f"postgres exited with {process.returncode}; {log} says why")
        if time.monotonic() >= deadline:
            raise ServerError(f"postgres was not ready within {START_TIMEOUT_S:g} s; see {log}")
        time.sleep(POLL_S)
