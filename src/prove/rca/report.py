"""The table of `rca score`: as text, as a page of evidence, and as JSON."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from prove.rca import baselines, scoring
from prove.rca.scoring import OURS, Case, Scores

Table = tuple[list[str], list[list[str]]]
CHANCE = "chance"


def methods(of: Sequence[Case]) -> Table:
    """Each data set by each method, the published figures among them."""
    heads = ["data set", "method", "n", "AC@1", "95%", "AC@3", "95%", "AC@5", "Avg@5", "MRR"]
    rows = []
    for name, mine in scoring.by(of, lambda label: label.dataset).items():
        rows.append([name, CHANCE, *_figures(scoring.chance(mine), intervals=False)])
        for method in (*baselines.METHODS, OURS):
            rows.append([name, method, *_figures(_score(mine, method))])
        for source, known in scoring.PUBLISHED.items():
            if name in known:
                first, third = known[name]
                figures = [f"{len(mine)}", f"{first:.2f}", "", f"{third:.2f}", "", "", "", ""]
                rows.append([name, source, *figures])
    return heads, rows


def faults(of: Sequence[Case]) -> Table:
    """Each kind of fault of each data set, by our method."""
    heads = ["data set", "fault", "n", "AC@1", "95%", "AC@3", "95%", "AC@5", "Avg@5", "MRR"]
    rows = []
    for name, mine in scoring.by(of, lambda label: label.dataset).items():
        for fault, some in scoring.by(mine, lambda label: label.fault).items():
            rows.append([name, fault, *_figures(_score(some, OURS))])
    return heads, rows


def ablation(of: Sequence[Case]) -> Table:
    """What is lost without each signal."""
    sets = scoring.by(of, lambda label: label.dataset)
    heads = ["without", *(f"{name} {each}" for name in sets for each in ("AC@1", "AC@3"))]
    rows = []
    for method in (OURS, *(f"without {name}" for name, _ in scoring.WITHOUT)):
        row = [method.removeprefix("without ") if method != OURS else "nothing"]
        for mine in sets.values():
            scores = _score(mine, method)
            row += [f"{scores.ac[0]:.3f}", f"{scores.ac[2]:.3f}"]
        rows.append(row)
    return heads, rows


def left_out(of: Sequence[Case]) -> Table:
    """Each data set with what was learnt on the others."""
    heads = [
        "data set left out",
        "n",
        "AC@1",
        "AC@3",
        "MRR",
        "Brier",
        "Brier of the others' rate",
        "answered",
        "right of these",
    ]
    rows = [
        [
            each.dataset,
            f"{each.scores.n}",
            f"{each.scores.ac[0]:.3f}",
            f"{each.scores.ac[2]:.3f}",
            f"{each.scores.mrr:.3f}",
            f"{each.brier:.3f}",
            f"{each.brier_of_rate:.3f}",
            f"{each.answered:.0%}",
            f"{each.right:.0%}",
        ]
        for each in scoring.leave_one_out(of)
    ]
    return heads, rows


def misses(of: Sequence[Case]) -> Table:
    """Incidents whose true cause isn't the first."""
    heads = [
        *("incident", "fault", "true cause", "place", "named first", "bits", "bits of the true"),
        "abstained",
    ]
    rows = []
    for case in of:
        place, order = case.rank(OURS), case.rankings[OURS]
        if place == 1:
            continue
        true = f"{case.bits[place - 1]:.2f}" if place else "none"
        rows.append(
            [
                case.label.id,
                case.label.fault,
                case.label.service or "",
                str(place or "absent"),
                order[0],
                f"{case.bits[0]:.2f}",
                true,
                case.abstained or "no",
            ]
        )
    return heads, rows


