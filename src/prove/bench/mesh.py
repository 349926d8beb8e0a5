"""What the mesh costs: the shop with Envoy before each service and without it, side by side."""

from contextlib import ExitStack
from statistics import median
from typing import Literal

from pydantic import BaseModel

from prove.bench import load, measure, shop
from prove.bench.measure import Effort, Target
from prove.bench.progress import Progress
from prove.errors import UserError
from prove.stack import mesh, processes
from prove.stack.settings import StackSettings

CATALOGUE = 1_000
RATE = 20
"""Both shops and their observability run on the same machine: at 50 they fill two cores."""
MAX_ADDED_MS = 10.0
MAX_CPU_RATIO = 1.5
SHOPS = ("off", "on")


class Window(BaseModel):
    """One load on one shop: times of its checkouts, CPU an order, of which that of the proxies."""

    p50_ms: float
    p95_ms: float
    cpu_ms: float
    proxies_ms: float


class MeshCost(BaseModel):
    """`windows`: by shop (`off`, `on`), one a round. `rss_mib`: of all proxies, and the issuer."""

    rate: int
    seconds: int
    windows: dict[str, list[Window]]
    rss_mib: float

    def added_ms(self, what: Literal["p50_ms", "p95_ms"]) -> float:
        """On less off: the median of the rounds."""
        return median(new - old for new, old in zip(*self._both(what), strict=True))

    @property
    def cpu_ratio(self) -> float:
        """On ÷ off: the median of the rounds."""
        return median(new / old for new, old in zip(*self._both("cpu_ms"), strict=True))

    def _both(self, what: str) -> tuple[list[float], list[float]]:
        on, off = ([float(getattr(w, what)) for w in self.windows[k]] for k in ("on", "off"))
        return on, off

    def targets(self) -> list[Target]:
        """Customers don't notice, and the bill grows by less than half."""
        added = self.added_ms("p95_ms")
        return [
            Target(
                text=f"checkout P95 with the mesh less without ≤ {MAX_ADDED_MS:g} ms",
                measured=f"{added:.1f} ms",
                reached=added <= MAX_ADDED_MS,
            ),
            Target(
                text=f"CPU an order with the mesh ÷ without ≤ {MAX_CPU_RATIO:g}",
                measured=f"{self.cpu_ratio:.2f}",
                reached=self.cpu_ratio <= MAX_CPU_RATIO,
            ),
        ]


def measure_mesh(effort: Effort, progress: Progress) -> MeshCost:
    """Measure; raises UserError when something cannot be started, or there is no Envoy."""
    mesh.program()
    windows: dict[str, list[Window]] = {name: [] for name in SHOPS}
    with ExitStack() as stack:
        binaries = processes.ensure_binaries()
        settings: dict[str, StackSettings] = {}
        for name in SHOPS:
            own = stack.enter_context(shop.home())
            settings[name] = own.model_copy(update={"mesh": name == "on"})
        states = {
            name: stack.enter_context(shop.running(each, processes.specs(each, binaries), progress))
            for name, each in settings.items()
        }
        for each in settings.values():
            shop.import_catalogue(each, each.product_port, CATALOGUE, progress)
        proxies = [*mesh.proxies(settings["on"]), mesh.ISSUER]

        def window(name: str, seconds: int, text: str) -> Window:
            state = states[name]
            measure.until_idle(state, progress)
            names = [part for part, process in state.processes.items() if process.group == "shop"]
            start = measure.cpu_of(state)
            orders = shop.orders(settings[name].url(settings[name].order_port), CATALOGUE)
            plan = load.Plan({"checkout": orders}, seconds, rate=RATE)
            told = load.run(plan, progress, f"{text}, mesh {name}").targets["checkout"]
            if told.failed:
                raise UserError(f"{told.failed} orders failed (mesh {name}): nothing to compare")
            spent = measure.spent(start, measure.cpu_of(state), told.count)
            return Window(
                p50_ms=told.p50,
                p95_ms=told.p95,
                cpu_ms=1000 * sum(spent[part] for part in names),
                proxies_ms=1000 * sum(spent[part] for part in names if part in proxies),
            )

        for name in SHOPS:
            window(name, effort.warm_up_s, "warm-up")
        for number in range(effort.durability_rounds):
            for name in SHOPS:
                text = f"round {number + 1}/{effort.durability_rounds}"
                windows[name].append(window(name, effort.search_s, text))
        memory = measure.memory_of(states["on"]).shop
    return MeshCost(
        rate=RATE,
        seconds=effort.search_s,
        windows=windows,
        rss_mib=sum(memory[name].rss for name in proxies),
    )
