import json
from pathlib import Path

import pytest

from prove.stack import logfiles, logview, render
from prove.stack.logview import parse

OURS = json.dumps(
    {
        "ts": "2026-11-23T20:54:28.127134Z",
        "level": "warning",
        "event": "payment declined",
        "logger": "payment_service.service",
        "service": "payment-service",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": None,
        "amount_minor": 1250,
    }
)


@pytest.mark.parametrize(
    ("line", "time", "level", "event"),
    [
        (OURS, "2026-11-23T20:54:28.127134Z", "warning", "payment declined"),
        (  # Go's slog, with nanoseconds
            '{"time":"2026-11-23T20:54:28.127134999Z","level":"INFO","msg":"listening"}',
            "2026-11-23T20:54:28.127134Z",
            "info",
            "listening",
        ),
        (  # zap with Unix seconds
            '{"level":"warn","ts":1795467268.5,"msg":"queue full"}',
            "2026-11-23T20:54:28.500000Z",
            "warning",
            "queue full",
        ),
        (  # another zone
            '{"time":"2026-11-23T21:54:28.5+01:00","level":"FATAL","message":"out"}',
            "2026-11-23T20:54:28.500000Z",
            "critical",
            "out",
        ),
        ("Traceback (most recent call last):", "", "", "Traceback (most recent call last):"),
        ("{broken", "", "", "{broken"),
        ('{"ts":"yesterday","msg":"x"}', "", "", "x"),
        ("[1, 2]", "", "", "[1, 2]"),
        ("", "", "", ""),
    ],
)
def test_lines_of_every_process_are_parsed_alike(
    line: str, time: str, level: str, event: str
) -> None:
    record = parse(line, "payment")
    assert (record.time, record.level, record.event) == (time, level, event)
    assert (record.process, record.raw) == ("payment", line)


def test_a_record_is_shown_on_one_line() -> None:
    assert render.record(parse(OURS, "payment")).plain == (
        "20:54:28.127 warn  payment    payment declined amount_minor=1250 trace_id=0af76519…"
    )


@pytest.mark.parametrize("duration", [4.337124, "4.337124"])  # as logged, as stored
def test_what_a_request_came_to_is_within_a_hundred_columns(duration: object) -> None:
    line = render.record(
        logview.from_fields(
            {
                "ts": "2026-11-23T20:54:28.127134Z",
                "level": "info",
                "event": "request",
                "duration_ms": duration,
                "method": "POST",
                "request_id": "0af7651916cd43dd8448eb211c80319c",
                "route": "/api/v1/payments",
                "span_id": "b7ad6b7169203331",
                "status": 201,
            },
            "payment",
            "",
        )
    ).plain
    assert line.endswith(" request status=201 route=/api/v1/payments method=POST duration_ms=4.3")
    assert len(line) <= 100


def write(file: Path, *seconds: int) -> None:
    with file.open("a") as stream:
        for second in seconds:
            ts = f"2026-11-23T20:54:{second:02}Z"
            stream.write(json.dumps({"ts": ts, "event": f"{file.stem}{second}"}) + "\n")


def test_files_are_merged_by_time_and_a_traceback_stays_with_its_line(tmp_path: Path) -> None:
    order, payment = tmp_path / "order.log", tmp_path / "payment.log"
    write(order, 1, 4)
    with order.open("a") as stream:
        stream.write("Traceback (most recent call last):\n  File somewhere\n")
    write(order, 6)
    write(payment, 2, 5)
    shown = logview.read({"order": order, "payment": payment}, 6)
    assert [record.event for record in shown] == [
        "payment2",
        "order4",
        "Traceback (most recent call last):",
        "  File somewhere",
        "payment5",
        "order6",
    ]


def test_following_sees_whole_new_lines_also_after_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "order.log"
    write(log, 1)
    write(log, 2, 3)
    batches = logview.follow({"order": log}, 2)
    assert [record.event for record in next(batches)] == ["order2", "order3"]
    assert next(batches) == []
    with log.open("a") as stream:
        stream.write('{"event": "half')
    assert next(batches) == []
    with log.open("a") as stream:
        stream.write('"}\n')
    assert [record.event for record in next(batches)] == ["half"]
    logfiles.rotate(log, max_bytes=10, backups=1)
    write(log, 4)
    assert [record.event for record in next(batches)] == ["order4"]


def test_rotation_keeps_the_writer_the_order_and_the_number_of_files(tmp_path: Path) -> None:
    log = tmp_path / "order.log"
    with logfiles.open_for_append(log) as writer:
        for number in range(5):
            writer.write(b"%d\n" % number)
            writer.flush()
            logfiles.rotate(log, max_bytes=1, backups=2)
        writer.write(b"5\n")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "order.log",
        "order.log.1",
        "order.log.2",
    ]
    assert logfiles.tail(log, 9) == ["4", "5"]
    assert (tmp_path / "order.log.2").read_text() == "3\n"


def test_a_small_log_is_not_rotated(tmp_path: Path) -> None:
    log = tmp_path / "order.log"
    log.write_text("x\n")
    logfiles.rotate(log, max_bytes=2, backups=1)
    assert log.read_text() == "x\n"


def test_there_may_be_no_log(tmp_path: Path) -> None:
    assert logfiles.tail(tmp_path / "none.log", 5) == []
    assert logview.read({"none": tmp_path / "none.log"}, 5) == []
