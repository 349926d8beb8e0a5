"""An analysis as one HTML page that needs nothing else."""

import base64
import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from prove import templates
from prove.cause import advice, drawings, examples, text
from prove.cause.advice import Step
from prove.cause.asked import Source
from prove.rca import confidence
from prove.rca.bundle import Bundle
from prove.rca.model import Analysis, Cause

SHOWN = 8
"""Candidates."""
_CODE = re.compile(r"`([^`]+)`")


def html(analysis: Analysis, bundle: Bundle, source: Source | None = None) -> str:
    """The page; `source` is how its queries are asked again. All from outside is escaped."""
    shown = text.candidates(analysis)[:SHOWN]
    named: Cause | None = analysis.causes[0] if analysis.causes else None
    example = examples.find(bundle, named)
    series = examples.series(bundle, analysis.causes)
    environment = templates.environment("cause")
    environment.filters |= {
        "number": advice.quantity,
        "percent": advice.percent,
        "told": told,
        "meaning": advice.meaning,
        "dark": advice.sent_nothing,
    }
    return environment.get_template("rca.html.j2").render(
        analysis=analysis,
        bundle=bundle,
        headline=advice.headline(analysis),
        steps=advice.steps(analysis, source),
        more_steps=_others(analysis, source),
        fitted_on=confidence.FITTED.incidents,
        causes=shown,
        hidden=len(analysis.causes) - len(shown),
        window=text.span(analysis.window),
        baseline=text.span(analysis.baseline) if analysis.baseline else "",
        graph=_image(drawings.graph(analysis)) if analysis.calls else "",
        courses=_image(drawings.courses(series, analysis.window, analysis.baseline)),
        of=named.service if named else "",
        waterfall=_image(drawings.waterfall(example, named)) if example else "",
        example=example,
        numbers=source.numbers if source else lambda _each: [],
        trace=source.trace if source else None,
    )


def told(sentence: str) -> Markup:
    """A sentence with its `code`; the rest is escaped."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(sentence))))  # noqa: S704 - escaped


def _others(analysis: Analysis, source: Source | None) -> Sequence[tuple[str, list[Step]]]:
    """Where none is named, the steps of the first two candidates as well."""
    if analysis.abstained is None or analysis.abstained.reason in ("no data", "load only"):
        return ()
    return [
        (f"If it is {each.service} ({each.kind})", advice.of(each, analysis, source))
        for each in analysis.causes[:2]
        if each.evidence
    ]


def _image(svg: str) -> str:
    """As a URL that holds it: the ids in two drawings of one page would be the same."""
    if not svg:
        return ""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
