"""Spans out of OTLP JSON: of Jaeger, of the Collector's files, of the worked examples."""

import json
from pathlib import Path
from typing import Any

import pytest

from prove import otlp
from prove.errors import UserError
from prove.tracetree import Event, Link, Span

TRACE, OTHER = "0a" * 16, "0b" * 16


def attributes(**values: Any) -> list[dict[str, Any]]:
    return [{"key": key.replace("__", "."), "value": value} for key, value in values.items()]


def raw(span_id: str, trace_id: str = TRACE, **more: Any) -> dict[str, Any]:
    times = {"startTimeUnixNano": "5000999", "endTimeUnixNano": "7000000"}
    return {"traceId": trace_id, "spanId": span_id, "name": f"op {span_id}", **times, **more}


def document(*spans: dict[str, Any], service: str = "order-service") -> dict[str, Any]:
    resource = {"attributes": attributes(service__name={"stringValue": service})}
    scopes = [{"scope": {"name": "s"}, "spans": list(spans)}]
    return {"resourceSpans": [{"resource": resource, "scopeSpans": scopes}]}


def test_a_span_with_everything() -> None:
    span = raw(
        "1",
        parentSpanId="0",
        kind=3,
        status={"code": 2, "message": "refused"},
        attributes=attributes(
            http__response__status_code={"intValue": "503"},
            list={"arrayValue": {"values": [{"boolValue": True}, {"doubleValue": 0.5}]}},
            map={"kvlistValue": {"values": attributes(a={"stringValue": "b"})}},
            none={"arrayValue": {}},
            internal__span__format={"stringValue": "otlp"},
        ),
        events=[{"timeUnixNano": "6000000", "name": "e", "attributes": []}],
        links=[{"traceId": OTHER, "spanId": "9", "attributes": []}],
    )
    assert otlp.spans(document(span)) == [
        Span(
            span_id="1",
            parent_id="0",
            service="order-service",
            name="op 1",
            start_us=5_000,
            duration_us=1_999,
            kind="client",
            failed=True,
            answered=True,
            trace_id=TRACE,
            message="refused",
            attributes={
                "http.response.status_code": 503,
                "list": [True, 0.5],
                "map": {"a": "b"},
                "none": [],
            },
            events=(Event(6_000, "e"),),
            links=(Link(OTHER, "9"),),
        )
    ]


@pytest.mark.parametrize(
    ("kind", "known"), [(1, "internal"), (2, "server"), ("SPAN_KIND_CLIENT", "client")]
)
def test_kinds_are_numbers_or_names(kind: object, known: str) -> None:
    (span,) = otlp.spans(document(raw("1", parentSpanId="", kind=kind)))
    assert (span.kind, span.parent_id, span.failed) == (known, None, False)


def test_a_trace_is_found_in_rotated_files_too(tmp_path: Path) -> None:
    mixed = document(raw("2"), raw("3", OTHER))
    (tmp_path / "spans-2026-11-24.jsonl").write_text(json.dumps(document(raw("1"))) + "\n")
    (tmp_path / "spans.jsonl").write_text(
        f"{json.dumps(mixed)}\n{json.dumps(mixed)}\n" + f'{{"resourceSpans": "{TRACE}'
    )
    found = otlp.search(tmp_path / "spans.jsonl", TRACE)
    assert [span.span_id for span in found] == ["1", "2"]
    assert otlp.search(tmp_path / "spans.jsonl", "0c" * 16) == []
    assert otlp.search(tmp_path / "none" / "spans.jsonl", TRACE) == []


def test_traces_are_taken_out_as_one_document(tmp_path: Path) -> None:
    early = raw("4", startTimeUnixNano="1")
    lines = [
        document(raw("1"), raw("2", OTHER)),
        document(raw("3"), service="a-service"),
        document(early, raw("5", "0c" * 16)),
    ]
    file = tmp_path / "spans.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    taken = otlp.extract(file, [TRACE, OTHER])
    assert len(taken["resourceSpans"]) == 2
    assert [span.span_id for span in otlp.spans(taken)] == ["3", "4", "1", "2"]
    assert otlp.extract(file, ["0d" * 16]) == {"resourceSpans": []}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"resourceSpans": [{"scopeSpans": 1}]}', "\x00"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(UserError, match="holds no trace"):
        otlp.read(file)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be read: No such file"):
        otlp.read(tmp_path / "x.json")
