"""Which incidents of our own are collected: faults of all kinds and services over seeds, loads and
severities, runs without a fault, and some with two. The same seed gives the same plan (pure).
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, Literal

from prove.incident.catalogue import Entry
from prove.incident.record import Cause
from prove.incident.schema import Scenario
from prove.slo.yamltext import documents

DATASET = "own"
Severity = Literal["mild", "medium", "severe"]
SEVERITIES: tuple[Severity, ...] = ("severe", "medium", "mild")
LOADS = ((10.0, 5.0), (6.0, 3.0), (16.0, 8.0))
"""Reads and checkouts a second."""
HOLD_S = 45.0
HEALTHY_S = (20.0, 40.0)
BEGINS_AFTER_S = (-5.0, 10.0)
ENDS_BEFORE_S = (0.0, 6.0)
"""From which a case's times are drawn: windows must not tell when something was done, or that."""
TTL_S = 240
"""A fault ends by itself, should nobody take it back."""
PLACES = {"product": "product-service", "order": "order-service", "payment": "payment-service"}
ROUTES = {
    "product": {"method": "POST", "route": "/api/v1/reservations"},
    "order": {"method": "POST", "route": "/api/v1/orders"},
    "payment": {"method": "POST", "route": "/api/v1/payments"},
}
"""Of each service what every checkout needs."""


@dataclass(frozen=True)
class Fault:
    """A lease at `place`, and what it is in truth."""

    place: str
    type: str
    params: dict[str, Any]
    cause: Cause
    match: dict[str, Any] | None = None


@dataclass(frozen=True)
class Case:
    """One run. `name` says nothing of the cause: it is in paths."""

    name: str
    faults: tuple[Fault, ...]
    severity: Severity
    reads_per_s: float
    checkouts_per_s: float
    hold_s: float = HOLD_S
    more_load: tuple[Fault, ...] = field(default=())
    """For a run with load only: customers, who are no fault."""
    healthy_s: float = 0.0
    """Beside the steady state, before anything is done."""
    begins_after_s: float = 0.0
    """Without a page, it is said to have begun so long after it did; negative: before."""
    ends_before_s: float = 0.0
    """Before it is taken back, people look."""

    @property
    def kind(self) -> str:
        """In a word or two, for people."""
        done = [*self.faults, *self.more_load]
        return (
            " + ".join(f"{each.cause.callee or each.cause.service} {_how(each)}" for each in done)
            or "nothing"
        )


def plan(seed: int, faults: int, quiet: int, double: int, hold_s: float = HOLD_S) -> list[Case]:
    """So many runs with one fault, without any (every second with more load), and with two.

    Every type at every service comes before any comes again, the next seed's after those of the one
    before; severities and loads go round.
    """
    chance = random.Random(seed)  # noqa: S311 - to be repeated, not to be guessed
    told = random.Random(f"{seed} told")  # noqa: S311
    cases: list[Case] = []

    def add(done: Sequence[Fault], severity: Severity, more: Sequence[Fault] = ()) -> None:
        reads, checkouts = LOADS[len(cases) % len(LOADS)]
        name = f"{DATASET}-{seed}-{len(cases) + 1:03}"
        cases.append(
            Case(
                name,
                tuple(done),
                severity,
                reads,
                checkouts,
                hold_s,
                tuple(more),
                *(
                    round(told.uniform(*each), 1)
                    for each in (HEALTHY_S, BEGINS_AFTER_S, ENDS_BEFORE_S)
                ),
            )
        )

    severities = _severities(chance)
    places = list(_places())
    random.Random(0).shuffle(places)  # noqa: S311 - seeds go on where the one before ended
    begin = (seed - 1) * faults
    for place, type_ in islice(cycle(places), begin, begin + faults):
        severity = next(severities)
        add([fault(place, type_, severity)], severity)
    for number in range(quiet):
        severity = next(severities)
        add([], severity, [_customers(severity, number)] if number % 2 else [])
    for _ in range(double):
        severity = next(severities)
        first = chance.choice(places)
        others = [each for each in places if _service(*each) != _service(*first)]
        add([fault(*first, severity), fault(*chance.choice(others), severity)], severity)
    chance.shuffle(cases)  # so that a part of the plan has some of all
    return cases


