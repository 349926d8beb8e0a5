"""What the rules of all SLOs cost to evaluate, and what ten times as many series add."""

import itertools
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import yaml
from pydantic import BaseModel

from prove import tools
from prove.bench import shop
from prove.bench.measure import Effort, Target
from prove.bench.progress import Progress
from prove.errors import UserError
from prove.slo import spec
from prove.stack import configs
from prove.stack.settings import StackSettings

SCALES = (1, 10)
STEP_S = 1
"""How often the drill's services export."""
PAST_S = 72 * 60
"""The drill's longest window."""
PERIOD_S = 12 * 3600
"""The drill's period: what rules recorded every second in it is read again by rules."""
AHEAD_S = 300
"""The servers are to find new samples while they are watched."""
MAX_SHARE = 0.5
_HOST = "127.0.0.1"
_READY_TIMEOUT_S = 60
# Instances at scale 1, and the routes of each: those of the shop on one machine.
_SERVICES = {
    "product-service": (2, ("GET /api/v1/products", "GET /api/v1/products/{sku}")),
    "order-service": (1, ("POST /api/v1/orders", "GET /api/v1/orders/{id}")),
    "payment-service": (1, ("POST /api/v1/payments", "GET /api/v1/payments/{payment_id}")),
}
_STATUSES = {"200": 2, "409": 1, "500": 1}
"""Requests in a step, by status."""
_BUCKETS = {"0.1": 0.8, "0.5": 0.99, "1": 1.0, "+Inf": 1.0}
"""The share of requests in each."""
_PROBES = ("checkout", "product-reads", "payments")


class Cost(BaseModel):
    """Of one evaluation of all groups: CPU time of all of Prometheus, and the series they read."""

    series: int
    cpu_s: float


class Rules(BaseModel):
    """`costs`: by how many times the shop's series there were."""

    interval_s: float
    groups: int
    costs: dict[int, Cost]

    def targets(self) -> list[Target]:
        """They stay far from being late."""
        most = max(self.costs)
        share = self.costs[most].cpu_s / self.interval_s
        return [
            Target(
                text=f"at {most} times the series, rules take ≤ {MAX_SHARE:.0%} of a core",
                measured=f"{share:.0%}",
                reached=share <= MAX_SHARE,
            )
        ]


def measure_rules(effort: Effort, progress: Progress) -> Rules:
    """Measure; raises UserError when Prometheus does not start or refuses its data."""
    binaries = tools.ensure("prometheus")
    with ExitStack() as stack:
        servers: dict[int, str] = {}
        for scale in SCALES:
            own = stack.enter_context(shop.home())
            settings = own.model_copy(update={"profile": "drill"})
            with progress.step(f"making the past of {scale} times the series"):
                _fill(settings, scale, binaries["promtool"])
            servers[scale] = stack.enter_context(_running(settings, binaries["prometheus"]))
        groups = len(_rule_groups(next(iter(servers.values()))))
        before = {scale: _metrics(url) for scale, url in servers.items()}
        with progress.step("evaluating", effort.rules_s) as done:
            for second in range(effort.rules_s):
                done(second)
                time.sleep(1)
        after = {scale: _metrics(url) for scale, url in servers.items()}
    return Rules(
        interval_s=1,
        groups=groups,
        costs={scale: _cost(scale, before[scale], after[scale], groups) for scale in SCALES},
    )


def _cost(scale: int, before: dict[str, float], after: dict[str, float], groups: int) -> Cost:
    def grown(name: str) -> float:
        return after[name] - before[name]

    rounds = grown("prometheus_rule_group_duration_seconds_count") / groups
    if rounds < 1:
        raise UserError("Prometheus evaluated no rules: nothing to tell")
    return Cost(
        series=len(_counters(scale)),
        cpu_s=grown("process_cpu_seconds_total") / rounds,
    )


def _fill(settings: StackSettings, scale: int, promtool: Path) -> None:
    """The database of a Prometheus that has seen the whole of the longest window."""
    settings.data_dir.mkdir(parents=True)
    past = settings.data_dir / "past.openmetrics"
    with past.open("w", encoding="utf-8") as file:
        file.writelines(_past(scale, int(time.time())))
    done = subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", past, _database(settings)],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise UserError(f"promtool cannot write the past: {done.stderr.strip()}")
    past.unlink()


