"""The drawings of an analysis: who calls whom by blame, before and after, two traces. All are SVG.

The same analysis gives the same drawing.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from prove import tracetree
from prove.cause.examples import Example
from prove.drawing import STYLE, svg
from prove.rca.bundle import Window
from prove.rca.evidence import number, percent
from prove.rca.model import Analysis, Call, Cause, Series
from prove.tracetree import Span

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NODES = 16
"""Services of a graph: those with most blame, and those on the way to them."""
MOST_IN_ROW = 6
"""Services beside each other: of more, names can't be read."""
MOST_ROWS = 20
"""Spans of a trace."""
WIDTH_IN, COLUMNS = 9, 2
LEAST = 3
"""Values of the minutes before, or the baseline is drawn instead."""
LABELS, LABEL = 0.42, 50
"""Of the width, and in letters: the names of spans."""
_INK, _SOFT, _RULE = "#1f2328", "#59636e", "#c4cbd3"
_CAUSE, _BEFORE, _DURING, _OTHER = "#b3261e", "#1f5fa8", "#b3261e", "#9db4cc"
_STYLE: Any = {
    **STYLE,
    "font.size": 10,
    "axes.titlesize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.edgecolor": _RULE,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "text.color": _INK,
}


def graph(analysis: Analysis) -> str:
    """Services and the calls between them, callers above; red by their share of blame."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    calls = _told(analysis)
    places = layers({(call.caller, call.callee) for call in calls}, _nodes(analysis, calls))
    rows = defaultdict(list)
    for name, (_, row) in places.items():
        rows[row].append(name)
    widest = max((len(names) for names in rows.values()), default=1)
    size = (max(6.0, min(WIDTH_IN, 2.6 * widest)), 0.6 + 1.3 * max(1, len(rows)))
    with mpl.rc_context({**_STYLE, "svg.hashsalt": analysis.incident}):
        figure = Figure(figsize=size)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(-0.5, 0.5)
        axes.set_ylim(-(len(rows) - 1) - 0.55, 0.55)
        for call in calls:
            _arrow(axes, call, places, _on_path(analysis, call))
        for name, (across, row) in places.items():
            _node(axes, analysis, name, (across, -row), (min(0.3, 0.94 / widest), size[0]))
        return svg(figure)


def layers(calls: set[tuple[str, str]], names: Sequence[str]) -> dict[str, tuple[float, int]]:
    """Where each service goes: across from -0.5 to 0.5, and its row, callers above whom they call.

    Rows by the longest way from who is called by nobody; calls that close a circle don't count.
    Within a row by the mean place of the callers.
    """
    below: dict[str, set[str]] = defaultdict(set)
    for caller, callee in sorted(calls):
        if caller != callee and not _leads(below, callee, caller):
            below[caller].add(callee)
    row = dict.fromkeys(names, 0)
    for _ in names:  # as often as the longest way may be
        moved = False
        for caller in names:
            for callee in below[caller]:
                if row[callee] <= row[caller]:
                    row[callee], moved = row[caller] + 1, True
        if not moved:
            break
    for level in range(len(names)):  # a row that is too long goes on in the next
        here = sorted(name for name in names if row[name] == level)
        if len(here) > MOST_IN_ROW:
            ends = sorted(here, key=lambda name: (bool(below[name]), name))[: -(-len(here) // 2)]
            for name in names:
                row[name] += row[name] > level or name in ends
    across: dict[str, float] = {}
    for level in sorted(set(row.values())):
        here = [name for name in names if row[name] == level]
        above = {
            name: [across[caller] for caller in names if name in below[caller] and caller in across]
            for name in here
        }
        here.sort(
            key=lambda name: (sum(above[name]) / len(above[name]) if above[name] else 0, name)
        )
        across |= {name: (at + 0.5) / len(here) - 0.5 for at, name in enumerate(here)}
    return {name: (across[name], row[name]) for name in names}


def courses(series: Sequence[Series], window: Window, baseline: Window | None) -> str:
    """Each series before (blue) and in the incident (red), with its medians; '' without any."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if not series:
        return ""
    columns = min(COLUMNS, len(series))
    rows = -(-len(series) // columns)
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "courses"}):
        figure = Figure(figsize=(WIDTH_IN, 2.4 * rows), layout="constrained")
        for axes, each in zip(
            figure.subplots(rows, columns, squeeze=False).flat,
            [*series, *[None] * columns],
            strict=False,
        ):
            if each is None:
                axes.set_axis_off()
            else:
                _course(axes, each, window, baseline)
        return svg(figure)


