"""What an SLO file may say: Sloth's `prometheus/v1` form, and each SLO of it resolved.

A Sloth user's events and raw SLIs work unchanged. Plugins are code this program doesn't run: they
are refused by name. https://github.com/slok/sloth/blob/main/pkg/prometheus/api/v1/v1.go
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
    model_validator,
)

from prove.errors import UserError
from prove.slo.yamltext import documents

VERSION = "prometheus/v1"
WINDOW = re.compile(r"\{\{-?\s*\.window\s*-?\}\}")
"""Where Sloth's Go template puts the window into a query."""


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", text, re.ASCII):
        raise ValueError(
            "must be letters, digits, '.', '_' and '-', beginning and ending with one of the first"
            f" two (got {text!r})"
        )
    return text


def _label_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text, re.ASCII):
        raise ValueError("must be a Prometheus label name: letters, digits and '_'")
    return text


def _query(text: str) -> str:
    if not WINDOW.search(text):
        raise ValueError("must use the window: sum(rate(some_metric[{{.window}}]))")
    if "{{" in WINDOW.sub("", text):
        raise ValueError("may use no template but {{.window}}")
    return text.strip()


def _percent(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError(f"must be a number such as 99.9, without quotes (got {value!r})")
    objective = Decimal(value)
    if not (objective.is_finite() and 0 < objective < 100):
        raise ValueError(
            f"must be above 0 and below 100, which would leave no error budget (got {value})"
        )
    return objective


def _scalar_is_text(value: Any) -> Any:
    """As Sloth's reader has it: `tier: 2` and `generated: true` are texts."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | Decimal) else value


def _none_is_empty(value: Any) -> Any:
    return {} if value is None else value


Name = Annotated[str, AfterValidator(_name)]
Query = Annotated[str, AfterValidator(_query)]
Percent = Annotated[
    Decimal,
    BeforeValidator(_percent),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100}),
]
Text = Annotated[str, BeforeValidator(_scalar_is_text)]
Labels = Annotated[
    dict[Annotated[str, AfterValidator(_label_name)], Text], BeforeValidator(_none_is_empty)
]


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Events(_Form):
    """Bad events over all events."""

    error_query: Query = Field(description="Bad events, over `[{{.window}}]`.")
    total_query: Query = Field(description="All events, over `[{{.window}}]`.")

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.error_query == self.total_query:
            raise ValueError("error_query and total_query are the same")
        return self


class Raw(_Form):
    """A ratio that something else has worked out."""

    error_ratio_query: Query = Field(description="The bad share, 0 to 1, over `[{{.window}}]`.")


class Plugin(_Form):
    """Sloth's SLI plugin: Go code. Part of the form, and refused by name."""

    id: str
    options: Labels = {}


class SLI(_Form):
    """The indicator: exactly one kind of it."""

    raw: Raw | None = None
    events: Events | None = None
    plugin: Plugin | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.plugin:
            raise ValueError(
                f"the SLI plugin {self.plugin.id!r} is Go code of Sloth's, which prove doesn't run;"
                " write the query it makes as events or raw"
            )
        if (self.raw is None) == (self.events is None):
            raise ValueError("must have either events or raw")
        return self


class Alert(_Form):
    """One severity's alert."""

    disable: StrictBool = False
    labels: Labels = {}
    annotations: Labels = {}


class Alerting(_Form):
    """The two alerts of an SLO, and what they have in common."""

    name: str = Field(default="", description="Of both alerts; their runbook is named after it.")
    labels: Labels = {}
    annotations: Labels = {}
    page_alert: Annotated[Alert, BeforeValidator(_none_is_empty)] = Alert()
    ticket_alert: Annotated[Alert, BeforeValidator(_none_is_empty)] = Alert()

    @model_validator(mode="after")
    def _named(self) -> Self:
        needed = not (self.page_alert.disable and self.ticket_alert.disable)
        if needed and not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError("needs a name of letters, digits, '_', '-' and '.', unless disabled")
        return self


class ChainLink(_Form):
    """One SLO plugin of Sloth's."""

    id: str
    config: Any = None
    priority: int = 0


class Plugins(_Form):
    """Sloth's SLO plugins: Go code. Part of the form, and refused by name."""

    override_previous: StrictBool = Field(default=False, alias="overridePrevious")
    chain: list[ChainLink] = []

    @model_validator(mode="after")
    def _none(self) -> Self:
        if self.chain:
            names = ", ".join(dict.fromkeys(repr(each.id) for each in self.chain))
            raise ValueError(
                f"SLO plugins are Go code of Sloth's, which prove doesn't run; remove {names}"
            )
        return self


class SLOSpec(_Form):
    """One objective as written."""

    name: Name
    description: str = ""
    objective: Percent = Field(description="In per cent of events.")
    labels: Labels = Field(default={}, description="Of all its rules, added to the service's.")
    sli: SLI
    alerting: Alerting = Field(default_factory=Alerting)
    plugins: Annotated[Plugins, BeforeValidator(_none_is_empty)] = Plugins()


@dataclass(frozen=True)
class AlertMeta:
    """An alert's name and what its SLO gives it."""

    name: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class SLO:
    """One objective with all that its file says about it."""

    service: str
    name: str
    description: str
    objective: Decimal
    """In per cent."""
    labels: Mapping[str, str]
    sli: Events | Raw
    page: AlertMeta | None
    ticket: AlertMeta | None

    @property
    def id(self) -> str:
        """Sloth's identity of it."""
        return f"{self.service}-{self.name}"

    @property
    def budget(self) -> Fraction:
        """The share of events that may be bad, 0 to 1, exact."""
        return 1 - Fraction(self.objective) / 100


class Spec(_Form):
    """The SLOs of one service."""

    version: Literal["prometheus/v1"]
    service: Name
    labels: Labels = Field(default={}, description="Of all rules of the service.")
    slos: list[SLOSpec] = Field(min_length=1)
    slo_plugins: Annotated[Plugins, BeforeValidator(_none_is_empty)] = Plugins()

    def resolved(self) -> list[SLO]:
        """Its objectives, each by itself."""
        return [
            SLO(
                service=self.service,
                name=each.name,
                description=" ".join(each.description.split()),
                objective=each.objective,
                labels={**self.labels, **each.labels},
                sli=_given(each.sli),
                page=_meta(each.alerting, each.alerting.page_alert),
                ticket=_meta(each.alerting, each.alerting.ticket_alert),
            )
            for each in self.slos
        ]


def parse(text: str, name: str) -> list[SLO]:
    """The SLOs of a file's text, all documents of it.

    `name` is what to call the file in a complaint. Raises UserError with file, line and field of
    everything that is wrong.
    """
    found = []
    for document in documents(text, name):
        value = document.value
        if not isinstance(value, dict):
            raise document.error((), "must be a mapping that begins with `version: prometheus/v1`")
        if "apiVersion" in value:
            raise document.error(("apiVersion",), _other_form(value))
        found += document.validate(Spec).resolved()
    if not found:
        raise UserError(f"{name}: holds no SLO")
    return found


def _other_form(value: Mapping[str, Any]) -> str:
    """What is to be done with a document that is something else than `prometheus/v1`."""
    version, kind = str(value["apiVersion"]), value.get("kind")
    form = f"{kind} of {version}"
    if version == "openslo/v1":
        return f"{form} is OpenSLO's form; `provectl slo import` makes it prometheus/v1"
    if version.startswith("openslo/"):
        return (
            f"{form} is an older form of OpenSLO's; write it as openslo/v1, with"
            " indicator.spec.ratioMetric and timeWindow, and `provectl slo import` takes it"
        )
    if version.startswith("sloth.slok.dev/") and kind == "PrometheusServiceLevel":
        return (
            f"{form} is Sloth's form for Kubernetes; make a file of what is under its spec, begin"
            " it with `version: prometheus/v1`, and write error_query, page_alert and so on for"
            " errorQuery, pageAlert"
        )
    if version.startswith("sloth.slok.dev/") and kind == "AlertWindows":
        return f"{form} holds no SLO but windows; give it with --windows, beside a file of SLOs"
    return f"{form} is no form of SLOs that prove knows; Sloth's prometheus/v1 is"


def check_distinct(slos: Iterable[SLO]) -> None:
    """Raises UserError when two SLOs have one identity: their series could not be told apart."""
    seen = set()
    for slo in slos:
        if slo.id in seen:
            raise UserError(f"there are two SLOs {slo.id!r} (service-name); rename one of them")
        seen.add(slo.id)


def _given(sli: SLI) -> Events | Raw:
    given = sli.events or sli.raw
    if given is None:  # pragma: no cover - SLI's validator excludes it
        raise ValueError("an SLI without queries")
    return given


def _meta(alerting: Alerting, alert: Alert) -> AlertMeta | None:
    if alert.disable:
        return None
    return AlertMeta(
        name=alerting.name,
        labels={**alerting.labels, **alert.labels},
        annotations={**alerting.annotations, **alert.annotations},
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one document, for editors and CI.

    It knows the form; that a query uses the window and that an SLI is of one kind only is left to
    `parse`.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Spec.model_json_schema(by_alias=True),
        "title": "SLOs of a service (Sloth prometheus/v1, without plugins)",
    }
