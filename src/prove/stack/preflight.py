"""What a machine must offer before a stack is started on it; each lack with its remedy."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from service_kit.ports import is_free

from prove import tools
from prove.errors import UserError
from prove.stack import state
from prove.stack.hints import command
from prove.stack.settings import StackSettings

MIN_FREE_BYTES = 256 * 1024 * 1024
CACHE_BYTES = 500 * 1024 * 1024
TOOL_BYTES = 2**30
"""What Go keeps of a server that is built for the first time: for eight of them 3.7 GiB of compiled
packages and 3.6 GiB of modules were measured, and linking takes some for a while."""
SERVICE_BYTES = 2**28
MOST_TOLD = 3
"""Reasons why a stack can't be started."""


@dataclass(frozen=True)
class Check:
    """One thing looked at. `remedy` says what to do when it is not `ok`."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def require(settings: StackSettings) -> None:
    """Raises UserError with every reason why the stack cannot be started here and now."""
    failed = [check for check in (disk(settings), *ports(settings)) if not check.ok]
    if failed:
        told = [f"{check.detail}; {check.remedy}" for check in failed]
        if len(told) > MOST_TOLD:
            told[MOST_TOLD:] = [
                f"and {len(told) - MOST_TOLD} ports more; PROVE_PORT_OFFSET=1000 moves all of them,"
                " as for a second shop beside the first"
            ]
        raise UserError("\n  ".join(told))


def all_checks(settings: StackSettings) -> Iterator[Check]:
    """Everything `provectl doctor` looks at."""
    yield python()
    yield sqlite()
    yield go()
    yield make()
    yield home(settings)
    yield disk(settings)
    yield cache()
    yield from build()
    yield stack(settings)
    yield from ports(settings, state.load(settings.home))


def python() -> Check:
    """Python 3.11 or newer."""
    found = ".".join(map(str, sys.version_info[:3]))
    remedy = "install Python 3.11 or newer and run `make clean setup PYTHON=/path/to/it`"
    return Check("Python", sys.version_info >= (3, 11), f"Python {found}", remedy)


def sqlite() -> Check:
    """What the services' databases ask of SQLite: RETURNING (3.35) and full-text search."""
    with sqlite3.connect(":memory:") as connection:
        options = {row[0] for row in connection.execute("PRAGMA compile_options")}
    connection.close()
    ok = sqlite3.sqlite_version_info >= (3, 35) and "ENABLE_FTS5" in options
    search = "with" if "ENABLE_FTS5" in options else "without"
    detail = f"SQLite {sqlite3.sqlite_version} {search} full-text search"
    return Check("SQLite", ok, detail, "use a Python whose sqlite3 is 3.35 or newer with FTS5")


def go() -> Check:
    """Go, unless every program is built already."""
    try:
        missing = _missing()
        if not missing:
            return Check("Go", True, "every program is built; Go is not needed")
        found = [tools.check_go(program) for program in missing]
    except UserError as error:
        return Check(
            "Go",
            False,
            str(error),
            "install Go from https://go.dev/dl; 1.21 and newer fetch what they lack",
        )
    names = ", ".join(program.name for program in missing)
    return Check("Go", True, f"{found[0]}; still to be built: {names}")


def make() -> Check:
    """GNU make, for the repository's own targets."""
    path = shutil.which("make")
    return Check("make", path is not None, path or "not on PATH", "install make")


def home(settings: StackSettings) -> Check:
    """PROVE_HOME can be written."""
    where = _existing(settings.home)
    ok = where.is_dir() and os.access(where, os.W_OK | os.X_OK)
    detail = f"{settings.home} can{'' if ok else 'not'} be written"
    return Check(
        "home", ok, detail, f"make {where} writable or set PROVE_HOME to another directory"
    )


def disk(settings: StackSettings) -> Check:
    """Room for the databases, stores and logs."""
    return _room("disk", settings.home, MIN_FREE_BYTES, "PROVE_HOME")


