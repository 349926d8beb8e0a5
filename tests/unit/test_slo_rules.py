"""The rules made from an SLO: Sloth's semantics and names, exact thresholds, the same bytes."""

import re
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from prove.slo import burn, rules, spec
from prove.slo.spec import SLO, Raw
from prove.slo.windows import WORKBOOK, AlertWindows
from prove.tools import repository_root

SLOS = repository_root() / "observability" / "slos"
THEIRS = Path(__file__).with_name("test_slo_sloth.yml")
CONDITION = re.compile(r"(slo:sli_error:ratio_rate\w+)\{[^}]*\} > ([0-9.]+)\)")


def theirs() -> SLO:
    (slo,) = spec.parse(THEIRS.read_text(), THEIRS.name)
    return slo


def groups(slo: SLO, windows: AlertWindows = WORKBOOK) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(rules.build([slo], windows, source="s"))["groups"]
    return found


def rules_of(slo: SLO, windows: AlertWindows = WORKBOOK) -> list[dict[str, Any]]:
    (group,) = groups(slo, windows)
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_sloths_own_example_gets_the_conditions_sloth_documents() -> None:
    # https://sloth.dev/introduction/: 14.4 * 0.001 over 5m and 1h, and so on, at 99.9%
    page, ticket, _ = (each for each in rules_of(theirs()) if "alert" in each)

    assert CONDITION.findall(page["expr"]) == [
        ("slo:sli_error:ratio_rate5m", "0.0144"),
        ("slo:sli_error:ratio_rate1h", "0.0144"),
        ("slo:sli_error:ratio_rate30m", "0.006"),
        ("slo:sli_error:ratio_rate6h", "0.006"),
    ]
    assert CONDITION.findall(ticket["expr"]) == [
        ("slo:sli_error:ratio_rate2h", "0.003"),
        ("slo:sli_error:ratio_rate1d", "0.003"),
        ("slo:sli_error:ratio_rate6h", "0.001"),
        ("slo:sli_error:ratio_rate3d", "0.001"),
    ]
    assert (
        page["labels"].items()
        >= {
            "sloth_severity": "page",
            "severity": "pageteam",
            "routing_key": "myteam",
            "category": "availability",
        }.items()
    )
    assert ticket["labels"].items() >= {"sloth_severity": "ticket", "severity": "slack"}.items()
    assert page["annotations"]["summary"] == "High error rate on 'myservice' requests responses"


def test_sloths_own_example_gets_the_series_sloth_records() -> None:
    recorded = {each["record"]: each for each in rules_of(theirs()) if "record" in each}

    windows = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")
    assert recorded.keys() >= {f"slo:sli_error:ratio_rate{window}" for window in windows} | {
        "slo:objective:ratio",
        "slo:error_budget:ratio",
        "slo:time_period:days",
        "slo:current_burn_rate:ratio",
        "slo:period_burn_rate:ratio",
        "slo:period_error_budget_remaining:ratio",
        "sloth_slo_info",
    }
    assert recorded["slo:sli_error:ratio_rate1h"]["labels"] == {
        "owner": "myteam",
        "repo": "myorg/myservice",
        "tier": "2",
        "sloth_id": "myservice-requests-availability",
        "sloth_service": "myservice",
        "sloth_slo": "requests-availability",
        "sloth_window": "1h",
    }
    assert recorded["slo:objective:ratio"]["expr"] == "vector(0.999)"
    assert recorded["slo:error_budget:ratio"]["expr"] == "vector(0.001)"
    assert recorded["sloth_slo_info"]["labels"]["sloth_objective"] == "99.9"


def test_each_query_is_asked_once_a_window() -> None:
    expressions = [each["expr"] for each in rules_of(theirs())]

    for window_s, window in zip(WORKBOOK.lengths_s, ("5m", "30m", "1h"), strict=False):
        asked = [each for each in expressions if f'{{job="myservice"}}[{window}]' in each]
        assert asked == [
            f'(sum(rate(http_request_duration_seconds_count{{job="myservice"}}[{window}])))'
            f" * {window_s}"
        ]


