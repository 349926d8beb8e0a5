"""From a bundle to its causes."""

import dataclasses
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from prove.rca import blame, confidence, ending, evidence, logs, metrics, spans, structure, timing
from prove.rca.blame import Blame, Row
from prove.rca.bundle import BASELINE, INCIDENT, LOCAL, Bundle
from prove.rca.model import Analysis, Call, Cause, Evidence
from prove.rca.spans import Trees

SIGNALS = frozenset({"time", "structure", "logs", "errors", "metrics", "edges"})
TOLD = 5
"""Causes whose evidence is told."""
SEVERE = {"ERROR", "FATAL", "CRITICAL", "EMERGENCY", "ALERT", "PANIC"}


@dataclass(frozen=True)
class Findings:
    """What was found in a bundle, before anybody is blamed."""

    bundle: Bundle
    trees: Trees
    calls: tuple[Call, ...]
    items: pl.DataFrame
    """timing.lost"""
    events: Mapping[int, pl.DataFrame]
    """structure.events, against each healthy window that there is."""
    templates: tuple[str, ...]
    severe: frozenset[int]
    """Those that are logged as errors."""
    changes: pl.DataFrame
    """metrics.changes"""
    lines: pl.DataFrame
    """Of spans: row, template (number)."""


def analyse(bundle: Bundle, signals: frozenset[str] = SIGNALS) -> Analysis:
    """The causes of an incident, the likeliest first, or why none can be named.

    `signals` may leave some out. Pure: the same bundle gives the same answer.
    """
    began = time.perf_counter()
    analysis = conclude(find(bundle), signals)
    return dataclasses.replace(analysis, seconds=time.perf_counter() - began)


def find(bundle: Bundle) -> Findings:
    """All that blame is laid by."""
    trees = spans.grow(bundle.spans)
    healthy = [window for window in (BASELINE, LOCAL) if trees.traces.get(window)]
    compares = bool(trees.traces.get(INCIDENT) and healthy)
    lines, names, severe = _lines(bundle, trees)
    return Findings(
        bundle=bundle,
        trees=trees,
        calls=calls(bundle, trees),
        items=timing.lost(trees) if compares else pl.DataFrame(),
        events={
            window: pl.concat(
                [
                    structure.events(trees, lines, window),
                    structure.silence(trees, bundle, window),
                ],
                how="diagonal_relaxed",
            )
            for window in healthy
            if compares
        },
        templates=names,
        severe=severe,
        changes=metrics.changes(bundle.metrics),
        lines=lines,
    )


def conclude(
    found: Findings, signals: frozenset[str] = SIGNALS, weights: confidence.Weights | None = None
) -> Analysis:
    """Who is blamed for what was found."""
    bundle, trees = found.bundle, found.trees
    blames, total, callees = blamed(found, signals)
    order = ranked(found, total)
    symptom = bundle.alert.service if bundle.alert else _entrance(trees, order)
    scores = [total.get(each, 0.0) for each in order]
    behaviour = blames.get(order[0], {}).get("structure", Blame()) if order else Blame()
    abstained, sure = confidence.judge(
        bundle,
        trees,
        scores,
        behaviour.bits,
        max((blame.certainty(row, found.severe) for row in behaviour.rows), default=0.0),
        weights or confidence.FITTED,
    )
    measured = frozenset(bundle.metrics["service"].unique())
    teller = evidence.Teller(trees, found.templates, found.severe, measured)

    said: set[str] = set()

    def told(place: int, name: str) -> tuple[Evidence, ...]:
        """What isn't told of a likelier one."""
        evidence = teller.tell(name, blames.get(name, {}))
        beside = teller.beside(name, found.changes) if place == 0 and trees.traces else ()
        fresh = tuple(each for each in (*evidence, *beside) if each.sentence not in said)
        said.update(each.sentence for each in fresh)
        return fresh

    causes = [
        Cause(
            service=name,
            instance=teller.instance(name, blames.get(name, {})),
            kind=teller.kind(
                name,
                blames.get(name, {}),
                found.items,
                bundle.alert.signal if bundle.alert else "",
            ),
            score=total.get(name, 0.0),
            confidence=share,
            evidence=told(place, name) if place < TOLD else (),
            path=evidence.path(symptom, name, callees),
            seen_by=teller.seen_by(name),
        )
        for place, (name, share) in enumerate(
            zip(order, confidence.shares(scores, sure), strict=True)
        )
    ]
    weight = sum(scores)
    return Analysis(
        incident=bundle.id,
        window=bundle.incident,
        baseline=bundle.baseline or bundle.local,
        alert=bundle.alert,
        symptom=symptom,
        causes=tuple(causes),
        abstained=abstained,
        confidence=0.0 if abstained else sure,
        calls=found.calls,
        blame={name: total[name] / weight for name in order if total.get(name, 0) > 0},
        notes=evidence.lacking(bundle, trees),
        ending=ending.tell(
            bundle,
            trees,
            symptom,
            _leading(blames.get(order[0], {})) if order else None,
            found.lines,
        ),
    )


