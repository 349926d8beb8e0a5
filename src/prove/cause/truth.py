"""What an analysis should have said, by what was done: the service, and how that may be called.

Faults are done to a system in more ways than telemetry can tell apart; each has the kinds that a
person who knows the answer would accept.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from prove.incident.record import Analysed, Cause, Incident
from prove.rca.model import Analysis, Kind

NONE = ("load", "none")
"""Kinds of truth where nothing is broken: the right answer is none."""
UNSEEN = ("otel-collector", "prometheus")
"""What is broken is no part of the shop: to abstain is as right as to name it."""
KINDS: Mapping[str, tuple[Kind, ...]] = {
    "answer-twice": ("unknown",),
    "black-hole": ("network", "latency", "errors"),
    "cpu": ("cpu", "latency"),
    "crash": ("errors", "resource", "unknown"),
    "crash-loop": ("errors", "resource", "unknown"),
    "declining": ("errors", "omission"),
    "disk-full": ("errors", "resource"),
    "down": ("errors", "network", "unknown"),
    "drip": ("network", "latency"),
    "error": ("errors", "omission"),
    "failing": ("errors",),
    "flapping": ("errors", "network"),
    "half-open": ("network", "latency", "errors"),
    "hang": ("latency", "errors", "network"),
    "latency": ("latency",),
    "load": ("overload",),
    "lock": ("latency", "resource", "errors"),
    "lose-answer": ("network", "errors"),
    "memory": ("resource", "latency", "cpu"),
    "pause": ("latency", "network", "errors"),
    "pool": ("resource", "latency", "errors"),
    "reset": ("network", "errors"),
    "slow": ("latency", "network"),
    "wrong-data": ("omission", "errors", "unknown"),
}
"""By the kind of a truth; of a cause on the way between two services, `network` as well."""


def kinds(cause: Cause) -> tuple[Kind, ...]:
    """Under which names the truth passes."""
    found = KINDS.get(cause.kind, ("unknown",))
    return ("network", *found) if cause.callee and "network" not in found else found


def service(cause: Cause) -> str | None:
    """Who should be named; None: nobody."""
    if cause.kind in NONE:
        return None
    return cause.callee or cause.service


def label(incident: Incident, causes: Sequence[Cause]) -> dict[str, Any]:
    """The true cause as a file beside a bundle: what a method's answer is compared with.

    `kinds` are the names under which it passes; `others` what else was broken at once. Where
    nothing is broken there is no `root_cause_service`: nobody is to be named.
    """
    faults = [each for each in causes if service(each) is not None]
    told: dict[str, Any] = {
        "fault_type": "load only" if any(each.kind == "load" for each in causes) else "no fault",
        "injected_at_unix_s": (incident.injected_unix_us or incident.started_unix_us) / 1e6,
        "others": [
            {
                "root_cause_service": service(each),
                "fault_type": each.kind,
                "kinds": list(kinds(each)),
            }
            for each in faults[1:]
        ],
    }
    if not faults:
        return told
    return told | {
        "root_cause_service": service(faults[0]),
        "root_cause_instance": None,
        "root_cause_component": faults[0].component,
        "fault_type": faults[0].kind,
        "kinds": list(kinds(faults[0])),
    }


def judged(analysis: Analysis, causes: Sequence[Cause]) -> Analysed:
    """The answer in short, and whether it is right; without `causes` that isn't known."""
    first = analysis.causes[0] if analysis.causes else None
    named = first if first is not None and analysis.abstained is None else None
    right, right_kind = rightness(
        named.service if named else None, named.kind if named else None, causes
    )
    return Analysed(
        service=named.service if named else None,
        kind=named.kind if named else "",
        confidence=round(analysis.confidence, 4),
        abstained=analysis.abstained.reason if analysis.abstained else "" if named else "no data",
        ranking=analysis.ranking,
        right=right,
        right_kind=right_kind,
    )


def rightness(
    named: str | None, kind: str | None, causes: Sequence[Cause]
) -> tuple[bool | None, bool | None]:
    """Whether the service that is named (None: nobody) is right, and its kind.

    Of several causes each is right. None: that isn't known, or there is no kind to be right.
    """
    if not causes:
        return None, None
    faults = [each for each in causes if service(each) is not None]
    if not faults:
        return named is None, None
    if named is None:
        return all(each.service in UNSEEN for each in faults), None
    hit = [each for each in faults if service(each) == named]
    return bool(hit), any(kind in kinds(each) for each in hit) if hit else None