def test_queries_that_count_already_are_taken_as_they_are() -> None:
    counting = spec.Events(
        error_query="sum(increase(bad_total[{{.window}}]))",
        total_query="sum(increase(all_total[{{ .window }}]))",
    )
    recorded = {
        each["record"]: each["expr"]
        for each in rules_of(replace(theirs(), sli=counting))
        if "record" in each
    }

    assert recorded["slo:sli_error:events1h"] == "(sum(increase(bad_total[1h])))"
    assert recorded["slo:sli_total:events1h"] == "(sum(increase(all_total[1h])))"


@pytest.mark.parametrize(
    ("bad", "total"),
    [
        # Shares, not events: with two targets three bad ones would never come together.
        ("sum(1 - avg_over_time(up[{{.window}}]))", "count(avg_over_time(up[{{.window}}]))"),
        ("sum(increase(bad_total[{{.window}}]))", "sum(rate(all_total[{{.window}}]))"),
    ],
)
def test_what_counts_no_events_has_no_floor_and_is_told(bad: str, total: str) -> None:
    slo = replace(theirs(), sli=spec.Events(error_query=bad, total_query=total))
    recorded = {each["record"]: each["expr"] for each in rules_of(slo) if "record" in each}

    assert recorded["slo:sli_error:events1h"] == f"({bad.replace('{{.window}}', '1h')})"
    assert recorded["slo:sli_total:events1h"] == f"({total.replace('{{.window}}', '1h')})"
    assert not [each for each in rules_of(slo) if ">= 3" in str(each["expr"])]
    (warning,) = rules.warnings(slo, WORKBOOK)
    assert "neither events" in warning


def test_a_raw_ratio_has_no_events_and_so_no_floor() -> None:
    text = rules.build(
        [replace(theirs(), sli=Raw(error_ratio_query="r[{{.window}}]"))], WORKBOOK, source="s"
    )

    assert "(r[5m]) > -Inf" in text
    assert "events" not in re.sub(r"summary: .*", "", text)


def test_disabled_alerts_are_not_made() -> None:
    slo = theirs()
    ticket_only = [e["alert"] for e in rules_of(replace(slo, page=None)) if "alert" in e]
    none = [each for each in rules_of(replace(slo, page=None, ticket=None)) if "alert" in each]

    assert ticket_only == ["MyServiceHighErrorRate", "MyServiceHighErrorRateNoData"]
    assert not none


def test_a_condition_that_can_never_hold_is_told() -> None:
    loose = replace(theirs(), objective=Decimal(90))

    assert rules.warnings(loose, WORKBOOK) == [
        "myservice-requests-availability: the page condition 14.4x over 1h and 5m can never hold: "
        "it needs more than 144% bad events"
    ]
    assert not rules.warnings(replace(loose, page=None), WORKBOOK)
    assert not rules.warnings(theirs(), WORKBOOK)


@settings(deadline=None)
@given(st.decimals(min_value="0.001", max_value="99.999", places=3))
def test_thresholds_are_exact_to_the_digits_prometheus_holds(objective: Decimal) -> None:
    budget = replace(theirs(), objective=objective).budget
    for pair in WORKBOOK.all_pairs:
        printed = rules.decimal(burn.threshold(pair, budget))
        assert Fraction(printed) == burn.threshold(pair, budget)
        assert re.fullmatch(r"[0-9]+(\.[0-9]+)?", printed)


def test_what_has_no_end_is_rounded_once() -> None:
    assert rules.decimal(Fraction(2, 3)) == "0.666666666666667"


@pytest.mark.parametrize("path", sorted(SLOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_committed_rules_are_the_generated_ones(path: Path) -> None:
    # `provectl slo build observability/slos/*.yaml -o observability/alerts`
    slos = spec.parse(path.read_text(), path.name)
    committed = SLOS.parent / "alerts" / f"{path.stem}.rules.yaml"

    assert committed.read_text() == rules.build(slos, WORKBOOK, source=path.name)
    assert not [warning for slo in slos for warning in rules.warnings(slo, WORKBOOK)]
