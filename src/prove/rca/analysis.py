"""From a bundle to its causes."""

import dataclasses
import time
from collections import defaultdict
from collections.abc import Mapping

import polars as pl

from prove.rca import blame, confidence, evidence, logs, metrics, spans, structure, timing
from prove.rca.blame import Blame
from prove.rca.bundle import BASELINE, INCIDENT, LOCAL, Bundle
from prove.rca.model import Analysis, Call, Cause

SIGNALS = frozenset({"time", "structure", "logs", "errors", "metrics", "edges"})
SEVERE = {"ERROR", "FATAL", "CRITICAL", "EMERGENCY", "ALERT", "PANIC"}


def analyse(bundle: Bundle, signals: frozenset[str] = SIGNALS) -> Analysis:
    """The causes of an incident, the likeliest first, or why none can be named.

    `signals` may leave some out (for an ablation). Pure: the same bundle gives the same answer.
    """
    began = time.perf_counter()
    trees = spans.grow(bundle.spans)
    asked = calls(bundle, trees, signals)
    callees: dict[str, set[str]] = defaultdict(set)
    for each in asked:
        callees[each.caller].add(each.callee)
    found, total = _blames(bundle, trees, callees, signals)
    symptom = bundle.alert.service if bundle.alert else _entrance(trees)
    everyone = {*bundle.services, *found, *callees, *(each.callee for each in asked)}
    order = sorted(everyone, key=lambda name: (-total.get(name, 0.0), name))
    notes = evidence.lacking(bundle, trees)
    abstained, sure = confidence.judge(bundle, trees, [total.get(each, 0.0) for each in order])
    shares = confidence.shares([total.get(each, 0.0) for each in order], sure)
    teller = evidence.Teller(bundle, trees)
    causes = [
        Cause(
            service=name,
            instance=teller.instance(name, found[name]) if name in found else None,
            kind=teller.kind(found[name]) if name in found else "unknown",
            score=total.get(name, 0.0),
            confidence=share,
            evidence=teller.tell(name, found[name]) if name in found else (),
            path=evidence.path(symptom, name, callees),
        )
        for name, share in zip(order, shares, strict=True)
    ]
    weight = sum(total.values())
    return Analysis(
        incident=bundle.id,
        window=bundle.incident,
        baseline=bundle.baseline or bundle.local,
        alert=bundle.alert,
        symptom=symptom,
        causes=tuple(causes),
        abstained=abstained,
        confidence=0.0 if abstained else sure,
        calls=asked,
        blame={name: total[name] / weight for name in order if total.get(name, 0) > 0},
        notes=notes,
        seconds=time.perf_counter() - began,
    )


def _blames(
    bundle: Bundle, trees: spans.Trees, callees: Mapping[str, set[str]], signals: frozenset[str]
) -> tuple[dict[str, dict[str, Blame]], dict[str, float]]:
    """Of each service, the blame by signal; and its bits in all."""
    found: dict[str, dict[str, Blame]] = defaultdict(dict)
    total: dict[str, float] = defaultdict(float)

    def add(signal: str, of: Mapping[str, Blame], left: Mapping[str, float]) -> None:
        for name, each in of.items():
            found[name][signal] = dataclasses.replace(each, bits=left[name])
            total[name] += left[name]

    windows = trees.traces
    if windows.get(INCIDENT) and (windows.get(BASELINE) or windows.get(LOCAL)):
        if "time" in signals:
            lost = blame.of_time(timing.lost(trees), windows[INCIDENT])
            add("time", lost, {name: each.bits for name, each in lost.items()})
        changed, left = _behaviour(bundle, trees, callees, signals)
        add("structure", changed, left)
    if "metrics" in signals and (bundle.alert or not windows):
        alert = bundle.alert
        changes = metrics.changes(bundle.metrics)
        moved = blame.of_metrics(
            changes, callees, alert and alert.service, alert.metric if alert else ""
        )
        add("metrics", moved, {name: each.bits for name, each in moved.items()})
    return dict(found), dict(total)


