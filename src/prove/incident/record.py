"""What a run of an incident leaves on the disk: one directory, which says all that is known of it.

`incident.json` is written once at the end (and, with the verdict `running`, at the begin, so that
a run that was killed is known for what it is). Lines are appended as things happen. `truth.json`
lies apart from all of it: whoever studies an incident need not see the answer.

All times are UTC; `_us` counts microseconds and `_s` seconds since 1970.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prove.errors import UserError
from prove.stack.hints import command

FORMAT: Literal["prove-incident/1"] = "prove-incident/1"
DIRECTORY = "incidents"
"""Below the home of a stack."""

INCIDENT = "incident.json"
LEDGER = "ledger.jsonl"
PAGES = "pages.jsonl"
ALERTS = "alerts.jsonl"
TRUTH = "truth.json"
BUNDLE = "bundle"

Severity = Literal["page", "ticket"]
Phase = Literal["inject", "rollback"]
Verdict = Literal["holds", "does not hold", "aborted", "interrupted", "not possible", "running"]
"""`aborted`: its guard was crossed, or it could not be begun or carried out. `not possible`: this
installation can't have such a fault."""
UNFINISHED: tuple[Verdict, ...] = ("aborted", "interrupted", "not possible")
Kind = Literal["read", "checkout"]
Result = Literal["ok", "unsettled", "refused", "failed", "no-answer"]
"""What an answer is to a customer.

`ok` 2xx; `unsettled` 202: taken, and paid for later; `refused` 4xx, which is the customer's own
affair (declined, sold out …); `failed` 5xx; `no-answer`: none in time, or the connection broke.
"""


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Window(_Form):
    """A stretch of time."""

    start_unix_s: float
    end_unix_s: float


class Windows(_Form):
    """`baseline`: load and nothing else; `incident`: from the injection until all is over."""

    baseline: Window
    incident: Window


class Action(_Form):
    """Something that was done to the system, and what it answered.

    `name` is the activity's in the scenario. `status` is that of HTTP, None when nothing answered.
    """

    at_unix_us: int
    phase: Phase
    name: str
    method: str
    url: str
    status: int | None
    ok: bool
    detail: str = ""


class Expectation(_Form):
    """Something the scenario claims, and what was found."""

    what: str
    expected: str
    found: str
    holds: bool


class Detection(_Form):
    """One alert that the scenario expects, in figures.

    Seconds since the injection. `theory_s`: when the page is due with a past without errors;
    None where the scenario states a bound instead of a share of bad events. `earliest_s`: with what
    the windows still held when the fault began, and as many events as there were; of a bound, for
    an SLI that is all bad. None where nobody knows. `not_before_s`: that, less what is tolerated.
    `paged_s` None: it did not come.
    """

    slo: str
    alert: str
    severity: Severity
    bad: float | None
    theory_s: float | None
    earliest_s: float | None
    within_s: float
    not_before_s: float | None = None
    paged_s: float | None

    @property
    def predicted_s(self) -> float:
        """By theory; where what the windows held makes more than a second of it, with that."""
        theory_s = self.theory_s or 0.0
        earliest_s = theory_s if self.earliest_s is None else self.earliest_s
        return earliest_s if theory_s - earliest_s > 1 else theory_s

    @property
    def predicted(self) -> str:
        """The same in words, where there is a theory."""
        theory_s = self.theory_s or 0.0
        if self.predicted_s == theory_s:
            return f"{theory_s:.1f} s"
        return f"{self.predicted_s:.0f} s, as errors were there before; else {theory_s:.1f} s"


class Recovery(_Form):
    """When an SLO's alert was over, in seconds since the last rollback; None: not seen."""

    slo: str
    recovered_s: float | None


class Load(_Form):
    """What was sent. `late`: over 0.1 s after it was due."""

    reads_per_s: float
    checkouts_per_s: float
    sent: int = 0
    late: int = 0


class Figures(_Form):
    """In short. Seconds; None: there is nothing of the kind.

    `time_to_detect_s` from the injection to the first expected page, `theory_s` when that was due.
    `recovery_s` from the last rollback until every SLI was good again and no page was left.
    """

    time_to_detect_s: float | None = None
    theory_s: float | None = None
    recovery_s: float | None = None
    wrong_pages: int = 0
    integrity_differences: int = 0
    budget_spent: float = 0
    """The greatest share of an SLO's error budget that went in the incident's window."""


class Analysed(_Form):
    """What `prove.rca` made of the bundle, and whether that is what was done. It judges nothing.

    `right`: the first candidate's service is the one that was broken, or it rightly abstains;
    `right_kind`: its kind, too. None: there is no telling, as where two things were broken.
    """

    service: str | None = None
    """None where it abstains."""
    kind: str = ""
    confidence: float = 0
    abstained: str = ""
    """Why it names nobody; '' where it does."""
    ranking: list[str] = []
    right: bool | None = None
    right_kind: bool | None = None


class Incident(_Form):
    """`incident.json`."""

    format: Literal["prove-incident/1"] = FORMAT
    id: str
    """Also the name of its directory: `20261129T201500-payment-slow`."""
    scenario: str
    """The scenario's name; two that were run at once are joined by `+`."""
    title: str
    description: str = ""
    seed: int
    profile: Literal["standard", "drill"]
    commit: str
    home: str = ""
    """The home of the stack; empty when it was one by URL."""
    urls: dict[str, str]
    """Base URLs by the names of `prove.stack.settings` ports: `product`, `prometheus` …"""
    started_unix_us: int
    ended_unix_us: int
    injected_unix_us: int | None = None
    """When the first action of the method was answered."""
    rolled_back_unix_us: int | None = None
    """When the last rollback was answered."""
    windows: Windows | None = None
    """None when the run ended before its injection."""
    load: Load
    actions: list[Action] = []
    detections: list[Detection] = []
    recoveries: list[Recovery] = []
    expectations: list[Expectation] = []
    verdict: Verdict
    why: str = ""
    """A sentence, where the verdict is neither `holds` nor `does not hold`."""
    figures: Figures = Figures()
    analysed: Analysed | None = None
    """None: there was nothing to analyse."""


