"""What the injector did and is about to do, as JSON lines that are on disk before it acts.

From it whoever comes next (the injector started again, or `provectl up` and `down`) knows what is
to be taken back.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from prove.injector import lines
from prove.injector.faults import Lease

FILE = "injector.jsonl"
MAX_BYTES = 4 * 1024 * 1024

Why = Literal["time", "asked", "replaced", "failed", "restart", "stop"]


@dataclass(frozen=True)
class Entry:
    """A fault that is in force: its lease, and what was noted for taking it back."""

    lease: Lease
    noted: Mapping[str, Any]


class Journal:
    """Appends; each line is on disk when a method returns. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists() and path.stat().st_size > MAX_BYTES and not in_force(path):
            path.replace(path.with_suffix(".1"))

    def begin(self, entry: Entry) -> None:
        """This fault is about to be brought about."""
        self._write(
            did="begin",
            name=entry.lease.name,
            lease=entry.lease.model_dump(mode="json"),
            noted=dict(entry.noted),
        )

    def end(self, name: str, why: Why) -> None:
        """This fault was taken back."""
        self._write(did="end", name=name, why=why)

    def _write(self, **fields: Any) -> None:
        line = {"at_unix_us": time.time_ns() // 1000, **fields}
        lines.append(self._path, json.dumps(line).encode())


def path(home: Path) -> Path:
    """The journal of the stack in `home`."""
    return home / "data" / FILE


def in_force(journal: Path) -> list[Entry]:
    """What was begun and has not ended, in that order; none when there is no journal.

    A line that isn't whole was followed by no act.
    """
    found: dict[str, dict[str, Any]] = {}
    for line in lines.read(journal):
        try:
            said = json.loads(line)
            found.pop(said["name"], None)
            if said["did"] == "begin":
                found[said["name"]] = said
        except (ValueError, LookupError, TypeError):
            continue
    return [entry for said in found.values() if (entry := _entry(said))]


def _entry(said: dict[str, Any]) -> Entry | None:
    try:
        return Entry(Lease.model_validate_json(json.dumps(said["lease"])), said["noted"])
    except (LookupError, ValidationError):  # of another version
        return None
