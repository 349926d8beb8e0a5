"""When a page is due: by the SRE workbook's model, and with what its windows still hold (pure).

The model (`prove.slo.burn`) supposes that nothing was bad before. After another incident that isn't
so: what a window still holds of it makes the page come sooner, never later.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from prove.errors import UserError
from prove.slo.burn import budget_burned, detection
from prove.slo.spec import SLO
from prove.slo.windows import AlertWindows, Pair

SLACK = 0.15
SLACK_INTERVALS = 5
"""How much later than in theory a page may come: a share of the time, and some evaluations.

One for the evaluation and one for export, scrape and delivery, as `verify slos` has it; the rest,
since here a fault acts through time limits and queues, on a machine that has other things to do.
"""


@dataclass(frozen=True)
class Objectives:
    """The SLOs by their ids, and the windows that their alerts look through."""

    slos: Mapping[str, SLO]
    windows: AlertWindows

    def slo(self, slo_id: str) -> SLO:
        """Raises UserError naming those there are."""
        if slo_id not in self.slos:
            raise UserError(f"there is no SLO {slo_id!r}; there are {', '.join(self.slos)}")
        return self.slos[slo_id]

    @property
    def pages(self) -> tuple[Pair, ...]:
        """The conditions of a page."""
        return self.windows.pairs("page")

    @property
    def looks_back_s(self) -> int:
        """The longest window of a page."""
        return max(pair.long_s for pair in self.pages)

    @property
    def measures_s(self) -> int:
        """The shortest window."""
        return self.windows.lengths_s[0]

    def due_s(self, slo_id: str, bad: float) -> float | None:
        """Seconds from the first bad event to the page; None: there is never one."""
        budget = self.slo(slo_id).budget
        found = detection(self.pages, budget, Fraction(str(bad)), self.windows.period_s)
        return None if found is None else float(found.fires_s)

    def within_s(self, slo_id: str, bad: float) -> float | None:
        """The same with what is tolerated."""
        due_s = self.due_s(slo_id, bad)
        if due_s is None:
            return None
        return due_s * (1 + SLACK) + SLACK_INTERVALS * self.windows.interval_s

    def earliest_s(self, slo_id: str, bad: float, past: Sequence[float]) -> float | None:
        """The same as `due_s` after a past of `past`: the bad share of each second, latest last.

        One that is shorter than a window is all there is: a young installation pages sooner.
        """
        budget = self.slo(slo_id).budget
        found = [
            seconds
            for pair in self.pages
            if (seconds := _fires_after(pair, float(budget), bad, past)) is not None
        ]
        return min(found, default=None)

    def burned(self, slo_id: str, bad: float, elapsed_s: float) -> float:
        """The share of the period's error budget that this uses up."""
        return float(
            budget_burned(
                Fraction(str(bad)),
                Fraction(str(elapsed_s)),
                self.slo(slo_id).budget,
                self.windows.period_s,
            )
        )


def _fires_after(pair: Pair, budget: float, bad: float, past: Sequence[float]) -> float | None:
    """The first whole second at which both windows are over the threshold; None: never."""
    threshold = float(pair.factor) * budget
    for seconds in range(max(pair.long_s, pair.short_s) + 1):
        if all(
            _share(window_s, seconds, bad, past) > threshold
            for window_s in (pair.long_s, pair.short_s)
        ):
            return float(seconds)
    return None


def _share(window_s: int, seconds: int, bad: float, past: Sequence[float]) -> float:
    """Of bad events in a window, so many seconds after the fault began."""
    held = past[-(window_s - seconds) :] if seconds < window_s else ()
    counted_s = len(held) + min(seconds, window_s)
    return (sum(held) + bad * min(seconds, window_s)) / counted_s if counted_s else 0.0
