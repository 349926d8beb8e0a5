"""The windows alerts look through: Sloth's AlertWindows, by default the SRE workbook's.

https://sre.google/workbook/alerting-on-slos/ (recommendation 6: multiwindow, multi-burn-rate);
https://github.com/slok/sloth/blob/main/pkg/prometheus/alertwindows/v1/v1.go
"""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from prove.errors import UserError
from prove.slo import durations
from prove.slo.durations import Seconds
from prove.slo.yamltext import documents

Severity = Literal["page", "ticket"]

MAX_INTERVAL_S = 30
EVALUATIONS_PER_SHORT_WINDOW = 5
"""A short window seen by fewer evaluations resolves, and fires, by their accident."""


@dataclass(frozen=True)
class Pair:
    """An alert condition: the burn rate is over `factor` in the long and in the short window."""

    severity: Severity
    factor: Fraction
    long_s: int
    short_s: int


def _percent(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError(f"must be a number, without quotes (got {value!r})")
    percent = Decimal(value)
    if not (percent.is_finite() and 0 < percent <= 100):
        raise ValueError(f"must be above 0 and at most 100 (got {value})")
    return percent


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Window(_Form):
    """`errorBudgetPercent` of the period's budget, burned within the long window, alerts."""

    error_budget_percent: Annotated[Decimal, BeforeValidator(_percent)] = Field(
        alias="errorBudgetPercent"
    )
    short_s: Seconds = Field(alias="shortWindow")
    long_s: Seconds = Field(alias="longWindow")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.short_s >= self.long_s:
            raise ValueError("shortWindow must be shorter than longWindow")
        return self


class QuickSlow(_Form):
    """The two conditions of a severity."""

    quick: Window
    slow: Window


class _Spec(_Form):
    period_s: Seconds = Field(alias="sloPeriod")
    page: QuickSlow
    ticket: QuickSlow

    @model_validator(mode="after")
    def _within_period(self) -> Self:
        windows = (self.page.quick, self.page.slow, self.ticket.quick, self.ticket.slow)
        if max(window.long_s for window in windows) >= self.period_s:
            raise ValueError("every longWindow must be shorter than sloPeriod")
        return self


class AlertWindows(_Form):
    """A file of windows."""

    api_version: Literal["sloth.slok.dev/v1"] = Field(alias="apiVersion")
    kind: Literal["AlertWindows"]
    spec: _Spec

    @property
    def period_s(self) -> int:
        """What the objective is promised over."""
        return self.spec.period_s

    def pairs(self, severity: Severity) -> tuple[Pair, Pair]:
        """The quick and the slow condition of a severity.

        The factor is the burn rate that uses up that share of the budget in the long window: 2% of
        30 days' budget in an hour is 14.4 times as fast as the objective allows.
        """
        both = self.spec.page if severity == "page" else self.spec.ticket
        quick, slow = (
            Pair(
                severity,
                Fraction(window.error_budget_percent) / 100 * self.period_s / window.long_s,
                window.long_s,
                window.short_s,
            )
            for window in (both.quick, both.slow)
        )
        return quick, slow

    @property
    def all_pairs(self) -> tuple[Pair, ...]:
        """Page, then ticket; of each the quick one first."""
        return (*self.pairs("page"), *self.pairs("ticket"))

    @property
    def lengths_s(self) -> list[int]:
        """Every window once, the shortest first."""
        return sorted({each for pair in self.all_pairs for each in (pair.short_s, pair.long_s)})

    @property
    def interval_s(self) -> int:
        """How often rules are to be evaluated, in whole seconds."""
        return max(1, min(MAX_INTERVAL_S, self.lengths_s[0] // EVALUATIONS_PER_SHORT_WINDOW))


WORKBOOK = AlertWindows.model_validate(
    {
        "apiVersion": "sloth.slok.dev/v1",
        "kind": "AlertWindows",
        "spec": {
            "sloPeriod": "30d",
            "page": {
                "quick": {"errorBudgetPercent": 2, "shortWindow": "5m", "longWindow": "1h"},
                "slow": {"errorBudgetPercent": 5, "shortWindow": "30m", "longWindow": "6h"},
            },
            "ticket": {
                "quick": {"errorBudgetPercent": 10, "shortWindow": "2h", "longWindow": "1d"},
                "slow": {"errorBudgetPercent": 10, "shortWindow": "6h", "longWindow": "3d"},
            },
        },
    }
)
"""14.4 over 1h/5m and 6 over 6h/30m page; 3 over 1d/2h and 1 over 3d/6h make a ticket."""


def parse(text: str, name: str) -> AlertWindows:
    """The windows of a file's text; raises UserError with file, line and field."""
    found = documents(text, name)
    if len(found) != 1:
        raise UserError(f"{name}: must hold one AlertWindows document (found {len(found)})")
    return found[0].validate(AlertWindows)


def describe(pair: Pair) -> str:
    """`14.4x over 1h and 5m`."""
    factor = f"{float(pair.factor):.4g}"
    return f"{factor}x over {durations.text(pair.long_s)} and {durations.text(pair.short_s)}"
