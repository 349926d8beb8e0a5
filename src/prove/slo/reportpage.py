"""The report of `prove.slo.report` as one HTML page that needs nothing else."""

from collections.abc import Sequence

from prove import templates
from prove.slo.report import Report, lasted, moment, percent

WIDTH, HEIGHT = 720, 120
"""Of a drawing, in its own units."""


def html(reports: Sequence[Report], title: str) -> str:
    """The page. Everything that comes from a spec is escaped."""
    environment = templates.environment("slo", keep_trailing_newline=False)
    environment.filters |= {"percent": percent, "moment": moment, "lasted": lasted}
    template = environment.get_template("report.html.j2")
    drawn = [(each, _Drawing(each) if each.left else None) for each in reports]
    return template.render(title=title, drawn=drawn, width=WIDTH, height=HEIGHT)


class _Drawing:
    """The budget left over time; below the line of nothing left when it is overspent."""

    def __init__(self, report: Report) -> None:
        self._start_s, self._end_s = report.start_s, report.end_s
        self._lowest = min(0.0, *(left for _, left in report.left))
        self.nothing_left = self._y(0)
        self.line = " ".join(
            f"{self._x(at_s):.1f},{self._y(left):.1f}" for at_s, left in report.left
        )
        self.incidents = [
            (
                self._x(each.began_s),
                max(1.5, self._x(each.ended_s) - self._x(each.began_s)),
                f"{moment(each.began_s)}: {percent(each.burned)} of the budget",
            )
            for each in report.incidents
        ]

    def _x(self, at_s: float) -> float:
        return (at_s - self._start_s) / (self._end_s - self._start_s) * WIDTH

    def _y(self, left: float) -> float:
        return (1 - left) / (1 - self._lowest) * HEIGHT