def _behaviour(
    bundle: Bundle, trees: spans.Trees, callees: Mapping[str, set[str]], signals: frozenset[str]
) -> tuple[dict[str, Blame], dict[str, float]]:
    """Bits of changed behaviour, the mean of those against each healthy window."""
    lines = pl.DataFrame(schema={"row": pl.Int64, "template": pl.Int64})
    names: list[str] = []
    severe: set[int] = set()
    if "logs" in signals and not bundle.logs.is_empty():
        told = logs.templates(bundle.logs)
        of_spans = logs.of_spans(told, trees)
        names = of_spans["template"].unique(maintain_order=True).to_list()
        numbers = {name: number for number, name in enumerate(names)}
        lines = of_spans.with_columns(
            pl.col("template").replace_strict(numbers, return_dtype=pl.Int64)
        )
        worst = told.filter(pl.col("severity").str.to_uppercase().is_in(SEVERE))
        severe = {numbers[name] for name in worst["template"].unique() if name in numbers}
    services = trees.ops["service"].to_list()
    known = trees.spans.drop_nulls("callee").group_by("op").agg(pl.col("callee").unique())
    asked = {op: names_[0] for op, names_ in known.iter_rows() if len(names_) == 1}
    votes = [
        window for window in (BASELINE, LOCAL) if trees.traces.get(window)
    ]
    merged: dict[str, Blame] = defaultdict(Blame)
    left: dict[str, float] = defaultdict(float)
    for window in votes:
        seen = structure.events(trees, lines, window)
        if "errors" not in signals:
            seen = seen.filter(pl.col("kind") != "failure")
        if "structure" not in signals:
            seen = seen.filter(pl.col("kind").is_in(["failure", "log", "then"]))
        of = blame.of_events(seen, services, asked, severe)
        for name, bits in blame.explained(
            {name: each.bits for name, each in of.items()}, callees
        ).items():
            left[name] += bits / len(votes)
            merged[name].rows += [{**row, "against": window} for row in of[name].rows]
    for each in merged.values():
        each.rows.sort(key=lambda row: -row["bits"])
        for row in each.rows:
            if row["kind"] in ("log", "then"):
                row["told"] = names[row["event"]] if row["event"] >= 0 else ""
                row["told_after"] = names[row["after"]] if row["after"] >= 0 else ""
                row["severe"] = row["kind"] == "log" and row["event"] in severe
    return dict(merged), dict(left)


def calls(bundle: Bundle, trees: spans.Trees, signals: frozenset[str] = SIGNALS) -> tuple[Call, ...]:
    """The call graph: of spans, and of the bundle's edges."""
    tree = trees.spans
    crossing = tree.filter(pl.col("parent") >= 0).select(
        "window",
        pl.col("service").alias("callee"),
        tree["service"].gather(tree.filter(pl.col("parent") >= 0)["parent"]).alias("caller"),
    )
    asked = tree.filter(pl.col("callee").is_not_null()).select(
        "window", "callee", pl.col("service").alias("caller"), "own_ms"
    )
    during, before = pl.col("window") == INCIDENT, pl.col("window") != INCIDENT
    counted = (
        crossing.filter(pl.col("caller") != pl.col("callee"))
        .group_by("caller", "callee")
        .agg(before.sum().alias("n"), during.sum().alias("n_after"))
    )
    gaps = asked.group_by("caller", "callee").agg(
        pl.col("own_ms").filter(before).median().alias("gap"),
        pl.col("own_ms").filter(during).median().alias("gap_after"),
        before.sum().alias("m"),
        during.sum().alias("m_after"),
    )
    both = counted.join(gaps, on=["caller", "callee"], how="full", coalesce=True)
    both = both.sort("caller", "callee")
    before_s, during_s = bundle.baseline_seconds, bundle.incident.seconds
    found = {
        (row["caller"], row["callee"]): Call(
            row["caller"],
            row["callee"],
            (row["n"] or row["m"] or 0) / before_s if before_s > 0 else None,
            (row["n_after"] or row["m_after"] or 0) / during_s if during_s > 0 else None,
            row["gap"],
            row["gap_after"],
        )
        for row in both.iter_rows(named=True)
    }
    if "edges" in signals:
        for caller, callee in bundle.edges.iter_rows():
            found.setdefault((caller, callee), Call(caller, callee))
    return tuple(found.values())


def _entrance(trees: spans.Trees) -> str | None:
    """Where requests come in: the service of most roots in the incident."""
    roots = trees.spans.filter((pl.col("window") == INCIDENT) & (pl.col("parent") < 0))
    if roots.is_empty():
        return None
    most = roots.group_by("service").len().sort(["len", "service"], descending=[True, False])
    return str(most["service"][0])
