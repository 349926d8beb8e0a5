"""A record of an incident that never was: two minutes of a shop whose payments failed.

From `INJECTED_S` on, for 30 seconds, every second checkout is answered 503; of those, every fifth
gets no answer at all, and the servers know nothing of it. Reads go on as before.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from prove.clients.logs import LogStore
from prove.clients.prometheus import Series
from prove.incident import bundle, objectives, record, sli, timeline
from prove.incident.bundle import Stores

START_S = 1_795_000_000
BASELINE_S, INCIDENT_S, AFTER_S = 60, 30, 40
INJECTED_S = START_S + BASELINE_S
ROLLED_BACK_S = INJECTED_S + INCIDENT_S
END_S = ROLLED_BACK_S + AFTER_S
CHECKOUTS_PER_S, READS_PER_S = 10, 20
AMOUNT_MINOR = 1_999
PAGED_S = INJECTED_S + 18.4
SCENARIO = "payment-errors"
ID = f"20261129T201500-{SCENARIO}"


def entries() -> Iterator[record.Entry]:
    """The clients' ledger."""
    for second in range(START_S, END_S):
        failing = INJECTED_S <= second < ROLLED_BACK_S
        for number in range(CHECKOUTS_PER_S):
            bad = failing and number % 2 == 1
            silent = bad and number % 10 == 9
            at_us = second * 1_000_000 + number * 100_000
            latency_ms = 1_000.0 if silent else 80.0 + number
            yield record.Entry(
                at_unix_us=at_us,
                done_unix_us=at_us + round(latency_ms * 1000),
                kind="checkout",
                method="POST",
                route="/api/v1/orders",
                status=0 if silent else 503 if bad else 201,
                outcome="no-answer" if silent else "failed" if bad else "ok",
                latency_ms=latency_ms,
                trace_id=trace_id(second, number),
                key=f"key-{second}-{number}",
                order_id="" if bad else f"order-{second}-{number}",
                asked_minor=AMOUNT_MINOR,
                amount_minor=None if bad else AMOUNT_MINOR,
            )
        for number in range(READS_PER_S):
            at_us = second * 1_000_000 + number * 50_000
            yield record.Entry(
                at_unix_us=at_us,
                done_unix_us=at_us + 8_000,
                kind="read",
                method="GET",
                route="/api/v1/products/{sku}",
                status=200,
                outcome="ok",
                latency_ms=8.0,
                trace_id=trace_id(second, 100 + number),
            )


def trace_id(second: int, number: int) -> str:
    return f"{second:016x}{number:016x}"


