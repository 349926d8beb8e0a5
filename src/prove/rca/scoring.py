"""How often the true cause is among the first, of how many, and what that is worth."""

import dataclasses
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prove.errors import UserError
from prove.rca import analysis, baselines, blame, bundle, confidence, metrics, structure, timing
from prove.rca.analysis import SIGNALS, Findings
from prove.rca.labels import Label
from prove.rca.model import Kind, Reason

DEPTH = 5
RESAMPLES = 2000
Z = 1.96
PUBLISHED: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "Nezha (its published log)": {"nezha-ob": (0.92, 0.96), "nezha-tt": (0.86, 0.96)},
    "anomaly traversal (PetShop's authors)": {"petshop": (0.56, 0.71)},
}
"""AC@1 and AC@3 of the same incidents, from the README that came with the data."""
FIRST, THIRD, WITH_KIND, ABSTAINS = "AC@1", "AC@3", "service and kind", "abstains rightly"
AIMS: Mapping[str, Mapping[str, float]] = {
    "nezha-ob": {FIRST: 0.96, THIRD: 1.0},
    "nezha-tt": {FIRST: 0.92, THIRD: 1.0},
    "petshop": {FIRST: 0.75, THIRD: 0.90},
    "own": {FIRST: 0.90, WITH_KIND: 0.80, ABSTAINS: 0.90},
}
"""What was aimed at before anything was measured."""
NOTHING_SEEN: Reason = "no fault visible"
VERDICTS: Mapping[str, frozenset[Reason]] = {"load only": frozenset({NOTHING_SEEN, "load only"})}
"""By which verdicts a truth without a fault is told rightly; else by none being visible."""
WITHOUT = (
    ("time", frozenset({"time"})),
    ("structure", frozenset({"structure"})),
    ("logs", frozenset({"logs"})),
    ("errors", frozenset({"errors"})),
    ("metrics", frozenset({"metrics"})),
    ("edges", frozenset({"edges"})),
)


@dataclass(frozen=True)
class Scores:
    """Of a set of incidents: shares of hits among the first k, and the mean reciprocal rank."""

    n: int
    ac: tuple[float, ...]
    mrr: float

    @property
    def avg(self) -> float:
        """Avg@5."""
        return sum(self.ac) / len(self.ac)

    def interval(self, k: int) -> tuple[float, float]:
        """Wilson's 95% interval of AC@k."""
        return wilson(self.ac[k - 1], self.n)


def wilson(p: float, n: int) -> tuple[float, float]:
    """The 95% interval of a share of n."""
    z2 = Z * Z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def rank(ranking: Sequence[str], service: str | None) -> int | None:
    """The place of a service among the distinct ones of a ranking, from 1; None: it isn't there."""
    distinct = list(dict.fromkeys(ranking))
    return distinct.index(service) + 1 if service in distinct else None


def score(ranks: Iterable[int | None]) -> Scores:
    """Of places; an absent one is a miss at any depth. Raises ValueError for none."""
    places = list(ranks)
    if not places:
        raise ValueError("no incident to score")
    n = len(places)
    hits = (sum(place is not None and place <= k for place in places) for k in range(1, DEPTH + 1))
    mrr = sum(1 / place for place in places if place) / n
    return Scores(n, tuple(count / n for count in hits), mrr)


@dataclass(frozen=True)
class Case:
    """A labelled incident, what was found in it, and the ranking of each method."""

    label: Label
    found: Findings
    rankings: Mapping[str, list[str]]
    bits: tuple[float, ...]
    """Scores of our ranking, falling."""
    candidates: int
    """Services that are told of; guessing has the choice among them."""
    kind: Kind = "unknown"
    """Of the first of our ranking."""
    abstained: Reason | None = None

    def rank(self, method: str) -> int | None:
        """Of the true cause, by a method."""
        return rank(self.rankings[method], self.label.service)

    @property
    def with_kind(self) -> bool:
        """Whether the first is the true cause, told by a kind that it passes under."""
        return self.rank(OURS) == 1 and self.kind in self.label.kinds

    @property
    def abstains_rightly(self) -> bool:
        """Where nothing is broken: whether that is what it says."""
        return self.abstained in VERDICTS.get(self.label.fault, {NOTHING_SEEN})

    def both_within(self, k: int) -> bool:
        """Whether all that was broken is among the first k, and has anything against it."""
        first = zip(self.rankings[OURS][:k], self.bits, strict=False)
        return {self.label.service, *self.label.others} <= {
            name for name, bits in first if bits > 0
        }


OURS = "prove.rca"


def solve(label: Label, found: Findings) -> Case:
    """All methods' answers; the label has no part in them."""
    answer = analysis.conclude(found)
    rankings = {OURS: answer.ranking}
    rankings |= {name: method(found) for name, method in baselines.METHODS.items()}
    for name, signals in WITHOUT:
        _, bits, _ = analysis.blamed(found, SIGNALS - signals)
        rankings[f"without {name}"] = analysis.ranked(found, bits)
    return Case(
        label,
        found,
        rankings,
        tuple(each.score for each in answer.causes),
        len({*found.bundle.services, *answer.ranking}),
        answer.causes[0].kind if answer.causes else "unknown",
        answer.abstained.reason if answer.abstained else None,
    )


def cases(
    labels: Mapping[str, Label], directories: Mapping[str, Path], told: Callable[[str], None]
) -> list[Case]:
    """Solve every labelled incident; raises UserError where a bundle is missing."""
    missing = sorted(set(labels) - set(directories))
    if missing:
        raise UserError(f"no bundle of {missing[0]} (and {len(missing) - 1} more) is there")
    solved = []
    for name, label in labels.items():
        told(name)
        solved.append(solve(label, analysis.find(bundle.read(directories[name]))))
    return solved


