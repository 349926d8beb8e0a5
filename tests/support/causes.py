"""An analysis and a bundle that never were: a checkout whose payments fail at the acquirer."""

import json
from pathlib import Path
from typing import Any

from prove.cause import foreign
from prove.rca.bundle import Alert, Bundle, Window
from prove.rca.model import Abstention, Analysis, Call, Cause, Ending, Evidence

BEGIN_S = 1_796_000_000.0
HEALTHY = Window(BEGIN_S - 60, BEGIN_S - 2)
INCIDENT = Window(BEGIN_S, BEGIN_S + 40)
HURT = "00000000000000000000000000000f00"


def analysis(**changes: Any) -> Analysis:
    """Names payment-service; `changes` are of its fields."""
    failing = Evidence(
        "errors",
        "`POST /api/v1/payments` of payment-service fails, and nothing below it does, 52% of the"
        " time (in 200 traces), 0% before (in 300).",
        "POST /api/v1/payments",
        0.0,
        0.52,
        "share of spans",
        1.4,
        (HURT, "00000000000000000000000000000f01", "00000000000000000000000000000f02"),
        "SELECT part, count(*) AS n, avg(failed::INT) AS failed FROM rca_spans WHERE name ="
        " 'POST /api/v1/payments' GROUP BY part ORDER BY part",
        "payment-service",
    )
    busier = Evidence(
        "metrics",
        "`threads` of payment-service is 60, 12 in the healthy time: 9.1 times its usual spread"
        " away.",
        "threads",
        12.0,
        60.0,
        "",
        0.3,
        service="payment-service",
        instance="payment-1",
    )
    given: dict[str, Any] = {
        "incident": "prove-20261129T201500",
        "window": INCIDENT,
        "baseline": HEALTHY,
        "alert": Alert("order-service", "errors", "checkout-errors"),
        "symptom": "order-service",
        "causes": (
            Cause(
                "payment-service",
                "payment-1",
                "errors",
                1.7,
                0.93,
                (failing, busier),
                ("order-service", "payment-service"),
            ),
            Cause("order-service", None, "latency", 0.2, 0.05, (busier,), ("order-service",)),
            Cause("product-service", None, "unknown", 0.0, 0.0),
        ),
        "abstained": None,
        "confidence": 0.93,
        "calls": (
            Call("order-service", "payment-service", 5.0, 9.0, 1.2, 1.3),
            Call("order-service", "product-service", 10.0, 9.5, 1.0, 1.0),
            Call("payment-service", "acquirer", 5.0, 4.0, None, None),
        ),
        "blame": {"payment-service": 0.9, "order-service": 0.1},
        "notes": ("There are no logs.",),
        "seconds": 0.12,
        "ending": Ending("goes on", "It is not over when the window ends: 50% of requests fail."),
    }
    return Analysis(**{**given, **changes})


def abstaining(**changes: Any) -> Analysis:
    """Names nobody."""
    why = Abstention("load only", "There are 3.1 times as many requests as before.")
    return analysis(abstained=why, confidence=0.0, **changes)


def rows() -> list[dict[str, Any]]:
    """Ten checkouts a second, each a span of either service; from BEGIN_S on every second fails."""
    found = []
    for number in range(10 * 98):
        start_s = BEGIN_S - 58 + number / 10
        failed = start_s >= BEGIN_S and number % 2 == 1
        trace = HURT if number == 583 else f"{number:032x}"
        start_ns = round(start_s * 1e9)
        took_ns = (80 + number % 7) * 1_000_000
        order = {
            "trace_id": trace,
            "span_id": f"{2 * number:016x}",
            "parent_span_id": None,
            "service": "order-service",
            "instance": "order-1",
            "name": "POST /api/v1/orders",
            "start_unix_nano": start_ns,
            "end_unix_nano": start_ns + took_ns,
            "status": "error" if failed else "unset",
            "peer": None,
        }
        pay = {
            **order,
            "span_id": f"{2 * number + 1:016x}",
            "parent_span_id": order["span_id"],
            "service": "payment-service",
            "instance": "payment-1",
            "name": "POST /api/v1/payments",
            "start_unix_nano": start_ns + 20_000_000,
            "end_unix_nano": start_ns + took_ns - 20_000_000,
        }
        found += [order, pay]
    return found


def bundle() -> Bundle:
    """Of these."""
    return foreign.of_rows("made-up", rows(), INCIDENT, HEALTHY)


def otlp_lines() -> str:
    """As the Collector's file exporter writes them."""
    lines = []
    for row in rows():
        resource = {"service.name": row["service"], "service.instance.id": row["instance"]}
        span = {
            "traceId": row["trace_id"],
            "spanId": row["span_id"],
            "parentSpanId": row["parent_span_id"] or "",
            "name": row["name"],
            "kind": 2,
            "startTimeUnixNano": str(row["start_unix_nano"]),
            "endTimeUnixNano": str(row["end_unix_nano"]),
            "status": {"code": 2} if row["status"] == "error" else {},
        }
        attributes = [{"key": key, "value": {"stringValue": of}} for key, of in resource.items()]
        of = {"resource": {"attributes": attributes}, "scopeSpans": [{"spans": [span]}]}
        lines.append(json.dumps({"resourceSpans": [of]}))
    return "\n".join(lines) + "\n"


def jaeger() -> str:
    """As Jaeger's API answers."""
    traces: dict[str, dict[str, Any]] = {}
    for row in rows():
        trace = traces.setdefault(
            row["trace_id"],
            {
                "traceID": row["trace_id"],
                "spans": [],
                "processes": {
                    service: {
                        "serviceName": service,
                        "tags": [{"key": "service.instance.id", "type": "string", "value": name}],
                    }
                    for service, name in (
                        ("order-service", "order-1"),
                        ("payment-service", "payment-1"),
                    )
                },
            },
        )
        reference = {
            "refType": "CHILD_OF",
            "traceID": row["trace_id"],
            "spanID": row["parent_span_id"],
        }
        tags = [{"key": "span.kind", "type": "string", "value": "server"}]
        if row["status"] == "error":
            tags.append({"key": "error", "type": "bool", "value": True})  # type: ignore[dict-item]
        trace["spans"].append(
            {
                "traceID": row["trace_id"],
                "spanID": row["span_id"],
                "operationName": row["name"],
                "references": [reference] if row["parent_span_id"] else [],
                "startTime": row["start_unix_nano"] // 1000,
                "duration": (row["end_unix_nano"] - row["start_unix_nano"]) // 1000,
                "tags": tags,
                "processID": row["service"],
            }
        )
    return json.dumps({"data": list(traces.values()), "errors": None})


def write(directory: Path, name: str, text: str) -> Path:
    """A file of it."""
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path
