"""What is told of incidents: while they run, as a table, as JSON and as a page of evidence."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from prove import files
from prove.bars import PhaseBar
from prove.bench.measure import Run
from prove.incident.catalogue import Entry
from prove.incident.judge import Due
from prove.incident.record import Detection, Incident
from prove.text import WIDTH, paragraph
from prove.units import count

CLAIM = (
    "Each incident is noticed when theory says, by the alert it should set off and no other, "
    "ends with its rollback, and costs no order."
)
GOOD = ("holds", "not possible")
LATE = 0.01
"""Of the requests: more that are sent late make one doubt the machine before the shop."""
HEADINGS = (
    "scenario",
    "verdict",
    "page",
    "after",
    "theory",
    "recovery",
    "wrong",
    "books",
    "budget",
    "the traces say",
)


class Bar(PhaseBar):
    """How far a run is, on stderr, with what happened above it."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._began = time.monotonic()

    def run(self, number: int, of: int, name: str) -> None:
        """Which incident begins now."""
        self._console.print(f"[bold]{escape(name)}[/bold]" + (f" ({number} of {of})" * (of > 1)))

    def phase(self, text: str, lasts_s: float) -> None:
        """What begins now, and for about how long."""
        self._began = time.monotonic()
        self._bars.update(self._task, description=escape(text), total=max(lasts_s, 1), completed=0)
        self._line(f"         {text}")

    def count(self, sent: int, bad: int, pages: int) -> None:
        """Of the run so far."""
        told = f"{count(sent, 'request')}, {bad:,} got nothing"
        self._bars.update(self._task, completed=time.monotonic() - self._began, count=told)

    def told(self, text: str) -> None:
        """Something happened."""
        told = paragraph(text, rest=" " * 10) if len(text) > WIDTH else text
        self._console.print(told, markup=False, highlight=False, soft_wrap=True)


def show_list(entries: Mapping[str, Entry], dues: Mapping[str, Sequence[Due]], to: Console) -> None:
    """The catalogue, by family; below each name, what people notice."""
    heads = ("scenario", "cause is", "what pages", "after")
    to.print(f"  {heads[0]:<29} {heads[1]:<8} {heads[2]:<24} {heads[3]}", highlight=False)
    family = ""
    for name, entry in sorted(entries.items(), key=lambda each: (each[1].prove.family, each[0])):
        if family != entry.prove.family:
            family = entry.prove.family
            to.print(f"\n[bold]{family}[/bold]")
        told = [(due.alert, _due(due)) for due in dues[name]] or [("no page", "")]
        for row, (alert, due_s) in enumerate(told):
            first = (name, entry.prove.difficulty) if row == 0 else ("", "")
            line = f"  {first[0]:<29} {first[1]:<8} {alert:<24} {due_s}"
            to.print(line.rstrip(), highlight=False, soft_wrap=True)
        to.print(f"    [dim]{escape(entry.scenario.title)}[/dim]", highlight=False)


def _due(due: Due) -> str:
    return f"< {due.within_s:.0f} s" if due.theory_s is None else f"{due.theory_s:.1f} s"


def show_scenario(entry: Entry, dues: Sequence[Due], to: Console, *, truth: bool) -> None:
    """One scenario; its answer only when asked for."""
    scenario, ours = entry.scenario, entry.prove

    def part(title: str, text: str) -> None:
        to.print(f"\n[bold]{title}[/bold]")
        to.print(escape(" ".join(text.split())))

    to.print(f"[bold]{escape(scenario.title)}[/bold]  ({ours.family}, {ours.difficulty})")
    part("What people notice", scenario.description)
    part("Blast radius", ours.blast_radius)
    to.print("\n[bold]What has to be seen[/bold]")
    for due in dues:
        when = f"{_due(due)} after the injection" + (" by theory" if due.theory_s else "")
        to.print(f"  page {due.alert}: {when}; {escape(due.page.why)}")
    if ours.expect.quiet:
        to.print(f"  no page: {escape(ours.expect.quiet.why)}")
    for possible in ours.expect.may_page:
        to.print(f"  {possible.slo} may page as well: {escape(possible.why)}")
    for seen in ours.expect.seen:
        to.print(f"  {escape(seen.what)}")
    to.print("\n[bold]What is done[/bold]")
    for step in (*scenario.method, *scenario.rollbacks):
        provider = step.provider
        to.print(f"  {escape(step.name)}: {provider.method} {escape(provider.url)}")
    if not truth:
        to.print("\nThe cause, what helps and what doesn't: --truth")
        return
    part("Story", ours.story)
    cause = ours.truth
    part("Root cause", f"{cause.kind} in {cause.service}: {cause.component}")
    to.print("\n[bold]What one could do[/bold]")
    for each in ours.mitigations:
        word = "[green]works[/green]" if each.works else "[red]does not[/red]"
        to.print(f"  {word}  {escape(each.what)}: {escape(' '.join(each.why.split()))}")
    to.print("\n[bold]Red herrings[/bold]")
    for herring in ours.red_herrings:
        to.print(f"  {escape(' '.join(herring.split()))}")


