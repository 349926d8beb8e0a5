"""When a page is due: by the SRE workbook's model, and with what its windows still hold (pure).

The model (`prove.slo.burn`) supposes that nothing was bad before, and as many events a second after
as before. After another incident, or where clients repeat what failed, that isn't so: both make the
page come sooner.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

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

EARLY_INTERVALS = 2
"""How much sooner: the same share, and what a second's raster takes at both ends."""


@dataclass(frozen=True)
class Second:
    """Of an SLI: the share of bad events in one second, and how many there were in all.

    Where the SLI counts none (a probe's), each second counts as much as any other: 1.
    """

    bad: float
    events: float = 1.0


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

    def earliest_s(
        self, slo_id: str, bad: float, past: Sequence[Second], events: Sequence[float] = ()
    ) -> float | None:
        """The same as `due_s` after a past of `past`, latest last.

        One that is shorter than a window is all there is: a young installation pages sooner.
        `events` of each second from the first bad one on; of later ones the last is supposed, and
        where there is none as many as in the past.
        """
        if not events:
            known = [second.events for second in past if second.events]
            events = [sum(known) / len(known) if known else 1.0]
        budget = self.slo(slo_id).budget
        found = [
            seconds
            for pair in self.pages
            if (seconds := _fires_after(pair, float(budget), bad, past, events)) is not None
        ]
        return min(found, default=None)

    def not_before_s(self, earliest_s: float) -> float:
        """A page that comes sooner than that contradicts theory."""
        tolerated_s = SLACK * earliest_s + EARLY_INTERVALS * self.windows.interval_s
        return max(0.0, earliest_s - tolerated_s)

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


def _fires_after(
    pair: Pair, budget: float, bad: float, past: Sequence[Second], events: Sequence[float]
) -> float | None:
    """The first whole second at which both windows are over the threshold; None: never."""
    threshold = float(pair.factor) * budget
    longest_s = max(pair.long_s, pair.short_s)
    new = [Second(bad, events[min(each, len(events) - 1)]) for each in range(longest_s)]
    all_of_it = (*past, *new)
    total = [0.0, *accumulate(second.events for second in all_of_it)]
    wrong = [0.0, *accumulate(second.bad * second.events for second in all_of_it)]
    for seconds in range(longest_s + 1):
        end = len(past) + seconds
        begins = [max(0, end - window_s) for window_s in (pair.long_s, pair.short_s)]
        if all(
            wrong[end] - wrong[begin] > threshold * (total[end] - total[begin]) for begin in begins
        ):
            return float(seconds)
    return None
