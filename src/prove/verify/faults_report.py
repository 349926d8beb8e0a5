"""What is told of `verify faults`: while it runs, as a table, as JSON and as a page of evidence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from prove import units
from prove.bars import PhaseBar
from prove.bench.measure import Run
from prove.verify import report
from prove.verify.faults import GRACE_S, Result, Tally, Violation
from prove.verify.figures import Spread

CLAIM = "Every fault is over by itself, also when whoever set it was killed."
HEADINGS = ("fault", "set", "unknown", "seen", "late at most")
WIDTH = 100


class Bar(PhaseBar):
    """How far a run is, on stderr; where that is no terminal (CI, a pipe), a line a phase."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._total = 1

    def phase(self, text: str, total: int) -> None:
        """What begins now, and how many of it there are."""
        self._total = total
        self._bars.update(self._task, description=text, total=max(total, 1), completed=0, count="")
        self._line(text)

    def count(self, done: int, sets: int) -> None:
        """How many are done, and how many faults were set so far."""
        told = f"{done:,} of {self._total:,}, {units.count(sets, 'fault')} so far"
        self._bars.update(self._task, completed=done, count=told)


def document(result: Result, page: Path | None) -> dict[str, Any]:
    """For `--json`: one object, of the form all of `provectl verify` answers in."""
    return {
        "claim": CLAIM,
        "verdict": report.verdict(not result.violations),
        "figures": {
            **result.model_dump(exclude={"violations", "late_s", "ready_s", "cases"}),
            "faults": result.sets,
            "late": Spread.of(result.late_s).model_dump(),
            "ready": Spread.of(result.ready_s).model_dump(),
            "tolerated_s": GRACE_S,
            "cases": [{"fault": name, **of.model_dump()} for name, of in result.cases.items()],
        },
        "violations": [each.model_dump() for each in result.violations],
        "report": str(page) if page else None,
    }


def rows(result: Result) -> list[tuple[str, str]]:
    """What the figures say beside the cases."""
    late, ready = Spread.of(result.late_s), Spread.of(result.ready_s)
    unknown = sum(each.unknown for each in result.cases.values())
    return [
        ("kills of the injector", f"{result.kills:,}, {result.early:,} of them on its way up"),
        ("kills of clients", f"{result.clients:,}"),
        ("faults", f"{result.sets:,}, of {unknown:,} of which nobody knows whether they were set"),
        ("refused", f"{result.refused:,}"),
        ("later than their time", f"{_spread(late)}; {GRACE_S:g} s are tolerated"),
        ("ready again after that", _spread(ready)),
        ("left in the end", f"{result.left:,}"),
        ("took", f"{result.seconds / 60:.1f} min"),
    ]


def show(result: Result, console: Console) -> None:
    """The cases, the figures, the verdict and the violations."""
    shown = Table(box=None, pad_edge=False, width=min(WIDTH, console.width))
    for heading in HEADINGS:
        shown.add_column(heading, justify="left" if heading == "fault" else "right", no_wrap=True)
    for name, tally in result.cases.items():
        shown.add_row(*_cells(name, tally))
    console.print(shown, highlight=False)
    console.print()
    report.show_rows(rows(result), console)
    count = len(result.violations)
    report.show_verdict(not count, CLAIM if not count else f"violations: {count:,}", console)
    for violation in result.violations:
        console.print(f"  {_line(violation)}", highlight=False, markup=False)


def write(directory: Path, result: Result, run: Run, command: str) -> Path:
    """The page and, beside it, the same as JSON; returns the page. Raises UserError."""
    page = directory / f"verify-faults{'-postgres' * (result.database == 'postgres')}.md"
    report.save(page, markdown(result, run, command), document(result, page), run, command)
    return page


def markdown(result: Result, run: Run, command: str) -> str:
    """A page that tells what was run, where, of what, and what came of it."""
    count = len(result.violations)
    parts = [
        f"# {CLAIM}",
        f"**Verdict: {report.verdict(not count)}**, violations: {count}.",
        report.table(
            ("run", ""),
            [
                *report.stamp(run, command),
                ("seed", str(result.seed)),
                ("databases", result.database),
            ],
        ),
        report.table(("figure", ""), rows(result)),
        report.table(HEADINGS, [_cells(name, of) for name, of in result.cases.items()]),
    ]
    if count:
        parts += ["## Violations", "\n".join(f"- {_line(each)}" for each in result.violations)]
    return "\n\n".join(parts) + "\n"


def _cells(name: str, tally: Tally) -> Sequence[str]:
    counts = (tally.set, tally.unknown, tally.seen)
    return (name, *map(str, counts), f"{tally.late_s:.1f} s")


def _spread(of: Spread) -> str:
    return f"P50 {of.p50_s:.2f} s, P99 {of.p99_s:.2f} s, at most {of.max_s:.2f} s"


def _line(violation: Violation) -> str:
    what = f"{violation.kind}: {violation.subject}"
    return f"{what}: expected {violation.expected}, found {violation.found}"
