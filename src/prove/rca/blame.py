"""Whose doing it is: each signal's bits for each service, less what another service explains."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from prove.rca.structure import NOTHING

Row = dict[str, Any]
PRIOR = 0.5
"""Of another caller's calls, of which nothing is known, being as slow as those that are seen."""


@dataclass
class Blame:
    """Of one service by one signal: bits, and the rows of evidence that they come from."""

    bits: float = 0.0
    rows: list[Row] = field(default_factory=list)


@dataclass
class _Node:
    inside: list[Row] = field(default_factory=list)
    asked: list[Row] = field(default_factory=list)
    asks: list[Row] = field(default_factory=list)

    @property
    def all(self) -> list[Row]:
        return [*self.inside, *self.asked, *self.asks]


def of_time(items: pl.DataFrame, traces: int) -> dict[str, Blame]:
    """Bits of time lost, by service; rows are timing.lost's, with `side`: inside, asked, asks.

    What lies between two services is the doing of either. It is laid on each by how far its other
    calls of that direction suffer alike; where there is no other, on the callee. A service's share
    of all loss, the information of its times, how much longer its requests take for it, and whether
    so much is more than chance among so many kinds of work, multiply.
    """
    nodes: dict[str, _Node] = defaultdict(_Node)
    for row in items.to_dicts():
        if row["callee"] is None:
            nodes[row["service"]].inside.append(row)
        else:
            nodes[row["service"]].asks.append(row)
            nodes[row["callee"]].asked.append(row)
    lost = {name: _lost(node) for name, node in nodes.items()}
    most = max(lost.values(), default=0.0)
    if most <= 0:
        return {}
    tried = math.log2(max(2, items.height))
    found = {}
    for name, node in nodes.items():
        rows = [row for row in node.all if row["loss_ms"] > 0]
        loss = sum(row["loss_ms"] for row in rows)
        if not loss:
            continue
        bits = sum(row["loss_ms"] * row["bits"] for row in rows) / loss
        slower = sum(row["loss_ms"] * _slower(row, traces) for row in rows) / loss
        evidence = sum(row["traces"] * _rarity(row["bits"]) for row in rows)
        sure = max(0.0, 1 - tried / evidence) if evidence > 0 else 0.0
        told = sorted(
            (
                {**row, "side": side}
                for side in ("inside", "asked", "asks")
                for row in getattr(node, side)
                if row["loss_ms"] > 0 and row["bits"] > 0
            ),
            key=lambda row: -row["loss_ms"],
        )
        found[name] = Blame(lost[name] / most * bits * slower * sure, told)
    return found


def _lost(node: _Node) -> float:
    lost = sum(max(0.0, float(row["loss_ms"])) for row in node.inside)
    for calls, prior in ((node.asked, PRIOR), (node.asks, 0.0)):
        delays = np.array([row["after_ms"] - row["healthy_ms"] for row in calls])
        rising = np.sort(np.maximum(delays, 0.0))
        sums = np.r_[0.0, np.cumsum(rising)]
        for row, delay in zip(calls, delays, strict=True):
            if row["loss_ms"] <= 0 or delay <= 0:
                continue
            # Of the others, those that wait as long count one, those that wait less their part.
            less = int(np.searchsorted(rising, delay))
            others = float(sums[less] / delay) + len(calls) - less - 1
            lost += float(row["loss_ms"]) * (others + prior) / len(calls)
    return lost


def _slower(row: Row, traces: int) -> float:
    """By how much of their length this makes the requests longer that it is part of."""
    own = row["loss_ms"] * traces / row["traces"]
    return float(own / (own + row["lasted_ms"])) if own > 0 else 0.0


def _rarity(bits: float) -> float:
    """Bits of the chance that a healthy span is as far off (the tail of timing's Cauchy)."""
    shift = 2 * math.sqrt(2**bits - 1)
    return -math.log2(max(1e-12, 1 - 2 * math.atan(shift) / math.pi))


