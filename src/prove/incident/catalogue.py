"""The catalogue: the scenarios of `incidents/`, each a file, read and checked."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prove.errors import UserError
from prove.incident.record import Truth
from prove.incident.schema import Extension, Scenario
from prove.incident.theory import Objectives
from prove.slo import spec, windows
from prove.slo.yamltext import Document, documents, read_text
from prove.tools import repository_root

DIRECTORY = "incidents"
SUFFIX = ".yaml"
SCHEMA = "scenario.schema.json"
TOGETHER = "+"
"""Between the names of scenarios that are run at once."""


@dataclass(frozen=True)
class Entry:
    """A scenario with its name, and the document it was read from."""

    name: str
    scenario: Scenario
    document: Document

    @property
    def prove(self) -> Extension:
        """What prove adds to the experiment."""
        return self.scenario.prove

    @property
    def truth(self) -> Truth:
        """The answer, for the record."""
        ours = self.prove
        return Truth(
            scenario=self.name,
            cause=ours.truth,
            story=ours.story,
            mitigations=ours.mitigations,
            red_herrings=ours.red_herrings,
        )


def directory() -> Path:
    """Where the repository's scenarios are; raises UserError outside a checkout."""
    return repository_root() / DIRECTORY


def files(where: Path | None = None) -> list[Path]:
    """The files of the catalogue, by name."""
    return sorted((where or directory()).glob(f"*{SUFFIX}"))


def in_order() -> list[str]:
    """All names, in the order to run them in: where nothing pages first.

    So the stack has a past of its own, and a clean one, before the first page is predicted.
    """
    entries = load()
    return sorted(entries, key=lambda name: entries[name].prove.expect.quiet is None)


def read(path: Path) -> Entry:
    """One scenario; raises UserError with file, line and field of all that is wrong."""
    found = documents(read_text(path), str(path))
    if len(found) != 1:
        raise UserError(f"{path}: must hold one experiment (found {len(found)})")
    return Entry(path.stem, found[0].validate(Scenario), found[0])


def load(where: Path | None = None) -> dict[str, Entry]:
    """All scenarios by their names; raises UserError."""
    return {path.stem: read(path) for path in files(where)}


def find(name: str) -> Entry:
    """A scenario by its name or its file; raises UserError naming those like it."""
    path = Path(name)
    if path.suffix == SUFFIX and path.is_file():
        return read(path)
    known = {each.stem: each for each in files()}
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, cutoff=0) or list(known)[:3]
        raise UserError(f"there is no scenario {name!r}; there are {', '.join(near)} …")
    return read(known[name])


def chosen(names: Sequence[str]) -> list[list[Entry]]:
    """What to run one after another, each once: one scenario, or several at once (`a+b`).

    Raises UserError for a name that isn't one, or is given twice in a run.
    """
    runs = []
    for name in dict.fromkeys(names):
        parts = name.split(TOGETHER)
        if len(set(parts)) < len(parts):
            raise UserError(f"{name!r} has the same scenario twice")
        runs.append([find(part) for part in parts])
    return runs


def objectives(profile: str) -> Objectives:
    """The repository's SLOs with the windows of a profile; raises UserError outside a checkout."""
    slos = repository_root() / "observability" / "slos"
    looked_at = windows.WORKBOOK
    if profile == "drill":
        file = slos / "windows" / "drill.yaml"
        looked_at = windows.parse(file.read_text(encoding="utf-8"), str(file))
    return Objectives(
        {
            slo.id: slo
            for path in sorted(slos.glob("*.yaml"))
            for slo in spec.parse(path.read_text(encoding="utf-8"), str(path))
        },
        looked_at,
    )
