"""The history: written before it is needed, read back as it was, torn lines left out."""

import asyncio
import os
from pathlib import Path

import pytest

from prove.errors import UserError
from prove.verify import history
from prove.verify.history import Event, HistoryWriter

ASKED = Event(
    at_unix_us=1_800_000_000_000_000,
    op=7,
    attempt=1,
    kind="order",
    type="invoke",
    key="k-7",
    customer="c-1",
    lines=(("MUG", 2), ("PEN", 1)),
    method="tok_approve",
)
ANSWERED = Event(
    at_unix_us=1_800_000_000_100_000,
    op=7,
    attempt=1,
    kind="order",
    type="ok",
    key="k-7",
    customer="c-1",
    order_id="0190",
    status=201,
    replayed=True,
    body_sha256="ab" * 32,
    total_minor=250,
    detail="Zoë's order",
)


def write(path: Path, *events: Event) -> None:
    async def run() -> None:
        async with HistoryWriter(path) as writer:
            for event in events:
                await writer.append(event)

    asyncio.run(run())


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    write(path, ASKED)
    write(path, ANSWERED)  # a later writer goes on
    assert history.read(path) == [ASKED, ANSWERED]


def test_an_event_is_on_the_disk_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whoever waits meanwhile shares the next fsync."""
    path = tmp_path / "history.jsonl"
    synced: list[int] = []
    fsync = os.fsync

    def recording(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", recording)

    async def run() -> None:
        async with HistoryWriter(path) as writer:

            async def append(op: int) -> None:
                await writer.append(Event(1, op, 1, "order", "info", "k", "c"))
                assert f'"op":{op},'.encode() in path.read_bytes()[: synced[-1]]

            await asyncio.gather(*(append(op) for op in range(500)))

    asyncio.run(run())
    assert [event.op for event in history.read(path)] == list(range(500))
    assert len(synced) < 500


def test_who_stops_waiting_stops_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"

    async def run() -> None:
        async with HistoryWriter(path) as writer:
            first = asyncio.create_task(writer.append(ASKED))
            second = asyncio.create_task(writer.append(ANSWERED))
            await asyncio.sleep(0)
            first.cancel()
            await second

    asyncio.run(run())
    assert history.read(path) == [ASKED, ANSWERED]


def test_a_write_that_fails_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        async with HistoryWriter(Path("/dev/full")) as writer:
            for _ in range(2):
                with pytest.raises(OSError, match="No space left"):
                    await writer.append(ASKED)

    asyncio.run(run())


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    write(path, ASKED, ANSWERED)
    whole = path.read_bytes()
    for cut in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:cut])
        assert history.read(path) == [ASKED]


@pytest.mark.parametrize(
    "line",
    ["nonsense", "[]", "3", "{}", '{"op": 1, "lines": [1]}', '{"lines": [], "more": 1}', ""],
)
def test_another_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "history.jsonl"
    write(path, ASKED)
    with path.open("a") as file:
        file.write(f"{line}\n")
    write(path, ANSWERED)
    with pytest.raises(UserError, match=r"history\.jsonl, line 2, is no event of a history"):
        history.read(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl cannot be read: No such file"):
        history.read(tmp_path / "none.jsonl")
