"""An analysis as one HTML page that needs nothing else."""

import base64
import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from prove import templates
from prove.cause import advice, drawings, examples, text
from prove.rca.bundle import Bundle
from prove.rca.model import Analysis, Cause

SHOWN = 8
"""Candidates."""
_CODE = re.compile(r"`([^`]+)`")


def html(analysis: Analysis, bundle: Bundle, ask: str = "") -> str:
    """The page; `ask` is how its queries are asked again. Everything from outside is escaped."""
    shown = text.candidates(analysis)[:SHOWN]
    named: Cause | None = analysis.causes[0] if analysis.causes else None
    blamed = named.service if named and not analysis.abstained else None
    example = examples.find(bundle, named)
    series = examples.series(bundle, analysis.causes)
    environment = templates.environment("cause")
    environment.filters |= {"number": number, "percent": advice.percent, "told": told}
    return environment.get_template("rca.html.j2").render(
        analysis=analysis,
        bundle=bundle,
        headline=advice.headline(analysis),
        meaning=advice.MEANING,
        steps=advice.steps(analysis),
        more_steps=_others(analysis),
        causes=shown,
        hidden=len(analysis.causes) - len(shown),
        window=text.span(analysis.window),
        baseline=text.span(analysis.baseline) if analysis.baseline else "",
        graph=_image(drawings.graph(analysis)) if analysis.calls else "",
        courses=_image(drawings.courses(series, analysis.window, analysis.baseline)),
        of=named.service if named else "",
        waterfall=_image(drawings.waterfall(example, blamed)) if example else "",
        example=example,
        ask=ask,
    )


def number(value: float | None, unit: str = "") -> str:
    """To three digits; a share as a percentage."""
    if value is None:
        return "-"
    if unit.startswith("share"):
        return f"{value:.0%}"
    unit = f" {unit}" if unit else ""
    return unit_less(value) + unit


def unit_less(value: float) -> str:
    """To three digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def told(sentence: str) -> Markup:
    """A sentence with its `code`; the rest is escaped."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(sentence))))  # noqa: S704 - escaped


def _others(analysis: Analysis) -> Sequence[tuple[str, list[str]]]:
    """Where none is named, the steps of the first two candidates as well."""
    if analysis.abstained is None or analysis.abstained.reason in ("no data", "load only"):
        return ()
    return [
        (f"If it is {each.service} ({each.kind})", advice.of(each))
        for each in analysis.causes[:2]
        if each.evidence
    ]


def _image(svg: str) -> str:
    """As a URL that holds it: the ids in two drawings of one page would be the same."""
    if not svg:
        return ""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