def _course(axes: "Axes", each: Series, window: Window, baseline: Window | None) -> None:
    """Healthy time may be hours away: it is moved up to the incident, which begins at 0."""
    points = list(zip(each.times_unix_s, each.values, strict=True))
    during = [(at - window.start_unix_s, value) for at, value in points if _in(at, window)]
    near_s = 3 * max(window.seconds, 60.0)
    local = [
        (at, value)
        for at, value in points
        if window.start_unix_s - near_s <= at < window.start_unix_s
    ]
    # It may also be later: of a week in which all was well.
    far = [(at, value) for at, value in points if baseline is not None and _in(at, baseline)]
    shown = local if len(local) >= LEAST else far
    shown = [point for point in shown if shown[-1][0] - point[0] <= near_s]
    is_near = bool(shown) and 0 <= window.start_unix_s - shown[-1][0] <= near_s
    moved = shown[-1][0] if shown and not is_near else window.start_unix_s
    # Between the healthy time and the begin nobody knows which it was.
    healthy_s = math.inf
    if is_near and baseline is not None and baseline.end_unix_s >= shown[0][0]:
        healthy_s = baseline.end_unix_s
    past, between = (
        [(at - moved, value) for at, value in shown if (at <= healthy_s) == well]
        for well in (True, False)
    )
    steps = sorted(later - at for of in (past, during) for (at, _), (later, _) in pairwise(of))
    usual_s = steps[len(steps) // 2] if steps else 0.0
    for part, color in ((past, _BEFORE), (between, _RULE), (during, _DURING)):
        if part:
            axes.plot(
                *zip(*_broken(part, usual_s), strict=True),
                color=color,
                linewidth=1.1,
                marker=".",
                markersize=2.5,
            )
        if part and part is not between:
            middle = sorted(value for _, value in part)[len(part) // 2]
            ends = (part[0][0], part[-1][0])
            axes.plot(ends, (middle, middle), color=color, linewidth=1, linestyle=":")
    axes.axvspan(0, max(1.0, window.seconds), color="#f4d9d6", zorder=0, linewidth=0)
    unit = f", {each.unit}" if each.unit else ""
    axes.set_title(_ends(f"{each.name}{unit}", 46))
    axes.set_xlabel("seconds since the incident's begin", color=_SOFT, fontsize=9)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.margins(x=0.01)
    low, high = axes.get_ylim()
    axes.set_ylim(min(0, low) if low < 0.5 * high else low, high)


def _broken(points: list[tuple[float, float]], usual_s: float) -> list[tuple[float, float]]:
    """With a hole where nothing was measured for long."""
    found = points[:1]
    for at, value in points[1:]:
        if at - found[-1][0] > 2.5 * max(1.0, usual_s):
            found.append(((at + found[-1][0]) / 2, math.nan))
        found.append((at, value))
    return found


def _in(at: float, window: Window) -> bool:
    return window.start_unix_s <= at <= window.end_unix_s


def waterfall(example: Example, cause: Cause | None) -> str:
    """The healthy request above the incident's, on one axis of time.

    Red are spans of the cause, and calls to it that its evidence tells of.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    parts = [
        (title, _rows(spans, cause))
        for title, spans in (
            (f"healthy: {_about(example.healthy)}", example.healthy),
            (f"in the incident: {_about(example.hurt)}", example.hurt),
        )
        if spans
    ]
    heights = [len(rows) + 2 for _, rows in parts]
    longest_ms = max(end for _, rows in parts for *_, end in rows) or 1.0
    with mpl.rc_context({**_STYLE, "svg.hashsalt": "waterfall"}):
        height = 0.95 + 0.22 * sum(heights)
        figure = Figure(figsize=(WIDTH_IN, height))
        grid = figure.subplots(
            len(parts),
            1,
            sharex=True,
            squeeze=False,
            height_ratios=heights,
            gridspec_kw={
                "left": LABELS,
                "right": 0.99,
                "top": 1 - 0.3 / height,
                "bottom": 0.5 / height,
                "hspace": 0.8 / height,
            },
        )
        for axes, (title, rows) in zip(grid[:, 0], parts, strict=True):
            for at, row in enumerate(rows):
                _span(axes, at, row, longest_ms)
            axes.set_yticks([])
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.set_xlim(0, longest_ms * 1.09)
            axes.text(
                -LABELS / (0.99 - LABELS) + 0.01, 1, title, transform=axes.transAxes, va="bottom"
            )
            axes.spines["left"].set_visible(False)
        grid[-1, 0].set_xlabel("milliseconds since the request's begin", color=_SOFT)
        return svg(figure)


def _span(
    axes: "Axes",
    at: int,
    row: tuple[str, bool, bool, float, float],
    longest_ms: float,
) -> None:
    """One bar, its label at the left margin, and how long it took beside it (or in it)."""
    label, mine, failed, begin, end = row
    axes.barh(
        at,
        max(end - begin, longest_ms / 400),
        left=begin,
        color=_CAUSE if mine else _OTHER,
        height=0.72,
    )
    axes.text(
        -LABELS / (0.99 - LABELS) + 0.01,
        at,
        label,
        transform=axes.get_yaxis_transform(),
        va="center",
        fontsize=9,
        color=_CAUSE if mine else _INK,
    )
    told = f"{end - begin:,.1f} ms" + ("  failed" if failed else "")
    inside = end > 0.85 * longest_ms
    wide = end - begin > 0.2 * longest_ms
    color = "white" if inside and wide and mine else _INK if inside and wide else _SOFT
    axes.annotate(
        told,
        (end if not inside or wide else begin, at),
        xytext=(-4 if inside else 4, 0),
        textcoords="offset points",
        ha="right" if inside else "left",
        va="center",
        fontsize=9,
        color=_CAUSE if failed and not (inside and wide and mine) else color,
    )


def _rows(spans: Sequence[Span], cause: Cause | None) -> list[tuple[str, bool, bool, float, float]]:
    """Label, whether it is the cause's, failed, begin, end in ms; of many those that tell most."""
    calls = {
        (each.service, each.subject)
        for each in (cause.evidence if cause else ())
        if cause and each.asks == cause.service
    }

    def mine(span: Span) -> bool:
        of_it = cause is not None and span.service == cause.service
        return of_it or (span.service, span.name) in calls

    zero = min(span.start_us for span in spans)
    found = []
    nodes = list(tracetree.walk(spans))
    told = _telling(nodes, mine)
    for node in (node for node in nodes if node.span.span_id in told):
        last = max((span.end_us for span in node.merged), default=node.span.end_us)
        times = f" ×{len(node.merged)}" if node.merged else ""  # noqa: RUF001 - as in trees
        who = f"{'  ' * min(node.depth, 8)}{node.span.service}  "
        label = who + _ends(node.span.name, max(14, LABEL - len(who)))
        found.append(
            (
                _cut(label, LABEL + 8) + times,
                mine(node.span),
                any(each.failed for each in node.merged or (node.span,)),
                (node.span.start_us - zero) / 1000,
                (last - zero) / 1000,
            )
        )
    return found


def _telling(nodes: Sequence[tracetree.Node], mine: Callable[[Span], bool]) -> set[str]:
    """Spans of the blamed service, failed ones, long ones; each with those above it."""
    above = {node.span.span_id: node.span.parent_id for node in nodes}
    order = sorted(
        nodes,
        key=lambda node: (
            not mine(node.span),
            not any(each.failed for each in node.merged or (node.span,)),
            -node.span.duration_us,
        ),
    )
    told: set[str] = set()
    for node in order:
        way: set[str] = set()
        at: str | None = node.span.span_id
        while at is not None and at in above and at not in told | way:
            way.add(at)
            at = above[at]
        if len(told | way) <= MOST_ROWS:
            told |= way
    return told


def _about(spans: Sequence[Span]) -> str:
    if not spans:
        return ""
    took = (max(span.end_us for span in spans) - min(span.start_us for span in spans)) / 1000
    failed = sum(span.failed for span in spans)
    more = f", the {MOST_ROWS} that tell most" if len(spans) > MOST_ROWS else ""
    told = f", {failed} failed" if failed else ""
    return f"trace {spans[0].trace_id[:16]}, {took:,.1f} ms, {len(spans)} spans{told}{more}"


def _nodes(analysis: Analysis, calls: Sequence[Call]) -> list[str]:
    names = {name for call in calls for name in (call.caller, call.callee)}
    names |= {name for cause in analysis.causes[:1] for name in (*cause.path, cause.service)}
    return sorted(names)


def _told(analysis: Analysis) -> list[Call]:
    """Calls between the services that are shown."""
    names = {name for call in analysis.calls for name in (call.caller, call.callee)}
    calls = [call for call in analysis.calls if call.caller != call.callee]
    if len(names) <= MOST_NODES:
        return calls
    kept = {name for cause in analysis.causes[:3] for name in (*cause.path, cause.service)}
    by_blame = sorted(names, key=lambda name: (-analysis.blame.get(name, 0.0), name))
    near = {
        name
        for call in calls
        if kept & {call.caller, call.callee}
        for name in (call.caller, call.callee)
    }
    for name in (*sorted(near), *by_blame):
        if len(kept) < MOST_NODES:
            kept.add(name)
    return [call for call in calls if {call.caller, call.callee} <= kept]


def _on_path(analysis: Analysis, call: Call) -> bool:
    if not analysis.causes:
        return False
    path = analysis.causes[0].path
    return (call.caller, call.callee) in set(pairwise(path))


def _arrow(
    axes: "Axes", call: Call, places: Mapping[str, tuple[float, int]], on_path: bool
) -> None:
    (x1, row1), (x2, row2) = places[call.caller], places[call.callee]
    down = row2 > row1
    begin, end = (x1, -row1 - 0.23), (x2, -row2 + 0.23)
    if not down:  # to its own row or back up
        begin, end = (x1, -row1 + 0.23), (x2, -row2 - 0.23 if row2 < row1 else -row2 + 0.23)
    axes.annotate(
        "",
        end,
        begin,
        arrowprops={
            "arrowstyle": "-|>",
            "color": _CAUSE if on_path else _RULE,
            "linewidth": 2.0 if on_path else 1.1,
            "connectionstyle": "arc3,rad=0" if down and row2 - row1 == 1 else "arc3,rad=0.18",
            "shrinkA": 0,
            "shrinkB": 0,
        },
        zorder=1,
    )
    if on_path or len(places) <= 8:
        at = 0.36 if on_path else 0.66  # or those of two arrows from one service lie on each other
        axes.text(
            begin[0] + at * (end[0] - begin[0]),
            begin[1] + at * (end[1] - begin[1]),
            _of_call(call),
            ha="center",
            va="center",
            fontsize=9,
            color=_CAUSE if on_path else _SOFT,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0},
            zorder=2.5 if on_path else 2,
        )


def _of_call(call: Call) -> str:
    told = []
    if call.rate_before is not None and call.rate_after is not None:
        told.append(f"{call.rate_before:.2g} → {call.rate_after:.2g} calls/s")
    if call.failed_before is not None and (call.failed_after or 0) >= 0.01:
        told.append(f"failed: {percent(call.failed_before)} → {percent(call.failed_after or 0)}")
    if call.gap_before_ms is not None and call.gap_after_ms is not None:
        told.append(f"on the way: {number(call.gap_before_ms)} → {number(call.gap_after_ms)} ms")
    return "\n".join(told)


def _node(
    axes: "Axes", analysis: Analysis, name: str, at: tuple[float, float], sizes: tuple[float, float]
) -> None:
    """`sizes`: its width, as a share of the drawing's, and that in inches."""
    from matplotlib.patches import FancyBboxPatch

    width, inches = sizes
    blame = min(1.0, max(0.0, analysis.blame.get(name, 0.0)))
    first = analysis.causes[0].service if analysis.causes and not analysis.abstained else None
    color = _mixed(blame)
    axes.add_patch(
        FancyBboxPatch(
            (at[0] - width / 2, at[1] - 0.22),
            width,
            0.44,
            boxstyle="round,pad=0,rounding_size=0.03",
            mutation_aspect=3,
            facecolor=color,
            edgecolor=_CAUSE if name == first else _RULE,
            linewidth=2.2 if name == first else 1,
            zorder=3,
        )
    )
    ink = "white" if blame > 0.55 else _INK
    size = 11 if width > 0.18 else 9.5
    room = max(8, int(72 * inches * width / (0.66 * size)))
    told = ["felt here"] if name == analysis.symptom else []
    told += ["no telemetry"] if name in _dark(analysis) else []
    told += [_named(analysis.causes[0])] if name == first else []
    axes.text(
        at[0],
        at[1] + (0.06 if told else 0),
        _in_two(name, room),
        ha="center",
        va="center",
        color=ink,
        fontsize=size,
        fontweight="bold" if name == first else "normal",
        zorder=4,
    )
    if told:
        axes.text(
            at[0],
            at[1] - 0.14,
            ", ".join(told),
            ha="center",
            va="center",
            color=ink,
            fontsize=9,
            zorder=4,
        )


def _named(cause: Cause) -> str:
    """How slow a service is inside, where that is its evidence; else that it is named."""
    first = cause.evidence[0] if cause.evidence else None
    if first is None or first.signal != "time" or first.asks or first.service != cause.service:
        return "named"
    return f"{number(first.baseline or 0)} → {number(first.incident or 0)} ms inside"


def _dark(analysis: Analysis) -> set[str]:
    return {cause.service for cause in analysis.causes if cause.seen_by}


def _mixed(share: float) -> tuple[float, float, float]:
    """From white to the red of a cause."""
    red = (0.702, 0.149, 0.118)
    strength = share**0.7
    r, g, b = (1 - strength * (1 - part) for part in red)
    return r, g, b


def _leads(below: Mapping[str, set[str]], begin: str, to: str) -> bool:
    """Whether there is a way from one to the other."""
    waiting, seen = [begin], {begin}
    while waiting:
        name = waiting.pop()
        if name == to:
            return True
        fresh = below.get(name, set()) - seen
        seen |= fresh
        waiting += fresh
    return False


def _in_two(name: str, room: int) -> str:
    """On one line, or on two; of what is longer still the middle is left out."""
    if len(name) <= room:
        return name
    if len(name) > 2 * room:
        name = f"{name[: room - 1]}…{name[-room:]}"
    at = min(room, (len(name) + 1) // 2)
    breaks = [place + 1 for place, sign in enumerate(name) if sign in "-_/:. "]
    fitting = [place for place in breaks if len(name) - room <= place <= room]
    at = min(fitting, key=lambda place: abs(place - at)) if fitting else at
    return f"{name[:at]}\n{name[at:]}"


def _ends(text: str, most: int) -> str:
    """Without its middle: both ends of a name tell."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-(most - half - 1) :]}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
