"""The table of `rca score`: as text, as a page of evidence, and as JSON."""

from collections.abc import Mapping, Sequence
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
    heads = ["incident", "fault", "true cause", "place", "named first", "bits", "bits of the true"]
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
                case.label.service,
                str(place or "absent"),
                order[0],
                f"{case.bits[0]:.2f}",
                true,
            ]
        )
    return heads, rows


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
        lines = [f"## {title}", "", told, "", "| " + " | ".join(heads) + " |"]
        lines.append("| " + " | ".join(":--" for _ in heads) + " |")
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def document(of: Sequence[Case]) -> dict[str, Any]:
    """For machines: by data set and method."""
    return {
        name: {method: _plain(_score(mine, method)) for method in (OURS, *baselines.METHODS)}
        | {CHANCE: _plain(scoring.chance(mine))}
        for name, mine in scoring.by(of, lambda label: label.dataset).items()
    }


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
