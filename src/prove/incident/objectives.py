"""What was promised when an incident happened: kept with it, since rules and profiles change."""

from fractions import Fraction
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from prove.incident import record
from prove.slo import durations, spec, windows
from prove.slo.spec import SLO, Events
from prove.slo.windows import AlertWindows, Pair, Severity
from prove.stack import configs
from prove.tools import repository_root

OBJECTIVES = "objectives.json"
"""Of an incident's directory."""


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Condition(_Form):
    """What sets off an alert: the burn rate is over `factor` in both windows."""

    severity: Severity
    factor: float
    long_s: int
    short_s: int


class Objective(_Form):
    """One SLO, and where its bad share is recorded."""

    id: str
    service: str
    name: str
    description: str
    percent: float
    budget: float
    """The share that may be bad, 0 to 1."""
    counts_events: bool
    """Else it is a share of time."""
    page: str
    """The name of its page; empty: it has none."""
    recorded: str
    """The query of its bad share over the shortest window."""


class Objectives(_Form):
    """`objectives.json`."""

    format: Literal["prove-objectives/1"] = "prove-objectives/1"
    profile: Literal["standard", "drill"]
    period_s: int
    shortest_s: int
    """The window of what is `recorded`."""
    interval_s: int
    """How often the rules are evaluated."""
    conditions: list[Condition]
    slos: list[Objective]

    def find(self, slo: str) -> Objective | None:
        """By its id."""
        return next((each for each in self.slos if each.id == slo), None)

    def pairs(self, severity: Severity) -> list[Pair]:
        """The conditions of a severity, as `prove.slo.burn` takes them."""
        return [
            Pair(each.severity, Fraction(str(each.factor)), each.long_s, each.short_s)
            for each in self.conditions
            if each.severity == severity
        ]


def of_profile(profile: Literal["standard", "drill"]) -> Objectives:
    """Those of the repository with the windows of the profile; raises UserError outside of it."""
    source = repository_root() / "observability"
    looked_at = _windows(profile, source)
    return Objectives(
        profile=profile,
        period_s=looked_at.period_s,
        shortest_s=looked_at.lengths_s[0],
        interval_s=looked_at.interval_s,
        conditions=[
            Condition(
                severity=pair.severity,
                factor=float(pair.factor),
                long_s=pair.long_s,
                short_s=pair.short_s,
            )
            for pair in looked_at.all_pairs
        ],
        slos=[
            _objective(slo, looked_at)
            for path in sorted((source / "slos").glob("*.yaml"))
            for slo in spec.parse(path.read_text(encoding="utf-8"), str(path))
        ],
    )


def read(directory: Path) -> Objectives | None:
    """Those kept with an incident; None: none were. Raises UserError for a file of another form."""
    path = directory / OBJECTIVES
    return record.read_document(path, Objectives) if path.exists() else None


def _windows(profile: str, source: Path) -> AlertWindows:
    if profile == "standard":
        return windows.WORKBOOK
    file = source / configs.DRILL_WINDOWS
    return windows.parse(file.read_text(encoding="utf-8"), str(file))


def _objective(slo: SLO, looked_at: AlertWindows) -> Objective:
    shortest = durations.text(looked_at.lengths_s[0])
    return Objective(
        id=slo.id,
        service=slo.service,
        name=slo.name,
        description=slo.description,
        percent=float(slo.objective),
        budget=float(slo.budget),
        counts_events=isinstance(slo.sli, Events),
        page=slo.page.name if slo.page else "",
        recorded=f'slo:sli_error:ratio_rate{shortest}{{sloth_id="{slo.id}"}}',
    )
