"""Product reads: what telemetry costs, switched off, stock, and as shipped, asked in turn."""

import dataclasses
import json
import random
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, Literal

from pydantic import BaseModel

from prove import tools
from prove.bench import load, measure, shop
from prove.bench.measure import Effort, Target, added_ratio
from prove.bench.progress import Progress
from prove.errors import UserError
from prove.stack import processes
from prove.stack.settings import StackSettings
from prove.stack.spec import ProcessSpec

Configuration = Literal["off", "stock", "shipped"]
CONFIGURATIONS: tuple[Configuration, ...] = ("off", "stock", "shipped")
STOCK = Path("services/product-service/bench/stock.py")
COLLECTOR = Path(__file__).with_name("collector.yaml")
CATALOGUE = 1_000
RATE = 100  # requests/s at which CPU is measured: also the slowest configuration holds it
USERS = 8  # connections of the closed loop
SAMPLE = 20  # requests from which the signals of one are counted
# Telemetry leaves a service within its longest export delay (0.5 s); its CPU is the request's too.
FLUSH_S = 0.7
SETTLE_S = 1.0
SETTLE_LIMIT_S = 15.0
MAX_RATIO = 0.5
MIN_SPANS = 2


class Window(BaseModel):
    """One configuration in one round."""

    per_second: float
    cpu_us: float


class Delivery(BaseModel):
    """What became of the signals of one configuration; `dropped` is what its SDKs say."""

    requests: int = 0
    spans_expected: int = 0
    spans_accepted: int = 0
    logs_expected: int = 0
    logs_accepted: int = 0
    refused: int = 0
    dropped: int = 0

    @property
    def spans_per_request(self) -> float:
        """What a request is made of."""
        return self.spans_expected / max(self.requests, 1)

    @property
    def complete(self) -> bool:
        """Whether everything arrived (the service's own background work makes spans as well)."""
        return (
            self.spans_accepted >= self.spans_expected
            and self.logs_accepted >= self.logs_expected
            and self.refused == self.dropped == 0
        )


class Reads(BaseModel):
    """`windows`: by kind of read, by configuration, one a round."""

    windows: dict[str, dict[Configuration, list[Window]]]
    delivery: dict[Configuration, Delivery]

    def cpu_us(self, kind: str, configuration: Configuration) -> list[float]:
        """CPU µs a request in each round."""
        return [window.cpu_us for window in self.windows[kind][configuration]]

    def added_us(self, kind: str, configuration: Configuration) -> float:
        """CPU that telemetry adds to a request, in µs: the median over rounds."""
        pairs = zip(self.cpu_us(kind, configuration), self.cpu_us(kind, "off"), strict=True)
        return median(with_it - without for with_it, without in pairs)

    def ratio(self, kind: str) -> float:
        """CPU added as shipped ÷ CPU added by stock instrumentation."""
        readings = (self.cpu_us(kind, name) for name in ("off", "shipped", "stock"))
        return added_ratio(*readings)

    def targets(self) -> list[Target]:
        """Half of stock's cost, and nothing left out or lost for it."""
        shipped = self.delivery["shipped"]
        lost = shipped.refused + shipped.dropped
        return [
            *(
                Target(
                    text=f"{kind}: CPU added as shipped ÷ by stock ≤ {MAX_RATIO}",
                    measured=f"{self.ratio(kind):.2f}",
                    reached=self.ratio(kind) <= MAX_RATIO,
                )
                for kind in self.windows
            ),
            Target(
                text=f"as shipped, spans of a read (server, statements) ≥ {MIN_SPANS}",
                measured=f"{shipped.spans_per_request:.1f}",
                reached=shipped.spans_per_request >= MIN_SPANS,
            ),
            Target(
                text="as shipped, every span and log record arrives",
                measured="all" if shipped.complete else f"{lost or 'not all, but none'} dropped",
                reached=shipped.complete,
            ),
        ]


class _Counts(BaseModel):
    """Of the Collector's receiver so far."""

    spans: int
    logs: int
    refused: int


