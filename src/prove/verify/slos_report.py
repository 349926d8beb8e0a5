"""What is told of `verify slos`: while it runs, as a table, as JSON and as a page of evidence."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from prove import units
from prove.bars import PhaseBar
from prove.bench.measure import Run
from prove.verify import report
from prove.verify.cells import Outcome, Violation
from prove.verify.slos import Kept

CLAIM = "Each SLO pages when theory says, at a real pager, and nothing else does."
HEADINGS = ("cell", "bad", "due", "paged", "off", "resolved, due")
WIDTH = 100


class Bar(PhaseBar):
    """How far a stage is, on stderr; where that is no terminal (CI, a pipe), a line a phase."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._began = time.monotonic()

    def phase(self, text: str, lasts_s: float) -> None:
        """What begins now, and for about how long."""
        self._began = time.monotonic()
        self._bars.update(self._task, description=text, total=max(lasts_s, 1), completed=0)
        self._line(f"{text} ({lasts_s:.0f} s)")

    def pages(self, count: int) -> None:
        """How many pages came so far."""
        elapsed_s = time.monotonic() - self._began
        told = units.count(count, "page")
        self._bars.update(self._task, completed=elapsed_s, count=told)


class Differences(BaseModel):
    """How much later than in theory pages came, in seconds; negative: earlier."""

    count: int
    p50_s: float
    p95_s: float
    least_s: float
    most_s: float

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> "Differences | None":
        """None when no page came."""
        values = sorted(each.off_s for each in outcomes if each.off_s is not None)
        if not values:
            return None
        # A single value has no quantiles but itself.
        cuts = quantiles(values if len(values) > 1 else values * 2, n=20, method="inclusive")
        return cls(
            count=len(values),
            p50_s=round(cuts[9], 3),
            p95_s=round(cuts[18], 3),
            least_s=values[0],
            most_s=values[-1],
        )


def document(kept: Kept, tolerated_s: float, page: Path | None) -> dict[str, Any]:
    """For `--json`: one object, of the form all of `provectl verify` answers in."""
    differences = Differences.of(kept.outcomes)
    answers: Counter[str] = Counter()
    for stage in kept.stages:
        answers.update(stage.answers)
    return {
        "claim": CLAIM,
        "verdict": report.verdict(not kept.violations),
        "figures": {
            "cells": [{**each.model_dump(), "off_s": each.off_s} for each in kept.outcomes],
            "off": differences.model_dump() if differences else None,
            "tolerated_s": tolerated_s,
            "healthy_s": sum(stage.quiet_s for stage in kept.stages),
            "soaked_s": kept.soaked_s,
            "false_pages": _false(kept.violations),
            "requests_sent": sum(stage.sent for stage in kept.stages),
            "requests_late": sum(stage.late for stage in kept.stages),
            "answers": answers,
        },
        "violations": [each.model_dump() for each in kept.violations],
        "report": str(page) if page else None,
    }


def rows(kept: Kept, tolerated_s: float) -> list[tuple[str, str]]:
    """What the figures say beside the cells."""
    told = []
    if off := Differences.of(kept.outcomes):
        told.append(
            (
                "later than in theory",
                f"P50 {off.p50_s:+.1f} s, P95 {off.p95_s:+.1f} s, "
                f"from {off.least_s:+.1f} to {off.most_s:+.1f} s",
            )
        )
    sent, late = (sum(getattr(stage, of) for stage in kept.stages) for of in ("sent", "late"))
    healthy_s = sum(stage.quiet_s for stage in kept.stages)
    return [
        *told,
        ("tolerated", f"± {tolerated_s:g} s"),
        ("healthy traffic", f"{_minutes(healthy_s)}, the longest soak {_minutes(kept.soaked_s)}"),
        ("false pages", str(_false(kept.violations))),
        ("requests", f"{sent:,} sent, {late:,} of them late"),
    ]


def show(kept: Kept, tolerated_s: float, console: Console) -> None:
    """The cells, the figures, the verdict and the violations."""
    shown = Table(box=None, pad_edge=False, width=min(WIDTH, console.width))
    for heading in HEADINGS:
        shown.add_column(heading, justify="left" if heading == "cell" else "right", no_wrap=True)
    for outcome in kept.outcomes:
        shown.add_row(*_cells(outcome))
    if kept.outcomes:
        console.print(shown, highlight=False)
        console.print()
    report.show_rows(rows(kept, tolerated_s), console)
    count = len(kept.violations)
    holds = not count
    report.show_verdict(holds, CLAIM if holds else f"violations: {count:,}", console)
    for violation in kept.violations:
        console.print(f"  {_line(violation)}", highlight=False, markup=False)


def write(directory: Path, kept: Kept, tolerated_s: float, run: Run, command: str) -> Path:
    """The page and, beside it, the same as JSON; returns the page. Raises UserError."""
    page = directory / "verify-slos.md"
    text = markdown(kept, tolerated_s, run, command)
    report.save(page, text, document(kept, tolerated_s, page), run, command)
    return page


def markdown(kept: Kept, tolerated_s: float, run: Run, command: str) -> str:
    """A page that tells what was run, where, of what, and what came of it."""
    count = len(kept.violations)
    parts = [
        f"# {CLAIM}",
        f"**Verdict: {report.verdict(not count)}**, violations: {count}.",
        report.table(("run", ""), report.stamp(run, command)),
        report.table(HEADINGS, map(_cells, kept.outcomes)),
        report.table(("figure", ""), rows(kept, tolerated_s)),
    ]
    if count:
        parts += ["## Violations", "\n".join(f"- {_line(each)}" for each in kept.violations)]
    return "\n\n".join(parts) + "\n"


def _cells(outcome: Outcome) -> Sequence[str]:
    off = outcome.off_s
    return (
        outcome.cell,
        f"{outcome.share:.0%}",
        f"{outcome.due_s:.1f} s",
        _seconds(outcome.paged_s),
        "-" if off is None else f"{off:+.1f} s",
        f"{_seconds(outcome.resolved_s)}, {outcome.resolves_s:.1f} s",
    )


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"


def _false(violations: Iterable[Violation]) -> int:
    return sum(each.kind == "false-page" for each in violations)


def _line(violation: Violation) -> str:
    what = f"{violation.kind}: {violation.subject}"
    return f"{what}: expected {violation.expected}, found {violation.found}"


def _minutes(of_s: float) -> str:
    return f"{of_s / 60:g} min"