def entry(case: Case) -> Entry:
    """As a scenario, which the runner of incidents takes; what pages is not judged."""
    from prove.incident import objectives

    done = [*case.faults, *case.more_load]
    method = [_set(case, number, each) for number, each in enumerate(done)]
    rollbacks = [_end(case, number, each) for number, each in enumerate(done)]
    nothing = _request("look whether the shop is ready", "GET", "${order_url}/readyz")
    first = case.faults[0].cause if case.faults else None
    if first is None:
        first = (
            case.more_load[0].cause
            if case.more_load
            else Cause(service="nobody", kind="none", component="nothing is broken")
        )
    document = {
        "version": "1.0.0",
        "title": case.name,
        "description": "An incident of `provectl rca collect`.",
        "tags": ["collected"],
        "configuration": {
            f"{place}_url": {"type": "env", "key": f"PROVE_{place.upper()}_URL", "default": "-"}
            for place in ("product", "order", "payment", "acquirer", "injector", "prometheus")
        },
        "secrets": {"prove": {"token": {"type": "env", "key": "PROVE_ADMIN_TOKEN"}}},
        "steady-state-hypothesis": {
            "title": "every service is ready",
            "probes": [
                {
                    "type": "probe",
                    "name": f"{place} is ready",
                    "tolerance": 200,
                    "provider": {"type": "http", "url": f"${{{place}_url}}/readyz", "timeout": 3},
                }
                for place in PLACES
            ],
        },
        "method": _later(method or [nothing], case.healthy_s),
        "rollbacks": rollbacks or [nothing],
        "extensions": [
            {
                "name": "prove",
                "family": "service",
                "difficulty": "medium",
                "story": case.kind,
                "blast_radius": "not judged",
                "expect": {
                    "quiet": {"for_s": case.hold_s, "why": "what pages is not judged"},
                    "may_page": [
                        {"slo": slo.id, "why": "not judged"}
                        for slo in objectives.of_profile("drill").slos
                    ],
                    "customers": [{"kind": "read", "slower_than_ms": 60_000, "at_most": 1}],
                },
                "truth": first.model_dump(),
                "mitigations": [
                    {"what": "end the lease", "works": True, "why": "it is the cause"},
                    {"what": "wait", "works": False, "why": "it lasts longer"},
                ],
                "red_herrings": ["none is known"],
                "load": {
                    "reads_per_s": case.reads_per_s,
                    "checkouts_per_s": case.checkouts_per_s,
                },
                "hold_s": 0,
            }
        ],
    }
    (read,) = documents(json.dumps(document), case.name)
    return Entry(case.name, read.validate(Scenario), read)


def fault(place: str, type_: str, severity: Severity) -> Fault:
    """A fault of a type at a place, so severe. Raises LookupError for one that isn't planned."""
    at = {"severe": 0, "medium": 1, "mild": 2}[severity]
    if place in LINKS:
        params: dict[str, Any] = {"link": place, "kind": type_}
        params |= {"latency": {"latency_ms": (400, 250, 120)[at], "jitter_ms": 20}}.get(type_, {})
        cause = Cause(
            service="network", kind=type_, component=f"the link {place}", callee=LINKS[place]
        )
        return Fault("injector", "link", params, cause)
    if place.startswith("process:"):
        process = place.partition(":")[2]
        cause = Cause(service=PLACES[process], kind=type_, component="the process")
        return Fault("injector", type_, {"process": process}, cause)
    if place == "acquirer":
        known: dict[str, dict[str, Any]] = {
            "slow": {"delay_ms": (1500, 700, 300)[at]},
            "flapping": {"period_s": (8, 6, 4)[at]},
        }
        of_it = known.get(type_, {"rate": (1.0, 0.5, 0.2)[at]})
        return Fault(place, type_, of_it, Cause(service=place, kind=type_, component="charges"))
    grades, match = _OF_SERVICE[type_]
    cause = Cause(service=PLACES[place], kind=type_, component=ROUTES[place]["route"])
    return Fault(place, type_, grades[at], cause, ROUTES[place] if match else None)


