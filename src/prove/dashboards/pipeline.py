"""The telemetry pipeline itself: from the services' exporters through the Collector's queues."""

from collections.abc import Iterator

from prove.dashboards.parts import Board, Query, Row, graph, or_none, rate

_SIGNALS = {"spans": "spans", "metric_points": "metric points", "log_records": "log records"}
_LOST = 'error_type!=""'
_BY_SERVICE = "service_name"


def board() -> Board:
    """The dashboard `telemetry-pipeline`."""
    return Board(
        uid="telemetry-pipeline",
        title="Telemetry pipeline",
        description="Whether what the services tell arrives: a silent shop looks like a quiet one.",
        logs="service.name:=%22otelcol-prove%22",
        rows=(
            Row(
                "Collector",
                (
                    graph(
                        "Accepted",
                        "What the Collector took in per second.",
                        "cps",
                        *_received("accepted"),
                        span=8,
                    ),
                    graph(
                        "Refused",
                        "What it did not take, per second: its memory is full, or what came was "
                        "malformed. Senders try again for a while.",
                        "cps",
                        *_received("refused"),
                        *_received("failed"),
                        span=8,
                    ),
                    graph(
                        "Sent",
                        "What reached its store, per second.",
                        "cps",
                        *(
                            Query(_sent(s), f"{name} to {{{{exporter}}}}")
                            for s, name in _SIGNALS.items()
                        ),
                        span=8,
                    ),
                    graph(
                        "Queues",
                        "How full the queue of each store is, in bytes of its capacity. A full one "
                        "drops what comes.",
                        "percentunit",
                        Query(
                            "max by (exporter) (otelcol_exporter_queue_size) / "
                            "max by (exporter) (otelcol_exporter_queue_capacity)",
                            "{{exporter}}",
                        ),
                        span=8,
                        most=1,
                        limit=0.8,
                    ),
                    graph(
                        "Exports that failed",
                        "Given up per second, after all retries.",
                        "cps",
                        *_undelivered("send_failed"),
                        span=8,
                    ),
                    graph(
                        "Dropped at a full queue",
                        "Lost per second because the store was too slow or away for too long.",
                        "cps",
                        *_undelivered("enqueue_failed"),
                        span=8,
                    ),
                ),
            ),
            Row(
                "Services",
                (
                    graph(
                        "Spans and logs handed over",
                        "Per second, by service: what their exporters sent, and what they gave up.",
                        "cps",
                        *_exported("span"),
                        *_exported("log"),
                    ),
                    graph(
                        "Dropped in the services",
                        "Spans and log records per second that found their queue full.",
                        "cps",
                        *_dropped("span"),
                        *_dropped("log"),
                    ),
                    graph(
                        "Queues in the services",
                        "How full each service's queues are: the fullest of its processes.",
                        "percentunit",
                        *(
                            Query(
                                f"max by ({_BY_SERVICE}) (otel_sdk_processor_{signal}_queue_size"
                                f" / otel_sdk_processor_{signal}_queue_capacity)",
                                f"{{{{service_name}}}}, {signal}s",
                            )
                            for signal in ("span", "log")
                        ),
                        most=1,
                        limit=0.8,
                    ),
                    graph(
                        "Silence",
                        "Seconds since each service's metrics came last. More than a few export "
                        "intervals means that nobody knows how it is.",
                        "s",
                        Query(
                            f"time() - max by ({_BY_SERVICE}) (timestamp(target_info))",
                            "{{service_name}}",
                        ),
                    ),
                ),
            ),
            Row(
                "The Collector's own use",
                (
                    graph(
                        "CPU of the Collector",
                        "Of one core.",
                        "percentunit",
                        Query(rate("otelcol_process_cpu_seconds_total"), "collector"),
                    ),
                    graph(
                        "Memory of the Collector",
                        "Resident; it refuses data before it reaches its limit of 100 MiB of heap.",
                        "bytes",
                        Query("sum(otelcol_process_memory_rss_bytes)", "resident"),
                        Query("sum(otelcol_process_runtime_heap_alloc_bytes)", "heap"),
                    ),
                ),
            ),
        ),
    )


def _received(what: str) -> Iterator[Query]:
    for signal, name in _SIGNALS.items():
        legend = name if what == "accepted" else f"{name} {what}"
        yield Query(rate(f"otelcol_receiver_{what}_{signal}_total"), legend)


def _sent(signal: str) -> str:
    return rate(f"otelcol_exporter_sent_{signal}_total", "exporter")


def _undelivered(what: str) -> Iterator[Query]:
    """By exporter, 0 for those that send: the Collector has no such series before the first."""
    for signal, name in _SIGNALS.items():
        lost = rate(f"otelcol_exporter_{what}_{signal}_total", "exporter")
        yield Query(or_none(lost, _sent(signal)), f"{name} to {{{{exporter}}}}")


def _exported(signal: str) -> Iterator[Query]:
    metric = f"otel_sdk_exporter_{signal}_exported_total"
    sent = rate(metric, _BY_SERVICE, 'error_type=""')
    yield Query(sent, f"{{{{service_name}}}}, {signal}s")
    yield Query(
        or_none(rate(metric, _BY_SERVICE, _LOST), sent), f"{{{{service_name}}}}, {signal}s given up"
    )


def _dropped(signal: str) -> Iterator[Query]:
    metric = f"otel_sdk_processor_{signal}_processed_total"
    yield Query(
        or_none(rate(metric, _BY_SERVICE, _LOST), rate(metric, _BY_SERVICE)),
        f"{{{{service_name}}}}, {signal}s",
    )
