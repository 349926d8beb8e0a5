"""What a scenario's file may say: Chaos Toolkit's experiment, and what prove adds to it.

The form is open-source Chaos Toolkit's (https://chaostoolkit.org/reference/api/experiment/),
narrowed to what can be run against any installation: every activity is an HTTP request to a URL of
the configuration, and the only secret is the admin token. Our own part is the extension `prove`.
"""

import re
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from prove.incident.record import Cause, Kind, Mitigation, Result
from prove.slo.spec import WINDOW

EXTENSION = "prove"
TOKEN_VARIABLE = "PROVE_ADMIN_TOKEN"  # noqa: S105 - the name of a variable
FAULT = re.compile(r"\$\{(?P<place>[a-z]+)_url\}/faults/(?P<name>[a-z0-9][a-z0-9-]{0,62})")
"""The URL of a lease."""

Family = Literal["service", "dependency", "capacity", "change"]
Difficulty = Literal["easy", "medium", "hard"]
UrlName = Literal[
    "product_url", "order_url", "payment_url", "acquirer_url", "injector_url", "prometheus_url"
]


def _url(text: str) -> str:
    if not re.match(r"\$\{[a-z]+_url\}/", text):
        raise ValueError("must begin with a URL of the configuration: ${order_url}/faults/NAME")
    return text


def plain(value: Any) -> Any:
    """YAML's numbers as JSON has them."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return float(value) if isinstance(value, Decimal) else value


def _windowed(text: str) -> str:
    if "{{" in WINDOW.sub("", text):
        raise ValueError("may use no template but {{.window}}")
    return text.strip()


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error.msg}") from None
    return text


Text = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(ge=0, le=900)]
Share = Annotated[float, Field(ge=0, le=1)]
Url = Annotated[str, AfterValidator(_url)]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class FromEnvironment(_Form):
    """A value of an environment variable."""

    type: Literal["env"]
    key: Annotated[str, Field(pattern=r"^PROVE_[A-Z_]+$")]
    default: Text


class Token(_Form):
    """The admin token of the installation: of the environment only."""

    type: Literal["env"]
    key: Literal["PROVE_ADMIN_TOKEN"]


class ProveSecrets(_Form):
    """Secrets of the group `prove`."""

    token: Token


class Secrets(_Form):
    """What a scenario may know in secret."""

    prove: ProveSecrets


class Provider(_Form):
    """One HTTP request."""

    type: Literal["http"]
    url: Url
    method: Literal["GET", "PUT", "POST", "DELETE"] = "GET"
    headers: dict[str, str] = {}
    arguments: Annotated[dict[str, Any] | None, BeforeValidator(plain)] = Field(
        default=None, description="The query of a GET, the JSON body of others."
    )
    timeout: Annotated[float, Field(gt=0, le=60)] = 5


class Pattern(_Form):
    """The answer's body has this in it."""

    type: Literal["regex"]
    target: Literal["body"]
    pattern: Annotated[Text, AfterValidator(_pattern)]


class Probe(_Form):
    """A question to the system, and which answers are normal."""

    type: Literal["probe"]
    name: Text
    provider: Provider
    tolerance: int | Pattern = Field(description="The answer's status, or what its body matches.")


class Pauses(_Form):
    """Waits around an activity."""

    before: Seconds = 0
    after: Seconds = 0


class Step(_Form):
    """Something that is done to the system."""

    type: Literal["action"]
    name: Text
    provider: Provider
    pauses: Pauses = Pauses()


class Hypothesis(_Form):
    """What normal is; checked before anything is done."""

    title: Text
    probes: list[Probe] = Field(min_length=1)


class ExpectedPage(_Form):
    """A page that has to come.

    When, is told by theory from the share of bad events; where the share isn't known beforehand,
    because it comes about by time limits, breakers or a machine's speed, by a bound.
    """

    slo: Text = Field(description="The SLO's id: `checkout-errors`.")
    bad: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="The share of the SLI's events that are bad."
    )
    within_s: Annotated[float, Field(gt=0, le=900)] | None = Field(
        default=None, description="In the drill, since the injection; by theory where not given."
    )
    since: str | None = Field(
        default=None, description="The action that begins it; the first one where not given."
    )
    why: Text

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.bad is None and self.within_s is None:
            raise ValueError("needs `bad`, from which the time is computed, or `within_s`")
        return self


