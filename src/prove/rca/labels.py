"""True causes of labelled incidents: for scoring alone. Nothing that analyses may read them."""

import json
from dataclasses import dataclass
from pathlib import Path

from prove.errors import UserError


@dataclass(frozen=True)
class Label:
    """Of one incident."""

    id: str
    dataset: str
    service: str
    fault: str


def read(directory: Path) -> dict[str, Label]:
    """All labels below a directory, by incident; raises UserError where there is none."""
    found = {}
    for path in sorted(directory.rglob("*.json")):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(told, dict) and "root_cause_service" in told:
                label = Label(
                    str(told["id"]),
                    str(told.get("dataset", "?")),
                    str(told["root_cause_service"]),
                    str(told.get("fault_type", "?")),
                )
                found[label.id] = label
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path} is no label of an incident: {error}") from None
    if not found:
        raise UserError(f"no label is below {directory}: name the directory of truth files")
    return found


def bundles(directory: Path) -> dict[str, Path]:
    """The directories of bundles below a directory, by name; raises UserError for none."""
    found = {path.parent.name: path.parent for path in sorted(directory.rglob("bundle.json"))}
    if not found:
        raise UserError(f"no bundle is below {directory}: each has a bundle.json")
    return found
