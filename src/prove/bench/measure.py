"""What is read of processes and of the machine, and how readings become figures."""

import platform
import sqlite3
import subprocess
import sys
import time
import timeit
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median

import psutil
from pydantic import BaseModel

from prove import tools
from prove.bench.progress import Progress
from prove.errors import UserError
from prove.stack.state import StackState

MIB = 2**20
BUSY_SAMPLE_S = 2.0
PACE = 1_000_000
BUSY_PERCENT = 10.0
IDLE_LIMIT_S = 30
IDLE_CPU_S = 0.25  # in a second, by all processes of a stack together
_MEASURED = (":!docs/evidence", ":!docs/benchmarks.md")
PACKAGES = ("flask", "gunicorn", "fastapi", "uvicorn", "sqlalchemy", "opentelemetry-sdk")


@dataclass(frozen=True)
class Effort:
    """How long to measure. `_s`: seconds of one measurement."""

    read_rounds: int = 3
    read_s: int = 8
    warm_up_s: int = 10
    checkout_s: int = 60
    search_s: int = 20
    durability_rounds: int = 5
    start_runs: int = 5
    idle_s: int = 30
    growth_sizes: tuple[int, ...] = (1_000, 100_000, 1_000_000)
    growth_rounds: int = 3
    growth_s: int = 10
    rules_s: int = 60
    fault_rounds: int = 9
    fault_s: int = 20
    cause_spans: tuple[int, ...] = (50_000, 125_000, 250_000, 500_000, 1_000_000)
    cause_runs: int = 41


FULL = Effort()
QUICK = Effort(
    cause_spans=(10_000, 50_000),
    cause_runs=3,
    read_rounds=1,
    read_s=3,
    warm_up_s=2,
    checkout_s=8,
    search_s=4,
    durability_rounds=1,
    start_runs=1,
    idle_s=2,
    growth_sizes=(1_000, 10_000),
    growth_rounds=1,
    growth_s=3,
    rules_s=5,
    fault_rounds=1,
    fault_s=3,
)


class Target(BaseModel):
    """A limit and what was measured against it."""

    text: str
    measured: str
    reached: bool


class Memory(BaseModel):
    """Resident memory of a process and its children, summed, in MiB.

    `rss` counts a page that processes share once for each of them; `pss` (Linux only) divides it
    among them.
    """

    rss: float
    pss: float | None


class Group(BaseModel):
    """Memory of the two groups of a stack, by process."""

    shop: dict[str, Memory]
    observability: dict[str, Memory]

    @property
    def rss(self) -> float:
        """All of it, in MiB."""
        return sum(
            memory.rss for part in (self.shop, self.observability) for memory in part.values()
        )


class Run(BaseModel):
    """When, where and of what a figure was measured.

    `busy_percent` is the share of all cores that other processes took just before; `pace_ms` is
    what the processor took for `PACE` additions then, where that was measured.
    """

    taken_at: datetime
    commit: str
    cpu: str
    cores: int
    memory_gib: float
    os: str
    versions: dict[str, str]
    busy_percent: float
    pace_ms: float | None = None

    @property
    def busy(self) -> bool:
        """Whether others were using the machine: then the figures are worth little."""
        return self.busy_percent > BUSY_PERCENT

    @property
    def machine(self) -> tuple[str, int, float, str]:
        """What must be equal for figures to be compared."""
        return self.cpu, self.cores, self.memory_gib, self.os


def this_run() -> Run:
    """Describe this machine and checkout; takes `BUSY_SAMPLE_S` seconds."""
    return Run(
        taken_at=datetime.now(UTC).replace(microsecond=0),
        commit=commit(),
        cpu=_cpu_model(),
        cores=psutil.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        os=f"{_os_name()}, {platform.system()} {platform.release()}, {platform.machine()}",
        versions=_versions(),
        busy_percent=psutil.cpu_percent(interval=BUSY_SAMPLE_S),
        pace_ms=round(_pace_ms(), 1),
    )


