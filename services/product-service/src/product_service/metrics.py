"""The names of this service's metrics, in one place."""

from collections.abc import Callable, Iterable, Mapping

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from product_service.model import StockLevel

OUTCOME = "prove.outcome"
CATEGORY = "prove.category"

_OUTCOMES = ("held", "short", "committed", "released", "expired")


class Metrics:
    """Business metrics; `stock` gives what is free by category where we report it."""

    def __init__(self, stock: Callable[[], Mapping[str, StockLevel]]) -> None:
        meter = metrics.get_meter("product_service")
        self._reservations = meter.create_counter(
            "prove.reservations", "{reservation}", "Reservations by what became of them"
        )

        # A counter that appears with its first event loses that event in every rate.
        for outcome in _OUTCOMES:
            self.reservation(outcome, 0)

        def level(_options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(s.free, {CATEGORY: name}) for name, s in stock().items()]

        def out(_options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(s.out, {CATEGORY: name}) for name, s in stock().items()]

        meter.create_observable_gauge(
            "prove.stock.level", [level], "{item}", "Free stock by category"
        )
        meter.create_observable_gauge(
            "prove.stock.out", [out], "{product}", "Products without free stock by category"
        )

    def reservation(self, outcome: str, count: int = 1) -> None:
        """Count reservations that were held, short, committed, released or expired."""
        self._reservations.add(count, {OUTCOME: outcome})
