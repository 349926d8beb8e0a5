"""When alerts fire and resolve, by theory, and what has burned by then.

The model is the SRE workbook's (chapter 5, https://sre.google/workbook/alerting-on-slos/): events
come at a constant rate, none was bad before, and from one moment on a constant share is. Then a
window of length w has seen the share `bad * min(t, w) / w` after t seconds, and a condition of
factor f and budget b fires when that exceeds `f * b` in its long and in its short window. Values
are exact (Fraction); only who prints them rounds. Evaluation adds up to one interval, scraping and
delivery their own time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from prove.slo.windows import Pair


def threshold(pair: Pair, budget: Fraction) -> Fraction:
    """The bad share that both windows must exceed: a burn rate of `factor` (workbook, ch. 5).

    At 1 or more that can never happen. Theory's own: the rules are held to it, so they don't use
    it.
    """
    return pair.factor * budget


def time_to_fire_s(pair: Pair, budget: Fraction, bad: Fraction) -> Fraction | None:
    """Seconds from the first bad event until the condition holds; None: it never does.

    `factor * budget * window / bad`, of whichever of the two windows takes longer; never when the
    bad share isn't over `factor * budget` (workbook, ch. 5, "Alert on burn rate").
    """
    needed = threshold(pair, budget)
    if bad <= needed:
        return None
    return needed * max(pair.long_s, pair.short_s) / bad


def time_to_resolve_s(pair: Pair, budget: Fraction, bad: Fraction) -> Fraction | None:
    """Seconds from the last bad event until a condition that fired no longer holds.

    The window that forgets first ends it, the short one: `(1 - factor * budget / bad) * window`.
    """
    needed = threshold(pair, budget)
    if bad <= needed:
        return None
    return (1 - needed / bad) * min(pair.long_s, pair.short_s)


def budget_burned(bad: Fraction, elapsed_s: Fraction, budget: Fraction, period_s: int) -> Fraction:
    """The share of the period's error budget that `elapsed_s` of it uses up.

    Burn rate (`bad / budget`) times elapsed over period (workbook, ch. 5, table 5-4).
    """
    return bad / budget * elapsed_s / period_s


def time_to_exhaustion_s(bad: Fraction, budget: Fraction, period_s: int) -> Fraction | None:
    """Seconds until a whole budget is gone (workbook, table 5-3); None: nothing is bad."""
    return budget * period_s / bad if bad else None


@dataclass(frozen=True)
class Detection:
    """What an alert of several conditions does at one bad share."""

    pair: Pair
    """The condition that fires first."""
    fires_s: Fraction
    burned: Fraction
    """Share of the period's budget gone when it fires."""
    resolves_s: Fraction
    """After the end, if that comes as soon as it fired."""
    resolves_late_s: Fraction
    """After the end, if every condition that can has fired by then."""


def detection(
    pairs: Iterable[Pair], budget: Fraction, bad: Fraction, period_s: int
) -> Detection | None:
    """What an alert does whose conditions are `pairs`, any of them sufficing; None: it never fires.

    Of conditions that fire at the same moment the one that resolves last counts.
    """
    able = []
    for pair in pairs:
        fires_s = time_to_fire_s(pair, budget, bad)
        resolves_s = time_to_resolve_s(pair, budget, bad)
        if fires_s is not None and resolves_s is not None:
            able.append((fires_s, resolves_s, pair))
    if not able:
        return None
    fires_s, resolves_s, pair = min(able, key=lambda each: (each[0], -each[1]))
    return Detection(
        pair=pair,
        fires_s=fires_s,
        burned=budget_burned(bad, fires_s, budget, period_s),
        resolves_s=resolves_s,
        resolves_late_s=max(each[1] for each in able),
    )


def never_fires(pair: Pair, budget: Fraction) -> bool:
    """Whether not even a total outage is over the threshold."""
    return threshold(pair, budget) >= 1