def single(of: Sequence[Case]) -> list[Case]:
    """Incidents with one fault: what rankings are scored on."""
    return [case for case in of if case.label.service is not None and not case.label.others]


def quiet(of: Sequence[Case]) -> list[Case]:
    """Where nothing is broken."""
    return [case for case in of if case.label.service is None]


def double(of: Sequence[Case]) -> list[Case]:
    """Where more than one thing was broken at once."""
    return [case for case in of if case.label.service is not None and case.label.others]


def chance(of: Sequence[Case]) -> Scores:
    """What guessing gives: a service at random."""
    n = len(of)
    ac = tuple(sum(min(1.0, k / each.candidates) for each in of) / n for k in range(1, DEPTH + 1))
    mrr = (
        sum(sum(1 / k for k in range(1, each.candidates + 1)) / each.candidates for each in of) / n
    )
    return Scores(n, ac, mrr)


def by(of: Sequence[Case], key: Callable[[Label], str]) -> dict[str, list[Case]]:
    """Cases by data set, or by kind of fault."""
    found: dict[str, list[Case]] = {}
    for each in sorted(of, key=lambda case: key(case.label)):
        found.setdefault(key(each.label), []).append(each)
    return found


@dataclass(frozen=True)
class LeftOut:
    """The confidence on a data set that it was not fitted on."""

    dataset: str
    scores: Scores
    weights: confidence.Weights
    brier: float
    brier_of_rate: float
    """Had it always told the share that is right on the other data sets."""
    answered: float
    """The share of incidents where it is at least even that the first is right."""
    right: float
    """Of those, how many are."""


def leave_one_out(of: Sequence[Case]) -> list[LeftOut]:
    """Each data set by a confidence fitted on the others; the ranking has nothing fitted."""
    sets = by(of, lambda label: label.dataset)
    if len(sets) < 2:
        return []
    found = []
    for name, mine in sets.items():
        others = [case for key, each in sets.items() if key != name for case in each]
        weights = fit(others)
        told = np.array([confidence.chance(case.bits, weights) for case in mine])
        right = np.array([case.rank(OURS) == 1 for case in mine], dtype=float)
        rate = float(np.mean([case.rank(OURS) == 1 for case in others]))
        sure = told >= 0.5
        found.append(
            LeftOut(
                name,
                score(case.rank(OURS) for case in mine),
                weights,
                float(np.mean((told - right) ** 2)),
                float(np.mean((rate - right) ** 2)),
                float(sure.mean()),
                float(right[sure].mean()) if sure.any() else 0.0,
            )
        )
    return found


def fit(of: Sequence[Case]) -> confidence.Weights:
    """Logistic regression by Newton's method, with a ridge of 1 (a prior of weights about 0)."""
    x = np.array([(1.0, *confidence.features(case.bits)) for case in of])
    y = np.array([case.rank(OURS) == 1 for case in of], dtype=float)
    w = np.zeros(x.shape[1])
    ridge = np.diag([0.0, 1.0, 1.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        gradient = x.T @ (p - y) + ridge @ w
        hessian = (x * (p * (1 - p) + 1e-9)[:, None]).T @ x + ridge
        step = np.linalg.solve(hessian + 1e-9 * np.eye(3), gradient)
        w -= step
        if np.abs(step).max() < 1e-8:
            break
    base, bits, margin = (float(each) for each in w)
    return confidence.Weights(base, bits, margin, len(of))


def resampled(of: Sequence[Case], k: int, seed: int = 1) -> tuple[float, float]:
    """The 95% interval of AC@k over incidents drawn again (bootstrap)."""
    hits = [(place := case.rank(OURS)) is not None and place <= k for case in of]
    chosen = random.Random(seed)  # noqa: S311
    shares = sorted(sum(chosen.choices(hits, k=len(hits))) / len(hits) for _ in range(RESAMPLES))
    return shares[round(0.025 * RESAMPLES)], shares[round(0.975 * RESAMPLES) - 1]


CONSTANTS: Mapping[str, tuple[object, str]] = {
    "quantile of the intervals of rates and medians": (structure, "Z"),
    "spans that a median needs": (timing, "FEW"),
    "least time of a span": (timing, "LEAST_MS"),
    "fineness of metrics": (metrics, "LEAST"),
    "an unknown edge's delay": (blame, "PRIOR"),
}
FACTORS = (0.5, 0.75, 1.25, 1.5)


def perturbed(of: Sequence[Case]) -> dict[tuple[str, float], list[int | None]]:
    """The true causes' places with each constant made smaller and greater."""
    found: dict[tuple[str, float], list[int | None]] = {}
    for name, (module, constant) in CONSTANTS.items():
        value = getattr(module, constant)
        for factor in FACTORS:
            new = value * factor
            setattr(module, constant, max(1, round(new)) if isinstance(value, int) else new)
            try:
                found[name, factor] = [_again(case, (module, constant)) for case in of]
            finally:
                setattr(module, constant, value)
    return found


def _again(case: Case, changed: tuple[object, str]) -> int | None:
    found = case.found
    module, constant = changed
    if module in (structure, timing) and not found.items.is_empty():
        found = dataclasses.replace(found, items=timing.lost(found.trees))
    if module is structure:
        found = dataclasses.replace(
            found, events={window: structure.rated(each) for window, each in found.events.items()}
        )
    if module is metrics or constant == "Z":
        found = dataclasses.replace(found, changes=metrics.changes(found.bundle.metrics))
    _, total, _ = analysis.blamed(found)
    return rank(analysis.ranked(found, total), case.label.service)