def show(incidents: Sequence[Incident], to: Console) -> None:
    """Each incident in short, and of those that don't hold, what didn't."""
    for incident in incidents:
        colour = "green" if incident.verdict in GOOD else "red"
        to.print(f"[bold]{escape(incident.scenario)}[/bold]  [{colour}]{incident.verdict}[/]")
        for told in incident.detections:
            theory = _theory(told) if told.theory_s is None else told.predicted
            line = f"page {told.alert} after {_seconds(told.paged_s)}, theory {theory}"
            _paragraph(to, line, "  ")
        found = incident.figures
        line = (
            f"recovery {_seconds(found.recovery_s)}; {count(found.wrong_pages, 'wrong page')}; "
            f"{count(found.integrity_differences, 'difference')} in the books; "
            f"{found.budget_spent:.1%} of an error budget"
        )
        _paragraph(to, line, "  ")
        if (load := incident.load).late > LATE * load.sent:
            line = (
                f"{load.late:,} of {count(load.sent, 'request')} were sent over 0.1 s late: this "
                "machine was too busy to judge times by"
            )
            _paragraph(to, line, "  ")
        if incident.analysed:
            said = _analysed(incident).replace("\n", ": ")
            _paragraph(to, f"the traces say {said}", "  ")
    for incident in incidents:
        failed = [each for each in incident.expectations if not each.holds]
        if failed:
            to.print(f"\n[bold]{escape(incident.scenario)}[/bold]: {incident.verdict}")
        for each in failed:
            _paragraph(to, f"{each.what}: expected {each.expected}", "  ")
            _paragraph(to, f"found {each.found}", "    ")


def _paragraph(to: Console, text: str, indent: str) -> None:
    to.print(paragraph(text, indent, indent + "  "), markup=False, highlight=False, soft_wrap=True)


def _cells(incident: Incident) -> Sequence[str]:
    found, told = incident.figures, incident.detections
    return (
        incident.scenario,
        incident.verdict,
        "\n".join(each.alert for each in told) or "none",
        "\n".join(_seconds(each.paged_s) for each in told),
        "\n".join(_theory(each) for each in told),
        _seconds(found.recovery_s),
        str(found.wrong_pages),
        str(found.integrity_differences),
        f"{found.budget_spent:.1%}",
        _analysed(incident),
    )


def _analysed(incident: Incident) -> str:
    """Service and kind that were named from telemetry alone, and whether that is right."""
    found = incident.analysed
    if found is None:
        return "-"
    named = f"{found.service}, {found.kind}" if found.service else f"none: {found.abstained}"
    right = {None: "", True: "\nright", False: "\nwrong"}[found.right]
    return named + ("\nright, of another kind" if found.right_kind is False else right)


def _theory(told: Detection) -> str:
    if told.theory_s is None:
        return f"< {told.within_s:.0f} s"
    sooner = f" ({told.predicted_s:.0f} s)" if told.predicted_s < told.theory_s else ""
    return f"{told.theory_s:.1f} s{sooner}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def holds(incidents: Sequence[Incident]) -> bool:
    """Whether all went as claimed; what this installation can't have is no failure."""
    return all(each.verdict in GOOD for each in incidents)


