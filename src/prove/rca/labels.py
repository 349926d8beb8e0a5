"""True causes of labelled incidents: for scoring alone. Nothing that analyses may read them."""

import json
from dataclasses import dataclass
from pathlib import Path

from prove.errors import UserError


@dataclass(frozen=True)
class Label:
    """Of one incident. Where nothing is broken `service` is None: nobody is to be named."""

    id: str
    dataset: str
    service: str | None
    fault: str
    kinds: tuple[str, ...] = ()
    """Under which the fault passes, where that is known."""
    others: tuple[str, ...] = ()
    """Services that were broken as well, at the same time."""


def read(directory: Path) -> dict[str, Label]:
    """All labels below a directory, by incident; raises UserError where there is none."""
    found = {}
    for path in sorted(directory.rglob("*.json")):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(told, dict) and {"root_cause_service", "fault_type"} & told.keys():
                service = told.get("root_cause_service")
                label = Label(
                    str(told["id"]),
                    str(told.get("dataset", "?")),
                    None if service is None else str(service),
                    str(told.get("fault_type", "?")),
                    tuple(map(str, told.get("kinds") or ())),
                    tuple(str(each["root_cause_service"]) for each in told.get("others") or ()),
                )
                found[label.id] = label
        except (OSError, ValueError, KeyError, TypeError) as error:
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
