"""Durations as Prometheus writes them: `5m`, `1h12m`, `30d`."""

import re
from fractions import Fraction
from itertools import pairwise
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

_PATTERN = r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?"
_UNITS_S = (31_536_000, 604_800, 86_400, 3_600, 60, 1)
_SHOWN = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
MAX_S = 10 * 31_536_000


def seconds(text: object) -> int:
    """Whole seconds of a Prometheus duration; raises ValueError."""
    found = re.fullmatch(_PATTERN, text, re.ASCII) if isinstance(text, str) and text else None
    if not found:
        raise ValueError(f"must be a duration such as 5m, 1h30m or 30d (got {text!r})")
    total = sum(
        int(count) * unit for count, unit in zip(found.groups(), _UNITS_S, strict=True) if count
    )
    if not 0 < total <= MAX_S:
        raise ValueError(f"must be longer than 0 and at most ten years (got {text})")
    return total


def text(of_s: int) -> str:
    """The duration as Prometheus itself prints it, so that metric names agree with Sloth's.

    Years and weeks only where nothing is left over (github.com/prometheus/common, Duration.String).
    """
    parts = []
    for unit, unit_s in zip("ywdhms", _UNITS_S, strict=True):
        if unit in "yw" and of_s % unit_s:
            continue
        count, of_s = divmod(of_s, unit_s)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


Seconds = Annotated[
    int,
    BeforeValidator(seconds),
    WithJsonSchema({"type": "string", "pattern": "^([0-9]+[ywdhms])+$"}),
]
"""A field that is written as a duration and read as whole seconds."""


def rounded(of_s: Fraction) -> str:
    """For people: its two largest units, `8m38s`, `3h36m`; tenths below a minute, `8.6s`."""
    if of_s < 60:
        return f"{float(of_s):.1f}s"
    whole_s = round(of_s)
    for (unit, unit_s), (below, below_s) in pairwise(_SHOWN):
        if whole_s >= unit_s:
            count = round(Fraction(whole_s, below_s))
            more, rest = divmod(count, unit_s // below_s)
            return f"{more}{unit}" + (f"{rest}{below}" if rest else "")
    return f"{whole_s}s"