def measure_reads(effort: Effort, progress: Progress) -> Reads:
    """Measure; raises UserError when something cannot be started."""
    with shop.home() as settings:
        sdk_metrics = settings.home / "sdk-metrics.jsonl"
        with shop.running(settings, specs(settings, sdk_metrics), progress) as state:
            bench = _Bench(settings, measure.pids(state), effort, progress)
            result = bench.measure()
        # Written in full only now that the services and the Collector have stopped.
        dropped = sdk_dropped(sdk_metrics.read_text().splitlines())
    for configuration, delivery in result.delivery.items():
        delivery.dropped = dropped.get(configuration, 0)
    return result


class _Bench:
    """One run of this figure."""

    def __init__(
        self,
        settings: StackSettings,
        pids: Mapping[str, int],
        effort: Effort,
        progress: Progress,
    ) -> None:
        self._settings, self._pids = settings, pids
        self._effort, self._progress = effort, progress
        self._delivery = {name: Delivery() for name in CONFIGURATIONS}

    def measure(self) -> Reads:
        urls = {name: self._settings.url(port_of(self._settings, name)) for name in CONFIGURATIONS}
        for name in CONFIGURATIONS:
            port = port_of(self._settings, name)
            shop.import_catalogue(self._settings, port, CATALOGUE, self._progress)
        requests = {name: requests_to(url) for name, url in urls.items()}
        kinds = list(requests["off"])
        self._settled()
        per_request = {
            (kind, name): self._signals_of_one(requests[name][kind])
            for kind in kinds
            for name in CONFIGURATIONS
        }
        windows: dict[str, dict[Configuration, list[Window]]] = {
            kind: {name: [] for name in CONFIGURATIONS} for kind in kinds
        }
        for number in range(self._effort.read_rounds):
            for kind in kinds:
                for name in CONFIGURATIONS:
                    text = f"round {number + 1}/{self._effort.read_rounds}, {kind}, {name}"
                    window = self._window(name, requests[name][kind], per_request[kind, name], text)
                    windows[kind][name].append(window)
        return Reads(windows=windows, delivery=self._delivery)

    def _window(
        self,
        name: Configuration,
        requests: list[load.Request],
        per_request: tuple[int, int],
        text: str,
    ) -> Window:
        """CPU at a constant rate, then requests/s in a closed loop; and what arrived of both."""
        seconds = self._effort.read_s
        counts = self._counts()
        cpu_s = measure.cpu_s(self._pids[name])
        targets = {str(name): requests}
        steady = load.run(
            load.Plan(targets, seconds, rate=RATE), self._progress, f"{text}: {RATE}/s"
        )
        time.sleep(FLUSH_S)
        cpu_s = measure.cpu_s(self._pids[name]) - cpu_s
        loop = load.run(
            load.Plan(targets, seconds, users=USERS), self._progress, f"{text}: closed loop"
        )
        if steady.failed or loop.failed:
            raise UserError(f"{steady.failed + loop.failed} reads failed ({text}): nothing to tell")
        self._account(name, steady.iterations + loop.iterations, per_request, counts)
        return Window(per_second=loop.per_second, cpu_us=cpu_s / max(steady.iterations, 1) * 1e6)

    def _account(
        self, name: Configuration, requests: int, per_request: tuple[int, int], before: _Counts
    ) -> None:
        after = self._settled()
        spans, logs = per_request
        told = self._delivery[name]
        told.requests += requests
        told.spans_expected += requests * spans
        told.logs_expected += requests * logs
        told.spans_accepted += after.spans - before.spans
        told.logs_accepted += after.logs - before.logs
        told.refused += after.refused - before.refused

    def _signals_of_one(self, requests: list[load.Request]) -> tuple[int, int]:
        """Spans and log records of one request."""
        before = self._counts()
        for request in requests[:SAMPLE]:
            shop.ask(request.url)
        after = self._settled()
        return round((after.spans - before.spans) / SAMPLE), round(
            (after.logs - before.logs) / SAMPLE
        )

    def _settled(self) -> _Counts:
        """The Collector's counts once nothing comes in any more."""
        deadline = time.monotonic() + SETTLE_LIMIT_S
        counts = self._counts()
        while time.monotonic() < deadline:
            time.sleep(SETTLE_S)
            latest = self._counts()
            if latest == counts:
                break
            counts = latest
        return counts

    def _counts(self) -> _Counts:
        url = self._settings.url(self._settings.prometheus_port) + "/metrics"
        return parse_counts(shop.ask(url).text)