def aims(of: Sequence[Case]) -> Table:
    """What was aimed at, and what was reached."""
    heads = ["data set", "figure", "aim", "n", "measured", "95%", "verdict"]
    rows = []
    for name, mine in scoring.by(of, lambda label: label.dataset).items():
        faults, quiet = scoring.single(mine), scoring.quiet(mine)
        ranks = [case.rank(OURS) for case in faults]
        hits = {
            scoring.FIRST: [rank is not None and rank <= 1 for rank in ranks],
            scoring.THIRD: [rank is not None and rank <= 3 for rank in ranks],
            scoring.WITH_KIND: [case.with_kind for case in faults if case.label.kinds],
            scoring.ABSTAINS: [case.abstains_rightly for case in quiet],
        }
        for figure, aim in scoring.AIMS.get(name, {}).items():
            if hits[figure]:
                verdict = "reached" if fmean(hits[figure]) >= aim else "**missed**"
                rows.append([name, figure, f"{aim:.2f}", *_share(hits[figure]), verdict])
    return heads, rows


def kinds(of: Sequence[Case]) -> Table:
    """How often the service is right, and its kind as well."""
    heads = ["data set", "fault", "n", "service", "95%", "service and kind", "95%", "kinds told"]
    rows = []
    known = [case for case in scoring.single(of) if case.label.kinds]
    for name, mine in scoring.by(known, lambda label: label.dataset).items():
        for fault, some in {"all": mine, **scoring.by(mine, lambda label: label.fault)}.items():
            right = _share([case.rank(OURS) == 1 for case in some])
            both = _share([case.with_kind for case in some])
            told = "" if fault == "all" else _counted(case.kind for case in some)
            rows.append([name, fault, *right, *both[1:], told])
    return heads, rows


def quiet(of: Sequence[Case]) -> Table:
    """What is said where nothing is broken."""
    heads = ["data set", "truth", "n", "abstains", "95%", "rightly", "95%", "verdicts"]
    rows = []
    for name, mine in scoring.by(scoring.quiet(of), lambda label: label.dataset).items():
        for truth, some in {"all": mine, **scoring.by(mine, lambda label: label.fault)}.items():
            abstains = _share([case.abstained is not None for case in some])
            rightly = _share([case.abstains_rightly for case in some])
            told = _counted(case.abstained or "a cause is named" for case in some)
            rows.append([name, truth, *abstains, *rightly[1:], told])
    return heads, rows


def cost(of: Sequence[Case]) -> Table:
    """Of faults, what abstaining keeps back."""
    heads = ["data set", "n", "answered", "95%", "right of these", "abstained", "right of those"]
    rows = []
    for name, mine in scoring.by(scoring.single(of), lambda label: label.dataset).items():
        answered = [case for case in mine if case.abstained is None]
        silent = [case for case in mine if case.abstained is not None]
        why = _counted(case.abstained or "" for case in silent)
        right = [
            f"{sum(case.rank(OURS) == 1 for case in some)} of {len(some)}"
            for some in (answered, silent)
        ]
        share = _share([case.abstained is None for case in mine])
        rows.append([name, *share, right[0], why or "none", right[1]])
    return heads, rows


def doubles(of: Sequence[Case]) -> Table:
    """Of two faults at once, how much is found."""
    heads = [
        *("data set", "n", "first is one", "95%", "both of first 2", "95%"),
        *("both of first 3", "95%", "two candidates told", "abstained otherwise"),
    ]
    rows = []
    for name, mine in scoring.by(scoring.double(of), lambda label: label.dataset).items():
        one = [case.rankings[OURS][0] in {case.label.service, *case.label.others} for case in mine]
        both = [_share([case.both_within(k) for case in mine])[1:] for k in (2, 3)]
        told = [case.abstained for case in mine]
        two = sum(each == "two candidates can't be told apart" for each in told)
        rest = sum(each is not None for each in told) - two
        rows.append([name, *_share(one), *both[0], *both[1], f"{two}", f"{rest}"])
    return heads, rows