class Metrics:
    """A Prometheus that knows this incident and nothing else."""

    def range(self, promql: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        times = [start_s + step_s * step for step in range(int((end_s - start_s) / step_s) + 1)]
        if "ratio_rate" in promql:
            bad = 'sloth_id="checkout-errors"' in promql
            share = [(at_s, 0.4 if bad and self._failing(at_s - 2) else 0.0) for at_s in times]
            return [Series({}, share)]
        if promql.startswith("sum by (service_name, service_instance_id, http_request"):
            return [self._answered(times, status) for status in ("201", "503")]
        if "service_instance_id" in promql and "requests_per_s" not in promql:
            labels = {"service_name": "order-service", "service_instance_id": "order-1"}
            return [
                Series(labels, [(at_s, float("nan") if at_s == start_s else 1.0) for at_s in times])
            ]
        if promql.startswith("histogram_quantile"):
            return [Series({}, [(at_s, 0.09) for at_s in times])]
        return []

    def _answered(self, times: list[float], status: str) -> Series:
        labels = {
            "service_name": "order-service",
            "service_instance_id": "order-1",
            "http_request_method": "POST",
            "http_route": "/api/v1/orders",
            "http_response_status_code": status,
        }

        def count(at_s: float) -> float:
            failing_s = max(0.0, min(at_s, ROLLED_BACK_S) - INJECTED_S)
            if status == "503":
                return 4 * failing_s
            return CHECKOUTS_PER_S * (at_s - START_S + 100) - 5 * failing_s

        # One that nobody has answered yet is not there.
        return Series(labels, [(at_s, value) for at_s in times if (value := count(at_s))])

    @staticmethod
    def _failing(at_s: float) -> bool:
        return INJECTED_S <= at_s < ROLLED_BACK_S


def span_lines() -> Iterator[str]:
    """The Collector's span file: of each checkout a span of either service."""
    at_ns = INJECTED_S * 1_000_000_000
    set_by = _span("f" * 32, "f" * 16, "", "PUT /faults/{name}", at_ns, at_ns + 1, False)
    yield _spans("payment-service", [set_by])
    for entry in entries():
        if entry.kind != "checkout" or entry.outcome == "no-answer":
            continue
        failed = entry.outcome == "failed"
        start, end = entry.at_unix_us * 1000, entry.done_unix_us * 1000
        of = entry.trace_id[8:]
        yield _spans(
            "order-service",
            [_span(entry.trace_id, of[:16], "", "POST /api/v1/orders", start, end, failed)],
        )
        yield _spans(
            "payment-service",
            [
                _span(
                    entry.trace_id,
                    of[8:],
                    of[:16],
                    "POST /api/v1/payments",
                    start + 1000,
                    end - 1000,
                    failed,
                )
            ],
        )


def log_lines() -> Iterator[dict[str, str]]:
    """What VictoriaLogs has."""
    yield {
        "_time": f"{bundle.rfc3339(INJECTED_S)[:19]}.1Z",
        "_msg": "request",
        "service.name": "payment-service",
        "severity_text": "INFO",
        "route": "/faults/{name}",
    }
    for entry in entries():
        if entry.outcome == "failed":
            second, nanos = divmod(entry.done_unix_us * 1000, 1_000_000_000)
            at = f"{bundle.rfc3339(second)[:19]}.{nanos:09}Z"
            yield {
                "_time": at,
                "_msg": "charge failed",
                "_stream": "{}",
                "service.name": "payment-service",
                "service.instance.id": "payment-1",
                "severity_text": "ERROR",
                "trace_id": entry.trace_id,
                "span_id": "1" * 16,
                "status": "503",
            }


def stores(directory: Path) -> Stores:
    """Where all that is kept."""
    file = directory / "spans.jsonl"
    file.write_text("\n".join(span_lines()) + "\n")
    kept = list(log_lines())

    def answer(request: httpx.Request) -> httpx.Response:
        query = httpx.QueryParams(request.content.decode())["query"]
        begin, end = query.removeprefix("_time:[").removesuffix(")").split(", ")
        found = [each for each in kept if begin <= each["_time"] < end]
        return httpx.Response(200, text="\n".join(json.dumps(each) for each in found))

    logs = LogStore("http://logs", transport=httpx.MockTransport(answer))
    return Stores(Metrics(), logs, file)


def incident(**changes: Any) -> record.Incident:
    """`incident.json`."""
    given: Mapping[str, Any] = {
        "id": ID,
        "scenario": SCENARIO,
        "title": "Half of the payments fail",
        "description": "The Payment Service answers every second payment with 503.",
        "seed": 1,
        "profile": "drill",
        "commit": "abc1234",
        "urls": {"payment": "http://127.0.0.1:8003"},
        "started_unix_us": START_S * 1_000_000,
        "ended_unix_us": END_S * 1_000_000,
        "injected_unix_us": INJECTED_S * 1_000_000,
        "rolled_back_unix_us": ROLLED_BACK_S * 1_000_000,
        "windows": {
            "baseline": {"start_unix_s": START_S, "end_unix_s": INJECTED_S},
            "incident": {"start_unix_s": INJECTED_S, "end_unix_s": END_S},
        },
        "load": {"reads_per_s": READS_PER_S, "checkouts_per_s": CHECKOUTS_PER_S, "sent": 3900},
        "actions": [
            {
                "at_unix_us": INJECTED_S * 1_000_000,
                "phase": "inject",
                "name": "every second payment fails",
                "method": "PUT",
                "url": "http://127.0.0.1:8003/faults/payment-errors",
                "status": 200,
                "ok": True,
            },
            {
                "at_unix_us": ROLLED_BACK_S * 1_000_000,
                "phase": "rollback",
                "name": "payments are well again",
                "method": "DELETE",
                "url": "http://127.0.0.1:8003/faults/payment-errors",
                "status": 204,
                "ok": True,
            },
        ],
        "detections": [
            {
                "slo": "checkout-errors",
                "alert": "CheckoutErrors",
                "severity": "page",
                "bad": 0.5,
                "theory_s": 17.3,
                "earliest_s": 17.3,
                "within_s": 25.0,
                "paged_s": 18.4,
            }
        ],
        "recoveries": [{"slo": "checkout-errors", "recovered_s": 6.0}],
        "expectations": [
            {
                "what": "CheckoutErrors pages",
                "expected": "within 25 s",
                "found": "18.4 s",
                "holds": True,
            }
        ],
        "verdict": "holds",
        "figures": {
            "time_to_detect_s": 18.4,
            "theory_s": 17.3,
            "recovery_s": 6.0,
            "wrong_pages": 0,
            "integrity_differences": 0,
            "budget_spent": 0.03,
        },
    }
    return record.Incident.model_validate({**given, **changes})


def write(directory: Path, *, with_bundle: bool = True, **changes: Any) -> Path:
    """A whole record in a home; returns its directory."""
    kept = directory / record.DIRECTORY / ID
    kept.mkdir(parents=True)
    of = incident(**changes)
    record.write(kept / record.INCIDENT, of)
    record.write_lines(kept / record.LEDGER, entries())
    record.write_lines(kept / record.PAGES, _pages())
    record.write_lines(kept / record.ALERTS, _alerts())
    record.write(
        kept / record.TRUTH,
        record.Truths.model_validate(
            {
                "id": ID,
                "scenarios": [
                    {
                        "scenario": SCENARIO,
                        "cause": {
                            "service": "payment-service",
                            "kind": "error",
                            "component": "POST /api/v1/payments",
                        },
                        "story": "A release broke every second payment.",
                        "mitigations": [
                            {"what": "roll back", "works": True, "why": "the fault goes with it"}
                        ],
                        "red_herrings": ["the acquirer is slow"],
                    }
                ],
            }
        ),
    )
    promised = objectives.of_profile("drill")
    record.write(kept / objectives.OBJECTIVES, promised)
    between = (START_S - 5.0, END_S + 5.0)
    record.write_lines(kept / sli.SLI, sli.capture(Metrics(), promised, between))
    if with_bundle and of.windows:
        bundle.export(kept, of, promised, stores(directory))
    timeline.write(kept)
    return kept


def _pages() -> Iterator[record.Page]:
    labels = {
        "alertname": "CheckoutErrors",
        "sloth_id": "checkout-errors",
        "sloth_service": "checkout",
        "sloth_slo": "errors",
        "sloth_severity": "page",
    }
    for at_s, status in ((PAGED_S, "firing"), (ROLLED_BACK_S + 6.0, "resolved")):
        yield record.Page.model_validate(
            {
                "received_at_unix_us": round(at_s * 1e6),
                "status": status,
                "labels": labels,
                "annotations": {},
                "starts_at": "2026-11-29T20:16:18Z",
                "fingerprint": "f",
            }
        )


def _alerts() -> Iterator[record.AlertChange]:
    for at_s, state in ((PAGED_S - 0.4, "firing"), (ROLLED_BACK_S + 5.0, "resolved")):
        yield record.AlertChange.model_validate(
            {
                "at_unix_us": round(at_s * 1e6),
                "alertname": "CheckoutErrors",
                "severity": "page",
                "slo": "checkout-errors",
                "state": state,
            }
        )


def _span(
    trace: str, span_id: str, parent: str, name: str, start: int, end: int, failed: bool
) -> dict[str, Any]:
    return {
        "traceId": trace,
        "spanId": span_id,
        "parentSpanId": parent,
        "name": name,
        "kind": 2,
        "startTimeUnixNano": str(start),
        "endTimeUnixNano": str(end),
        "status": {"code": 2} if failed else {},
    }


def _spans(service: str, spans: list[dict[str, Any]]) -> str:
    attributes = {"service.name": service, "service.instance.id": f"{service}-1"}
    return json.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {
                        "attributes": [
                            {"key": key, "value": {"stringValue": value}}
                            for key, value in attributes.items()
                        ]
                    },
                    "scopeSpans": [{"scope": {}, "spans": spans}],
                }
            ]
        }
    )
