"""Labelled bundles of our own incidents, laid out as those of others are:

    bundles/own/own-1-007/    the bundle
    truth/own/own-1-007.json  what was done
    cases.jsonl               which cases of the plan are done, one a line
    incidents/                the records, with all that clients saw

A run that is stopped is gone on with: cases in `cases.jsonl` are done. Several may collect into one
directory at once, each with another seed.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prove.cause import live, truth
from prove.cause.plan import DATASET, Case
from prove.errors import UserError
from prove.incident import bundle, evidence, record
from prove.incident.objectives import Objectives
from prove.incident.record import Incident, Window, Windows
from prove.incident.target import Target

BUNDLES, TRUTHS, CASES = "bundles", "truth", "cases.jsonl"
NOBODY = record.Cause(service="nobody", kind="none", component="nothing is broken")


def done(out: Path) -> dict[str, str]:
    """Of each case that has been run, the id of its bundle; '' where it could not be had."""
    return {str(line["case"]): str(line["id"]) for line in _lines(out / CASES)}


def left(cases: Sequence[Case], out: Path) -> list[Case]:
    """What is still to be run."""
    known = done(out)
    return [case for case in cases if case.name not in known]


def keeper(cases: Sequence[Case], out: Path) -> Callable[[Target, Incident, Path], None]:
    """What the runner calls once a case is over: keeps the evidence, bundle and truth."""
    by_name = {case.name: case for case in cases}

    def keep(target: Target, incident: Incident, directory: Path) -> None:
        case = by_name[incident.scenario]
        evidence.keep(target, incident, directory, lambda *of: told_windows(case, *of))
        label(case, directory, out)

    return keep


def label(case: Case, directory: Path, out: Path) -> None:
    """Put a finished run's bundle and truth to the others; raises UserError."""
    incident, found = record.read(directory), bundle.read(directory)
    kept = ""
    if found is not None and incident.verdict not in ("not possible", "interrupted"):
        kept = case.name  # of a second there may be two, where several collect at once
        target = out / BUNDLES / DATASET / kept
        try:
            shutil.copytree(directory / record.BUNDLE, target, dirs_exist_ok=True)
            record.write(target / bundle.BUNDLE_FILE, found.model_copy(update={"id": kept}))
            path = out / TRUTHS / DATASET / f"{kept}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            told = json.dumps(truth_of(case, incident, kept, found.quality), indent=1)
            path.write_text(told + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{out} cannot be written to: {error.strerror}") from None
    line: dict[str, Any] = {
        "case": case.name,
        "id": kept,
        "verdict": incident.verdict,
        "analysed": None,
    }
    if (said := incident.analysed) is not None:
        causes = [each.cause for each in (*case.faults, *case.more_load)] or [NOBODY]
        right, right_kind = truth.rightness(said.service, said.kind, causes)
        judged = said.model_copy(update={"right": right, "right_kind": right_kind})
        line["analysed"] = judged.model_dump()
    try:
        with (out / CASES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise UserError(f"{out / CASES} cannot be written to: {error.strerror}") from None


def tally(cases: Sequence[Case], out: Path) -> dict[str, dict[str, int]]:
    """Of each sort of run that is done: `runs`, `right`, `right_kind` as well, `abstained`.

    As the analysis was when it was collected; `rca score` makes it anew.
    """
    sorts = {case.name: _sort(case) for case in cases}
    found: dict[str, dict[str, int]] = {}
    for line in _lines(out / CASES):
        said = line.get("analysed")
        if said is None or line["case"] not in sorts:
            continue
        of = found.setdefault(
            sorts[line["case"]], {"runs": 0, "right": 0, "right_kind": 0, "abstained": 0}
        )
        of["runs"] += 1
        of["right"] += said["right"] is True
        of["right_kind"] += said["right_kind"] is True
        of["abstained"] += said["service"] is None
    return dict(sorted(found.items()))


def _sort(case: Case) -> str:
    if case.more_load:
        return "load only"
    return ("no fault", "one fault", "two faults")[len(case.faults)]


def told_windows(
    case: Case, directory: Path, incident: Incident, promised: Objectives
) -> Windows | None:
    """When it was, by what a person on call knows: never by when something was done.

    It began when the SLI of its first page went bad; without a page, at a time that is only about
    right. Who looks doesn't wait for the end. Needs the record's pages and SLIs.
    """
    if incident.windows is None:
        return None
    baseline, done = incident.windows.baseline, incident.windows.incident
    end_s = (incident.rolled_back_unix_us or incident.ended_unix_us) / 1e6 - case.ends_before_s
    about = Window(start_unix_s=done.start_unix_s + case.begins_after_s, end_unix_s=end_s)
    told = evidence.as_paged(directory, incident.windows, promised, about)
    healthy_until_s = live.healthy_until(told.start_unix_s, promised)
    return Windows(
        baseline=Window(start_unix_s=baseline.start_unix_s, end_unix_s=healthy_until_s),
        incident=told,
    )


def truth_of(case: Case, incident: Incident, id_: str, quality: str) -> dict[str, Any]:
    """The label, with what the case was."""
    return {
        "id": id_,
        "dataset": DATASET,
        "quality": quality,
        "case": case.name,
        "severity": case.severity,
        "load": {"reads_per_s": case.reads_per_s, "checkouts_per_s": case.checkouts_per_s},
        **truth.label(incident, [each.cause for each in (*case.faults, *case.more_load)]),
    }


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The last may be torn: then its case is run again."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return
