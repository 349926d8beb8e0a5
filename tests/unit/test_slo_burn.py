"""The theory of burn rates against a simulation that counts events in windows."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prove.slo import burn
from prove.slo.windows import WORKBOOK, Pair

PERCENT = Fraction(1, 100)
PERIOD_S = WORKBOOK.period_s
PAGES, TICKETS = WORKBOOK.pairs("page"), WORKBOOK.pairs("ticket")


@pytest.mark.parametrize(
    ("bad_percent", "budget_percent", "fires_s"),
    [
        (100, 1, "518.4"),
        (20, 1, "2592"),
        (10, 1, "12960"),
        (6, 1, None),
        (73, 5, "3550.7"),
        (72, 5, "9000"),
        (30, 5, None),
    ],
)
def test_pages_come_when_the_design_says(
    bad_percent: int, budget_percent: int, fires_s: str | None
) -> None:
    found = burn.detection(PAGES, budget_percent * PERCENT, bad_percent * PERCENT, PERIOD_S)

    if fires_s is None:
        assert found is None
    else:
        assert found is not None
        assert float(found.fires_s) == pytest.approx(float(fires_s), abs=0.1)


def test_what_has_burned_is_what_the_windows_say_whatever_the_share() -> None:
    for share in (15, 50, 100):
        found = burn.detection(PAGES, PERCENT, share * PERCENT, PERIOD_S)
        assert found is not None
        assert found.burned == Fraction(2, 100)
    slow = burn.detection(PAGES, PERCENT, 10 * PERCENT, PERIOD_S)
    assert slow is not None
    assert slow.burned == Fraction(5, 100)


def test_an_objective_may_be_too_loose_for_an_alert_to_ever_fire() -> None:
    assert burn.never_fires(PAGES[0], Fraction(7, 100))
    assert not burn.never_fires(PAGES[0], Fraction(6, 100))
    assert burn.never_fires(Pair("page", Fraction(10), 60, 5), Fraction(1, 10))


def test_a_whole_budget_lasts_as_the_workbook_says() -> None:
    # table 5-3, at 99.9%: burn rate 1 takes 30 days, 10 three days, 1000 forty-three minutes
    budget = Fraction(1, 1000)
    taken = [burn.time_to_exhaustion_s(budget * rate, budget, PERIOD_S) for rate in (1, 10, 1000)]

    assert taken == [PERIOD_S, 3 * 86_400, 43 * 60 + 12]
    assert burn.time_to_exhaustion_s(Fraction(0), budget, PERIOD_S) is None


class Simulation:
    """One event a second for ever, `bad` of each bad from second 0 to `until_s`."""

    def __init__(self, bad: Fraction, until_s: int) -> None:
        self.bad, self.until_s = bad, until_s

    def share(self, now_s: int, window_s: int) -> Fraction:
        seconds = range(now_s - window_s, now_s)
        return self.bad * sum(0 <= second < self.until_s for second in seconds) / window_s

    def holds(self, now_s: int, pair: Pair, budget: Fraction) -> bool:
        return all(
            self.share(now_s, window_s) > pair.factor * budget
            for window_s in (pair.long_s, pair.short_s)
        )


shares = st.fractions(min_value=Fraction(1, 50), max_value=1, max_denominator=50)
pairs = st.builds(
    lambda factor, short_s, times: Pair("page", factor, short_s * times, short_s),
    st.fractions(min_value=Fraction(1, 2), max_value=30, max_denominator=5),
    st.integers(min_value=1, max_value=6),
    st.integers(min_value=2, max_value=8),
)


@settings(deadline=None)
@given(pair=pairs, bad=shares, budget=st.sampled_from([Fraction(1, n) for n in (10, 20, 100)]))
def test_a_condition_holds_from_and_until_the_seconds_theory_says(
    pair: Pair, bad: Fraction, budget: Fraction
) -> None:
    fires_s = burn.time_to_fire_s(pair, budget, bad)
    resolves_s = burn.time_to_resolve_s(pair, budget, bad)
    lasts_s = 2 * pair.long_s
    fault = Simulation(bad, lasts_s)
    holding = [s for s in range(lasts_s + pair.long_s + 2) if fault.holds(s, pair, budget)]

    if fires_s is None or resolves_s is None:
        assert not holding
        return
    first = int(fires_s) + 1  # over the threshold, so after that moment
    last = lasts_s - int(-resolves_s // 1) - 1  # the last whole second before it
    assert holding == list(range(first, last + 1))


@settings(deadline=None)
@given(
    quick=pairs, slow=pairs, bad=shares, budget=st.sampled_from([Fraction(1, n) for n in (20, 100)])
)
def test_an_alert_fires_with_the_first_of_its_conditions(
    quick: Pair, slow: Pair, bad: Fraction, budget: Fraction
) -> None:
    found = burn.detection([quick, slow], budget, bad, PERIOD_S)
    longest_s = max(quick.long_s, slow.long_s)
    fault = Simulation(bad, longest_s + 1)
    first = next(
        (
            second
            for second in range(longest_s + 2)
            if any(fault.holds(second, pair, budget) for pair in (quick, slow))
        ),
        None,
    )

    assert first == (None if found is None else int(found.fires_s) + 1)
    if found is not None:
        assert found.resolves_s <= found.resolves_late_s
        assert found.burned == bad / budget * found.fires_s / PERIOD_S
