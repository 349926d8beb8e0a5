"""Finding a program's binaries, or building them.

In this order: the cache, a fitting version on PATH, `go build`. A cache entry's name holds a hash
of all that goes into the build, and an entry appears whole by one rename, so one that is there is
right. Works wherever Go and flock(2) do; nothing here is Linux-only.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from prove.errors import UserError
from prove.tools.progress import Progress, Silent
from prove.tools.registry import SERVICES, TOOLS, Binary, Program

# What our Go modules are made of; what they embed is SQL.
SOURCE_SUFFIXES = frozenset({".go", ".mod", ".sum", ".sql"})
# Old entries that stay after a build: other checkouts may use them.
KEPT_ENTRIES = 5
# So long after its last start a run may need its program again, to restart it.
KEPT_S = 6 * 3600
VERSION_TIMEOUT_S = 20


@dataclass(frozen=True)
class Found:
    """Binaries that need no building."""

    binaries: Mapping[str, Path]
    source: Literal["cache", "PATH"]


def repository_root() -> Path:
    """The checkout this package runs from; raises UserError when it isn't one."""
    root = Path(__file__).resolve().parents[3]
    if not (root / "tools" / "prometheus" / "go.mod").is_file():
        raise UserError(
            f"{root} is not a checkout of prove, and its servers are built from one: "
            "clone the repository and run `make setup` there"
        )
    return root


def cache_dir() -> Path:
    """Where built binaries are kept: $PROVE_CACHE, or `prove` in the user's cache directory."""
    if own := os.environ.get("PROVE_CACHE"):
        return Path(own).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().resolve() / "prove"


def build_hash(program: Program) -> str:
    """Hash of all that goes into a build: sources, pins, flags and platform."""
    root = repository_root() / program.directory
    digest = hashlib.sha256()
    for part in (*program.build_flags, platform.system(), platform.machine()):
        digest.update(f"{part}\0".encode())
    for file in sorted(root.rglob("*")):
        if file.suffix in SOURCE_SUFFIXES and not file.name.endswith("_test.go"):
            digest.update(f"{file.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def entry_dir(program: Program) -> Path:
    """The cache entry of a program as it is now, whether it is built or not."""
    entry = f"{program.version or 'src'}-{build_hash(program)}"
    return cache_dir() / "tools" / program.name / entry


def find(program: Program) -> Found | None:
    """The program's binaries in the cache or on PATH; None when it has to be built."""
    entry = entry_dir(program)
    if entry.is_dir():
        return Found({binary.name: entry / binary.name for binary in program.binaries}, "cache")
    on_path = _find_on_path(program)
    return Found(on_path, "PATH") if on_path else None


def ensure(*names: str, progress: Progress | None = None) -> dict[str, Path]:
    """Paths of the binaries of the tools called `names`, building what isn't there yet.

    Raises UserError for an unknown tool, a missing or too old Go, or a failed build.
    """
    paths: dict[str, Path] = {}
    for name in names:
        if name not in TOOLS:
            raise UserError(f"there is no tool {name!r}; there are {', '.join(TOOLS)}")
        paths |= _ensure(TOOLS[name], progress or Silent())
    return paths


def ensure_service(
    name: str, progress: Progress | None = None, *, tags: tuple[str, ...] = ()
) -> Path:
    """Path of one of our own Go programs, built from its sources as they are now.

    `tags` are Go build tags: those of a test build. Raises UserError as `ensure` does.
    """
    program = replace(SERVICES[name], tags=tags)
    return _ensure(program, progress or Silent())[program.binaries[0].name]


def _ensure(program: Program, progress: Progress) -> Mapping[str, Path]:
    found = find(program)
    if found is None:
        try:
            with _lock(program, progress):
                found = find(program)
                if found:
                    progress.done(program.name, "built by another process")
                else:
                    found = Found(_build(program, progress), "cache")
        except OSError as error:
            raise UserError(
                f"cannot write to {cache_dir()} ({error.strerror}): make room there, or set "
                "PROVE_CACHE to a directory that can hold about 500 MB"
            ) from error
    if found.source == "cache":
        for path in found.binaries.values():
            _mark_used(path.parent)
    return found.binaries


def read_version(binary: Binary, path: Path) -> str | None:
    """The version a binary says it is, without `v`; None when it says none."""
    output = _output_of(path, *binary.version_args)
    match = re.search(r"(?<![\w.])v?(\d+\.\d+\.\d+(?:-[\w.-]+)?)", output)
    return match[1] if match else None


def fits(found: str, pinned: str) -> bool:
    """Whether one version can stand in for the pinned one: same major, not an older minor."""
    have, want = _numbers(found), _numbers(pinned)
    return have[0] == want[0] and have >= want[:2]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("-")[0]))


