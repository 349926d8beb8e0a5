"""How sure an answer is, and when none should be given."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from prove.rca.bundle import BASELINE, INCIDENT, LOCAL, Bundle
from prove.rca.model import Abstention
from prove.rca.spans import Trees


class Weights(NamedTuple):
    """Of a logistic regression on how many bits the first has, and how many times the second's."""

    base: float
    bits: float
    margin: float


FITTED = Weights(-0.535, 0.229, 1.287)
"""On all labelled incidents of docs/evidence/rca.md, which tells what it is worth on data sets that
it was not fitted on."""
VISIBLE_BITS = 0.2
"""More than two healthy windows of a real shop were seen to show against each other (0.16)."""
ALIKE = 0.9
"""Of the first's bits: a second that has so many can't be told from it."""
BUSIER = 1.5
"""Times as many requests: then load is the first explanation of lost time."""
_LEAST = 1e-3


def features(scores: Sequence[float]) -> tuple[float, float]:
    """Of scores in falling order: bits of the first, and times the second's, as logarithms."""
    first = scores[0] if scores else 0.0
    second = scores[1] if len(scores) > 1 else 0.0
    return (
        math.log2(first + _LEAST) - math.log2(VISIBLE_BITS),
        math.log2((first + _LEAST) / (second + _LEAST)),
    )


def chance(scores: Sequence[float], weights: Weights = FITTED) -> float:
    """The chance that the first is the cause."""
    bits, margin = features(scores)
    return 1 / (1 + math.exp(-(weights.base + weights.bits * bits + weights.margin * margin)))


def judge(
    bundle: Bundle,
    trees: Trees,
    scores: Sequence[float],
    behaviour: float,
    weights: Weights = FITTED,
) -> tuple[Abstention | None, float]:
    """Why not to answer, if so; and the chance that the first is the cause.

    `behaviour`: the first's bits that are not of time. More load explains what is slower, not what
    fails.
    """
    windows = {*trees.traces, *bundle.metrics["window"].unique()}
    sure = chance(scores, weights)
    if INCIDENT not in windows or not windows & {BASELINE, LOCAL}:
        lack = "of the incident" if INCIDENT not in windows else "of a healthy time to compare with"
        return Abstention("no data", f"There are no spans and no metrics {lack}."), 0.0
    first = scores[0] if scores else 0.0
    if first < VISIBLE_BITS:
        return (
            Abstention(
                "no fault visible",
                f"Nothing differs from the healthy time by more than chance: {first:.2f} bits at"
                f" most, less than {VISIBLE_BITS}.",
            ),
            sure,
        )
    more = _busier(bundle, trees)
    if more is not None and more >= BUSIER and first < 1 and behaviour < VISIBLE_BITS:
        return (
            Abstention(
                "load only",
                f"There are {more:.1f} times as many requests as before, and nothing else stands"
                " out: more load explains what is slower.",
            ),
            sure,
        )
    if len(scores) > 1 and scores[1] > ALIKE * first:
        return (
            Abstention(
                "two candidates can't be told apart",
                f"The first two have {first:.2f} and {scores[1]:.2f} bits of evidence.",
            ),
            sure,
        )
    return None, sure


def shares(scores: Sequence[float], sure: float) -> list[float]:
    """Each candidate's chance: the first's as judged, the rest by their bits."""
    if not scores:
        return []
    rest = sum(scores[1:])
    return [sure, *((1 - sure) * each / rest if rest > 0 else 0.0 for each in scores[1:])]


def _busier(bundle: Bundle, trees: Trees) -> float | None:
    before_s, traces = bundle.baseline_seconds, trees.traces
    before = traces.get(BASELINE, 0) + traces.get(LOCAL, 0)
    if before_s <= 0 or bundle.incident.seconds <= 0 or not before:
        return None
    return (traces.get(INCIDENT, 0) / bundle.incident.seconds) / (before / before_s)