class PossiblePage(_Form):
    """A page that may come as well without being wrong."""

    slo: Text
    why: Text


class Quiet(_Form):
    """No page has to come: for how long that is watched, and why not."""

    for_s: Annotated[float, Field(ge=5, le=300)]
    why: Text


class Seen(_Form):
    """What Prometheus has to know of it: the sum of the answer to a query, within bounds.

    `{{.window}}` stands for the time from the injection to the rollback.
    """

    what: Text
    query: Annotated[Text, AfterValidator(_windowed)]
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("needs at_least, at_most or both")
        return self


class Customers(_Form):
    """What customers have to meet while it lasts, by their own ledger, as a share.

    Of their requests of one kind: those with one of `outcomes`, or slower than `slower_than_ms`.
    """

    kind: Kind
    outcomes: list[Result] = []
    slower_than_ms: Annotated[int, Field(gt=0)] | None = None
    at_least: Share = 0
    at_most: Share = 1

    @model_validator(mode="after")
    def _selects(self) -> Self:
        if bool(self.outcomes) == (self.slower_than_ms is not None):
            raise ValueError("needs either outcomes or slower_than_ms")
        if self.at_least > self.at_most:
            raise ValueError("at_least is more than at_most")
        return self


class Expect(_Form):
    """The oracle: what has to be seen."""

    pages: list[ExpectedPage] = []
    may_page: list[PossiblePage] = []
    quiet: Quiet | None = None
    seen: list[Seen] = []
    customers: list[Customers] = []
    recover_within_s: Annotated[float, Field(gt=0, le=300)] = Field(
        default=60, description="In the drill, since the last rollback, until all is well."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.pages) == (self.quiet is not None):
            raise ValueError("needs either pages, or quiet with the reason why nothing pages")
        if self.quiet and not (self.seen or self.customers):
            raise ValueError(
                "where nothing pages, `seen` or `customers` must show that the fault took place"
            )
        return self


class Load(_Form):
    """The customers: how many arrive in a second, whatever becomes of those before them."""

    reads_per_s: Annotated[float, Field(gt=0, le=200)] = 10
    checkouts_per_s: Annotated[float, Field(gt=0, le=100)] = 5


class Extension(_Form):
    """What prove adds to an experiment."""

    name: Literal["prove"]
    family: Family
    difficulty: Difficulty
    story: Text = Field(description="What has happened, as one would tell it afterwards.")
    blast_radius: Text = Field(description="Who and what is touched, and what isn't.")
    expect: Expect
    truth: Cause
    mitigations: list[Mitigation] = Field(min_length=2)
    red_herrings: list[Text] = Field(min_length=1)
    load: Load = Load()
    needs_database: Literal["postgres"] | None = Field(
        default=None, description="Where the services have to keep what they know."
    )
    needs_mesh: bool = Field(
        default=False, description="Whether it takes the mesh (`provectl up --drill --mesh`)."
    )
    hold_s: Annotated[float, Field(ge=0, le=120)] = Field(
        default=4, description="How long it goes on after the last expected page."
    )

    @model_validator(mode="after")
    def _both_kinds(self) -> Self:
        if {each.works for each in self.mitigations} != {True, False}:
            raise ValueError(
                "mitigations must have one that works and one that looks right and doesn't"
            )
        return self


class Scenario(_Form):
    """A scenario's file."""

    version: Literal["1.0.0"]
    title: Text
    description: Text = Field(description="What people notice; not why.")
    tags: list[Text] = Field(min_length=1)
    configuration: dict[UrlName, FromEnvironment]
    secrets: Secrets
    hypothesis: Hypothesis = Field(alias="steady-state-hypothesis")
    method: list[Step] = Field(min_length=1)
    rollbacks: list[Step] = Field(min_length=1)
    extensions: list[Extension] = Field(min_length=1, max_length=1)

    @property
    def prove(self) -> Extension:
        """Our part of it."""
        return self.extensions[0]


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a scenario, for editors and CI.

    It knows the form; what has to fit together is left to `lint`.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Scenario.model_json_schema(by_alias=True),
        "title": "An incident scenario (a Chaos Toolkit experiment with prove's extension)",
    }
