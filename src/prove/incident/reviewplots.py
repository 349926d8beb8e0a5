"""The course of an incident as one drawing: five plots above each other, of one time axis."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prove.drawing import STYLE, svg
from prove.incident import sli, timeline, views
from prove.incident.objectives import Objectives
from prove.incident.record import Incident
from prove.incident.tables import Tables
from prove.incident.timeline import Burn, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 150
"""Of the whole time at most, each of whole seconds."""
WIDTH_IN, HEIGHT_IN = 11.0, 12.5
_SHADE, _OK, _BAD, _SLOW, _REFUSED, _SERVERS, _INK = (
    "#f4d9d6",
    "#7f9fbf",
    "#b3261e",
    "#d98a1f",
    "#7a5fa3",
    "#1f5fa8",
    "#333333",
)
_LINES = ("#b3261e", "#1f5fa8", "#d98a1f", "#4b8f5a", "#7a5fa3", "#8a6d5b")


def draw(
    incident: Incident,
    told: Timeline,
    burns: Sequence[Burn],
    answers: Tables,
    kept: sli.Kept,
    promised: Objectives | None,
    hit_s: Sequence[int],
) -> str:
    """An SVG. The same record gives the same drawing.

    `hit_s`: the Unix seconds in which customers were hit.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(
        {
            **STYLE,
            "svg.hashsalt": incident.id,
            "axes.titlesize": 10,
            "axes.titleweight": "bold",
        }
    ):
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        rate, errors, latency, budget, band = figure.subplots(
            5, 1, sharex=True, height_ratios=(3, 3, 3, 3, 3.2)
        )
        of = _Course(incident, told, answers)
        _rate(rate, of)
        _errors(errors, of, kept)
        _latency(latency, of, kept)
        _budget(budget, of, kept, promised)
        _band(band, of, told, burns, hit_s)
        for axes in (rate, errors, latency, budget):
            axes.axvspan(0, of.rolled_back_s, color=_SHADE, zorder=0, linewidth=0)
            for at_s in of.paged_s:
                axes.axvline(at_s, color=_INK, linewidth=1, linestyle=":")
            axes.margins(x=0)
            axes.grid(axis="x", alpha=0.3)
        band.set_xlim(of.begin_s, of.end_s)
        band.set_xlabel(
            f"seconds since the injection ({timeline.moment(of.zero_us)} UTC); shaded: the fault"
            " was in; dotted: a page came"
        )
        return svg(figure)