def surprises(of: Sequence[Case]) -> Table:
    """Causes named where nothing is broken, and pairs of faults that aren't both of the first 3."""
    heads = ["incident", "truth", "named first", "kind", "bits", "second", "bits", "abstained"]
    wrong = [case for case in scoring.quiet(of) if not case.abstains_rightly]
    wrong += [case for case in scoring.double(of) if not case.both_within(3)]
    rows = []
    for case in wrong:
        label, order = case.label, [*case.rankings[OURS], "", ""]
        bits = [f"{each:.2f}" for each in (*case.bits, 0.0, 0.0)]
        truth = " and ".join([label.service, *label.others]) if label.service else label.fault
        said = case.abstained or "no"
        rows.append([label.id, truth, order[0], case.kind, bits[0], order[1], bits[1], said])
    return heads, rows


def _share(hits: Sequence[bool]) -> list[str]:
    """Of how many, the share, and its interval."""
    share = sum(hits) / len(hits)
    interval = "{:.2f} to {:.2f}".format(*scoring.wilson(share, len(hits)))
    return [f"{len(hits)}", f"{share:.3f}", interval]


def _counted(names: Iterable[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(Counter(names).items()))


def stability(
    of: Sequence[Case], places: Mapping[tuple[str, float], Sequence[int | None]]
) -> Table:
    """AC@1 and AC@3 with incidents drawn again, and with each constant changed."""
    sets = scoring.by(of, lambda label: label.dataset)
    heads = ["what", *(f"{name} {each}" for name in sets for each in ("AC@1", "AC@3"))]
    drawn = ["incidents drawn again (95%)"]
    for mine in sets.values():
        for k in (1, 3):
            low, high = scoring.resampled(mine, k)
            drawn.append(f"{low:.2f} to {high:.2f}")
    rows = [drawn]
    for (name, factor), ranks in places.items():
        row = [f"{name}, times {factor:g}"]
        found = dict(zip((case.label.id for case in of), ranks, strict=True))
        for mine in sets.values():
            scores = scoring.score(found[case.label.id] for case in mine)
            row += [f"{scores.ac[0]:.3f}", f"{scores.ac[2]:.3f}"]
        rows.append(row)
    return heads, rows


def page(tables: Mapping[str, tuple[str, Table]], head: str) -> str:
    """Markdown: a section of each, with a sentence above its table."""
    parts = [head.rstrip() + "\n"]
    for title, (told, (heads, rows)) in tables.items():
        if not rows:
            continue
        lines = [f"## {title}", "", told, "", "| " + " | ".join(heads) + " |"]
        lines.append("| " + " | ".join(":--" for _ in heads) + " |")
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def document(of: Sequence[Case]) -> dict[str, Any]:
    """For machines: by data set and method, of incidents with one fault; and the aims."""
    found: dict[str, Any] = {
        name: {method: _plain(_score(mine, method)) for method in (OURS, *baselines.METHODS)}
        | {CHANCE: _plain(scoring.chance(mine))}
        for name, mine in scoring.by(scoring.single(of), lambda label: label.dataset).items()
    }
    heads, rows = aims(of)
    for name in found:
        found[name]["aims"] = [dict(zip(heads, row, strict=True)) for row in rows if row[0] == name]
    return found


def _plain(scores: Scores) -> dict[str, Any]:
    return {
        "n": scores.n,
        "ac": {str(k): share for k, share in enumerate(scores.ac, 1)},
        "avg@5": scores.avg,
        "mrr": scores.mrr,
        "interval": {str(k): scores.interval(k) for k in (1, 3)},
    }


def _score(of: Sequence[Case], method: str) -> Scores:
    return scoring.score(case.rank(method) for case in of)


def _figures(scores: Scores, *, intervals: bool = True) -> list[str]:
    first, third = (
        "{:.2f} to {:.2f}".format(*scores.interval(k)) if intervals else "" for k in (1, 3)
    )
    return [
        f"{scores.n}",
        f"{scores.ac[0]:.3f}",
        first,
        f"{scores.ac[2]:.3f}",
        third,
        f"{scores.ac[4]:.3f}",
        f"{scores.avg:.3f}",
        f"{scores.mrr:.3f}",
    ]
