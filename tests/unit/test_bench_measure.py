import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from rich.console import Console

from prove.bench import measure, reads
from prove.bench.checkout import Probe, highest_rate
from prove.bench.progress import Progress
from prove.bench.reads import Delivery
from prove.errors import UserError

BUSY_CHILD = """
import subprocess, sys, time
burn = "import time\\nwhile time.process_time() < 0.3: pass"
subprocess.run([sys.executable, "-c", burn])
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that itself did nothing; the child that took 0.3 s of CPU has ended."""
    with subprocess.Popen(
        [sys.executable, "-c", BUSY_CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert _of(process.stdout).readline() == b"ready\n"
        yield process
        _of(process.stdin).close()


def _of(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream
    return stream


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS tells no CPU time of ended children")
def test_cpu_of_a_process_counts_children_that_have_ended(
    parent: "subprocess.Popen[bytes]",
) -> None:
    assert measure.cpu_s(parent.pid) >= 0.3


def test_memory_of_a_process_counts_its_children(parent: "subprocess.Popen[bytes]") -> None:
    alone = measure.memory(parent.pid)
    with_parent = measure.memory(os.getpid())

    assert 1 < alone.rss < with_parent.rss
    assert alone.pss is None or 0 < alone.pss <= alone.rss


def test_a_process_that_ended_while_it_was_measured_is_told() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()

    with pytest.raises(UserError, match=f"ended while it was measured .pid {ended.pid}."):
        measure.cpu_s(ended.pid)


def test_what_is_spent_is_divided_by_what_was_done() -> None:
    assert measure.spent({"a": 1.0, "b": 2.0}, {"a": 1.5, "b": 2.0, "new": 9.0}, 5) == {
        "a": pytest.approx(0.1),
        "b": 0,
    }
    assert measure.spent({"a": 1.0}, {"a": 3.0}, 0) == {"a": 2.0}


def test_added_cost_is_compared_within_each_round() -> None:
    # The machine is twice as slow in the second round, and disturbed in the third.
    off, shipped, stock = [100, 200, 100], [200, 400, 900], [300, 600, 300]

    assert measure.added_ratio(off, shipped, stock) == 0.5


def test_nothing_is_half_of_nothing() -> None:
    assert measure.added_ratio([100], [110], [100]) == float("inf")


@pytest.mark.parametrize(
    ("limit", "found", "tried"),
    [
        (210, 200, [100, 150, 200, 250, 225]),
        (225, 225, [100, 150, 200, 250, 225]),
        (60, 50, [100, 50, 75]),
        (25, 25, [100, 50, 25]),
        (10, 0, [100, 50, 25]),
    ],
)
def test_the_highest_rate_is_found(limit: int, found: int, tried: list[int]) -> None:
    asked: list[int] = []

    def holds(rate: int) -> bool:
        asked.append(rate)
        return rate <= limit

    assert highest_rate(holds) == found
    assert asked == tried


def test_the_search_for_the_highest_rate_ends() -> None:
    assert highest_rate(lambda _: True, end=325) == 325


@pytest.mark.parametrize(
    ("p95", "failed", "dropped", "holds"),
    [(499.9, 0, 0, True), (500, 0, 0, False), (10, 1, 0, False), (10, 0, 1, False)],
)
def test_a_rate_holds_when_it_is_fast_and_loses_nothing(
    p95: float, failed: int, dropped: int, holds: bool
) -> None:
    probe = Probe(rate=100, p95=p95, failed=failed, dropped=dropped, goodput=100)
    assert probe.holds is holds


# As a Collector 0.155 tells them.
EXPOSITION = """\
# TYPE otelcol_receiver_accepted_spans counter
otelcol_receiver_accepted_spans{receiver="otlp",transport="http"} 4668
otelcol_receiver_accepted_spans{receiver="otlp",transport="grpc"} 1.2e+06
otelcol_receiver_accepted_log_records{receiver="otlp",transport="http"} 30
otelcol_receiver_accepted_metric_points{receiver="otlp",transport="http"} 17
otelcol_receiver_refused_spans{receiver="otlp",transport="http"} 3
otelcol_receiver_failed_log_records{receiver="otlp",transport="http"} 4
otelcol_receiver_refused_metric_points{receiver="otlp",transport="http"} 5
"""


def test_the_collector_says_what_it_took() -> None:
    counts = reads.parse_counts(EXPOSITION)

    assert (counts.spans, counts.logs, counts.refused) == (1_204_668, 30, 7)


def test_a_collector_that_got_nothing_yet_says_so() -> None:
    counts = reads.parse_counts("# TYPE otelcol_process_uptime counter\n")

    assert (counts.spans, counts.logs, counts.refused) == (0, 0, 0)


def sdk_metrics(environment: str, instance: str, name: str, **points: int) -> str:
    """A line of the Collector's file; `points` are counts by `error.type`."""

    def attribute(key: str, value: str) -> dict[str, object]:
        return {"key": key, "value": {"stringValue": value}}

    data_points = [
        {
            "attributes": [attribute("otel.component.name", "batching_span_processor/0")]
            + ([attribute("error.type", error)] if error != "none" else []),
            "asInt": str(count),
        }
        for error, count in points.items()
    ]
    resource = [
        attribute("deployment.environment.name", environment),
        attribute("service.instance.id", instance),
    ]
    metrics = [{"name": name, "sum": {"dataPoints": data_points}}]
    return json.dumps(
        {
            "resourceMetrics": [
                {"resource": {"attributes": resource}, "scopeMetrics": [{"metrics": metrics}]}
            ]
        }
    )


def test_drops_are_the_latest_count_of_each_sdk() -> None:
    spans, logs = "otel.sdk.processor.span.processed", "otel.sdk.exporter.log.exported"
    lines = [
        sdk_metrics("stock", "worker-1", spans, none=900, queue_full=10),
        sdk_metrics("stock", "worker-1", spans, none=950, queue_full=40),
        sdk_metrics("stock", "worker-2", spans, none=990, queue_full=2),
        sdk_metrics("stock", "worker-2", logs, none=990, timeout=5),
        sdk_metrics("shipped", "worker-3", spans, none=999),
        sdk_metrics("shipped", "worker-3", "otel.sdk.processor.span.queue.size", none=7),
    ]

    assert reads.sdk_dropped(lines) == {"stock": 47}


@pytest.mark.parametrize(
    ("changed", "complete"),
    [
        ({}, True),
        ({"spans_accepted": 31}, True),
        ({"spans_accepted": 29}, False),
        ({"logs_accepted": 9}, False),
        ({"refused": 1}, False),
        ({"dropped": 1}, False),
    ],
)
def test_delivery_is_complete_when_all_arrived_and_nobody_dropped(
    changed: dict[str, int], complete: bool
) -> None:
    whole = Delivery(
        requests=10, spans_expected=30, spans_accepted=30, logs_expected=10, logs_accepted=10
    )

    assert whole.model_copy(update=changed).complete is complete


def test_this_run_names_machine_and_commit() -> None:
    run = measure.this_run()

    assert run.cores >= 1
    assert run.cpu
    assert run.commit
    assert {"python", "go", "k6", "opentelemetry-sdk"} <= set(run.versions)


def test_notes_and_collector_configuration_are_part_of_the_package() -> None:
    assert reads.COLLECTOR.is_file()
    assert Path(measure.__file__).with_name("notes.md").is_file()


def test_a_step_is_told_with_its_figure_if_it_has_one() -> None:
    out = io.StringIO()
    with Progress(Console(file=out)) as progress:
        with progress.step("starting"):
            pass
        progress.figure("reads")
        with progress.step("warming up"):
            pass
    assert out.getvalue() == "starting\nreads: warming up\n"
