"""What an analysis says: causes with their evidence, or why none is named."""

from dataclasses import dataclass, field
from typing import Literal

from prove.rca.bundle import Alert, Window

Kind = Literal[
    "cpu",
    "latency",
    "network",
    "errors",
    "omission",
    "overload",
    "resource",
    "unknown",
]
"""cpu: the process computes or waits for a processor; latency: it takes longer inside; network: to
it and back; errors: it fails; omission: it answers early, or leaves steps out; overload: more is
asked of it; resource: memory, disk, connections; unknown: telemetry doesn't tell."""

Signal = Literal["time", "structure", "logs", "errors", "metrics", "edges"]
Reason = Literal["no fault visible", "load only", "two candidates can't be told apart", "no data"]


@dataclass(frozen=True)
class Evidence:
    """One thing that was seen, as a sentence with its numbers.

    `bits` is how much it says; `subject` the operation or metric; `baseline` and `incident` the two
    numbers that are compared, in `unit`. `trace_ids` are examples of the incident; `query` gives
    the numbers again (DuckDB's SQL, tables as in prove.cause.asked). `service` and `instance` are
    those whose telemetry it is, `asks` whom it calls there, `template` the line of its log.
    `answered` is, of calls that fail, the share of which who is called has a span; `held_ms` how
    long it was at those that it hadn't done when their caller gave up (median).
    """

    signal: Signal
    sentence: str
    subject: str
    baseline: float | None
    incident: float | None
    unit: str
    bits: float
    trace_ids: tuple[str, ...] = ()
    query: str = ""
    service: str = ""
    instance: str | None = None
    asks: str = ""
    template: str = ""
    answered: float | None = None
    held_ms: float | None = None


@dataclass(frozen=True)
class Cause:
    """A candidate. `service` may be an uninstrumented dependency, known from calls to it alone.

    score: bits of evidence that no other candidate explains; confidence: the chance, in [0, 1],
    that this is the cause; path: services from the symptom to it; seen_by: where it sends no
    telemetry itself, those whose calls to it are seen.
    """

    service: str
    instance: str | None
    kind: Kind
    score: float
    confidence: float
    evidence: tuple[Evidence, ...] = ()
    path: tuple[str, ...] = ()
    seen_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ending:
    """Whether the symptom is still there in the last part of the incident's window."""

    state: Literal["goes on", "over", "not known"]
    sentence: str


@dataclass(frozen=True)
class Abstention:
    """Why no cause is named; the candidates are told all the same."""

    reason: Reason
    sentence: str


@dataclass(frozen=True)
class Call:
    """An edge of the call graph: calls a second, the share that fails, and of those that are
    answered the median milliseconds between the two ends.
    """

    caller: str
    callee: str
    rate_before: float | None = None
    rate_after: float | None = None
    gap_before_ms: float | None = None
    gap_after_ms: float | None = None
    failed_before: float | None = None
    failed_after: float | None = None


@dataclass(frozen=True)
class Series:
    """A metric, or an operation's own time, before and in the incident: what is worth drawing."""

    service: str
    name: str
    unit: str
    times_unix_s: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Analysis:
    """Of one incident. `causes` are all candidates, the likeliest first, also when it abstains."""

    incident: str
    window: Window
    baseline: Window | None
    alert: Alert | None
    symptom: str | None
    """The service where the incident is felt: the alert's, else that of the requests hurt."""
    causes: tuple[Cause, ...]
    abstained: Abstention | None
    confidence: float
    """That the first cause is right; 0 where it abstains."""
    calls: tuple[Call, ...] = ()
    blame: dict[str, float] = field(default_factory=dict)
    """Each service's share of all blame, in [0, 1]."""
    notes: tuple[str, ...] = ()
    """What was lacking, a sentence each."""
    seconds: float = 0.0
    """That it took."""
    ending: Ending = Ending("not known", "Whether it is over can't be told.")

    @property
    def ranking(self) -> list[str]:
        """Distinct services, the likeliest first."""
        return list(dict.fromkeys(each.service for each in self.causes))
