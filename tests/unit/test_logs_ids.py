"""Which trace, which order is meant by the beginning of its id."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from prove import signals
from prove.clients.jaeger import Jaeger
from prove.clients.logs import LogStore
from prove.errors import UserError

TRACE, OTHER = "0a" * 16, "0b" * 16
ORDER, SIBLING = "01a20b86-7ecf-7860-bbfb-07874d3c467b", "01a20b86-9cd0-7544-85a0-d4daa7baa0e4"


def store(*records: dict[str, str]) -> LogStore:
    text = "\n".join(json.dumps({"_time": "2026-01-01T00:00:00Z", **each}) for each in records)
    return LogStore("http://logs", httpx.MockTransport(lambda _: httpx.Response(200, text=text)))


def jaeger(trace_ids: Sequence[str] = (), status: int = 200) -> Jaeger:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/api/v3/"):
            return httpx.Response(404 if status == 200 else status)
        assert json.loads(request.url.params["tags"]) == {signals.ORDER_ID: ORDER}
        span = {"operationName": "x", "startTime": 1, "duration": 1, "tags": []}
        data: list[dict[str, Any]] = [{"traceID": each, "spans": [span]} for each in trace_ids]
        return httpx.Response(status, json={"data": data})

    return Jaeger("http://jaeger", httpx.MockTransport(answer))


def test_a_whole_trace_id_is_asked_of_nobody() -> None:
    assert signals.full_trace_id(store(), TRACE, "--trace") == TRACE


def test_the_beginning_of_a_trace_id_has_to_be_the_only_one() -> None:
    assert signals.full_trace_id(store({"trace_id": TRACE}), TRACE[:8], "--trace") == TRACE
    both = store({"trace_id": TRACE}, {"trace_id": TRACE[:8] + OTHER[8:]})
    with pytest.raises(UserError, match=f"2 traces begin with {TRACE[:8]}; give more of it"):
        signals.full_trace_id(both, TRACE[:8], "--trace")
    with pytest.raises(UserError, match="no record of trace 0a0a0a0a…"):
        signals.full_trace_id(store(), TRACE[:8], "--trace")


@pytest.mark.parametrize("text", ["", "xyz", "0a0a0a0", "0A0A0A0A", TRACE + "0", '0a0a0a0a"'])
def test_what_is_no_trace_id_is_told(text: str) -> None:
    with pytest.raises(UserError, match="--trace wants a trace id, 8 to 32 hex digits"):
        signals.full_trace_id(store(), text, "--trace")


def test_an_orders_traces_are_those_that_log_it_and_those_whose_spans_name_it() -> None:
    logs = store({"order_id": ORDER, "trace_id": TRACE}, {"order_id": ORDER})
    assert signals.order_and_traces(logs, jaeger([OTHER, TRACE]), ORDER[:13]) == (
        ORDER,
        [TRACE, OTHER],
    )
    assert signals.order_and_traces(store(), jaeger([OTHER]), ORDER) == (ORDER, [OTHER])


def test_an_order_that_is_unknown_or_not_the_only_one() -> None:
    both = store({"order_id": ORDER}, {"order_id": SIBLING})
    for logs, text, said in (
        (both, ORDER[:8], "2 orders begin with 01a20b86; give more of it: 01a20b86-7ecf"),
        (store(), ORDER[:8], "no record of an order 01a20b86…"),
        (store(), ORDER, f"neither the log store nor Jaeger knows order {ORDER}"),
        (store(), "../etc", "--order wants an order's id"),
    ):
        with pytest.raises(UserError, match=said):
            signals.order_and_traces(logs, jaeger(), text)


def test_what_jaeger_has_forgotten_is_in_the_collectors_file(tmp_path: Path) -> None:
    span = {
        "traceId": TRACE,
        "spanId": "1",
        "name": "x",
        "startTimeUnixNano": "0",
        "endTimeUnixNano": "0",
    }
    file = tmp_path / "spans.jsonl"
    file.write_text(
        json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [span]}]}]})
    )
    for server in (jaeger(), jaeger(status=500)):
        assert [each.span_id for each in signals.kept_trace(server, file, TRACE)] == ["1"]
    assert signals.kept_trace(jaeger(), file, OTHER) == []
    with pytest.raises(UserError, match="answered 500"):
        signals.kept_trace(jaeger(status=500), file, OTHER)