def _past(scale: int, now_s: int) -> Iterator[str]:
    """What services and probes told, a little of the future with it, and what rules recorded."""
    begin_s = now_s - PAST_S
    steps = range((PAST_S + AHEAD_S) // STEP_S)
    series: dict[str, list[str]] = {}
    for name, labels, first, growth in _counters(scale):
        series.setdefault(name, []).extend(
            f"{name}{{{labels}}} {first + growth * n:g} {begin_s + n * STEP_S}\n" for n in steps
        )
    for name, labels, value in _recorded():
        series.setdefault(name, []).extend(
            f"{name}{{{labels}}} {value:g} {now_s - PERIOD_S + n}\n" for n in range(PERIOD_S)
        )
    for name, lines in series.items():
        yield f"# TYPE {name} unknown\n"
        yield from lines
    yield "# EOF\n"


def _recorded() -> Iterator[tuple[str, str, float]]:
    """Name, labels and value of what the rules of all SLOs recorded over the shortest window."""
    for file in sorted((tools.repository_root() / "observability" / "slos").glob("*.yaml")):
        for slo in spec.parse(file.read_text(encoding="utf-8"), str(file)):
            labels = f'sloth_id="{slo.id}",sloth_service="{slo.service}",sloth_slo="{slo.name}"'
            if isinstance(slo.sli, spec.Events):
                yield "slo:sli_total:events5s", labels, 60.0
                yield "slo:sli_error:events5s", labels, 0.1
            else:
                yield "slo:sli_error:ratio_rate5s", f'{labels},sloth_window="5s"', 0.001


def _counters(scale: int) -> list[tuple[str, str, float, float]]:
    """Name, labels, first value and growth in a step of every series that is sent or scraped."""
    base = "http_server_request_duration_seconds"
    found = [("probe_success", f'probe="{probe}"', 1.0, 0.0) for probe in _PROBES]
    found += [
        ("prove_orders_unfinished_oldest_seconds", f'service_instance_id="order-{n}"', 0.5, 0.0)
        for n in range(scale)
    ]
    for service, (instances, routes) in _SERVICES.items():
        for n, route, (status, growth) in itertools.product(
            range(instances * scale), routes, _STATUSES.items()
        ):
            method, path = route.split()
            labels = (
                f'service_name="{service}",service_instance_id="{service}-{n}",'
                f'http_request_method="{method}",http_route="{path}",'
                f'http_response_status_code="{status}"'
            )
            found.append((f"{base}_count", labels, 0.0, growth))
            found.append((f"{base}_sum", labels, 0.0, growth * 0.05))
            found += [
                (f"{base}_bucket", f'{labels},le="{le}"', 0.0, growth * share)
                for le, share in _BUCKETS.items()
            ]
    return found


@contextmanager
def _running(settings: StackSettings, prometheus: Path) -> Iterator[str]:
    """A Prometheus upon that past, with the drill's rules and nothing to scrape; yields its URL."""
    configs.write(settings, tools.repository_root() / "observability")
    config = settings.config_dir / configs.PROMETHEUS
    told = yaml.safe_load(config.read_text(encoding="utf-8"))
    told.pop("scrape_configs")
    told.pop("alerting")
    config.write_text(yaml.safe_dump(told), encoding="utf-8")
    url = settings.url(settings.prometheus_port)
    argv = (
        str(prometheus),
        f"--config.file={config}",
        f"--storage.tsdb.path={_database(settings)}",
        f"--web.listen-address={_HOST}:{settings.prometheus_port}",
        "--log.level=error",
    )
    with subprocess.Popen(argv) as process:
        try:
            _until_ready(process, url)
            yield url
        finally:
            process.terminate()


def _until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/-/ready", trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise UserError("Prometheus does not get ready; its messages stand above")


def _rule_groups(url: str) -> list[object]:
    answer = shop.ask(f"{url}/api/v1/rules").json()
    groups: list[object] = answer["data"]["groups"]
    return groups


def _metrics(url: str) -> dict[str, float]:
    """Its own metrics that have no label."""
    lines = re.findall(r"^(\w+) (\S+)$", shop.ask(f"{url}/metrics").text, flags=re.MULTILINE)
    return {name: float(value) for name, value in lines}


def _database(settings: StackSettings) -> Path:
    return settings.data_dir / "prometheus"
