"""What of an error budget is left, and which incidents burned it: by hand-made recordings."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from prove.cli import app
from prove.clients.prometheus import MAX_POINTS, Prometheus, Series
from prove.errors import UserError
from prove.slo import report, reportpage, spec
from prove.slo.report import Alert, Bin, Report
from prove.slo.spec import SLO
from prove.slo.windows import WORKBOOK

SPEC = """\
version: prometheus/v1
service: shop
slos:
  - name: errors
    objective: 99
    description: Few errors, <b>honestly</b>.
    sli:
      events:
        error_query: sum(rate(bad_total[{{.window}}]))
        total_query: sum(rate(all_total[{{.window}}]))
    alerting: {name: ShopErrors}
  - name: up
    objective: 90
    sli: {raw: {error_ratio_query: "1 - avg(avg_over_time(up[{{.window}}]))"}}
    alerting: {name: ShopDown}
"""
EVENTS, RAW = spec.parse(SPEC, "shop.yaml")
BIN_S = 300


def bins(*bad: float, total: float = 100) -> list[Bin]:
    return [Bin((position + 1) * BIN_S, each, total) for position, each in enumerate(bad)]


def analysed(slo: SLO, found: list[Bin], *alerts: Alert) -> Report:
    return report.analyse(slo, WORKBOOK, (0, len(found) * BIN_S), found, alerts)


def test_what_is_bad_burns_its_share_of_the_budget() -> None:
    found = analysed(EVENTS, bins(0, 1, 0, 1))
    assert (found.total, found.bad, found.measured_s) == (400, 2, 1200)
    assert found.compliance == 1 - 2 / 400
    assert found.burned == pytest.approx(0.5)
    assert (found.met, found.incidents, found.burned_beside) == (True, (), 0.5)
    assert [left for _, left in found.left] == pytest.approx([1, 0.75, 0.75, 0.5])


def test_an_overspent_budget_is_below_nothing() -> None:
    found = analysed(EVENTS, bins(0, 50))
    assert found.met is False
    assert found.burned == pytest.approx(25)
    assert found.left[-1][1] == pytest.approx(-24)


def test_a_share_of_time_is_told_in_seconds() -> None:
    found = analysed(RAW, bins(0, 0.5, 0, 0, total=1))
    assert (found.counts_events, found.total, found.bad) == (False, 1200, 150)
    assert found.compliance == 1 - 0.125
    assert found.burned == pytest.approx(1.25)


@pytest.mark.parametrize("found", [[], bins(0, 0, total=0)])
def test_nothing_measured_is_neither_kept_nor_missed(found: list[Bin]) -> None:
    assert (analysed(EVENTS, found).met, analysed(EVENTS, found).left) == (None, ())


def test_incidents_are_apart_by_more_than_a_short_pause_and_know_their_alerts() -> None:
    quiet = [0.0] * 7  # over half an hour
    found = analysed(
        EVENTS,
        bins(0, 20, 0, 40, *quiet, 10, 0),
        Alert("ticket", 1100, 5000),
        Alert("page", 700, 900),
    )
    first, second = found.incidents
    assert (first.began_s, first.ended_s, first.bad) == (300, 1200, 60)
    assert first.peak_burn_rate == pytest.approx(40)
    assert [alert.severity for alert in first.alerts] == ["page", "ticket"]
    assert (second.began_s, second.ended_s, second.alerts) == (3300, 3600, ())
    assert first.burned + second.burned == pytest.approx(found.burned)
    assert found.burned_beside == pytest.approx(0)


def test_what_burned_little_is_an_incident_only_with_an_alert() -> None:
    little = [0.0] * 9 + [2.0] + [0.0] * 290
    assert analysed(EVENTS, bins(*little)).incidents == ()
    assert len(analysed(EVENTS, bins(*little), Alert("page", 3000, 3300)).incidents) == 1


def test_an_alert_from_before_there_is_data_is_an_incident_of_its_own() -> None:
    early, later = analysed(EVENTS, bins(0, 0, 50), Alert("page", 10, 400)).incidents
    assert (early.began_s, early.ended_s, early.alerts[0].severity) == (10, 400, "page")
    assert later.alerts == ()


class Recorded:
    """A Prometheus that has these series, and remembers what it was asked."""

    def __init__(self, **series: list[Series]) -> None:
        self.series = series
        self.asked: list[str] = []

    def range(self, promql: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        self.asked.append(promql)
        assert (start_s, end_s, step_s) == (300, 900, 300)
        found = re.match(r"(\w+)_over_time\((?:slo:)?(\w+)", promql)
        assert found
        return self.series.get("_".join(found.groups()), [])


def test_prometheus_is_asked_for_windows_side_by_side() -> None:
    alert = {"alertname": "ShopErrors", "sloth_severity": "page"}
    metrics = Recorded(
        sum_sli_error=[Series({}, [(600, 300), (900, 300)])],
        sum_sli_total=[Series({}, [(300, 1000), (600, 1000), (900, 1000)])],
        count_sli_total=[Series({}, [(300, 10), (600, 10), (900, 10), (1200, 1)])],
        max_ALERTS_FOR_STATE=[
            Series(alert, [(600, 550), (900, 880)]),
            Series({"alertname": "ShopErrorsNoData", "sloth_severity": "ticket"}, [(600, 1)]),
        ],
    )
    found = report.report(EVENTS, WORKBOOK, metrics, 0, 900)
    assert (found.total, found.bad) == (300, 60)
    (incident,) = found.incidents
    assert incident.alerts == (Alert("page", 550, 600), Alert("page", 880, 900))
    assert 'sum_over_time(slo:sli_total:events5m{sloth_id="shop-errors"}[5m])' in metrics.asked

    raw = Recorded()
    assert report.report(RAW, WORKBOOK, raw, 0, 900).compliance is None
    assert raw.asked[0] == 'avg_over_time(slo:sli_error:ratio_rate5m{sloth_id="shop-up"}[5m])'


def test_a_long_range_is_asked_for_in_parts() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        form = dict(httpx.QueryParams(request.content.decode()))
        start, end, step = (float(form[key]) for key in ("start", "end", "step"))
        count = int((end - start) / step) + 1
        asked.append(count)
        values = [[start + step * each, "1"] for each in range(count)]
        return httpx.Response(200, json={"data": {"result": [{"metric": {}, "values": values}]}})

    prometheus = Prometheus("http://prometheus", httpx.MockTransport(answer))
    (series,) = prometheus.range("up", 0, MAX_POINTS * 2, 1)
    assert asked == [MAX_POINTS, MAX_POINTS, 1]
    assert [at_s for at_s, _ in series.points] == list(range(MAX_POINTS * 2 + 1))


def test_the_page_is_whole_and_escapes_what_a_spec_says() -> None:
    kept = analysed(EVENTS, bins(0, 20, 0), Alert("page", 500, 600))
    page = reportpage.html([kept, analysed(RAW, [])], "Levels & more")
    assert "&lt;b&gt;honestly&lt;/b&gt;" in page
    assert "<title>Levels &amp; more</title>" in page
    assert not re.search(r"(src|href)=\"(?!#)", page), "it needs another file"
    (drawing,) = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    root = ET.fromstring(drawing)  # noqa: S314 - our own
    points = [each.split(",") for each in root.find("polyline").attrib["points"].split()]  # type: ignore[union-attr]
    assert len(points) == 3
    assert all(0 <= float(x) <= 720 and 0 <= float(y) <= 120 for x, y in points)
    assert len(root.findall("rect")) == 1
    assert "not measured" in page


def test_the_json_has_all_of_it() -> None:
    found = analysed(EVENTS, bins(0, 20, 0), Alert("page", 500, 600))
    document = json.loads(json.dumps(report.document([found, analysed(RAW, [])])))
    kept, unknown = document["slos"]
    assert document["from"] == "1970-01-01T00:00:00Z"
    assert (kept["met"], kept["bad"], kept["unit"]) == (False, 20, "events")
    assert kept["incidents"][0]["alerts"] == [
        {
            "severity": "page",
            "fired": "1970-01-01T00:08:20Z",
            "last_seen": "1970-01-01T00:10:00Z",
        }
    ]
    assert (unknown["met"], unknown["budget_left"]) == (None, None)


@pytest.mark.parametrize("period", ["", "0s", "x", "1m", "31d"])
def test_a_period_the_rules_do_not_record_is_refused(period: str, tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(SPEC)
    told = CliRunner().invoke(app, ["slo", "report", str(file), "--period", period or "-"])
    assert isinstance(told.exception, UserError)
    assert str(told.exception).startswith("--period must be")