def document(incidents: Sequence[Incident], records: Path, page: Path | None) -> dict[str, Any]:
    """For `--json`."""
    ran = [each for each in incidents if each.verdict not in ("not possible", "aborted")]
    return {
        "claim": CLAIM,
        "verdict": "holds" if holds(incidents) else "does not hold",
        "figures": {
            "runs": len(incidents),
            "hold": sum(each.verdict == "holds" for each in incidents),
            "not_possible": sum(each.verdict == "not possible" for each in incidents),
            "pages_expected": sum(len(each.detections) for each in ran),
            "pages_came": sum(d.paged_s is not None for each in ran for d in each.detections),
            "wrong_pages": sum(each.figures.wrong_pages for each in ran),
            "integrity_differences": sum(each.figures.integrity_differences for each in ran),
        },
        "incidents": [
            {
                "id": each.id,
                "scenario": each.scenario,
                "verdict": each.verdict,
                "why": each.why,
                "record": str(records / each.id),
                "figures": each.figures.model_dump(),
                "load": each.load.model_dump(),
                "analysed": each.analysed.model_dump() if each.analysed else None,
                "detections": [one.model_dump() for one in each.detections],
                "expectations": [one.model_dump() for one in each.expectations],
            }
            for each in incidents
        ],
        "report": str(page) if page else None,
    }


def write(directory: Path, incidents: Sequence[Incident], seed: int, run: Run, given: str) -> Path:
    """The page of evidence; raises UserError."""
    path = directory / f"incidents-{seed}.md"
    files.write(path, _page(incidents, seed, run, given))
    return path


def _page(incidents: Sequence[Incident], seed: int, run: Run, given: str) -> str:
    figures = document(incidents, Path(), None)["figures"]
    offs = [
        each.paged_s - each.predicted_s
        for incident in incidents
        for each in incident.detections
        if each.paged_s is not None and each.theory_s is not None
    ]
    sent, late = (sum(getattr(each.load, name) for each in incidents) for name in ("sent", "late"))
    lines = [
        "# Incidents",
        "",
        f"{CLAIM}",
        "",
        f"Verdict: **{'holds' if holds(incidents) else 'does not hold'}**. Made by `{given}`, "
        f"{run.taken_at:%Y-%m-%d %H:%M} UTC, of {run.commit}, on {run.cores} cores of {run.cpu}, "
        f"{run.memory_gib:g} GiB, {run.os}; other processes took {run.busy_percent:.0f}% just "
        "before. Written anew by `make prove`.",
        "",
        "| | |",
        "|:--|--:|",
        f"| incidents run, seed {seed} | {figures['runs'] - figures['not_possible']} |",
        f"| hold | {figures['hold']} |",
        f"| expected pages that came | {figures['pages_came']} of {figures['pages_expected']} |",
        f"| wrong pages | {figures['wrong_pages']} |",
        f"| differences in the books | {figures['integrity_differences']} |",
        f"| requests sent over 0.1 s late | {late:,} of {sent:,} |",
    ]
    if offs:
        middle = sorted(offs)[len(offs) // 2]
        lines.append(
            f"| page later than predicted: least, median, most | {min(offs):+.1f} s, "
            f"{middle:+.1f} s, {max(offs):+.1f} s |"
        )
    lines += [
        "",
        "“Theory” supposes a past without errors; in brackets, where that makes over a second, "
        "what it is with what the windows still held of incidents before, or lacked; `<` is a "
        "bound, where no share of bad events is known beforehand. “Recovery” is from the last "
        "rollback until every SLI is within its objective and no page is left. “Budget” is the "
        "greatest share of a period's error budget that went. “The traces say” is what `rca` "
        "named from telemetry alone; it judges nothing.",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|:--|:--|:--|--:|--:|--:|--:|--:|--:|:--|",
    ]
    lines += [
        "| " + " | ".join(cell.replace("\n", "<br>") for cell in _cells(incident)) + " |"
        for incident in incidents
    ]
    for incident in incidents:
        failed = [each for each in incident.expectations if not each.holds]
        if failed:
            lines += ["", f"## {incident.scenario}: {incident.verdict}", ""]
        lines += [f"- {each.what}: expected {each.expected}; found {each.found}" for each in failed]
    return "\n".join(lines) + "\n"
