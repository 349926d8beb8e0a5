"""What telemetry says of an incident, as a bundle that can be studied without the stack.

The form is `incident-bundle/1` (docs/reference/incident-bundle.md): parquet files of spans, metrics
and logs, of the incident and of a baseline, and `bundle.json`. It holds what a person on call could
have seen, and nothing of what was done to the system.
"""

import calendar
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from prove import otlp, spanrows, tracetree
from prove.clients.logs import LogStore
from prove.errors import UserError
from prove.incident import record, tables
from prove.incident.objectives import Objectives
from prove.incident.record import Incident, Window
from prove.incident.sli import Metrics

FORMAT: Literal["incident-bundle/1"] = "incident-bundle/1"
DATASET = "prove"
BUNDLE_FILE = "bundle.json"
BASELINE, BASELINE_FILE = "baseline", "baseline.json"
LOCAL_S = 60.0
"""So much from just before the incident is among its own data."""
_COLUMNS_OF_LOGS = {"trace_id", "span_id", "level", "severity_text", "severity_number"}
LOG_SLICE_S = 10.0
MAX_LOGS = 100_000
"""Of a slice; more than the shop can write."""

Row = dict[str, Any]

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "spans": {
        "trace_id": "VARCHAR",
        "span_id": "VARCHAR",
        "parent_span_id": "VARCHAR",
        "service": "VARCHAR",
        "instance": "VARCHAR",
        "name": "VARCHAR",
        "start_unix_nano": "BIGINT",
        "end_unix_nano": "BIGINT",
        "status": "VARCHAR",
        "peer": "VARCHAR",
    },
    "metrics": {
        "time_unix_s": "DOUBLE",
        "service": "VARCHAR",
        "instance": "VARCHAR",
        "metric": "VARCHAR",
        "value": "DOUBLE",
    },
    "logs": {
        "time_unix_nano": "BIGINT",
        "service": "VARCHAR",
        "instance": "VARCHAR",
        "severity": "VARCHAR",
        "body": "VARCHAR",
        "trace_id": "VARCHAR",
        "span_id": "VARCHAR",
    },
}
"""Of each file, with the types of SQL."""

_SERVER, _CLIENT = "http_server_request_duration_seconds", "http_client_request_duration_seconds"
_OF = "service_name, service_instance_id"
_5XX = 'http_response_status_code=~"5.."'


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Alert(_Form):
    """The first page of the incident."""

    service: str
    """That the SLO measures, as its telemetry names it."""
    signal: str
    metric: str


class Bundle(_Form):
    """`bundle.json`."""

    format: Literal["incident-bundle/1"] = FORMAT
    id: str
    source: str
    alert: Alert | None
    baseline: Window
    baseline_dir: str
    baseline_local: Window | None
    incident: Window
    quality: Literal["complete", "partial"]
    missing: list[str]
    signals: list[str]
    services: list[str]


class Baseline(_Form):
    """`baseline.json`."""

    source: str
    window: Window
    signals: list[str]


@dataclass(frozen=True)
class Stores:
    """Where telemetry is kept while the stack runs; None: not within reach."""

    metrics: Metrics
    logs: LogStore | None
    span_file: Path | None


def bundle_id(incident: Incident) -> str:
    """`prove-20261129T201500`: without the scenario's name, which would give the cause away."""
    return f"{DATASET}-{incident.id.partition('-')[0]}"


def export(
    directory: Path,
    incident: Incident,
    objectives: Objectives,
    stores: Stores,
    told: Window | None = None,
) -> list[str]:
    """Write the bundle of a run into its record's directory; `told`: when the incident was.

    Returns what could not be had, a sentence each. Raises UserError when there is no place for it,
    or the run has no windows.
    """
    if incident.windows is None:
        raise UserError(f"{incident.id} ended before its injection: there is nothing to bundle")
    baseline, during = incident.windows.baseline, incident.windows.incident
    local_s = max(baseline.start_unix_s, during.start_unix_s - LOCAL_S)
    kept = Window(start_unix_s=local_s, end_unix_s=during.end_unix_s)
    target = directory / record.BUNDLE
    missing: list[str] = []
    lacking: list[str] = []
    (target / BASELINE).mkdir(parents=True, exist_ok=True)
    of_baseline = _tables(target / BASELINE, baseline, objectives, stores, lacking)
    of_incident = _tables(target, kept, objectives, stores, missing)
    missing += [f"baseline's {each}" for each in lacking]
    source = f"prove {incident.commit}, profile {incident.profile}"
    record.write(
        target / BASELINE / BASELINE_FILE,
        Baseline(source=source, window=baseline, signals=sorted(of_baseline)),
    )
    record.write(
        target / BUNDLE_FILE,
        Bundle(
            id=bundle_id(incident),
            source=source,
            alert=_alert(directory, baseline.start_unix_s, during.end_unix_s),
            baseline=baseline,
            baseline_dir=BASELINE,
            baseline_local=None,  # the minute before is the baseline's
            incident=told or during,
            quality="partial" if missing else "complete",
            missing=missing,
            signals=sorted(of_incident),
            services=_services([target / BASELINE, target]),
        ),
    )
    return missing


