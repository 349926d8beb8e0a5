"""Ends an incident that costs more than it may: so much of an SLO's error budget, and no more."""

import time
from collections.abc import Iterable

from prove.errors import UserError
from prove.incident import judge
from prove.incident.record import Entry
from prove.incident.telemetry import Telemetry
from prove.incident.theory import Objectives


class Guard:
    """`share` of a budget may go, by whichever witness says more.

    The customers' own ledger is asked as well as the SLIs: it knows when the telemetry is gone.
    """

    def __init__(self, share: float, objectives: Objectives, telemetry: Telemetry) -> None:
        self._share, self._objectives, self._telemetry = share, objectives, telemetry

    def crossed(self, injected_s: float, entries: Iterable[Entry]) -> str:
        """Why the run has to be ended now; '' when all is within bounds."""
        now_s = time.time()
        elapsed_s = now_s - injected_s
        mine = judge.bad_shares(e for e in entries if e.at_unix_us >= injected_s * 1_000_000)
        spent = {
            slo_id: self._objectives.burned(slo_id, bad, elapsed_s)
            for slo_id, bad in mine.items()
            if slo_id in self._objectives.slos
        }
        try:
            seen = self._telemetry.spent(injected_s, now_s)
        except UserError:
            seen = {}
        for slo_id in sorted({*spent, *seen}):
            gone = max(spent.get(slo_id, 0.0), seen.get(slo_id, 0.0))
            if gone > self._share:
                return (
                    f"aborted: {gone:.1%} of the error budget of {slo_id} is gone, "
                    f"{self._share:.1%} may (--abort-on)"
                )
        return ""