class Entry(_Form):
    """A line of `ledger.jsonl`: one request of a client, written when it was over.

    `outcome` is by its status alone; slow is told by `latency_ms`. `key`, `order_id` and
    `amount_minor` belong to checkouts. `attempt` counts from 1: the attempts of a purchase share
    their key, and `final` is the one after which the customer asked no more. `asked_minor` is what
    the customer expected to pay, `amount_minor` what the answer said.
    """

    at_unix_us: int
    done_unix_us: int
    kind: Kind
    method: str
    route: str
    status: int
    outcome: Result
    latency_ms: float
    trace_id: str
    key: str = ""
    order_id: str = ""
    asked_minor: int | None = None
    amount_minor: int | None = None
    attempt: int = 1
    final: bool = True
    detail: str = ""


class Page(_Form):
    """A line of `pages.jsonl`: an alert as the pager was told of it; `resolved` once it is over."""

    received_at_unix_us: int
    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: str
    fingerprint: str

    @property
    def alert(self) -> str:
        """The alert's name."""
        return self.labels.get("alertname", "")

    @property
    def slo(self) -> str:
        """The SLO's id; '' for what is no SLO's alert."""
        return self.labels.get("sloth_id", "")

    @property
    def severity(self) -> str:
        """`page` or `ticket`."""
        return self.labels.get("sloth_severity") or self.labels.get("severity", "")


class AlertChange(_Form):
    """A line of `alerts.jsonl`: an alert changed its state, as Prometheus has it."""

    at_unix_us: int
    alertname: str
    severity: str
    slo: str
    state: Literal["pending", "firing", "resolved"]


class Cause(_Form):
    """The true root cause: of which kind, where."""

    service: str
    kind: str
    component: str
    callee: str = Field(
        default="", description="For a cause on the way between two services: who is called."
    )


class Mitigation(_Form):
    """Something one could do, and whether it helps."""

    what: str
    works: bool
    why: str


class Truth(_Form):
    """One scenario's answer."""

    scenario: str
    cause: Cause
    story: str
    mitigations: list[Mitigation]
    red_herrings: list[str]


class Truths(_Form):
    """`truth.json`."""

    format: Literal["prove-truth/1"] = "prove-truth/1"
    id: str
    scenarios: list[Truth] = Field(min_length=1)


T = TypeVar("T", bound=BaseModel)


def write(path: Path, document: BaseModel) -> None:
    """Replace a file in one step; raises UserError."""
    written = path.with_name(f"{path.name}.part")
    try:
        written.write_text(document.model_dump_json(indent=1) + "\n", encoding="utf-8")
        written.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def write_lines(path: Path, lines: Iterable[BaseModel]) -> None:
    """Write a `.jsonl` anew; raises UserError."""
    try:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(line.model_dump_json() + "\n" for line in lines)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def read(directory: Path) -> Incident:
    """The record in `directory`; raises UserError for one that is missing or of another form."""
    return read_document(directory / INCIDENT, Incident)


def read_document(path: Path, form: type[T]) -> T:
    """One JSON document; raises UserError naming file and field."""
    try:
        return form.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise UserError(f"{path}: {_first(error)}") from None


def lines(path: Path, form: type[T]) -> Iterator[T]:
    """The lines of a `.jsonl`, none when there is no such file.

    A last line without an end was being written when the run was killed; it is left out. Raises
    UserError naming file, line and field.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith("\n"):
                    return
                try:
                    yield form.model_validate_json(line)
                except ValidationError as error:
                    raise UserError(f"{path}, line {number}: {_first(error)}") from None
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def find(home: Path, name: str) -> Path:
    """The directory of an incident: by its path, its id, or the latest run of a scenario.

    One that was cut short is only found by its scenario where no other is. Raises UserError naming
    those there are.
    """
    path = Path(name).expanduser()
    if (path / INCIDENT).is_file():
        return path.resolve()
    kept = known(home)
    runs = [each for each in reversed(kept) if name in (each.name, each.name.partition("-")[2])]
    if runs:
        return next((each for each in runs if not _cut_short(each)), runs[0])
    if not kept:
        raise UserError(
            f"there is no incident {name!r}, and none in {home / DIRECTORY}; "
            f"{command('incident run NAME')} makes one"
        )
    latest = ", ".join(directory.name for directory in kept[-3:])
    raise UserError(f"there is no incident {name!r}; the latest are {latest}")


def _cut_short(directory: Path) -> bool:
    try:
        return read(directory).verdict in UNFINISHED
    except UserError:
        return False  # whoever asked for it is told what is wrong


def known(home: Path) -> list[Path]:
    """Directories of the incidents kept in `home`, the oldest first."""
    return sorted(
        file.parent
        for file in (home / DIRECTORY).glob(f"*/{INCIDENT}")
        if re.match(r"\d{8}T\d{6}-", file.parent.name)
    )


def _first(error: ValidationError) -> str:
    first: dict[str, Any] = dict(error.errors()[0])
    where = ".".join(str(each) for each in first["loc"])
    got = json.dumps(first["input"], default=str)[:80]
    return f"{where or 'document'}: {first['msg']} (got {got})"