LINKS = {
    "order-product": "product-service",
    "order-payment": "payment-service",
    "payment-acquirer": "acquirer",
}
"""And who is called over it."""
_LINK_TYPES = ("latency", "reset", "black-hole")
_PROCESS_TYPES = ("down", "pause")
_ACQUIRER_TYPES = ("slow", "declining", "flapping", "failing")
_OF_SERVICE: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "latency": (
        [
            {"distribution": "constant", "delay_ms": 900},
            {"distribution": "normal", "mean_ms": 400, "stddev_ms": 80},
            {"distribution": "constant", "delay_ms": 200, "rate": 0.5, "select": "count"},
        ],
        True,
    ),
    "error": (
        [
            {"rate": 1.0, "status": 503},
            {"rate": 0.5, "status": 500, "select": "count"},
            {"rate": 0.2, "status": 503, "select": "count"},
        ],
        True,
    ),
    "hang": ([{"rate": 0.8}, {"rate": 0.4}, {"rate": 0.15}], True),
    "cpu": ([{"share": 1.0}, {"share": 0.9}, {"share": 0.7}], False),
    "pool": ([{"all": True}, {"all": True}, {"connections": 4}], False),
    "lock": (
        [
            {"hold_ms": 1500, "every_ms": 2000},
            {"hold_ms": 800, "every_ms": 1500},
            {"hold_ms": 400, "every_ms": 1000},
        ],
        False,
    ),
    "crash-loop": ([{"after_s": 2}, {"after_s": 4}, {"after_s": 8}], False),
}
"""Params from severe to mild; whether it is of requests, and so takes a match."""


def _places() -> Iterator[tuple[str, str]]:
    yield from ((place, type_) for type_ in _OF_SERVICE for place in PLACES)
    yield from ((link, type_) for link in LINKS for type_ in _LINK_TYPES)
    yield from ((f"process:{process}", type_) for process in PLACES for type_ in _PROCESS_TYPES)
    yield from (("acquirer", type_) for type_ in _ACQUIRER_TYPES)


def _how(each: Fault) -> str:
    return f"link {each.cause.kind}" if each.cause.callee else each.cause.kind


def _service(place: str, type_: str) -> str:
    cause = fault(place, type_, "severe").cause
    return cause.callee or cause.service


def _severities(chance: random.Random) -> Iterator[Severity]:
    while True:
        round_ = list(SEVERITIES)
        chance.shuffle(round_)
        yield from round_


def _customers(severity: Severity, number: int) -> Fault:
    at = {"severe": 0, "medium": 1, "mild": 2}[severity]
    kind, per_s = (("reads", (40, 25, 15)), ("checkouts", (6, 4, 2)))[number // 2 % 2]
    cause = Cause(service="customers", kind="load", component=f"{kind}, {per_s[at]} more a second")
    return Fault("injector", "load", {"kind": kind, "per_s": per_s[at]}, cause)


def _set(case: Case, number: int, each: Fault) -> dict[str, Any]:
    arguments = {"type": each.type, "params": each.params, "ttl_s": TTL_S}
    if each.match:
        arguments["match"] = each.match
    url = _url(case, number, each)
    return _request(f"set {each.type} at {each.place}", "PUT", url, arguments)


def _later(method: list[dict[str, Any]], wait_s: float) -> list[dict[str, Any]]:
    first, *others = method
    return [first | {"pauses": {"before": wait_s}}, *others]


def _end(case: Case, number: int, each: Fault) -> dict[str, Any]:
    return _request(f"end {each.type} at {each.place}", "DELETE", _url(case, number, each))


def _url(case: Case, number: int, each: Fault) -> str:
    return f"${{{each.place}_url}}/faults/{case.name}-{number}"


def _request(
    name: str, method: str, url: str, arguments: dict[str, Any] | None = None
) -> dict[str, Any]:
    headers = {} if method == "GET" else {"Authorization": "Bearer ${token}"}
    if arguments:
        headers["Content-Type"] = "application/json"
    return {
        "type": "action",
        "name": name,
        "provider": {
            "type": "http",
            "method": method,
            "url": url,
            "headers": headers,
            "timeout": 15,
            **({"arguments": arguments} if arguments else {}),
        },
    }
