"""Checkouts of the whole shop: latency and CPU at a constant rate, and the highest it holds."""

from collections.abc import Callable

from pydantic import BaseModel

from prove.bench import load, measure, shop
from prove.bench.measure import Effort, Group, Target
from prove.bench.progress import Progress
from prove.stack import processes
from prove.stack.state import StackState

CATALOGUE = 1_000
RATE = 50
MAX_P95_MS = 500.0
MAX_CPU_MS = 12.0
MIN_HIGHEST = 200
OVERLOAD = 3
MIN_GOODPUT = 0.8
SEARCH_START, SEARCH_LEAP, SEARCH_STEP, SEARCH_END = 100, 50, 25, 1_000


class Probe(BaseModel):
    """One rate tried in the search."""

    rate: int
    p95: float
    failed: int
    dropped: int
    goodput: float
    """Orders confirmed a second."""

    @property
    def holds(self) -> bool:
        """Fast enough, and nothing lost."""
        return self.p95 < MAX_P95_MS and self.failed == self.dropped == 0


class Checkout(BaseModel):
    """`cpu_ms`: CPU an order, by process. `restarts` of processes in all of it should be 0."""

    rate: int
    seconds: int
    latency: load.Latency
    dropped: int
    cpu_ms: dict[str, float]
    shop: list[str]
    generator_cpu_ms: float
    memory: Group
    search_s: int
    probes: list[Probe]
    highest: int
    overload: Probe
    restarts: int

    @property
    def shop_cpu_ms(self) -> float:
        """CPU an order of services and acquirer; neither observability nor load generator."""
        return sum(self.cpu_ms[name] for name in self.shop)

    @property
    def observability_cpu_ms(self) -> float:
        """CPU an order of what receives and keeps the telemetry."""
        return sum(self.cpu_ms.values()) - self.shop_cpu_ms

    @property
    def peak(self) -> Probe:
        """The rate tried at which the most orders were confirmed."""
        return max(self.probes, key=lambda probe: probe.goodput)

    def targets(self) -> list[Target]:
        """No failure, little CPU, room above, and no collapse beyond that."""
        lost = self.latency.failed + self.dropped
        return [
            Target(
                text=f"no order fails or is late to start at {self.rate}/s for {self.seconds} s",
                measured=f"{self.latency.failed} failed, {self.dropped} dropped",
                reached=lost == 0 and self.latency.count > 0,
            ),
            Target(
                text=f"CPU an order of the shop's processes ≤ {MAX_CPU_MS:g} ms",
                measured=f"{self.shop_cpu_ms:.1f} ms",
                reached=self.shop_cpu_ms <= MAX_CPU_MS,
            ),
            Target(
                text=f"highest rate with P95 < {MAX_P95_MS:g} ms, nothing lost ≥ {MIN_HIGHEST}/s",
                measured=f"{self.highest}/s",
                reached=self.highest >= MIN_HIGHEST,
            ),
            Target(
                text=f"goodput at {OVERLOAD} times what is carried at most ÷ that ≥ {MIN_GOODPUT}",
                measured=f"{self.overload.goodput / self.peak.goodput:.2f}",
                reached=self.overload.goodput >= MIN_GOODPUT * self.peak.goodput,
            ),
        ]


def measure_checkout(effort: Effort, progress: Progress) -> Checkout:
    """Measure; raises UserError when something cannot be started."""
    with shop.home() as settings:
        specs = processes.specs(settings, processes.ensure_binaries())
        with shop.running(settings, specs, progress) as state:
            shop.import_catalogue(settings, settings.product_port, CATALOGUE, progress)
            url = settings.url(settings.order_port)

            def send(rate: int, seconds: int, text: str, late: Callable[[], None]) -> load.Load:
                plan = load.Plan({"checkout": shop.orders(url, CATALOGUE)}, seconds, rate=rate)
                return load.run(plan, progress, f"{text}, {rate}/s for {seconds} s", late=late)

            return _measure(state, effort, progress, send)


_Send = Callable[[int, int, str, Callable[[], None]], load.Load]


def _measure(state: StackState, effort: Effort, progress: Progress, send: _Send) -> Checkout:
    send(RATE, effort.warm_up_s, "warm-up", _nothing)
    measure.until_idle(state, progress)
    memory: list[Group] = []
    before = measure.cpu_of(state)
    steady = send(
        RATE, effort.checkout_s, "checkout", lambda: memory.append(measure.memory_of(state))
    )
    after = measure.cpu_of(state)
    probes: list[Probe] = []

    def tried(rate: int, text: str) -> Probe:
        measure.until_idle(state, progress)
        sent = send(rate, effort.search_s, text, _nothing)
        told = sent.targets["checkout"]
        return Probe(
            rate=rate,
            p95=told.p95,
            failed=told.failed,
            dropped=sent.dropped,
            goodput=sent.per_second * (1 - told.failed / max(told.count, 1)),
        )

    def holds(rate: int) -> bool:
        probes.append(tried(rate, "search for the highest rate"))
        return probes[-1].holds

    highest = highest_rate(holds)
    peak = max(probes, key=lambda probe: probe.goodput)
    overload = tried(round(OVERLOAD * peak.goodput), "more than it can carry")
    latency = steady.targets["checkout"]
    cpu_s = measure.spent(before, after, latency.count)
    now = shop.current(state)
    return Checkout(
        rate=RATE,
        seconds=effort.checkout_s,
        latency=latency,
        dropped=steady.dropped,
        cpu_ms={name: seconds * 1000 for name, seconds in cpu_s.items()},
        shop=[name for name, process in state.processes.items() if process.group == "shop"],
        generator_cpu_ms=steady.cpu_s * 1000 / max(latency.count, 1),
        memory=memory[0],
        search_s=effort.search_s,
        probes=probes,
        highest=highest,
        overload=overload,
        restarts=sum(process.restarts for process in now.processes.values()),
    )


def highest_rate(
    holds: Callable[[int], bool],
    start: int = SEARCH_START,
    leap: int = SEARCH_LEAP,
    step: int = SEARCH_STEP,
    end: int = SEARCH_END,
) -> int:
    """The highest multiple of `step` that `holds`: up in leaps, then bisected; 0 when none does.

    Nothing above `end` is tried.
    """
    good, bad = 0, start
    while holds(bad):
        good = bad
        if bad >= end:
            return good
        bad = min(bad + leap, end)
    while bad - good > step:
        middle = (good + bad) // 2 // step * step
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return good


def _nothing() -> None:
    """There is nothing to look at late in this load."""
