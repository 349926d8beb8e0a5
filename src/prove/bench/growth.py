"""Whether a request stays as fast as the catalogue grows: three sizes at once, asked in turn."""

import random
from statistics import median
from urllib.parse import urlencode

from pydantic import BaseModel

from prove.bench import load, measure, shop
from prove.bench.load import Request
from prove.bench.measure import Effort, Target
from prove.bench.progress import Progress
from prove.errors import UserError
from prove.stack import processes
from prove.stack.settings import StackSettings

RATE = 50  # requests/s to each size
SAMPLE = 500
SORTS = ("sku", "-sku", "name", "-name", "price", "-price")
MAX_RATIO = 2.0


class Growth(BaseModel):
    """`p95_ms`: by operation, by size of the catalogue, one a round."""

    rate: int
    seconds: int
    p95_ms: dict[str, dict[int, list[float]]]

    @property
    def rounds(self) -> int:
        """How often each was measured."""
        return len(next(iter(next(iter(self.p95_ms.values())).values())))

    def p95(self, operation: str, size: int) -> float:
        """The median of the rounds, in ms."""
        return median(self.p95_ms[operation][size])

    def ratio(self, operation: str, size: int) -> float:
        """P95 at `size` ÷ P95 at the smallest: the median of the rounds."""
        sizes = self.p95_ms[operation]
        pairs = zip(sizes[size], sizes[min(sizes)], strict=True)
        return median(large / small for large, small in pairs)

    def targets(self) -> list[Target]:
        """Flat."""
        told = []
        for operation, sizes in self.p95_ms.items():
            worst = max(self.ratio(operation, size) for size in sizes)
            told.append(
                Target(
                    text=f"{operation}: P95 at any size ÷ P95 at {min(sizes):,} ≤ {MAX_RATIO:g}",
                    measured=f"{worst:.2f}",
                    reached=worst <= MAX_RATIO,
                )
            )
        return told


def measure_growth(effort: Effort, progress: Progress) -> Growth:
    """Measure; raises UserError when something cannot be started."""
    with shop.home() as settings:
        ports = dict(
            zip(
                effort.growth_sizes,
                (settings.product_port, settings.payment_port, settings.order_port),
                strict=False,
            )
        )
        stack = processes.specs(settings, processes.ensure_binaries())
        product = shop.spec(stack, "product")
        specs = [spec for spec in stack if spec.group == "observability"] + [
            shop.another(settings, product, f"product-{n}", port) for n, port in ports.items()
        ]
        with shop.running(settings, specs, progress) as state:
            for size, port in ports.items():
                shop.import_catalogue(settings, port, size, progress)
            measure.until_idle(state, progress)
            return _measure(settings, ports, effort, progress)


def _measure(
    settings: StackSettings, ports: dict[int, int], effort: Effort, progress: Progress
) -> Growth:
    requests = {size: _requests(settings.url(port), size) for size, port in ports.items()}
    operations = list(requests[min(ports)])
    p95_ms: dict[str, dict[int, list[float]]] = {
        operation: {size: [] for size in ports} for operation in operations
    }
    for number in range(effort.growth_rounds):
        for operation in operations:
            sent = load.run(
                load.Plan(
                    {str(size): requests[size][operation] for size in ports},
                    effort.growth_s,
                    rate=RATE * len(ports),
                ),
                progress,
                f"round {number + 1}/{effort.growth_rounds}, {operation}",
            )
            if sent.failed:
                raise UserError(f"{sent.failed} requests failed ({operation}): nothing to tell")
            for size in ports:
                p95_ms[operation][size].append(sent.targets[str(size)].p95)
    return Growth(rate=RATE, seconds=effort.growth_s, p95_ms=p95_ms)


def _requests(url: str, size: int) -> dict[str, list[Request]]:
    draw = random.Random(shop.SEED)  # noqa: S311 - goods, not secrets
    products = f"{url}/api/v1/products"
    reservations = f"{url}/api/v1/reservations"
    chosen = [draw.randrange(size) for _ in range(SAMPLE)]
    return {
        "list": [Request("GET", page) for page in _pages(products)],
        "item": [Request("GET", f"{products}/{shop.sku(n)}") for n in chosen],
        "search": [Request("GET", f"{products}?q={shop.code(n)}") for n in chosen],
        "reserve": [
            Request(
                "POST",
                reservations,
                expect=201,
                body={"order_id": "$id", "lines": [{"sku": shop.sku(n), "quantity": 1}]},
                then=Request("POST", f"{reservations}/$id/release"),
            )
            for n in chosen
        ],
    }


def _pages(products: str) -> list[str]:
    """The first two pages of every order there is."""
    pages = []
    for sort in SORTS:
        first = f"{products}?limit=20&sort={sort}"
        following = urlencode({"cursor": shop.ask(first).json()["next_cursor"]})
        pages += [first, f"{first}&{following}"]
    return pages