def cache() -> Check:
    """Room for the built programs, and leave to write them."""
    where = _existing(tools.cache_dir())
    if not (where.is_dir() and os.access(where, os.W_OK | os.X_OK)):
        remedy = f"make {where} writable or set PROVE_CACHE to another directory"
        return Check("cache", False, f"{tools.cache_dir()} cannot be written", remedy)
    return _room("cache", tools.cache_dir(), CACHE_BYTES, "PROVE_CACHE")


def build() -> Iterator[Check]:
    """Room in Go's own caches for the programs that are still to be built."""
    missing = _missing()
    go = shutil.which("go")
    if not missing or not go:
        return  # the check of Go says so
    needed = sum(TOOL_BYTES if one.name in tools.TOOLS else SERVICE_BYTES for one in missing)
    names = ("GOMODCACHE", "GOCACHE")
    told = subprocess.run([go, "env", *names], capture_output=True, text=True, check=False)
    places = {name: Path(path) for name, path in zip(names, told.stdout.splitlines(), strict=False)}
    for name, path in places.items():
        # The first build fills both, in about equal parts; they may lie on one disk.
        alone = len({os.stat(_existing(place)).st_dev for place in places.values()}) > 1
        yield _room("build", path, needed // 2 if alone else needed, name)
        if not alone:
            return


def _missing() -> list[tools.Program]:
    """What `up` would build first; what is built on demand isn't among it."""
    programs = [*tools.of_the_stack(), *tools.SERVICES.values()]
    return [program for program in programs if tools.find(program) is None]


def stack(settings: StackSettings) -> Check:
    """Whether a stack runs, and nothing is left of one that was killed."""
    current = state.load(settings.home)
    if current and current.alive:
        return Check("stack", True, f"running, {current.phase}")
    left = state.leftovers(settings.home)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        detail = f"the supervisor is gone and left processes running (pid {pids})"
        return Check("stack", False, detail, _clean_up())
    file = settings.run_dir / state.FILE
    if file.exists() and not (current and current.phase == "failed"):
        detail = f"{file} is left of a stack that was killed"
        return Check("stack", False, detail, _clean_up())
    return Check("stack", True, "not running, nothing left behind")


def _clean_up() -> str:
    return f"{command('up')} cleans up and starts again, {command('down')} only cleans up"


def ports(settings: StackSettings, running: state.StackState | None = None) -> list[Check]:
    """Each port is free, or held by the `running` stack itself; a busy one names its holder."""
    own = set(running.ports.values()) if running and running.alive else set()
    return [_port(settings, name, port, own) for name, port in settings.used_ports.items()]


def _port(settings: StackSettings, name: str, port: int, own: set[int]) -> Check:
    title = f"port {port}"
    if port in own:
        return Check(title, True, f"{name}: in use by this stack")
    if is_free(port):
        return Check(title, True, f"{name}: free")
    held = f"port {port} ({name}) is in use by"
    holder = _holder(port)
    pid, who = holder
    if pid in {process.pid for process in state.leftovers(settings.home)}:
        return Check(title, False, f"{held} what a killed stack left: {who}", _clean_up())
    remedy = f"stop that or set {settings.port_variable(port)} to another port"
    return Check(title, False, f"{held} {who}", remedy)


def _holder(port: int) -> tuple[int | None, str]:
    """The pid, where it is known, and a description of the process that listens on `port`.

    Asked process by process, as macOS allows it.
    """
    for process in psutil.process_iter():
        try:
            for connection in process.net_connections(kind="inet"):
                address = connection.laddr
                if address and address.port == port and connection.status == psutil.CONN_LISTEN:
                    words = f"{process.name()} (pid {process.pid}: {_shortened(process.cmdline())})"
                    return process.pid, words
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or another user's
    return None, "a process of another user"


def _shortened(argv: list[str], width: int = 60) -> str:
    text = " ".join(argv)
    return text if len(text) <= width else text[: width - 1] + "…"


def _room(name: str, path: Path, needed: int, variable: str) -> Check:
    free = shutil.disk_usage(_existing(path)).free
    detail = f"{free / 2**20:,.0f} MiB free in {path}"
    if free < needed:
        detail = f"only {detail}, and {needed / 2**20:,.0f} MiB are needed"
    remedy = f"make room or set {variable} to a directory on another disk"
    return Check(name, free >= needed, detail, remedy)


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())
