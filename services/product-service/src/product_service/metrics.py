"""The names of this service's metrics, in one place."""

from collections.abc import Callable, Iterable, Mapping

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

OUTCOME = "prove.outcome"
CATEGORY = "prove.category"


class Metrics:
    """Business metrics; `stock_levels` gives free stock by category where we report it."""

    def __init__(self, stock_levels: Callable[[], Mapping[str, int]]) -> None:
        meter = metrics.get_meter("product_service")
        self._reservations = meter.create_counter(
            "prove.reservations", "{reservation}", "Reservations by what became of them"
        )

        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(n, {CATEGORY: name}) for name, n in stock_levels().items()]

        meter.create_observable_gauge(
            "prove.stock.level", [observe], "{item}", "Free stock by category"
        )

    def reservation(self, outcome: str, count: int = 1) -> None:
        """Count reservations that were held, short, committed, released or expired."""
        self._reservations.add(count, {OUTCOME: outcome})
