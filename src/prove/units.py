"""What people write on a command line: durations, rates and percentages."""

import re
from dataclasses import dataclass
from fractions import Fraction

from prove.errors import UserError

_SECONDS = {"ms": Fraction(1, 1000), "s": Fraction(1), "m": Fraction(60), "h": Fraction(3600)}
_DURATION_PART = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h)", re.ASCII)
_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(?:/(s|m|h))?", re.ASCII)
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,3})?)%?", re.ASCII)
MAX_DURATION_S = 7 * 86400
MAX_RATE_PER_S = 10_000


def duration_s(text: str, option: str) -> float:
    """Seconds of `500ms`, `60s`, `1m30s`; more than nothing, a week at most.

    Raises UserError naming `option`.
    """
    parts = _DURATION_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UserError(f"{option} wants a duration such as 500ms, 60s or 1m30s (got {text!r})")
    seconds = float(sum(Fraction(number) * _SECONDS[unit] for number, unit in parts))
    if not 0 < seconds <= MAX_DURATION_S:
        raise UserError(f"{option} must be more than 0 and at most a week (got {text!r})")
    return seconds


@dataclass(frozen=True)
class Rate:
    """`count` arrivals every `period_s` seconds, both whole numbers, as k6 wants them."""

    count: int
    period_s: int

    @property
    def per_s(self) -> float:
        """Arrivals a second."""
        return self.count / self.period_s


def rate(text: str, option: str) -> Rate:
    """The rate of `50/s`, `90/m`, `0.5/s` or `50` (a second); raises UserError naming `option`."""
    found = _RATE.fullmatch(text)
    if not found:
        raise UserError(f"{option} wants a rate such as 50/s or 90/m (got {text!r})")
    per_s = Fraction(found[1]) / _SECONDS[found[2] or "s"]
    if not 0 < per_s <= MAX_RATE_PER_S:
        raise UserError(f"{option} must be more than 0 and at most {MAX_RATE_PER_S}/s")
    return Rate(count=per_s.numerator, period_s=per_s.denominator)


def share(text: str, option: str) -> float:
    """The share, 0 to 1, of `2%` or `2`; raises UserError naming `option`."""
    found = _PERCENT.fullmatch(text)
    if not found or not (value := float(found[1]) / 100) <= 1:
        raise UserError(f"{option} wants a percentage from 0% to 100% (got {text!r})")
    return value


def count(number: int, noun: str) -> str:
    """`1 span`, `1,234 spans`, `2 processes`."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def money(minor: int, currency: str) -> str:
    """`12.34 GBP` for an amount in minor units of a currency with two decimals."""
    return f"{minor // 100:,}.{minor % 100:02} {currency}"
