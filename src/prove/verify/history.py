"""The clients' history: what was asked and what came of it, written down before anyone can know.

As in Jepsen: an attempt's `invoke` is on the disk before its request is sent, and its end when it
is known. `ok` and `fail` are definite; `info` leaves open what happened, and so does no end at all.
"""

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Self

from prove.errors import UserError

Kind = Literal["order", "cancel"]
Type = Literal["invoke", "ok", "fail", "info"]


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the history.

    `op` is the number of the purchase in the plan: its attempts share it, its key and its customer.
    `attempt` counts from 1 within the purchase; each of two concurrent submits is one of its own.
    `lines` (sku, quantity) and `method` are told by `invoke` alone. `status` is that of HTTP, 0
    when there was no answer. `body_sha256` is the digest of a final answer's body.
    """

    at_unix_us: int
    op: int
    attempt: int
    kind: Kind
    type: Type
    key: str
    customer: str
    lines: tuple[tuple[str, int], ...] = ()
    method: str = ""
    order_id: str = ""
    status: int = 0
    replayed: bool = False
    body_sha256: str = ""
    total_minor: int | None = None
    detail: str = ""


_FIELDS = tuple(field.name for field in fields(Event))


class HistoryWriter:
    """Appends events to a file; an awaited `append` is on the disk.

    Whoever appends while a write is under way shares the next one, and its fsync (group commit).
    Use as an asynchronous context manager, within one event loop.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._file = self._path.open("ab", buffering=0)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writer is not None:
            await self._writer
        self._file.close()

    async def append(self, event: Event) -> None:
        """Return once the event is on the disk; raises OSError when it can't be written."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((_encode(event), written))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_waiting())
        await written

    async def _write_waiting(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                failure = None
                try:
                    await asyncio.to_thread(self._write, b"".join(line for line, _ in batch))
                except OSError as error:
                    failure = error
                for _, written in batch:
                    if written.done():  # whoever waited was cancelled
                        continue
                    if failure is None:
                        written.set_result(None)
                    else:
                        written.set_exception(failure)
        finally:
            self._writer = None

    def _write(self, lines: bytes) -> None:
        rest = memoryview(lines)
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())


def _encode(event: Event) -> bytes:
    values = {name: getattr(event, name) for name in _FIELDS}
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def read(path: Path) -> list[Event]:
    """All events, in the order written; a last line that was torn by a crash is left out.

    Raises UserError naming the file, and the line that is no event.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    return list(_events(path, text))


def _events(path: Path, text: bytes) -> Iterator[Event]:
    # What follows the last line feed was never acknowledged to the client that wrote it.
    for number, line in enumerate(text.split(b"\n")[:-1], start=1):
        try:
            values = json.loads(line)
            values["lines"] = tuple((str(sku), int(n)) for sku, n in values["lines"])
            yield Event(**values)
        except (ValueError, TypeError, KeyError):
            raise UserError(f"{path}, line {number}, is no event of a history") from None
