"""What is told of a run: while it runs, as a table, as JSON and as a page of evidence."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prove.bars import PhaseBar
from prove.bench.measure import Run
from prove.errors import UserError
from prove.verify.checker import Violation
from prove.verify.experiment import Result
from prove.verify.figures import Figures, Spread
from prove.verify.mutants import MUTANTS

CLAIM = "No order is lost, charged twice, stuck or short of its goods, whatever is killed or cut."
MUTANTS_CLAIM = "Each of the bugs planted in the services is caught."
SHOWN_VIOLATIONS = 10
WIDTH = 100


class Bar(PhaseBar):
    """How far a run is, on stderr; where that is no terminal (CI, a pipe), a line a phase."""

    def __init__(self, orders: int, kills: int, console: Console | None = None) -> None:
        super().__init__(console, orders)
        self._kills = kills

    def phase(self, text: str) -> None:
        """What begins now."""
        self._bars.update(self._task, description=text)
        self._line(text)

    def count(self, sent: int, kills: int, open_: int) -> None:
        """Of the run so far."""
        counts = f"{sent:,} orders sent, {open_:,} open, {kills:,} of {self._kills:,} kills"
        self._bars.update(self._task, completed=sent, count=counts)


def rows(figures: Figures) -> list[tuple[str, str]]:
    """What the figures say, in the order in which it is told."""
    told = [
        ("purchases sent", f"{figures.sent:,}: {_counts(figures.purchases)}"),
        ("attempts", f"{sum(figures.attempts.values()):,}: {_counts(figures.attempts)}"),
        ("orders in the books, in the end", _counts(figures.orders)),
        ("put off and taken up again", f"{figures.put_off:,}"),
        ("stuck", f"{figures.stuck:,}"),
        ("kills", f"{figures.killed:,}: {_counts(figures.kills)}"),
        ("crash points", _counts(figures.crash_points)),
        ("restarts", _counts(figures.restarts)),
        ("cuts", _counts(figures.cuts)),
        ("faults that did not come about", f"{figures.missed:,}"),
        ("arrivals that were late", f"{figures.late:,}"),
        ("from creation to the end", _spread(figures.settled)),
        ("recovery after the last fault", _spread(figures.recovery)),
        ("answered", f"{figures.goodput_per_s:g} purchases/s for {figures.duration_s:,g} s"),
    ]
    if figures.rounds > 1:
        told.append(("rounds", str(figures.rounds)))
    return told


def show_rows(of: Iterable[tuple[str, str]], console: Console) -> None:
    """Names, dimmed, and values in two columns."""
    shown = Table(box=None, pad_edge=False, show_header=False, width=min(WIDTH, console.width))
    shown.add_column(style="dim", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in of:
        shown.add_row(name, value)
    console.print(shown, highlight=False)


def show(result: Result, console: Console) -> None:
    """The figures, the verdict, the first violations and the story of the very first."""
    show_rows([*rows(result.figures), *_limits(result)], console)
    count = len(result.violations)
    text = f"violations: {count:,}" if count else "recovery takes too long"
    show_verdict(result.holds, CLAIM if result.holds else text, console)
    if not count:
        return
    for violation in result.violations[:SHOWN_VIOLATIONS]:
        console.print(f"  {_line(violation)}", highlight=False, markup=False)
    if count > SHOWN_VIOLATIONS:
        console.print(f"  … and {count - SHOWN_VIOLATIONS:,} more")
    console.print("\nThe first of them:", result.story, sep="\n", highlight=False, markup=False)


def document(result: Result, report: Path | None) -> dict[str, Any]:
    """For `--json`: one object, of the form all of `provectl verify` answers in."""
    return {
        "claim": CLAIM,
        "verdict": verdict(result.holds),
        "figures": result.figures.model_dump() | _plan(result) | _limit_figures(result),
        "violations": [asdict(violation) for violation in result.violations],
        "report": str(report) if report else None,
    }


def show_mutants(caught: Mapping[str, Sequence[str]], console: Console) -> None:
    """Each planted bug and the violations that gave it away."""
    shown = Table(box=None, pad_edge=False, width=min(WIDTH, console.width))
    for heading in ("mutant", "service", "what it does", "caught by"):
        shown.add_column(heading, overflow="fold", no_wrap=heading in ("mutant", "service"))
    for name, kinds in caught.items():
        mutant = MUTANTS[name]
        by = Text(kinds[0], "green") if kinds else Text("not caught", "bold red")
        shown.add_row(name, mutant.service, mutant.bug, by)
    console.print(shown, highlight=False)
    survived = sum(not kinds for kinds in caught.values())
    show_verdict(not survived, MUTANTS_CLAIM, console)


def mutants_document(caught: Mapping[str, Sequence[str]], report: Path | None) -> dict[str, Any]:
    """For `--json`; a violation is a bug that was not caught."""
    survived = [name for name, kinds in caught.items() if not kinds]
    return {
        "claim": MUTANTS_CLAIM,
        "verdict": verdict(not survived),
        "figures": {"mutants": len(caught), "caught_by": caught},
        "violations": survived,
        "report": str(report) if report else None,
    }


def write_mutants(
    directory: Path, name: str, caught: Mapping[str, Sequence[str]], run: Run, command: str
) -> Path:
    """As `write`, of mutants."""
    page = directory / f"{name}.md"
    document = mutants_document(caught, page)
    body = [
        (name, MUTANTS[name].service, MUTANTS[name].bug, ", ".join(kinds) or "**not caught**")
        for name, kinds in caught.items()
    ]
    parts = [
        f"# {MUTANTS_CLAIM}",
        f"**Verdict: {document['verdict']}**, caught: {sum(map(bool, caught.values()))} of "
        f"{len(caught)}.",
        table(("run", ""), stamp(run, command)),
        table(("mutant", "service", "what it does", "caught by"), body),
    ]
    save(page, "\n\n".join(parts) + "\n", document, run, command)
    return page


def write(directory: Path, name: str, result: Result, run: Run, command: str) -> Path:
    """The page and, beside it, the same as JSON; returns the page. Raises UserError."""
    page = directory / f"{name}.md"
    save(page, markdown(result, run, command), document(result, page), run, command)
    return page


def save(page: Path, text: str, facts: Mapping[str, Any], run: Run, command: str) -> None:
    """Write a page of evidence and, beside it, its facts as JSON. Raises UserError."""
    told = {**facts, "run": run.model_dump(mode="json"), "command": command}
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text)
        page.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"{page.parent} cannot be written: {error.strerror}") from None


def markdown(result: Result, run: Run, command: str) -> str:
    """A page that tells what was run, where, of what, and what came of it."""
    of_plan = [(name, str(value)) for name, value in _plan(result).items()]
    parts = [
        f"# {CLAIM}",
        f"**Verdict: {verdict(result.holds)}**, violations: {len(result.violations)}.",
        table(("run", ""), [*stamp(run, command), *of_plan]),
        table(("figure", ""), [*rows(result.figures), *_limits(result)]),
    ]
    if result.violations:
        listed = "\n".join(f"- {_line(each)}" for each in result.violations[:SHOWN_VIOLATIONS])
        parts += ["## Violations", listed, f"```\n{result.story}\n```"]
    return "\n\n".join(parts) + "\n"


def show_verdict(holds: bool, text: str, console: Console) -> None:
    """Whether a claim holds, in green or red, and what there is to say of it."""
    words = Text(verdict(holds), "bold green" if holds else "bold red")
    console.print(words.append(f": {text}", "not bold default"))


def stamp(run: Run, command: str) -> list[tuple[str, str]]:
    """What was run, when, where and of what."""
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    return [
        ("command", f"`{command}`"),
        ("commit", f"`{run.commit}`"),
        ("date", f"{run.taken_at:%Y-%m-%d %H:%M} UTC"),
        ("machine", f"{run.cpu}, {run.cores} cores, {run.memory_gib:g} GiB, {run.os}"),
        ("versions", versions),
    ]


def verdict(holds: bool) -> str:
    """In words, the same for every claim."""
    return "holds" if holds else "does not hold"


def _limits(result: Result) -> list[tuple[str, str]]:
    limit_s = result.recovery_limit_s
    if limit_s is None:
        return []
    told = "reached" if result.recovered else "missed"
    return [("P99 of the recovery", f"{limit_s:g} s: {told}")]


def _limit_figures(result: Result) -> dict[str, Any]:
    if result.recovery_limit_s is None:
        return {}
    return {
        "recovery_p99_limit_s": result.recovery_limit_s,
        "recovery_p99_reached": result.recovered,
    }


def _plan(result: Result) -> dict[str, Any]:
    plan = result.plan
    kills = sum(fault.kind != "cut" for fault in plan.faults)
    return {
        "purchases planned": len(plan.purchases),
        "kills planned": kills,
        "cuts planned": len(plan.faults) - kills,
        "seed": plan.seed,
        "rate per second": plan.rate_per_s,
    }


def _line(violation: Violation) -> str:
    what = f"{violation.kind}: {violation.subject}"
    return f"{what}: expected {violation.expected}, found {violation.found}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def _spread(spread: Spread) -> str:
    if not spread.count:
        return "no order"
    quantiles = f"P50 {spread.p50_s:g} s, P99 {spread.p99_s:g} s, max {spread.max_s:g} s"
    return f"{quantiles} ({spread.count:,} orders)"


def table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [f"| {' | '.join(header)} |", f"|{' :-- |' * len(header)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in body])
