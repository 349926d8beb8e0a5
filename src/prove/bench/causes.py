"""How long an analysis of root causes takes, from parquet files to the answer, and its memory."""

import json
import math
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from prove.bench.measure import Effort, Target
from prove.bench.progress import Progress

if TYPE_CHECKING:
    import polars as pl

SPANS, MOST_MS = 50_000, 250.0
MANY, MOST_S = 1_000_000, 10.0
_SERVICES = 12
_TREE = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8)
"""Parents of a trace's spans: an entrance, and three services asked by client spans."""
_FROM_S, _SECONDS = (1000.0, 2000.0), 60.0


class Size(BaseModel):
    """`seconds`: of each run in one process; `peak_mib`: beyond what it had before the first."""

    seconds: list[float]
    peak_mib: float

    @property
    def p95_s(self) -> float:
        """Of the runs but the first, which warms up, where there are others."""
        warm = sorted(self.seconds[1:] or self.seconds)
        return warm[min(len(warm) - 1, round(0.95 * len(warm)))]


class Causes(BaseModel):
    """By number of spans, baseline and incident together."""

    sizes: dict[int, Size]

    def targets(self) -> list[Target]:
        """The limits of time; memory is told in ratios."""
        found = []
        if (size := self.sizes.get(SPANS)) is not None:
            ms = size.p95_s * 1000
            found.append(
                Target(
                    text=f"P95 of {SPANS:,} spans < {MOST_MS:.0f} ms",
                    measured=f"{ms:.0f} ms",
                    reached=ms < MOST_MS,
                )
            )
        if (size := self.sizes.get(MANY)) is not None:
            found.append(
                Target(
                    text=f"{MANY:,} spans < {MOST_S:.0f} s",
                    measured=f"{size.p95_s:.1f} s",
                    reached=size.p95_s < MOST_S,
                )
            )
        return found


def measure_causes(effort: Effort, progress: Progress) -> Causes:
    """Analyse incidents of growing size, each in a process of its own."""
    sizes = {}
    with tempfile.TemporaryDirectory(prefix="prove-causes-") as scratch:
        for spans in effort.cause_spans:
            directory = Path(scratch) / str(spans)
            with progress.step(f"an incident of {spans:,} spans"):
                write(directory, spans)
                runs = effort.cause_runs if spans <= SPANS else 2
                answer = subprocess.run(
                    [sys.executable, "-m", __name__, directory, str(runs)],
                    capture_output=True,
                    check=True,
                )
                sizes[spans] = Size.model_validate_json(answer.stdout)
    return Causes(sizes=sizes)


def write(directory: Path, spans: int) -> None:
    """A bundle of so many spans, half of them of the baseline, with one service slower."""
    (directory / "before").mkdir(parents=True)
    traces = spans // 2 // len(_TREE)
    for at, place in zip(_FROM_S, (directory / "before", directory), strict=True):
        _table(traces, at, slow=place is directory).write_parquet(place / "spans.parquet")
    windows = [{"start_unix_s": at, "end_unix_s": at + _SECONDS} for at in _FROM_S]
    told = {
        "format": "incident-bundle/1",
        "id": str(spans),
        "baseline": windows[0],
        "baseline_dir": "before",
        "baseline_local": None,
        "incident": windows[1],
    }
    (directory / "bundle.json").write_text(json.dumps(told), encoding="utf-8")


def _table(traces: int, at_s: float, *, slow: bool) -> "pl.DataFrame":
    import numpy as np
    import polars as pl

    chance = np.random.default_rng(1)
    length = len(_TREE)
    trace = np.repeat(np.arange(traces), length)
    place = np.tile(np.arange(length), traces)
    depth = np.array([0, 1, 2, 3, 1, 2, 3, 1, 2, 3])[place]
    start = at_s * 1e9 + trace * (_SECONDS * 1e9 / traces) + place * 3e6
    tail = chance.lognormal(0, 0.2, len(trace)) * 2e6 + np.where(slow & (place == 5), 30e6, 0)
    parents = np.array(_TREE)[place]
    # A client span is in its caller's service: 1, 4 and 7.
    whose = np.array([0, 0, 1, 1, 0, 2, 2, 0, 3, 3])[place] + (trace % (_SERVICES // 4)) * 4
    return pl.DataFrame(
        {"trace": trace, "place": place, "whose": whose, "parent": parents, "from": start}
    ).select(
        pl.format("{}-{}", pl.lit(int(at_s)), "trace").alias("trace_id"),
        pl.format("{}-{}", "trace", "place").alias("span_id"),
        pl.when(pl.col("parent") >= 0)
        .then(pl.format("{}-{}", "trace", "parent"))
        .alias("parent_span_id"),
        pl.format("service-{}", "whose").alias("service"),
        pl.format("service-{}-1", "whose").alias("instance"),
        pl.format("op-{}", "place").alias("name"),
        pl.col("from").cast(pl.Int64).alias("start_unix_nano"),
        (pl.col("from") + pl.Series(tail + (4 - depth) * 9e6))
        .cast(pl.Int64)
        .alias("end_unix_nano"),
        pl.lit("unset").alias("status"),
    )


def _run(directory: Path, runs: int) -> Size:
    """In a process of its own: peak memory is that of a process."""
    from prove.rca import analysis, bundle

    def peak_mib() -> float:
        # getrusage would tell the peak of whoever started this process, where that was higher.
        peak = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        return int(peak[1]) / 1024 if peak else math.nan

    before, seconds = peak_mib(), []
    for _ in range(runs):
        began = time.perf_counter()
        analysis.analyse(bundle.read(directory))
        seconds.append(time.perf_counter() - began)
    return Size(seconds=seconds, peak_mib=peak_mib() - before)


if __name__ == "__main__":
    print(_run(Path(sys.argv[1]), int(sys.argv[2])).model_dump_json())  # noqa: T201