def _find_on_path(program: Program) -> dict[str, Path] | None:
    if program.version is None:
        return None
    paths: dict[str, Path] = {}
    for binary in program.binaries:
        for name in (binary.name, *binary.path_names):
            path = shutil.which(name)
            if path and _is_fitting(program, binary, Path(path)):
                paths[binary.name] = Path(path)
                break
        else:
            return None
    return paths


def _is_fitting(program: Program, binary: Binary, path: Path) -> bool:
    version = read_version(binary, path)
    if program.version is None or version is None or not fits(version, program.version):
        return False
    if not program.components:
        return True
    listed = re.findall(r"name:\s*(\S+)", _output_of(path, "components"))
    return program.components <= set(listed)


def _output_of(path: Path, *args: str) -> str:
    try:
        result = subprocess.run(
            [path, *args],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout + result.stderr


def check_go(program: Program) -> Path:
    """The `go` that will build a program; raises UserError when it is missing or too old.

    Go from 1.21 on fetches the toolchain a module asks for, unless GOTOOLCHAIN=local forbids it.
    """
    needed = required_go(program)
    go = shutil.which("go")
    if go is None:
        raise UserError(
            f"{program.name} is built with Go {needed} or newer and there is no `go` on PATH: "
            "install it from https://go.dev/dl"
        )
    # Asked away from any go.mod: there Go would already switch to another toolchain.
    answer = subprocess.run(
        [go, "env", "GOVERSION", "GOTOOLCHAIN"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(go).anchor,
    ).stdout.split()
    version = answer[0].removeprefix("go") if answer else "0"
    may_switch = _numbers(version) >= (1, 21) and answer[1:] != ["local"]
    if _numbers(version) < _numbers(needed) and not may_switch:
        raise UserError(
            f"{program.name} is built with Go {needed} or newer and {go} is {version}: install a "
            "newer one from https://go.dev/dl, or set GOTOOLCHAIN=auto to have Go 1.21+ fetch it"
        )
    return Path(go)


def required_go(program: Program) -> str:
    """The oldest Go that builds a program, from the `go` line of its go.mod."""
    go_mod = repository_root() / program.directory / "go.mod"
    match = re.search(r"^go (\S+)", go_mod.read_text(), re.MULTILINE)
    return match[1] if match else "1.25"


@contextmanager
def _lock(program: Program, progress: Progress) -> Iterator[None]:
    """One build of a program at a time on this machine; the kernel frees it if we die."""
    directory = cache_dir() / "tools" / program.name
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.phase(program.name, "another process is building it, waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(program: Program, progress: Progress) -> dict[str, Path]:
    """Build into a directory of its own, then rename it to the entry; called under the lock."""
    go = check_go(program)
    entry = entry_dir(program)
    for stale in entry.parent.glob(".build-*"):  # of a build that was killed
        shutil.rmtree(stale, ignore_errors=True)
    log = entry.parent / "build.log"
    work = Path(tempfile.mkdtemp(prefix=".build-", dir=entry.parent))
    started = time.monotonic()
    try:
        _compile(program, go, work, log, progress)
        (work / "bin").rename(entry)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    log.unlink()
    _prune(entry)
    progress.done(program.name, f"built in {time.monotonic() - started:.0f} s")
    return {binary.name: entry / binary.name for binary in program.binaries}


def _compile(program: Program, go: Path, work: Path, log: Path, progress: Progress) -> None:
    """`go build` every binary into `work`/bin, all output into `log`."""
    (work / "tmp").mkdir()
    env = {
        **{key: value for key, value in os.environ.items() if key not in {"GOOS", "GOARCH"}},
        "CGO_ENABLED": "0",
        # Set, not empty: an empty one would let a `go env -w GOFLAGS=...` in.
        "GOFLAGS": "-buildvcs=false",
        "GOWORK": "off",
        "GOTMPDIR": str(work / "tmp"),
    }
    run = _Go(go, repository_root() / program.directory, env, log)

    progress.phase(program.name, "fetching its modules")
    # Stale is what isn't in Go's own cache: the bar counts what is really compiled.
    stale = "-f={{if .Stale}}{{.ImportPath}}{{end}}"
    packages = [binary.package for binary in program.binaries]
    listing = work / "packages"
    code = run("list", *program.build_flags, "-deps", stale, *packages, stdout=listing)
    waiting = set(listing.read_text().split())

    def compiled(line: str) -> None:
        if line in waiting:
            waiting.remove(line)
            progress.advance(program.name)

    progress.phase(program.name, "compiling and linking", len(waiting))
    for binary in program.binaries:
        if code == 0:
            target = str(work / "bin" / binary.name)
            arguments = ("-v", *program.build_flags, "-o", target, binary.package)
            code = run("build", *arguments, on_line=compiled)
    if code != 0:
        tail = deque(log.read_text(errors="replace").splitlines(), maxlen=1)
        reason = tail[0].strip() if tail else f"go exited with {code}"
        raise UserError(f"building {program.name} failed: {reason} (all of it: {log})")


class _Go:
    """Runs `go` in a module, appending what it says to a log."""

    def __init__(self, go: Path, module: Path, env: Mapping[str, str], log: Path) -> None:
        self._go, self._module, self._env, self._log = go, module, env, log
        log.write_text("")

    def __call__(
        self,
        *args: str,
        stdout: Path = Path(os.devnull),
        on_line: Callable[[str], None] = lambda _: None,
    ) -> int:
        """The exit code. `go` and its compilers end with us, whatever ends us."""
        with (
            self._log.open("a") as log,
            stdout.open("w") as out,
            _ctrl_c_held() as let_through,
            subprocess.Popen(
                [self._go, *args],
                cwd=self._module,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                # Ctrl-C reaches us alone, so that `go` is ended in one place, below.
                start_new_session=True,
            ) as process,
        ):
            try:
                let_through()
                for line in process.stderr or ():
                    log.write(line)
                    on_line(line.strip())
                return process.wait()
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise


@contextmanager
def _ctrl_c_held() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back until what is given is called: in the middle of `Popen` its child is lost.

    By a handler, as a signal that one thread blocks is taken by another.
    """
    came = False

    def note(_number: int, _frame: object) -> None:
        nonlocal came
        came = True

    def let_through() -> None:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)

    with ExitStack() as held:
        if threading.current_thread() is threading.main_thread():  # no other is interrupted
            before = signal.signal(signal.SIGINT, note)
            held.callback(let_through)
        yield held.close


def _mark_used(entry: Path) -> None:
    with suppress(OSError):  # a cache that may only be read
        os.utime(entry)


def _prune(entry: Path) -> None:
    """Remove the longest unused entries."""
    others = [path for path in entry.parent.iterdir() if path.is_dir() and path != entry]
    used = {path: path.stat().st_mtime for path in others}
    others.sort(key=used.__getitem__, reverse=True)
    for old in others[KEPT_ENTRIES:]:
        if used[old] < time.time() - KEPT_S:
            shutil.rmtree(old, ignore_errors=True)