def ranked(found: Findings, total: Mapping[str, float]) -> list[str]:
    """All services, those with most bits first.

    What is known by metrics alone, where it is known who calls whom, is no service but what all of
    them share: a machine, a disk.
    """
    everyone = set(found.trees.ops["service"])
    for each in found.calls:
        everyone |= {each.caller, each.callee}
    if not everyone:
        everyone = {*found.bundle.services, *total}
    return sorted(everyone, key=lambda name: (-total.get(name, 0.0), name))


def blamed(
    found: Findings, signals: frozenset[str] = SIGNALS
) -> tuple[dict[str, dict[str, Blame]], dict[str, float], dict[str, set[str]]]:
    """Of each service, the blame by signal; its bits in all; and whom each asks."""
    bundle, trees = found.bundle, found.trees
    blames: dict[str, dict[str, Blame]] = defaultdict(dict)
    total: dict[str, float] = defaultdict(float)
    callees: dict[str, set[str]] = defaultdict(set)
    given = set(bundle.edges.iter_rows())
    for each in found.calls:
        if "edges" in signals or (each.caller, each.callee) not in given:
            callees[each.caller].add(each.callee)

    def add(signal: str, of: Mapping[str, Blame]) -> None:
        for name, each in of.items():
            blames[name][signal] = each
            total[name] += each.bits

    if "time" in signals and not found.items.is_empty():
        add("time", blame.of_time(found.items, trees.traces[INCIDENT]))
    if found.events:
        add("structure", _behaviour(found, callees, signals))
    if "metrics" in signals and not trees.traces:
        alert = bundle.alert
        service, metric = (alert.service, alert.metric) if alert else (None, "")
        add("metrics", blame.of_metrics(found.changes, callees, service, metric))
    return dict(blames), dict(total), dict(callees)


def _behaviour(
    found: Findings, callees: Mapping[str, set[str]], signals: frozenset[str]
) -> dict[str, Blame]:
    """Bits of changed behaviour, the mean of those against each healthy window."""
    kinds = {
        *(("child", "again", "next") if "structure" in signals else ()),
        *(("log", "then") if "logs" in signals else ()),
        *(("failure", "silence") if "errors" in signals else ()),
    }
    services = found.trees.ops["service"].to_list()
    known = found.trees.spans.drop_nulls("callee").group_by("op").agg(pl.col("callee").unique())
    asked = {op: whom[0] for op, whom in known.iter_rows() if len(whom) == 1}
    merged: dict[str, Blame] = defaultdict(Blame)
    for all_of_them in found.events.values():
        seen = all_of_them.filter(pl.col("kind").is_in(kinds))
        of = blame.of_events(seen, services, asked, found.severe)
        left = blame.explained({name: each.bits for name, each in of.items()}, callees)
        for name, each in of.items():
            merged[name].bits += left[name] / len(found.events)
            merged[name].rows += each.rows
    for each in merged.values():
        each.rows.sort(key=lambda row: -row["bits"])
    return dict(merged)