class _Course:
    """The ledger in bins, and the moments that all plots show; seconds since the injection."""

    def __init__(self, incident: Incident, told: Timeline, answers: Tables) -> None:
        self.zero_us = told.zero_unix_us
        baseline = incident.windows.baseline if incident.windows else None
        # Until the steady state was reached there may be much that is not of this incident.
        began_us = baseline.start_unix_s * 1e6 if baseline else incident.started_unix_us
        self.begin_s = self.at(began_us)
        self.end_s = max(self.at(incident.ended_unix_us), self.begin_s + 1)
        ended_us = incident.rolled_back_unix_us or incident.ended_unix_us
        self.rolled_back_s = self.at(ended_us)
        self.paged_s = [
            self.at(row.at_unix_us) for row in told.rows if row.event == "page-received"
        ]
        self.bin_s = max(1, round((self.end_s - self.begin_s) / BINS))
        self._answers = answers

    def at(self, unix_us: float) -> float:
        return (unix_us - self.zero_us) / 1e6

    def bins(self, value: str, where: str = "true") -> tuple[list[float], list[float]]:
        """The middle of each bin and its `value`, over requests by when they were over."""
        bin_us = self.bin_s * 1_000_000
        begin_us = self.zero_us + self.begin_s * 1_000_000
        rows = self._answers.ask(
            f"SELECT floor((done_unix_us - {self.zero_us}) / {bin_us}) AS bin, {value}"  # noqa: S608
            f" FROM requests WHERE {where} AND done_unix_us >= {begin_us:.0f}"
            " GROUP BY bin ORDER BY bin"
        )
        return (
            [(float(number) + 0.5) * self.bin_s for number, _ in rows],
            [float(found or 0) for _, found in rows],
        )

    def series(self, points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
        """Of Prometheus, as far as the plots reach."""
        shown = [(at_s - self.zero_us / 1e6, value) for at_s, value in points]
        shown = [(at_s, value) for at_s, value in shown if self.begin_s <= at_s <= self.end_s]
        return [at_s for at_s, _ in shown], [value for _, value in shown]


def _rate(axes: "Axes", of: _Course) -> None:
    times, bad = of.bins(f"count(*) FILTER ({views.FAILED}) / {of.bin_s}")
    late = f"({views.SLOW} OR {views.UNSETTLED})"
    _, slow = of.bins(f"count(*) FILTER ({late}) / {of.bin_s}")
    refused_at_once = f"{views.REFUSED} AND NOT ({views.SLOW})"
    _, refused = of.bins(f"count(*) FILTER ({refused_at_once}) / {of.bin_s}")
    others = f"NOT ({views.FAILED} OR {late} OR {views.REFUSED})"
    _, well = of.bins(f"count(*) FILTER ({others}) / {of.bin_s}")
    axes.stackplot(
        times,
        well,
        refused,
        slow,
        bad,
        labels=(
            "answered in time",
            "refused (4xx)",
            f"over {views.SLOW_MS} ms, or taken and not confirmed",
            "failed or unanswered",
        ),
        colors=(_OK, _REFUSED, _SLOW, _BAD),
        step="mid",
    )
    axes.set_ylim(bottom=0)
    _head(axes, "Requests a second, by what became of them (clients)")


def _errors(axes: "Axes", of: _Course, kept: sli.Kept) -> None:
    share = f"100 * avg(({views.FAILED})::INT)"
    for kind, color in (("checkout", _BAD), ("read", _SLOW)):
        axes.plot(*of.bins(share, f"kind = '{kind}'"), color=color, label=f"{kind}s")
    for slo, color in (("checkout-errors", "#e08d87"), ("product-reads-errors", "#f0c583")):
        times, values = of.series(kept.points(slo))
        label = f"SLI {slo}"
        axes.plot(times, [100 * each for each in values], color=color, linestyle="--", label=label)
    refused = f"100 * avg(({views.REFUSED})::INT)"
    label = "checkouts refused"
    axes.plot(*of.bins(refused, "kind = 'checkout'"), color=_REFUSED, label=label)
    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
    _head(axes, "Failed, and refused, % of requests (solid: clients; dashed: the servers' SLIs)")


def _latency(axes: "Axes", of: _Course, kept: sli.Kept) -> None:
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    value = "quantile_cont(latency_ms, 0.95)"
    for kind, name, color in (
        ("checkout", sli.CHECKOUT_P95, _SERVERS),
        ("read", sli.READ_P95, "#4b8f5a"),
    ):
        axes.plot(*of.bins(value, f"kind = '{kind}'"), color=color, label=f"{kind}s (clients)")
        times, values = of.series(kept.points(name))
        axes.plot(
            times,
            [1000 * each for each in values],
            color=color,
            linestyle="--",
            alpha=0.6,
            label=f"{kind}s (servers)",
        )
    axes.axhline(views.SLOW_MS, color=_INK, linewidth=1, label=f"objective, {views.SLOW_MS} ms")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    _head(axes, "P95 of the time to an answer, ms")


def _budget(axes: "Axes", of: _Course, kept: sli.Kept, promised: Objectives | None) -> None:
    title = "Error budget burned since the injection, % of a period's (servers' SLIs)"
    axes.set_ylabel("%")
    if promised is None:
        _head(axes, title)
        return
    burned = {}
    for slo in promised.slos:
        found = kept.find(slo.id)
        times, values = of.series(kept.points(slo.id))
        since = [(at_s, value) for at_s, value in zip(times, values, strict=True) if at_s >= 0]
        if found is None or not since:
            continue
        total, course = 0.0, []
        for _, value in since:
            total += 100 * value * found.step_s / slo.budget / promised.period_s
            course.append(total)
        burned[slo.id] = ([at_s for at_s, _ in since], course)
    most = sorted(burned.items(), key=lambda each: each[1][1][-1], reverse=True)[: len(_LINES)]
    for (name, (times, course)), color in zip(most, _LINES, strict=False):
        if course[-1] > 0:
            axes.plot(times, course, color=color, label=f"{name}: {course[-1]:.2f}%")
    axes.set_ylim(bottom=0)
    _head(axes, title, columns=3)


def _band(
    axes: "Axes", of: _Course, told: Timeline, burns: Sequence[Burn], hit_s: Sequence[int]
) -> None:
    """What was when: a bar for what lasts, a point for what is over at once."""
    rows: list[tuple[str, list[tuple[float, float]], list[float], str]] = [
        ("fault", [(0, of.rolled_back_s)], [], _BAD)
    ]
    if hit_s:
        hit = [(of.at(second * 1e6), 1.0) for second in hit_s]
        rows.append(("customers hit", hit, [], _SLOW))
    for burn in burns:
        began_s = burn.began_s - of.zero_us / 1e6
        ended_s = of.end_s if burn.ended_s is None else burn.ended_s - of.zero_us / 1e6
        rows.append((burn.objective.id, [(began_s, ended_s - began_s)], [], "#e08d87"))
    alerts: dict[str, tuple[float, float]] = {}
    for row in told.rows:
        name = " ".join(row.what.split()[:2])
        at_s = of.at(row.at_unix_us)
        if row.event == "alert-firing" and name.startswith("page "):
            alerts.setdefault(name, (at_s, of.end_s - at_s))
        elif row.event == "alert-resolved" and name in alerts:
            alerts[name] = (alerts[name][0], at_s - alerts[name][0])
    rows += [(name, [lasted], [], _SERVERS) for name, lasted in alerts.items()]
    marks = {
        "pages": ("page-received",),
        "actions": ("injection", "rollback"),
    }
    for name, events in marks.items():
        times = [of.at(row.at_unix_us) for row in told.rows if row.event in events]
        if times:
            rows.append((name, [], times, _INK))
    for position, (_, lasting, points, color) in enumerate(rows):
        if lasting:
            axes.broken_barh(lasting, (position - 0.3, 0.6), color=color)
        if points:
            axes.plot(points, [position] * len(points), "v", color=color)
    axes.set_yticks(range(len(rows)), labels=[name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_title("What was when")
    axes.grid(axis="x", alpha=0.3)


def _head(axes: "Axes", title: str, columns: int = 5) -> None:
    """The title and below it the legend, above the plot: nothing may be hidden by them."""
    handles, labels = axes.get_legend_handles_labels()
    rows = -(-len(labels) // columns)
    axes.set_title(title, pad=8 + 13 * rows)
    if labels:
        options: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0)}
        axes.legend(
            handles, labels, ncols=columns, fontsize=8, frameon=False, borderpad=0.2, **options
        )
