"""How an objective was kept over some time, and which incidents burned its error budget.

Asked of what `provectl slo build` records: of the shortest window's events the average over one
such window, at steps of just that window. So each event counts once, as in the rules' own sum over
the period, of which this is the course. The budget is that of the time there is data of: what
nobody measured neither burns nor earns any.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from itertools import accumulate
from typing import Protocol

from prove.clients.prometheus import Series
from prove.slo import durations
from prove.slo.spec import SLO, Events
from prove.slo.windows import AlertWindows

NOTABLE = 0.01
"""What burned this share of the budget is an incident also without an alert."""
DRAWN_POINTS = 240

Times = tuple[float, float]


class Metrics(Protocol):
    """Where the recordings are: a Prometheus."""

    def range(self, promql: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        """Raises UserError when it doesn't answer."""
        ...


@dataclass(frozen=True)
class Bin:
    """One window's events; of an SLI that has none, its share of bad time out of 1."""

    end_s: float
    bad: float
    total: float


@dataclass(frozen=True)
class Alert:
    """When an alert fired, and the last time it was seen to; Unix times."""

    severity: str
    fired_s: float
    last_s: float


@dataclass(frozen=True)
class Incident:
    """A time in which the budget burned faster than allowed; Unix times.

    `burned` is its share of the whole budget, `peak_burn_rate` that of its worst window.
    """

    began_s: float
    ended_s: float
    bad: float
    burned: float
    peak_burn_rate: float
    alerts: tuple[Alert, ...] = ()


@dataclass(frozen=True)
class Report:
    """One objective from `start_s` to `end_s`, Unix times; what is None was not measured.

    `total` and `bad` are events, or seconds where the SLI is a share of time. `burned` is the share
    of the error budget that is gone, over 1 when it is overspent.
    """

    slo: SLO
    start_s: float
    end_s: float
    measured_s: float
    total: float
    bad: float
    compliance: float | None
    burned: float | None
    incidents: tuple[Incident, ...] = ()
    burned_beside: float = 0.0
    """What burned outside of the incidents."""
    left: Sequence[tuple[float, float]] = field(default=(), repr=False)
    """Unix times and the share of the budget that was left then."""

    @property
    def counts_events(self) -> bool:
        """Whether `total` and `bad` are events; else seconds."""
        return isinstance(self.slo.sli, Events)

    @property
    def met(self) -> bool | None:
        """Whether the objective was kept."""
        return None if self.burned is None else self.burned <= 1


def report(
    slo: SLO, windows: AlertWindows, metrics: Metrics, start_s: float, end_s: float
) -> Report:
    """The objective over that time; raises UserError when Prometheus doesn't answer."""
    step_s = windows.lengths_s[0]
    window = durations.text(step_s)

    def asked(function: str, series: str) -> list[Series]:
        # Over the step alone: what was recorded before an outage isn't taken for what was in it.
        promql = f'{function}({series}{{sloth_id="{slo.id}"}}[{window}])'
        return metrics.range(promql, start_s + step_s, end_s, step_s)

    def values(function: str, kind: str) -> dict[float, float]:
        found = asked(function, f"slo:{kind}{window}")
        return dict(found[0].points) if found else {}

    if isinstance(slo.sli, Events):
        counts = values("count_over_time", "sli_total:events")
        totals = values("sum_over_time", "sli_total:events")
        bads = values("sum_over_time", "sli_error:events")  # absent: none was bad
        bins = [
            Bin(at_s, bads.get(at_s, 0.0) / count, totals[at_s] / count)
            for at_s, count in counts.items()
            if at_s in totals  # the two questions may see different ends of the data
        ]
    else:
        ratios = values("avg_over_time", "sli_error:ratio_rate")
        bins = [Bin(at_s, ratio, 1.0) for at_s, ratio in ratios.items()]
    # The value of ALERTS_FOR_STATE is the time since when the alert's condition holds.
    alerts = [
        Alert(series.labels.get("sloth_severity", ""), fired_s, last_s)
        for series in asked("max_over_time", "ALERTS_FOR_STATE")
        if not series.labels.get("alertname", "").endswith("NoData")
        for fired_s, last_s in _firings(series.points)
    ]
    return analyse(slo, windows, (start_s, end_s), bins, alerts)


