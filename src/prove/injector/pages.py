"""An inbox for alerts: what Alertmanager's webhook told, each news once, in a file."""

import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from prove.injector import lines


class Alert(BaseModel):
    """One alert of a message, in Alertmanager's names."""

    model_config = ConfigDict(frozen=True)

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    startsAt: str  # noqa: N815 - Alertmanager's name
    fingerprint: str

    @property
    def news(self) -> tuple[str, str, str]:
        """The same for every time that it is told."""
        return self.fingerprint, self.startsAt, self.status


class Message(BaseModel):
    """Alertmanager's webhook, version 4; of it what is needed here."""

    alerts: list[Alert]


class Page(Alert):
    """A line of the file: an alert began or ended, and when the inbox was told."""

    received_at_unix_us: int


class Inbox:
    """News in order of arrival, those that an earlier inbox kept in the file among them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pages = read(path)
        self._known = {page.news for page in self._pages}

    def take(self, body: bytes) -> list[Page]:
        """Keep what is new in a message, on disk when this returns.

        A message tells of its whole group again, with all that was told before. Raises
        ValidationError for a body that is no message, and OSError.
        """
        now = time.time_ns() // 1000
        alerts = {alert.news: alert for alert in Message.model_validate_json(body).alerts}
        new = [
            Page(received_at_unix_us=now, **alert.model_dump())
            for news, alert in alerts.items()
            if news not in self._known
        ]
        if new:
            lines.append(self._path, *(page.model_dump_json().encode() for page in new))
        self._pages += new
        self._known.update(page.news for page in new)
        return new

    def since(self, unix_us: int) -> list[Page]:
        """Those received then or later."""
        return [page for page in self._pages if page.received_at_unix_us >= unix_us]


def read(path: Path) -> list[Page]:
    """All pages of a file, but for a line that was not finished; none when there is no file."""
    pages = []
    for line in lines.read(path):
        try:
            pages.append(Page.model_validate_json(line))
        except ValidationError:
            continue
    return pages