def parse_counts(exposition: str) -> _Counts:
    """Read a Collector's own metrics; a counter appears with the first thing it counts."""

    def total(name: str) -> int:
        pattern = rf"^otelcol_receiver_{name}(?:_total)?\{{.*\}} (\S+)$"
        return int(sum(float(value) for value in re.findall(pattern, exposition, re.MULTILINE)))

    return _Counts(
        spans=total("accepted_spans"),
        logs=total("accepted_log_records"),
        refused=sum(
            total(f"{verb}_{signal}")
            for verb in ("refused", "failed")
            for signal in ("spans", "log_records")
        ),
    )


def sdk_dropped(lines: Iterable[str]) -> dict[str, int]:
    """Spans and log records that SDKs dropped, by deployment environment.

    From OTLP JSON lines of `otel.sdk.*` metrics, which are cumulative: the last one of each counts.
    """
    latest: dict[tuple[str, str, str], int] = {}
    for line in lines:
        for environment, instance, metric, point in _points(json.loads(line)):
            attributes = json.dumps(point.get("attributes", []), sort_keys=True)
            if '"error.type"' in attributes and metric.endswith((".processed", ".exported")):
                latest[environment, instance, metric + attributes] = int(point.get("asInt", 0))
    dropped: dict[str, int] = {}
    for (environment, _, _), count in latest.items():
        dropped[environment] = dropped.get(environment, 0) + count
    return dropped


def _points(payload: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    for resource in payload.get("resourceMetrics", []):
        attributes = {
            item["key"]: item["value"].get("stringValue", "")
            for item in resource["resource"].get("attributes", [])
        }
        environment = attributes.get("deployment.environment.name", "")
        instance = attributes.get("service.instance.id", "")
        for scope in resource["scopeMetrics"]:
            for metric in scope["metrics"]:
                for point in metric.get("sum", {}).get("dataPoints", []):
                    yield environment, instance, metric["name"], point


def requests_to(url: str) -> dict[str, list[load.Request]]:
    """What is read of the product service at `url`, by kind."""
    draw = random.Random(shop.SEED)  # noqa: S311 - goods, not secrets
    products = f"{url}/api/v1/products"
    return {
        "list": [load.Request("GET", f"{products}?limit=20")] * SAMPLE,
        "item": [
            load.Request("GET", f"{products}/{shop.sku(n)}")
            for n in draw.sample(range(CATALOGUE), CATALOGUE)
        ],
    }


def port_of(settings: StackSettings, name: Configuration) -> int:
    """Where a configuration listens."""
    return {
        "off": settings.acquirer_port,
        "stock": settings.payment_port,
        "shipped": settings.product_port,
    }[name]


def specs(settings: StackSettings, sdk_metrics: Path) -> list[ProcessSpec]:
    """A Collector that counts, and the product service three times."""
    stock = tools.repository_root() / STOCK
    if not stock.is_file():
        raise UserError(f"{stock} is missing, and the reads are compared with it: restore it")
    stack = processes.specs(settings, processes.ensure_binaries())
    product = shop.spec(stack, "product")

    def variant(name: Configuration, argv: tuple[str, ...] = (), **env: str) -> ProcessSpec:
        told = {"OTEL_RESOURCE_ATTRIBUTES": f"deployment.environment.name={name}", **env}
        return shop.another(settings, product, name, port_of(settings, name), argv=argv, env=told)

    return [
        _collector(settings, shop.spec(stack, "collector"), sdk_metrics),
        variant("off", OTEL_SDK_DISABLED="true"),
        variant("stock", argv=(sys.executable, str(stock))),
        variant("shipped"),
    ]


def _collector(settings: StackSettings, shipped: ProcessSpec, sdk_metrics: Path) -> ProcessSpec:
    return dataclasses.replace(
        shipped,
        argv=(shipped.argv[0], f"--config={COLLECTOR}"),
        env={
            **shipped.env,
            "BENCH_OTLP_HTTP": f"127.0.0.1:{settings.otlp_http_port}",
            "BENCH_HEALTH": f"127.0.0.1:{settings.collector_health_port}",
            "BENCH_METRICS_PORT": str(settings.prometheus_port),  # no Prometheus runs here
            "BENCH_SDK_METRICS": str(sdk_metrics),
        },
    )