def analyse(
    slo: SLO, windows: AlertWindows, between: Times, bins: Sequence[Bin], alerts: Iterable[Alert]
) -> Report:
    """What bins, in order of time, and alerts say about the objective."""
    step_s = windows.lengths_s[0]
    unit = 1 if isinstance(slo.sli, Events) else step_s
    total, bad = (unit * sum(each) for each in (_totals(bins), _bads(bins)))
    budget = float(slo.budget)
    if not total:
        return Report(slo, *between, len(bins) * step_s, 0, 0, None, None)
    whole = total * budget
    burned = bad / whole
    # A pause no longer than the slow page looks back over when it resolves is part of an incident.
    pause_s = windows.pairs("page")[1].short_s
    burns = _burns(bins, budget, step_s, pause_s)
    assigned = _assigned(burns, sorted(alerts, key=lambda alert: alert.fired_s))
    incidents = []
    for (began_s, ended_s), told in assigned:
        inside = [each for each in bins if began_s < each.end_s <= ended_s]
        lost = unit * sum(_bads(inside))
        if told or lost / whole >= NOTABLE:
            rates = [each.bad / each.total / budget for each in inside if each.total]
            peak = max(rates, default=0.0)
            incidents.append(Incident(began_s, ended_s, lost, lost / whole, peak, told))
    return Report(
        slo,
        *between,
        measured_s=len(bins) * step_s,
        total=total,
        bad=bad,
        compliance=1 - bad / total,
        burned=burned,
        incidents=tuple(incidents),
        burned_beside=max(0.0, burned - sum(each.burned for each in incidents)),
        left=_left(bins, whole / unit),
    )


def _firings(points: Sequence[tuple[float, float]]) -> list[Times]:
    """When the alert's condition began to hold, and when it was last seen to; each time once."""
    lasts: dict[float, float] = {}
    for at_s, since_s in points:
        lasts[since_s] = at_s
    return list(lasts.items())


def _burns(bins: Sequence[Bin], budget: float, step_s: float, pause_s: float) -> list[Times]:
    """The times in which more was bad than the budget allows, without short pauses."""
    found: list[Times] = []
    for each in bins:
        if not (each.total and each.bad / each.total > budget):
            continue
        began_s = each.end_s - step_s
        if found and began_s - found[-1][1] <= pause_s:
            found[-1] = (found[-1][0], each.end_s)
        else:
            found.append((began_s, each.end_s))
    return found


def _assigned(
    burns: Sequence[Times], alerts: Sequence[Alert]
) -> list[tuple[Times, tuple[Alert, ...]]]:
    """Every burn with the alerts that fired from its begin until the next one's.

    An alert before the first burn is an incident by itself: it began before there is data of it.
    """
    begins = [began_s for began_s, _ in burns]
    told: list[list[Alert]] = [[] for _ in burns]
    early: list[Alert] = []
    for alert in alerts:
        position = bisect_right(begins, alert.fired_s) - 1
        (told[position] if position >= 0 else early).append(alert)
    own: list[tuple[Times, tuple[Alert, ...]]] = [
        ((alert.fired_s, alert.last_s), (alert,)) for alert in early
    ]
    return own + [(burn, tuple(each)) for burn, each in zip(burns, told, strict=True)]


def _left(bins: Sequence[Bin], whole: float) -> list[tuple[float, float]]:
    """The budget that was left at the end of each bin, as many as can be told apart."""
    gone = accumulate(_bads(bins))
    points = [(each.end_s, 1 - lost / whole) for each, lost in zip(bins, gone, strict=True)]
    every = max(1, -(-len(points) // DRAWN_POINTS))
    return [*points[:-1:every], points[-1]]


def _bads(bins: Iterable[Bin]) -> list[float]:
    return [each.bad for each in bins]


def _totals(bins: Iterable[Bin]) -> list[float]:
    return [each.total for each in bins]


def document(found: Sequence[Report]) -> dict[str, object]:
    """The reports for JSON; times are RFC 3339 in UTC, shares from 0 to 1."""
    return {
        "from": moment(found[0].start_s),
        "to": moment(found[0].end_s),
        "slos": [
            {
                "id": each.slo.id,
                "objective": float(each.slo.objective) / 100,
                "met": each.met,
                "measured_s": each.measured_s,
                "unit": "events" if each.counts_events else "seconds",
                "total": each.total,
                "bad": each.bad,
                "compliance": each.compliance,
                "budget_burned": each.burned,
                "budget_left": None if each.burned is None else 1 - each.burned,
                "burned_beside_incidents": each.burned_beside,
                "incidents": [
                    {
                        "began": moment(incident.began_s),
                        "ended": moment(incident.ended_s),
                        "bad": incident.bad,
                        "budget_burned": incident.burned,
                        "peak_burn_rate": incident.peak_burn_rate,
                        "alerts": [
                            {
                                "severity": alert.severity,
                                "fired": moment(alert.fired_s),
                                "last_seen": moment(alert.last_s),
                            }
                            for alert in incident.alerts
                        ],
                    }
                    for incident in each.incidents
                ],
            }
            for each in found
        ],
    }


def percent(share: float) -> str:
    """`99.712%`: three digits, so that 99.9% and 99.95% differ."""
    return f"{share:.3%}"


def lasted(seconds: float) -> str:
    """`1h20m`."""
    return durations.rounded(Fraction(round(seconds)))


def moment(unix_s: float) -> str:
    """`2026-11-24T03:20:00Z`."""
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