def of_events(
    events: pl.DataFrame, services: Sequence[str], calls: Mapping[int, str], failures: Set[int]
) -> dict[str, Blame]:
    """Bits of changed behaviour, by service; rows are structure.events'.

    `services`: of each op; `calls`: whom a client op asks; `failures`: templates that are logged as
    errors. A service that fails less than before is not at fault: what else it does anew follows
    from that. Where requests end after a call, and of several callers alike, it is the callee's. So
    is a call that fails though nothing below it does, or that isn't answered; as far as the
    caller's other calls fail alike, it is the caller's.
    """
    found: dict[str, Blame] = defaultdict(Blame)
    better: dict[str, float] = defaultdict(float)
    ends: dict[str, dict[str, Row]] = defaultdict(dict)
    failing: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    rows = [row for row in events.to_dicts() if row["bits"] > 0]
    for row in rows:
        if is_failure(row, failures) and row["rate"] < row["healthy"]:
            service = services[row["op"]]
            better[service] = max(better[service], row["bits"])
    for row in rows:
        service = services[row["op"]]
        if is_failure(row, failures):
            if row["rate"] < row["healthy"]:
                continue
        else:
            row["bits"] = max(0.0, row["bits"] - better[service])
        if row["bits"] <= 0:
            continue
        if row["kind"] == "failure" and calls.get(row["op"], service) != service:
            failing[service][calls[row["op"]]].append(row)
            continue
        found[service].rows.append(row)
        found[service].bits = max(found[service].bits, row["bits"])
        if row["kind"] == "next" and row["event"] == NOTHING and row["rate"] > row["healthy"]:
            callee = calls.get(row["after"], services[row["after"]])
            if callee != service:
                least = ends[callee].get(service)
                if least is None or row["bits"] > least["bits"]:
                    ends[callee][service] = row
    asked: dict[str, set[str]] = defaultdict(set)
    for op, callee in calls.items():
        asked[services[op]].add(callee)
    for caller, of in failing.items():
        bits = {callee: max(row["bits"] for row in some) for callee, some in of.items()}
        for callee, own in bits.items():
            others = [min(bits.get(each, 0.0) / own, 1) for each in asked[caller] - {callee}]
            alike = sum(others) / len(others) if others else 0.0
            for name, share in ((callee, 1 - alike), (caller, alike)):
                if share > 0:
                    found[name].rows += of[callee]
                    found[name].bits = max(found[name].bits, own * share)
    for callee, callers in ends.items():
        several = len(callers)
        if several < 2:
            continue
        bits = sum(row["bits"] for row in callers.values()) * (several - 1) / several
        found[callee].rows += callers.values()
        found[callee].bits = max(found[callee].bits, bits)
        for caller, row in callers.items():
            if found[caller].bits == row["bits"]:
                found[caller].bits /= several
    for each in found.values():
        each.rows.sort(key=_by_bits)
    return dict(found)


def _by_bits(row: Row) -> tuple[Any, ...]:
    """Most first. Sums differ in their last digit from run to run: what is alike has one order."""
    return (-round(row["bits"], 9), row["kind"], row["op"], row["event"], row["after"])


def is_failure(row: Row, failures: Set[int]) -> bool:
    """Whether an event is one: a failed span, a line logged as an error, or that nobody answers."""
    if row["kind"] in ("failure", "silence"):
        return True
    return bool(row["kind"] == "log" and row["event"] in failures)


def certainty(row: Row, failures: Set[int]) -> float:
    """Bits that all observations together have, where an event is a failure; else 0.

    However few fail, it may be certain that they do.
    """
    return float(row["bits"] * row["n_after"]) if is_failure(row, failures) else 0.0


def explained(bits: Mapping[str, float], callees: Mapping[str, set[str]]) -> dict[str, float]:
    """What is left of each service's bits once those of whom it asks, at any depth, are taken off.

    A caller's behaviour follows from its callees'.
    """
    callers = reversed_edges(callees)
    left = dict(bits)
    for service, own in bits.items():
        for caller in reached(callers, service):
            if caller in left:
                left[caller] = min(left[caller], max(0.0, bits[caller] - own))
    return left


def of_metrics(
    changes: pl.DataFrame, callees: Mapping[str, set[str]], symptom: str | None, metric: str
) -> dict[str, Blame]:
    """Bits of changed metrics, by service; rows are metrics.changes'.

    Where an alert tells its `metric`, services are asked for the same one, changed in the same
    direction. What a callee's change explains is taken off; what is left counts as much as all that
    it explains in turn: the bits of the service and of those that ask it, at any depth. A service
    that asks nobody may be a name for the way to another (a proxy, a load balancer): so far as one
    that does ask others, and is asked by the same caller, changed too, that is likelier.
    """
    rows = changes
    same = changes.filter(pl.col("metric") == metric)
    if metric and not same.is_empty():
        rows = same
        sign = same.filter((pl.col("service") == symptom) & (pl.col("sign") != 0))["sign"]
        if len(sign):
            rows = rows.filter(pl.col("sign") == sign[0])
    found: dict[str, Blame] = defaultdict(Blame)
    for row in rows.filter(pl.col("bits") > 0).sort("bits", descending=True).to_dicts():
        found[row["service"]].rows.append(row)
    bits = {service: each.rows[0]["bits"] for service, each in found.items()}
    callers = reversed_edges(callees)
    for service, blame in found.items():
        below = max((bits.get(each, 0.0) for each in callees.get(service, ())), default=0.0)
        alone = max(0.0, bits[service] - below)
        felt = sum(bits.get(each, 0.0) for each in reached(callers, service) | {service})
        beside = {each for caller in callers.get(service, ()) for each in callees[caller]}
        if not callees.get(service):
            behind = [bits.get(each, 0.0) for each in beside if callees.get(each)]
            alone *= 2 ** -max(behind, default=0.0)
        blame.bits = math.sqrt(alone * felt)
    return dict(found)


def reached(edges: Mapping[str, set[str]], service: str) -> set[str]:
    """All that is reached from a service along edges, without itself."""
    seen: set[str] = set()
    waiting = [service]
    while waiting:
        for each in edges.get(waiting.pop(), ()):
            if each not in seen and each != service:
                seen.add(each)
                waiting.append(each)
    return seen


def reversed_edges(edges: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """From callee to callers."""
    found: dict[str, set[str]] = defaultdict(set)
    for source, targets in edges.items():
        for target in targets:
            found[target].add(source)
    return found
