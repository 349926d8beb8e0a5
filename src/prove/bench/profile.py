"""`python -m prove.bench.profile`: where an item read spends its CPU, stock and as shipped.

Wants py-spy on PATH (`pip install py-spy`; not a dependency, as nothing else needs it). Prints the
table of docs/explanation/cost-of-telemetry.md.
"""

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from prove.bench import load, measure, reads, shop
from prove.bench.progress import Progress
from prove.errors import UserError

SECONDS = 15
VARIANTS: tuple[reads.Configuration, ...] = ("stock", "shipped")

# The innermost frame that is in one of these says where a sample belongs. Frames in none, such as
# Werkzeug's, belong to whoever called them.
_PLACES = (
    ("/opentelemetry/sdk/trace/", "record spans"),
    ("/opentelemetry/attributes/", "record spans"),
    ("/service_kit/spans.py", "record spans"),
    ("/opentelemetry/sdk/metrics/", "record durations"),
    ("/opentelemetry/sdk/_logs/", "access log"),
    ("/opentelemetry/instrumentation/logging/", "access log"),
    ("/service_kit/logs.py", "access log"),
    ("/structlog/", "access log"),
    ("/opentelemetry/", "instrumentation of Flask and SQLAlchemy"),
    ("/service_kit/telemetry.py", "access log"),
    ("/service_kit/", "the service"),
    ("/product_service/", "the service"),
    ("/sqlalchemy/", "the service"),
    ("/flask/app.py", "the service"),
    ("/gunicorn/", "the service"),
)
# Threads of their own, wherever they are.
_EXPORT = (
    "/opentelemetry/sdk/_shared_internal/",
    "/opentelemetry/sdk/metrics/_internal/export/",
    "/opentelemetry/exporter/",
    "/service_kit/export.py",
)
EXPORT = "encode and send, in threads of their own"
PARTS = [EXPORT, *dict.fromkeys(part for _, part in _PLACES)]


def part(stack: str) -> str:
    """What a folded stack of py-spy, outermost frame first, belongs to."""
    frames = stack.split(";")
    # The threads' own functions are outermost; `on_end` and `emit` are called by a request.
    if any(place in frame for frame in frames[:6] for place in _EXPORT):
        return EXPORT
    for frame in reversed(frames):
        for place, name in _PLACES:
            if place in frame:
                return name
    return "the service"


def shares(lines: Iterable[str]) -> dict[str, float]:
    """The share of each part in py-spy's raw output: a folded stack and its samples a line."""
    samples: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        samples[part(stack)] += int(count)
    return {name: samples[name] / max(1, samples.total()) for name in PARTS}


def main() -> None:
    """Measure and print; raises UserError when something is missing."""
    py_spy = shutil.which("py-spy")
    if py_spy is None:
        raise UserError("py-spy is not on PATH; `pip install py-spy` installs it")
    told = {}
    with shop.home() as settings, Progress() as progress:
        specs = [
            spec
            for spec in reads.specs(settings, settings.home / "sdk-metrics.jsonl")
            if spec.name != "off"
        ]
        with shop.running(settings, specs, progress) as state:
            pids = measure.pids(state)
            for name in VARIANTS:
                port = reads.port_of(settings, name)
                shop.import_catalogue(settings, port, reads.CATALOGUE, progress)
                told[name] = _profile(
                    py_spy,
                    pids[name],
                    load.Plan(
                        {name: reads.requests_to(settings.url(port))["item"]}, SECONDS, reads.RATE
                    ),
                    settings.home / f"{name}.folded",
                    progress,
                )
    _print(told)


def _profile(
    py_spy: str, pid: int, plan: load.Plan, raw: Path, progress: Progress
) -> dict[str, float]:
    """CPU µs a request by part: the whole as the kernel counts it, shared out by samples."""
    load.run(plan, progress, "warming up")
    cpu_s = measure.cpu_s(pid)
    steady = load.run(plan, progress, "measuring the whole")
    time.sleep(reads.FLUSH_S)
    whole_us = (measure.cpu_s(pid) - cpu_s) / steady.iterations * 1e6
    # --gil: a thread that only waits is no cost, and py-spy cannot always tell on a busy machine.
    argv = [py_spy, "record", "--pid", str(pid), "--subprocesses", "--format", "raw"]
    argv += ["--gil", "--full-filenames", "--nolineno", "--rate", "500", "--output", str(raw)]
    with subprocess.Popen(
        [*argv, "--duration", str(SECONDS)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as profiler:
        load.run(plan, progress, "profiling")
    if profiler.returncode != 0 or not raw.exists():
        raise UserError("py-spy failed: it wants root, or `sysctl kernel.yama.ptrace_scope=0`")
    found = shares(raw.read_text().splitlines())
    return {name: share * whole_us for name, share in found.items()}


def _print(told: dict[reads.Configuration, dict[str, float]]) -> None:
    def cells(part_us: dict[reads.Configuration, float]) -> str:
        shown = (
            f"{part_us[name]:.0f} µs ({part_us[name] / sum(told[name].values()):.0%})"
            for name in VARIANTS
        )
        return " | ".join(shown)

    rows = [
        "| where | stock (before) | as shipped (after) |",
        "|---|---|---|",
        *(f"| {part} | {cells({name: told[name][part] for name in VARIANTS})} |" for part in PARTS),
        f"| **all** | {cells({name: sum(told[name].values()) for name in VARIANTS})} |",
    ]
    sys.stdout.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"profile: {error}")
