"""Log files of the stack: one a process, appended to by the process itself, rotated by size."""

import os
import shutil
from collections import deque
from pathlib import Path
from typing import BinaryIO

from prove.stack.settings import StackSettings


def path(settings: StackSettings, name: str) -> Path:
    """The current log of the process `name`."""
    return settings.logs_dir / f"{name}.log"


def open_for_append(log: Path) -> BinaryIO:
    """To be handed to a process as stdout and stderr.

    The process writes into the file, not into a pipe: it neither needs the supervisor nor costs it
    anything. Append mode lets `rotate` truncate under it.
    """
    return log.open("ab")


def rotate(log: Path, max_bytes: int, backups: int) -> None:
    """Move the content of a log past `max_bytes` to `<log>.1`, older ones up to `.backups`.

    As logrotate's `copytruncate`: the writer keeps its file. A line written between the last read
    and the truncation is lost here (the log store has it). Raises OSError.
    """
    if size(log) <= max_bytes:
        return
    for number in range(backups - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    with log.open("rb") as source, log.with_name(f"{log.name}.1").open("wb") as target:
        shutil.copyfileobj(source, target)
        os.truncate(log, 0)


def size(log: Path) -> int:
    """Bytes in the current log; 0 when there is none."""
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return 0


def tail(log: Path, lines: int, since: int = 0) -> list[str]:
    """The last `lines` lines, reaching back into the latest backup; empty when there is no log.

    With `since`, only those of the current log that begin at that byte or later.
    """
    kept: deque[str] = deque(maxlen=lines)
    for file in (log,) if since else (log.with_name(f"{log.name}.1"), log):
        try:
            with file.open(encoding="utf-8", errors="replace") as stream:
                stream.seek(since)
                kept.extend(line.rstrip("\n") for line in stream)
        except FileNotFoundError:
            continue
    return list(kept)
