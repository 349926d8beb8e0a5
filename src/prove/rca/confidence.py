"""How sure an answer is, and when none should be given."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from prove.rca.bundle import BASELINE, INCIDENT, LOCAL, Bundle
from prove.rca.model import Abstention
from prove.rca.spans import Trees
from prove.rca.structure import Z
from prove.rca.timing import FEW


class Weights(NamedTuple):
    """Of a logistic regression on how many bits the first has, and how many times the second's.

    `incidents`: that it was fitted on.
    """

    base: float
    bits: float
    margin: float
    incidents: int


FITTED = Weights(-0.535, 0.229, 1.287, 80)
"""On all labelled incidents of docs/evidence/rca.md, which tells what it is worth on data sets that
it was not fitted on."""
VISIBLE_BITS = 0.2
"""More than two healthy windows of a real shop were seen to show against each other (0.16)."""
PAGED_BITS = 0.05
"""With an alert there is something, rather than nothing."""
CERTAIN_BITS = 10.0
"""Of all failures of a kind together: a thousand to one, at the near ends of intervals."""
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
    """The chance that the first is the cause.

    By the rule of succession, as though one more incident had been right and one more wrong: from n
    incidents nobody can be surer than (n + 1) / (n + 2), however clear the evidence is.
    """
    bits, margin = features(scores)
    fitted = 1 / (1 + math.exp(-(weights.base + weights.bits * bits + weights.margin * margin)))
    return (weights.incidents * fitted + 1) / (weights.incidents + 2)


def judge(
    bundle: Bundle,
    trees: Trees,
    scores: Sequence[float],
    behaviour: float,
    certainty: float,
    weights: Weights = FITTED,
) -> tuple[Abstention | None, float]:
    """Why not to answer, if so; and the chance that the first is the cause.

    `behaviour`: the first's bits that are not of time. More load explains what is slower, not what
    fails. `certainty`: bits of all its failures together.
    """
    windows = {*trees.traces, *bundle.metrics["window"].unique()}
    sure = chance(scores, weights)
    if INCIDENT not in windows or not windows & {BASELINE, LOCAL}:
        lack = "of the incident" if INCIDENT not in windows else "of a healthy time to compare with"
        return Abstention("no data", f"There are no spans and no metrics {lack}."), 0.0
    first = scores[0] if scores else 0.0
    least = PAGED_BITS if bundle.alert else VISIBLE_BITS
    if first < least and certainty < CERTAIN_BITS:
        return (
            Abstention(
                "no fault visible",
                f"Nothing differs from the healthy time by more than chance: what stands out most"
                f" has {first:.2g} bits of evidence, and less than {least} is common in health too"
                " (a bit halves the odds that it is chance).",
            ),
            sure,
        )
    more = _busier(bundle, trees)
    if more >= BUSIER and first < 1 and behaviour < least and certainty < CERTAIN_BITS:
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
                f"The second has {scores[1] / first:.0%} as much evidence as the first.",
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


def _busier(bundle: Bundle, trees: Trees) -> float:
    """How many times as many requests there are, of the sort that grew most; surely, at the least.

    A sort is the operation that a request comes in at. 0 where that isn't known.
    """
    before_s, during_s = bundle.baseline_seconds, bundle.incident.seconds
    if before_s <= 0 or during_s <= 0:
        return 0.0
    during = pl.col("window") == INCIDENT
    found = (
        trees.spans.filter(pl.col("parent") < 0)
        .group_by("op")
        .agg(during.sum().alias("after"), (~during).sum().alias("before"))
        .filter((pl.col("before") >= FEW) & (pl.col("after") >= FEW))
        .select(
            (pl.col("after") - pl.col("after").sqrt() * Z)
            / (pl.col("before") + pl.col("before").sqrt() * Z)
            * (before_s / during_s)
        )
    )
    return float(found.to_series().max() or 0.0)  # type: ignore[arg-type]
