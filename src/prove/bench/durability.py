"""What the durable checkout costs: the shop before it and the shop now, side by side."""

import dataclasses
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import BaseModel

from prove import tools
from prove.bench import load, measure, shop
from prove.bench.measure import Effort, Target
from prove.bench.progress import Progress
from prove.errors import UserError
from prove.stack import processes
from prove.stack.settings import StackSettings
from prove.stack.spec import ProcessSpec

BEFORE = "3a3be674b0d6"
"""The last commit whose orders were lost with the process that worked on them."""
CATALOGUE = 1_000
RATE = 50
MAX_RATIO = 1.3
_GO = {"order-service": "services/order-service", "acquirer": "simulators/acquirer"}
_PYTHON = {
    "product": "services/product-service/src",
    "payment": "services/payment-service/src",
}
_SHOPS = ("now", "before")
_SHARED = "libs/service-kit/src"


class Window(BaseModel):
    """One load on one shop: P95 of its checkouts in ms, CPU an order of its processes in ms."""

    p95_ms: float
    cpu_ms: float

    @property
    def per_cpu_s(self) -> float:
        """Orders per CPU second."""
        return 1000 / self.cpu_ms


class Durability(BaseModel):
    """`windows`: by shop (`before`, `now`), one a round."""

    commit: str
    rate: int
    seconds: int
    windows: dict[str, list[Window]]

    def ratio(self, what: Literal["p95_ms", "cpu_ms"]) -> float:
        """Now ÷ before: the median of the rounds."""
        now, before = (
            [float(getattr(w, what)) for w in self.windows[k]] for k in ("now", "before")
        )
        return median(new / old for new, old in zip(now, before, strict=True))

    def targets(self) -> list[Target]:
        """A promise that costs little."""
        told = {
            "checkout P95 now ÷ before": self.ratio("p95_ms"),
            "orders per CPU second before ÷ now": self.ratio("cpu_ms"),
        }
        return [
            Target(
                text=f"{text} ≤ {MAX_RATIO:g}", measured=f"{ratio:.2f}", reached=ratio <= MAX_RATIO
            )
            for text, ratio in told.items()
        ]


def measure_durability(effort: Effort, progress: Progress) -> Durability:
    """Measure; raises UserError when something cannot be started, or the commit is not there."""
    windows: dict[str, list[Window]] = {"before": [], "now": []}
    with ExitStack() as stack:
        binaries = processes.ensure_binaries()
        worktree = stack.enter_context(_worktree())
        now = stack.enter_context(shop.home())
        before = stack.enter_context(shop.home())
        with progress.step(f"building the shop of {BEFORE}"):
            old = binaries | {name: _built(worktree, name, before.home) for name in _GO}
        specs = {
            "now": (now, processes.specs(now, binaries)),
            "before": (before, _of(worktree, processes.specs(before, old))),
        }
        states = {
            name: stack.enter_context(shop.running(settings, parts, progress))
            for name, (settings, parts) in specs.items()
        }
        for settings, _ in specs.values():
            shop.import_catalogue(settings, settings.product_port, CATALOGUE, progress)

        def window(name: str, seconds: int, text: str) -> Window:
            state = states[name]
            measure.until_idle(state, progress)
            names = [part for part, process in state.processes.items() if process.group == "shop"]
            start = measure.cpu_of(state)
            sent = _send(specs[name][0], seconds, progress, f"{text}, {name}").targets["checkout"]
            if sent.failed:
                raise UserError(f"{sent.failed} orders failed ({name}): nothing to compare")
            spent = measure.spent(start, measure.cpu_of(state), sent.count)
            return Window(p95_ms=sent.p95, cpu_ms=1000 * sum(spent[part] for part in names))

        for name in windows:
            window(name, effort.warm_up_s, "warm-up")
        for number in range(effort.durability_rounds):
            for name in windows:
                text = f"round {number + 1}/{effort.durability_rounds}"
                windows[name].append(window(name, effort.search_s, text))
    return Durability(commit=BEFORE, rate=RATE, seconds=effort.search_s, windows=windows)


def _send(settings: StackSettings, seconds: int, progress: Progress, text: str) -> load.Load:
    orders = shop.orders(settings.url(settings.order_port), CATALOGUE)
    return load.run(load.Plan({"checkout": orders}, seconds, rate=RATE), progress, text)


@contextmanager
def _worktree() -> Iterator[Path]:
    """The sources as they were at `BEFORE`, for as long as they are needed."""
    with tempfile.TemporaryDirectory(prefix="prove-before-") as directory:
        archive = Path(directory) / "sources.tar"
        _run("git", "archive", f"--output={archive}", BEFORE, cwd=tools.repository_root())
        _run("tar", "-xf", archive.name, cwd=Path(directory))
        yield Path(directory)


def _built(worktree: Path, name: str, out: Path) -> Path:
    binary = out / name
    flags = ("-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", str(binary))
    _run("go", "build", *flags, f"./cmd/{name}", cwd=worktree / _GO[name])
    return binary


def _of(worktree: Path, specs: list[ProcessSpec]) -> list[ProcessSpec]:
    """The same processes, the Python services among them with the worktree's code."""
    changed = []
    for spec in specs:
        if spec.name in _PYTHON:
            sources = (_PYTHON[spec.name], _SHARED)
            path = os.pathsep.join(str(worktree / source) for source in sources)
            spec = dataclasses.replace(spec, env={**spec.env, "PYTHONPATH": path})
        changed.append(spec)
    return changed


def _run(*argv: str, cwd: Path) -> None:
    what = f"the shop of {BEFORE} can't be built"
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(f"{what}: {argv[0]} is not on PATH") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "?").splitlines()[-1]
        hint = "; it needs a clone with its history" if argv[0] == "git" else ""
        raise UserError(f"{what}: `{' '.join(argv[:2])}`: {said}{hint}")