def _pace_ms() -> float:
    """What a machine is worth just now: one that is a guest among others has not always its all."""
    taken = timeit.repeat(f"for each in range({PACE}): total += each", "total = 0", number=1)
    return median(taken) * 1000


def commit() -> str:
    """What is checked out, in 12 digits; `-dirty` when tracked files differ from it.

    Pages of what was measured don't count: each would make the next run one of something else.
    """
    git = ("git", "-C", str(tools.repository_root()))
    head = _said(*git, "rev-parse", "--short=12", "HEAD")
    changed = _said(*git, "status", "--porcelain", "-uno", "--", ".", *_MEASURED)
    return f"{head}{'-dirty' if changed else ''}" if head else "no commit yet"


def tree(pid: int) -> list[psutil.Process]:
    """A process and all below it; raises UserError when it is gone, for it should not be."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        raise UserError(
            f"a process ended while it was measured (pid {pid}); see with `provectl up` whether "
            "the shop runs, and measure again"
        ) from None


def cpu_s(pid: int) -> float:
    """User and system CPU time of a process tree, children that have ended included, in s."""
    total = 0.0
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):  # ended since: now in its parent's time of children
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def memory(pid: int) -> Memory:
    """Memory of a process tree as it is now."""
    rss = 0.0
    shares: list[float | None] = []
    for process in tree(pid):
        with suppress(psutil.NoSuchProcess):
            full = process.memory_full_info()
            rss += full.rss
            shares.append(getattr(full, "pss", None))
    known = [share for share in shares if share is not None]
    return Memory(rss=rss / MIB, pss=sum(known) / MIB if len(known) == len(shares) else None)


def pids(state: StackState) -> dict[str, int]:
    """Running processes of a stack by name."""
    return {name: process.id.pid for name, process in state.processes.items() if process.id}


def cpu_of(state: StackState) -> dict[str, float]:
    """CPU time of each process of a stack so far, in s."""
    return {name: cpu_s(pid) for name, pid in pids(state).items()}


def memory_of(state: StackState) -> Group:
    """Memory of each process of a stack now."""
    groups: dict[str, dict[str, Memory]] = {"shop": {}, "observability": {}}
    for name, pid in pids(state).items():
        groups[state.processes[name].group][name] = memory(pid)
    return Group.model_validate(groups)


def until_idle(state: StackState, progress: Progress) -> None:
    """Until the stack has worked off what it was given, `IDLE_LIMIT_S` at the longest."""
    with progress.step("until the shop is idle again", IDLE_LIMIT_S) as done:
        for second in range(IDLE_LIMIT_S):
            done(second)
            before = sum(cpu_of(state).values())
            time.sleep(1)
            if sum(cpu_of(state).values()) - before < IDLE_CPU_S:
                return


def spent(before: Mapping[str, float], after: Mapping[str, float], per: int) -> dict[str, float]:
    """The difference of two readings by name, divided among `per` (0: nothing was done) ones."""
    return {name: (after[name] - before[name]) / max(per, 1) for name in before if name in after}


def added_ratio(base: Iterable[float], small: Iterable[float], large: Iterable[float]) -> float:
    """Median over rounds of (small - base) ÷ (large - base): what is added, side by side.

    Infinite when nothing was added in the `large` case of the median round.
    """
    ratios = []
    for without, less, more in zip(base, small, large, strict=True):
        added = more - without
        ratios.append((less - without) / added if added > 0 else float("inf"))
    return median(ratios)


def _cpu_model() -> str:
    if sys.platform == "darwin":
        return _said("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line[:10] == "model name"]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def _said(*argv: str) -> str:
    """What a program prints; nothing when it fails or isn't there."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform(terse=True)


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "go": _said("go", "env", "GOVERSION").removeprefix("go") or "none",
        "sqlite": sqlite3.sqlite_version,
        **{package: version(package) for package in PACKAGES},
        **{tool.name: tool.version or "" for tool in tools.of_the_stack()},
    }