def read(directory: Path) -> Bundle | None:
    """The bundle of an incident; None: there is none. Raises UserError for another form."""
    path = directory / record.BUNDLE / BUNDLE_FILE
    return record.read_document(path, Bundle) if path.exists() else None


def metric_queries(
    objectives: Objectives, labels: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What is kept of each instance, by the name it has in metrics.parquet; of `labels` alone."""
    window = f"{max(5, 4 * objectives.interval_s)}s"
    chosen = ", ".join(
        f"{name}={json.dumps(value)}" for name, value in (labels or {}).items() if value
    )

    def of(series: str, matcher: str = "") -> str:
        matchers = ", ".join(each for each in (matcher, chosen) if each)
        return f"{series}{{{matchers}}}" if matchers else series

    def rate(series: str, matcher: str = "", by: str = _OF) -> str:
        return f"sum by ({by}) (rate({of(series, matcher)}[{window}]))"

    def quantile(share: float) -> str:
        return f"histogram_quantile({share}, {rate(f'{_SERVER}_bucket', by=f'{_OF}, le')})"

    memory = f"{of('process_memory_usage_bytes')} or {of('go_memory_used_bytes')}"
    free = of("system_filesystem_usage_bytes", 'state="free"')
    return {
        "requests_per_s": rate(f"{_SERVER}_count"),
        "errors_per_s": rate(f"{_SERVER}_count", _5XX),
        "latency_mean_s": f"{rate(f'{_SERVER}_sum')} / {rate(f'{_SERVER}_count')}",
        "latency_p50_s": quantile(0.5),
        "latency_p95_s": quantile(0.95),
        "client_requests_per_s": rate(f"{_CLIENT}_count"),
        "client_errors_per_s": rate(f"{_CLIENT}_count", _5XX),
        "client_latency_mean_s": f"{rate(f'{_CLIENT}_sum')} / {rate(f'{_CLIENT}_count')}",
        "cpu_seconds_per_s": rate("process_cpu_time_seconds_total"),
        "memory_bytes": f"sum by ({_OF}) ({memory})",
        "threads": f"sum by ({_OF}) ({of('process_thread_count')})",
        "goroutines": f"sum by ({_OF}) ({of('go_goroutine_count')})",
        "open_files": f"sum by ({_OF}) ({of('process_open_file_descriptor_count')})",
        "orders_unfinished": f"sum by ({_OF}) ({of('prove_orders_unfinished')})",
        "order_retries_per_s": rate("prove_order_retries_total"),
        "checkouts_shed_per_s": rate("prove_checkouts_shed_total"),
        "peer_breaker_state": f"max by ({_OF}) ({of('prove_peer_breaker_state')})",
        "reservations_per_s": rate("prove_reservations_total"),
        "payments_per_s": rate("prove_payments_total"),
        "stock_level": f"sum by ({_OF}) ({of('prove_stock_level')})",
        "host_load": f"sum by ({_OF}) ({of('system_cpu_load_average_1m')})",
        "host_disk_free_bytes": f"min by ({_OF}) ({free} > 0)",
    }


def _tables(
    directory: Path,
    window: Window,
    objectives: Objectives,
    stores: Stores,
    missing: list[str],
) -> list[str]:
    """Write what there is of each signal; the names of those that have something."""
    asked: Mapping[str, Callable[[], Iterator[Row]]] = {
        "spans": lambda: span_rows(stores.span_file, window),
        "metrics": lambda: metric_rows(stores.metrics, objectives, window),
        "logs": lambda: log_rows(stores.logs, window),
    }
    found = []
    for name, rows in asked.items():
        path = directory / f"{name}.parquet"
        try:
            count = tables.write(path, COLUMNS[name], rows())
        except UserError as error:
            path.unlink(missing_ok=True)
            missing.append(f"{name}: {error}")
            continue
        if count:
            found.append(name)
        else:
            path.unlink()
            missing.append(f"{name}: the store has none of that time")
    return found


def span_rows(file: Path | None, window: Window) -> Iterator[Row]:
    """What began in that time, of the Collector's files; raises UserError where there are none."""
    if file is None:
        raise UserError("the Collector's span files are not on this machine")
    for resource, span in otlp.between(
        file, round(window.start_unix_s * 1e9), round(window.end_unix_s * 1e9)
    ):
        if not is_control(span["name"]):
            yield spanrows.of_otlp(resource, span)


def metric_rows(metrics: Metrics, objectives: Objectives, window: Window) -> Iterator[Row]:
    """A row for each value of each of `metric_queries`; raises UserError."""
    for name, query in metric_queries(objectives).items():
        for series in metrics.range(
            query, window.start_unix_s, window.end_unix_s, float(objectives.interval_s)
        ):
            for at_s, value in series.points:
                if math.isfinite(value):  # NaN is a quantile of nothing
                    yield {
                        "time_unix_s": at_s,
                        "service": series.labels.get("service_name"),
                        "instance": series.labels.get("service_instance_id"),
                        "metric": name,
                        "value": value,
                    }


def log_rows(logs: LogStore | None, window: Window) -> Iterator[Row]:
    """A row for each record of the log store of that time; raises UserError."""
    if logs is None:
        raise UserError("the log store is not told of")
    begin_s = window.start_unix_s
    while begin_s < window.end_unix_s:
        end_s = min(begin_s + LOG_SLICE_S, window.end_unix_s)
        for found in logs.query(f"_time:[{rfc3339(begin_s)}, {rfc3339(end_s)})", MAX_LOGS):
            if not any(map(is_control, (found.get("route", ""), found.get("path", "")))):
                yield _log(found)
        begin_s = end_s


def _log(found: Mapping[str, str]) -> Row:
    fields = {
        name: value
        for name, value in found.items()
        if not name.startswith(("_", "service.", "telemetry.", "host.", "scope.", "deployment."))
        and name not in _COLUMNS_OF_LOGS
    }
    return {
        "time_unix_nano": _unix_ns(found["_time"]),
        "service": found.get("service.name"),
        "instance": found.get("service.instance.id"),
        "severity": (found.get("severity_text") or found.get("level") or "").upper() or None,
        "body": f"{found.get('_msg', '')} {tracetree.fields(fields)}".strip(),
        "trace_id": found.get("trace_id") or None,
        "span_id": found.get("span_id") or None,
    }


def is_control(text: str) -> bool:
    """Whether a span's name or a route is that of a fault's own endpoint: it names the cause."""
    return "/faults" in text or "/incidents" in text


def _alert(directory: Path, start_s: float, end_s: float) -> Alert | None:
    """The first page that the pager was told of in that time."""
    for page in record.lines(directory / record.PAGES, record.Page):
        if not start_s <= page.received_at_unix_us / 1e6 <= end_s:
            continue
        if page.status == "firing" and page.severity == "page" and page.slo:
            return alert_of(page.labels)
    return None


def alert_of(labels: Mapping[str, str]) -> Alert:
    """What a page is about, by its labels."""
    of = labels.get("sloth_service", "")
    return Alert(
        service=_MEASURED.get(of, of),
        signal=labels.get("sloth_slo", ""),
        metric=labels.get("sloth_id", ""),
    )


_MEASURED = {
    "checkout": "order-service",
    "payments": "payment-service",
    "product-reads": "product-service",
}
"""Which service the SLOs of a spec measure."""


def _services(directories: list[Path]) -> list[str]:
    files = {
        f"part_{number}": (path, COLUMNS[path.stem])
        for number, path in enumerate(path for of in directories for path in of.glob("*.parquet"))
    }
    if not files:
        return []
    all_of_them = " UNION ".join(f"SELECT service FROM {name}" for name in files)  # noqa: S608
    rows = tables.Tables(Path(), files).ask(all_of_them)
    return sorted(str(service) for (service,) in rows if service)


def rfc3339(unix_s: float) -> str:
    """As LogsQL takes it, with nanoseconds."""
    whole, nanos = divmod(round(unix_s * 1e9), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{nanos:09}Z"


def _unix_ns(rfc3339: str) -> int:
    """Nanoseconds, which `datetime` doesn't have."""
    seconds, _, rest = rfc3339.removesuffix("Z").partition(".")
    whole = calendar.timegm(time.strptime(seconds, "%Y-%m-%dT%H:%M:%S"))
    return whole * 1_000_000_000 + int(f"{rest:0<9}"[:9])
