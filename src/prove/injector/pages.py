"""An inbox for alerts: what Alertmanager's webhook told, each news once, in a file."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Alert(BaseModel):
    """One alert of a message, in Alertmanager's names."""

    model_config = ConfigDict(frozen=True)

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    startsAt: str  # noqa: N815 - Alertmanager's name
    fingerprint: str


class Message(BaseModel):
    """Alertmanager's webhook, version 4; of it what is needed here."""

    alerts: list[Alert]


class Page(Alert):
    """A line of `pages.jsonl`: an alert began or ended, and when the inbox was told."""

    received_at_unix_us: int
