"""When a page is due, with and without a past."""

import pytest

from prove.errors import UserError
from prove.incident import catalogue, telemetry
from prove.incident.theory import EARLY_INTERVALS, SLACK, SLACK_INTERVALS, Objectives, Second


@pytest.fixture(scope="module")
def drill() -> Objectives:
    return catalogue.objectives("drill")


@pytest.mark.parametrize(
    ("slo", "bad", "due_s"),
    [
        ("checkout-errors", 1.0, 8.64),
        ("checkout-errors", 0.5, 17.28),
        ("checkout-errors", 0.2, 43.2),
        ("checkout-errors", 0.1, 216.0),
        ("checkout-errors", 0.06, None),
        ("checkout-latency", 1.0, 43.2),
        ("checkout-latency", 0.5, 216.0),
    ],
)
def test_a_page_is_due_when_the_workbook_says(
    drill: Objectives, slo: str, bad: float, due_s: float | None
) -> None:
    assert drill.due_s(slo, bad) == (None if due_s is None else pytest.approx(due_s))


def test_the_standard_windows_are_sixty_times_as_long(drill: Objectives) -> None:
    standard = catalogue.objectives("standard")
    due_s = drill.due_s("checkout-errors", 0.5)
    assert due_s is not None
    assert standard.due_s("checkout-errors", 0.5) == pytest.approx(60 * due_s)


def test_something_is_tolerated(drill: Objectives) -> None:
    assert drill.within_s("checkout-errors", 1.0) == pytest.approx(
        8.64 * (1 + SLACK) + SLACK_INTERVALS
    )
    assert drill.within_s("checkout-errors", 0.01) is None


def seconds(*shares: float, events: float = 1.0) -> list[Second]:
    """One for each."""
    return [Second(share, events) for share in shares]


def test_a_clean_past_changes_nothing_but_the_rounding(drill: Objectives) -> None:
    assert drill.earliest_s("checkout-errors", 1.0, seconds(*[0.0] * 360)) == 9
    assert drill.earliest_s("checkout-errors", 0.2, seconds(*[0.0] * 360, events=7)) == 44
    assert drill.earliest_s("checkout-errors", 0.06, seconds(*[0.0] * 360)) is None


def test_what_the_windows_still_hold_makes_a_page_come_sooner(drill: Objectives) -> None:
    # 20 s of outage 100 s ago: the window of a minute has forgotten it, that of six has not, and
    # needs 21.6 s in all; its short one of 30 s then holds 6% after 7.2 s at a quarter.
    past = seconds(*[0.0] * 240, *[1.0] * 20, *[0.0] * 100)
    assert drill.earliest_s("checkout-errors", 0.25, past) == 8
    assert drill.earliest_s("checkout-errors", 1.0, past) == 2


def test_a_young_installation_pages_sooner(drill: Objectives) -> None:
    # A window of six minutes that holds 20 s in all is over 6% after 2 s.
    assert drill.earliest_s("checkout-errors", 1.0, seconds(*[0.0] * 20)) == 2
    assert drill.earliest_s("checkout-errors", 1.0, []) == 1


def test_more_events_than_before_make_a_page_come_sooner(drill: Objectives) -> None:
    # Three times as many: 14.4% of a minute's events are bad once 3 t = 0.144 (3 t + 60 - t).
    past = seconds(*[0.0] * 360, events=5)
    assert drill.earliest_s("checkout-errors", 1.0, past, [15.0]) == 4
    assert drill.earliest_s("checkout-errors", 1.0, past, [5.0] * 3 + [15.0]) == 6
    # As many, and a past in which there was hardly anyone.
    quiet = [*seconds(*[0.0] * 345, events=1), *seconds(*[0.0] * 15, events=5)]
    assert drill.earliest_s("checkout-errors", 1.0, quiet, [5.0]) == 4


def test_sooner_than_that_is_tolerated_a_little(drill: Objectives) -> None:
    assert drill.not_before_s(9) == pytest.approx(9 * (1 - SLACK) - EARLY_INTERVALS)
    assert drill.not_before_s(1) == 0


def test_the_budget_that_goes_is_the_burn_rate_times_the_time(drill: Objectives) -> None:
    # A total outage of 43.2 s at a budget of 1%: 100 times as fast, for a thousandth of 12 hours.
    assert drill.burned("checkout-errors", 1.0, 43.2) == pytest.approx(0.1)


def test_an_unknown_slo_is_told_with_those_there_are(drill: Objectives) -> None:
    with pytest.raises(UserError, match=r"no SLO 'checkout-speed'.*checkout-latency"):
        drill.due_s("checkout-speed", 1.0)


def test_a_burst_at_the_begin_of_a_window_makes_a_page_come_at_once(drill: Objectives) -> None:
    """Each customer asks three times before the breaker opens, and then nothing comes."""
    past = seconds(*[0.0] * 360, events=6)
    spread = [60 / 5] * 5 + [1.0]
    assert drill.earliest_s("payments-errors", 1.0, past, spread) == 5
    assert telemetry.soonest([60, 5], 5) == [60, 0, 0, 0, 0, 5, 0, 0, 0, 0, 6.5]
    assert telemetry.soonest([], 5) == []
    assert drill.earliest_s("payments-errors", 1.0, past, telemetry.soonest([60, 5], 5)) == 1
