"""OpenSLO v1 becomes the form the other commands take, or says why not."""

from decimal import Decimal

import pytest

from prove.errors import UserError
from prove.slo import openslo, spec
from prove.slo.spec import Events, Raw

RATIO = """\
apiVersion: openslo/v1
kind: SLO
metadata: {name: web-availability}
spec:
  description: Requests are answered
  service: web
  indicator:
    metadata: {name: web-good}
    spec:
      ratioMetric:
        counter: true
        good:
          metricSource:
            type: Prometheus
            spec:
              query: sum(rate(good_total[5m]))
        total:
          metricSource:
            type: Prometheus
            spec:
              query: sum(rate(all_total[5m]))
  timeWindow:
    - duration: 28d
      isRolling: true
  budgetingMethod: Occurrences
  objectives:
    - target: 0.995
"""


def test_good_and_total_become_bad_and_total() -> None:
    text, notes = openslo.convert(RATIO, "o")
    (slo,) = spec.parse(text, "converted")

    assert (slo.id, slo.objective) == ("web-web-availability", Decimal("99.5"))
    assert slo.description == "Requests are answered"
    assert slo.page is not None
    assert slo.page.name == "WebWebAvailability"
    assert isinstance(slo.sli, Events)
    assert slo.sli.total_query == "sum(rate(all_total[{{.window}}]))"
    bad = "(T)\n-\n((sum(rate(good_total[{{.window}}]))) or 0 * (T))"
    assert slo.sli.error_query == bad.replace("T", slo.sli.total_query)
    assert notes == [
        "web-availability: its period of 28d is sloPeriod in a windows file here",
        "web-availability: the range [5m] became the window of each rule",
        "web-availability: the range [5m] became the window of each rule",
    ]


def test_an_indicator_may_be_a_document_of_its_own_and_raw() -> None:
    text = """\
apiVersion: openslo/v1
kind: SLI
metadata: {name: ratio}
spec:
  ratioMetric:
    rawType: success
    raw: {metricSource: {type: prometheus, spec: {query: "good_ratio[{{.window}}]"}}}
---
apiVersion: openslo/v1
kind: SLO
metadata: {name: web}
spec:
  service: web
  indicatorRef: ratio
  objectives: [{targetPercent: 99}, {targetPercent: 99.9}]
"""
    converted, notes = openslo.convert(text, "o")
    loose, tight = spec.parse(converted, "converted")

    assert not notes
    assert (loose.name, tight.name) == ("web-0", "web-1")
    assert (loose.objective, tight.objective) == (Decimal(99), Decimal("99.9"))
    assert loose.sli == Raw(error_ratio_query="1 - (good_ratio[{{.window}}])")


def test_labels_are_taken_over_and_what_is_not_is_noted() -> None:
    metadata = """\
metadata:
  name: web-availability
  labels: {team: identity, tier: 1, user_facing: true, cost-centre: a, tags: [b, c]}
  annotations: {openslo.com/k: v}
"""
    text = RATIO.replace("metadata: {name: web-availability}\n", metadata, 1)
    text += "  alertPolicies: [{alertPolicyRef: fast}]\n---\n"
    text += "{apiVersion: openslo/v1, kind: AlertPolicy, metadata: {name: fast}, spec: {}}\n"
    converted, notes = openslo.convert(text, "o")
    (slo,) = spec.parse(converted, "converted")

    assert slo.labels == {"team": "identity", "tier": "1", "user_facing": "true"}
    assert [note for note in notes if "left out" in note] == [
        "AlertPolicy fast: left out; only SLO and SLI have a counterpart",
        "web-availability: its metadata.annotations are left out",
        "web-availability: its label cost-centre is left out; Prometheus has no such names",
        "web-availability: its label tags is left out; Prometheus has one text for each",
        "web-availability: its alertPolicies are left out; a page and a ticket are made for it",
    ]


def test_brackets_in_texts_are_no_ranges() -> None:
    query = 'sum(rate(all_total{a=~"[45]..\\"[5m]",b=~`[5m]`}[5m]))'
    text = RATIO.replace("sum(rate(all_total[5m]))", f"'{query}'")
    (slo,) = spec.parse(openslo.convert(text, "o")[0], "converted")

    assert isinstance(slo.sli, Events)
    assert slo.sli.total_query == query.replace("}[5m]", "}[{{.window}}]")


@pytest.mark.parametrize(
    "query",
    [
        "rate(a[5m]) - max_over_time(b[5m:1m])",
        "rate(a[{{.window}}]) - max_over_time(b[5m:1m])",
        "avg_over_time(rate(a[5m])[{{.window}}:])",
    ],
)
def test_a_range_that_would_stay_fixed_is_refused(query: str) -> None:
    fixed = "[5m:1m]" if ":1m]" in query else "[5m]"
    with pytest.raises(UserError) as caught:
        openslo.convert(RATIO.replace("sum(rate(all_total[5m]))", query), "o")

    where = "spec.indicator.spec.ratioMetric.total.metricSource.spec.query"
    assert str(caught.value).startswith(f"o:21: {where}: the range {fixed} would be the same")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("openslo/v1", "openslo/v1alpha", "o:1: apiVersion: must be openslo/v1"),
        ("kind: SLO", "kind: Service", "o: holds no document of kind SLO"),
        ("  service: web\n", "", "o:4: spec.service: is required"),
        ("ratioMetric", "thresholdMetric", "o:9: spec.indicator.spec.ratioMetric: is required"),
        ("type: Prometheus", "type: Datadog", ".metricSource.type: must be Prometheus (got Data"),
        ("good_total[5m]", "good_total", ".query: must look at a range"),
        ("Occurrences", "Timeslices", "o:25: spec.budgetingMethod: must be Occurrences"),
        ("isRolling: true", "calendar: {}", "o:23: spec.timeWindow[0]: must be rolling"),
        ("28d", "1M", "o:23: spec.timeWindow[0].duration: must be a duration"),
        ("target: 0.995", "op: lte", "o:27: spec.objectives[0]: must have either target or"),
        ("0.995", "'0.995'", "o:27: spec.objectives[0]: its target must be a number"),
        ("timeWindow:\n    -", "timeWindow:\n     ", "o:22: spec.timeWindow: must be a list"),
        ("0.995", ".nan", "o:27: spec.objectives[0]: its target must be a number"),
        ("0.995", "1.5", "(converted):5: slos[0].objective: must be above 0 and below 100"),
        ("  indicator:", "  indicatorRef: x\n  other:", "there is no SLI 'x' in this file"),
        ("spec:\n  desc", "spec: 5\nother:\n  desc", "o:4: spec.service: is required"),
    ],
)
def test_what_has_no_counterpart_is_refused_with_its_line(old: str, new: str, told: str) -> None:
    assert old in RATIO
    with pytest.raises(UserError) as caught:
        openslo.convert(RATIO.replace(old, new, 1), "o")

    assert told in str(caught.value)
