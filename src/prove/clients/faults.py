"""The fault endpoints of services and injector: one contract, spoken with the admin token."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from prove.clients.server import Server
from prove.errors import UserError
from prove.stack.settings import StackSettings

SERVICES = ("product", "order", "payment", "acquirer")
INJECTOR = "injector"
PLACES = (*SERVICES, INJECTOR)
"""Who can have leases."""


class Lease(BaseModel):
    """A fault in force, as its place tells it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    type: str
    params: dict[str, Any] = {}
    match: dict[str, Any] | None = None
    expires_at: datetime

    @property
    def left_s(self) -> float:
        """How long it has."""
        return max(0.0, (self.expires_at - datetime.now(UTC)).total_seconds())


class Faults:
    """The leases of one of the `PLACES` of a stack."""

    def __init__(self, settings: StackSettings, place: str, timeout_s: float = 10) -> None:
        name = place if place in ("acquirer", INJECTOR) else f"{place.capitalize()} Service"
        self._server = Server(name, settings.url(settings.ports[place]), timeout_s)
        try:
            token = settings.admin_token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UserError(
                f"{settings.admin_token_file} cannot be read ({error.strerror}); "
                "it is made when the stack is started for the first time"
            ) from None
        self._headers = {"Authorization": f"Bearer {token}"}

    def close(self) -> None:
        """Close its connections."""
        self._server.close()

    def items(self) -> list[Lease]:
        """What is in force: nothing where there are no such endpoints; raises UserError."""
        answer = self._server.ask("GET", "/faults", headers=self._headers)
        if answer.status_code == 404:
            return []
        return self._server.content(
            lambda body: [Lease.model_validate(each) for each in body["items"]], answer
        )

    def put(self, name: str, fault: Mapping[str, Any]) -> Lease:
        """Begin a fault, in place of one of that name; raises UserError, nothing begun."""
        return self._server.read(
            Lease.model_validate,
            *("PUT", f"/faults/{name}"),
            json=fault,
            headers=self._headers,
        )

    def delete(self, name: str) -> None:
        """End a fault, if there is one of that name; raises UserError."""
        answer = self._server.ask("DELETE", f"/faults/{name}", headers=self._headers)
        if answer.status_code != 204:
            self._server.content(lambda _: None, answer)