def _lines(bundle: Bundle, trees: Trees) -> tuple[pl.DataFrame, tuple[str, ...], frozenset[int]]:
    """The log lines of spans, with numbers for templates; the templates; those of errors."""
    nothing = pl.DataFrame(schema={"row": pl.Int64, "template": pl.Int64})
    none: tuple[pl.DataFrame, tuple[str, ...], frozenset[int]] = (nothing, (), frozenset())
    if bundle.logs.is_empty() or trees.spans.is_empty():
        return none
    told = logs.templates(bundle.logs)
    of_spans = logs.of_spans(told, trees)
    if of_spans.is_empty():
        return none
    names = of_spans["template"].unique(maintain_order=True).to_list()
    numbers = {name: number for number, name in enumerate(names)}
    lines = of_spans.with_columns(pl.col("template").replace_strict(numbers, return_dtype=pl.Int64))
    worst = told.filter(pl.col("severity").str.to_uppercase().is_in(SEVERE))
    severe = {numbers[name] for name in worst["template"].unique() if name in numbers}
    return lines, tuple(names), frozenset(severe)


def calls(bundle: Bundle, trees: Trees) -> tuple[Call, ...]:
    """The call graph: of spans, and of the bundle's edges."""
    tree = trees.spans
    crossing = tree.filter(pl.col("parent") >= 0).select(
        "window",
        pl.col("service").alias("callee"),
        tree["service"].gather(tree.filter(pl.col("parent") >= 0)["parent"]).alias("caller"),
    )
    asked = tree.filter(pl.col("callee").is_not_null()).select(
        "window", "callee", pl.col("service").alias("caller"), "own_ms", "failed", "hurt"
    )
    during, before = pl.col("window") == INCIDENT, pl.col("window") != INCIDENT
    counted = (
        crossing.filter(pl.col("caller") != pl.col("callee"))
        .group_by("caller", "callee")
        .agg(before.sum().alias("n"), during.sum().alias("n_after"))
    )
    served = ~pl.col("failed") & ~pl.col("hurt")
    gaps = asked.group_by("caller", "callee").agg(
        pl.col("own_ms").filter(before & served).median().alias("gap"),
        pl.col("own_ms").filter(during & served).median().alias("gap_after"),
        (during & served).sum().alias("served_after"),
        pl.col("failed").filter(before).mean().alias("failed"),
        pl.col("failed").filter(during).mean().alias("failed_after"),
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
            # Of calls that reach nobody only the caller has spans.
            max(row["n"] or 0, row["m"] or 0) / before_s if before_s > 0 else None,
            max(row["n_after"] or 0, row["m_after"] or 0) / during_s if during_s > 0 else None,
            row["gap"],
            row["gap_after"] if (row["served_after"] or 0) >= timing.FEW else None,
            row["failed"],
            row["failed_after"],
        )
        for row in both.iter_rows(named=True)
    }
    for caller, callee in bundle.edges.iter_rows():
        found.setdefault((caller, callee), Call(caller, callee))
    return tuple(found.values())


def _leading(of: Mapping[str, Blame]) -> Row | None:
    """The row that counts most, of the signal that does."""
    rows = max(of.values(), key=lambda each: each.bits, default=Blame()).rows
    return rows[0] if rows else None


def _entrance(trees: Trees, order: list[str]) -> str | None:
    """Where requests of the incident come in: most of those that the first in order has part in."""
    during = trees.spans.filter(pl.col("window") == INCIDENT)
    roots = during.filter(pl.col("parent") < 0)
    first = order[0] if order else ""
    of_first = during.filter((pl.col("service") == first) | (pl.col("callee") == first))
    mine = roots.join(of_first.select("trace"), on="trace", how="semi")
    roots = roots if mine.is_empty() else mine
    if roots.is_empty():
        return None
    most = roots.group_by("service").len().sort(["len", "service"], descending=[True, False])
    return str(most["service"][0])
