"""Alertmanager over HTTP (API v2): what fires, and silences."""

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import httpx
from pydantic import AliasPath, BaseModel, ConfigDict, Field, TypeAdapter

from prove.clients.server import Server
from prove.errors import UserError

_MATCHER = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(=~|!~|!=|=)(.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True)


class Matcher(_Form):
    """A condition on one label of an alert."""

    name: str
    value: str
    is_regex: bool = Field(default=False, alias="isRegex")
    is_equal: bool = Field(default=True, alias="isEqual")

    @classmethod
    def parse(cls, text: str) -> "Matcher":
        """Of `name=value`, `!=`, `=~`, `!~`; a name alone is an alert's. Raises UserError."""
        if found := _MATCHER.fullmatch(text):
            name, operator, value = found.groups()
            if len(value) > 1 and value[0] == value[-1] == '"':
                value = value[1:-1]
            regex, equal = "~" in operator, "!" not in operator
            return cls(name=name, value=value, isRegex=regex, isEqual=equal)
        if _NAME.fullmatch(text):
            return cls(name="alertname", value=text)
        raise UserError(
            f"a matcher is label=value, label!=value, label=~regex, label!~regex, or the name of "
            f"an alert (got {text!r})"
        )

    def __str__(self) -> str:
        operator = {
            (False, True): "=",
            (False, False): "!=",
            (True, True): "=~",
            (True, False): "!~",
        }
        quoted = json.dumps(self.value, ensure_ascii=False)
        return f"{self.name}{operator[self.is_regex, self.is_equal]}{quoted}"


class Silence(_Form):
    """What is not told from one moment to another; times are in UTC."""

    id: str
    state: Literal["active", "pending", "expired"] = Field(
        validation_alias=AliasPath("status", "state")
    )
    matchers: tuple[Matcher, ...]
    starts_at: datetime = Field(alias="startsAt")
    ends_at: datetime = Field(alias="endsAt")
    created_by: str = Field(alias="createdBy")
    comment: str


class Alert(_Form):
    """One that fires. It is told to its receivers unless a silence or another alert mutes it."""

    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: datetime = Field(alias="startsAt")
    silenced_by: tuple[str, ...] = Field(validation_alias=AliasPath("status", "silencedBy"))
    inhibited_by: tuple[str, ...] = Field(validation_alias=AliasPath("status", "inhibitedBy"))

    @property
    def name(self) -> str:
        """As its runbook is called."""
        return self.labels.get("alertname", "")

    @property
    def severity(self) -> str:
        """`page` or `ticket`; SLOs and causes have it in labels of their own."""
        return self.labels.get("sloth_severity") or self.labels.get("severity", "")

    @property
    def state(self) -> Literal["firing", "silenced", "inhibited"]:
        """Whether, and if not why not, its receivers are told."""
        if self.silenced_by:
            return "silenced"
        return "inhibited" if self.inhibited_by else "firing"


_ALERTS = TypeAdapter(list[Alert])
_SILENCES = TypeAdapter(list[Silence])


class Alertmanager:
    """The Alertmanager at `url`; every method raises UserError when it doesn't answer."""

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        self._server = Server("Alertmanager", url, transport=transport)

    def alerts(self, matchers: Sequence[Matcher] = ()) -> list[Alert]:
        """What fires and matches all `matchers`: pages first, each severity by its age."""
        params = [("filter", str(matcher)) for matcher in matchers]
        found = self._server.read(_ALERTS.validate_python, "GET", "/api/v2/alerts", params=params)
        return sorted(found, key=lambda alert: (alert.severity, alert.starts_at, alert.name))

    def silences(self) -> list[Silence]:
        """All that Alertmanager still knows, those that end soonest first."""
        found = self._server.read(_SILENCES.validate_python, "GET", "/api/v2/silences")
        return sorted(found, key=lambda silence: silence.ends_at)

    def silence(
        self, matchers: Sequence[Matcher], until: datetime, created_by: str, comment: str
    ) -> str:
        """The id of a new silence, from now on; raises UserError when it is refused."""
        answer = self._server.ask(
            "POST",
            "/api/v2/silences",
            json={
                "matchers": [matcher.model_dump(by_alias=True) for matcher in matchers],
                "startsAt": datetime.now(UTC).isoformat(),
                "endsAt": until.isoformat(),
                "createdBy": created_by,
                "comment": comment,
            },
        )
        if answer.status_code == 400:
            raise UserError(f"Alertmanager refuses the silence: {answer.text.strip()[:300]}")
        return self._server.content(lambda body: str(body["silenceID"]), answer)

    def expire(self, silence_id: str) -> None:
        """End a silence now; ending it again changes nothing."""
        answer = self._server.ask("DELETE", f"/api/v2/silence/{silence_id}")
        if not answer.is_success:
            raise UserError(
                f"Alertmanager did not end silence {silence_id}: {answer.text.strip()[:300]}"
            )
