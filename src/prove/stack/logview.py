"""Logs for people: lines of any process of the stack, parsed alike and shown in order of time."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prove.stack import logfiles

FOLLOW_INTERVAL_S = 0.2

_NOT_TOLD = re.compile(r"_stream|(deployment|host|scope|service|telemetry)\.|severity_number$")
_ALIASES = {
    "ts": ("ts", "time", "timestamp", "_time"),
    "level": ("level", "severity", "severity_text"),
    "event": ("event", "msg", "message", "_msg"),
}
_SHOWN_ELSEWHERE = {"service", "service.name", "logger"}
_RANK = {"debug": 0, "info": 1, "warning": 2, "error": 3, "critical": 4}


@dataclass(frozen=True)
class Record:
    """One log line of the process called `process` (as in `provectl status`).

    `time` is RFC 3339 in UTC, or empty when the line carries none.
    """

    time: str
    level: str
    process: str
    event: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    raw: str = ""

    @property
    def rank(self) -> int:
        """Severity as a number, `info` for what isn't known."""
        return _RANK.get(self.level, 1)


def parse(line: str, process: str) -> Record:
    """A line of JSON, ours, slog's or zap's; another line is an event as it stands."""
    try:
        document = json.loads(line)
    except ValueError:
        document = None
    if isinstance(document, dict):
        return from_fields(document, process, line)
    return Record("", "", process, line, raw=line)


def from_store(document: Mapping[str, str]) -> Record:
    """A record of the log store, without what it says of its resource and of the store."""
    process = document.get("service.name", "").removesuffix("-service")
    told = {key: value for key, value in document.items() if not _NOT_TOLD.match(key)}
    return from_fields(told, process, json.dumps(document))


def from_fields(document: Mapping[str, Any], process: str, raw: str) -> Record:
    """A record from its fields, whatever their writer calls time, level and event."""
    rest = dict(document)
    found = {}
    for name, aliases in _ALIASES.items():
        present = [alias for alias in aliases if alias in rest]
        found[name] = rest.pop(present[0]) if present else ""
    fields = {key: value for key, value in rest.items() if key not in _SHOWN_ELSEWHERE}
    return Record(
        _utc(found["ts"]),
        _level(str(found["level"])),
        process,
        str(found["event"]).strip(),
        {key: value for key, value in fields.items() if value not in (None, "")},
        raw,
    )


def read(files: Mapping[str, Path], lines: int) -> list[Record]:
    """The last `lines` records of all files together, by time; `files` are by process."""
    records = [
        record
        for process, file in files.items()
        for record in _timed(logfiles.tail(file, lines), process)
    ]
    return sorted(records, key=lambda record: record.time)[-lines:]


def follow(files: Mapping[str, Path], lines: int = 0) -> Iterator[list[Record]]:
    """The last `lines` records of the current files, then what is appended, every 0.2 s.

    Each list is sorted by time; it is empty when there is nothing new.
    """
    positions = dict.fromkeys(files, 0)

    def appended() -> list[Record]:
        records: list[Record] = []
        for process, file in files.items():
            new, positions[process] = _read_from(file, positions[process])
            records += _timed(new, process)
        return sorted(records, key=lambda record: record.time)

    latest = appended()
    yield latest[-lines:] if lines else []
    while True:
        time.sleep(FOLLOW_INTERVAL_S)
        yield appended()


def _timed(lines: list[str], process: str) -> list[Record]:
    """Parsed lines; one without a time, as of a traceback, has that of the line before it."""
    records: list[Record] = []
    for line in filter(None, lines):
        record = parse(line, process)
        if not record.time and records:
            previous = records[-1]
            record = Record(previous.time, previous.level, process, record.event, raw=line)
        records.append(record)
    return records


def _read_from(file: Path, position: int) -> tuple[list[str], int]:
    """Whole lines after `position`, and where they end; from the start if it was truncated."""
    size = logfiles.size(file)
    if size == position:
        return [], position
    start = position if size > position else 0
    with file.open("rb") as stream:
        stream.seek(start)
        content = stream.read()
    end = content.rfind(b"\n") + 1
    return content[:end].decode("utf-8", "replace").splitlines(), start + end


def _level(text: str) -> str:
    level = text.lower()
    return {"warn": "warning", "fatal": "critical", "panic": "critical"}.get(level, level)


def _utc(value: object) -> str:
    """RFC 3339 with microseconds and Z, from a text or Unix seconds; empty when it is neither."""
    try:
        if isinstance(value, int | float):
            moment = datetime.fromtimestamp(value, UTC)
        else:
            moment = datetime.fromisoformat(_microseconds(str(value))).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return ""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _microseconds(text: str) -> str:
    """Nanoseconds cut to what datetime can hold."""
    return re.sub(r"(\.\d{6})\d+", r"\1", text)
