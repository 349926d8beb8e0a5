"""Where incidents are run: the running drill, one of our own, or any installation by its URLs."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from prove.errors import UserError
from prove.incident.schema import TOKEN_VARIABLE
from prove.slo.yamltext import documents, read_text
from prove.stack import lifecycle, processes, state
from prove.stack.hints import command
from prove.stack.settings import StackSettings, on_free_ports
from prove.verify.shop import supervised

Database = Literal["sqlite", "postgres"]
DISK_MB = 256
"""Of each service of a stack of our own, so that it can be full."""
URLS = (
    *("product", "order", "payment", "acquirer", "injector"),
    *("prometheus", "alertmanager", "victorialogs"),
)
"""What a scenario, its runner or who keeps the evidence talks to."""


@dataclass(frozen=True)
class Target:
    """An installation. `settings`: None where it isn't a stack on this machine."""

    urls: Mapping[str, str]
    token: str
    profile: Literal["standard", "drill"]
    database: Database
    settings: StackSettings | None = None
    mesh: bool = False

    @property
    def configuration(self) -> dict[str, str]:
        """What the URLs of scenarios begin with."""
        return {f"{name}_url": url for name, url in self.urls.items()}


class _Urls(BaseModel):
    model_config = ConfigDict(extra="forbid")

    product: str
    order: str
    payment: str
    prometheus: str
    alertmanager: str
    acquirer: str | None = None
    injector: str | None = None
    victorialogs: str | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    profile: Literal["standard", "drill"]
    database: Database = "postgres"
    urls: _Urls = Field(description="Base URLs.")


def of(settings: StackSettings) -> Target:
    """The stack that `settings` are of; raises UserError when it has no token yet."""
    try:
        token = settings.admin_token_file.read_text().strip()
    except OSError as error:
        raise UserError(f"{settings.admin_token_file} cannot be read: {error.strerror}") from None
    current = state.load(settings.home)
    lacking = {"injector"} - set(current.processes if current else ())
    urls = {
        name: settings.url(port)
        for name, port in settings.ports.items()
        if name in URLS and name not in lacking
    }
    return Target(urls, token, settings.profile, settings.database, settings, settings.mesh)


def running(settings: StackSettings) -> Target | None:
    """The stack in the home of `settings`, when a drill runs there and is ready."""
    current = state.load(settings.home)
    if current is None or not current.alive or current.profile != "drill":
        return None
    if current.phase != "ready":
        raise UserError(
            f"the stack in {settings.home} is {current.phase}; {command('status')} shows how it is"
        )
    ports = {f"{name}_port": port for name, port in current.ports.items()}
    known = {"profile": "drill", "mesh": current.meshed}
    return of(settings.model_copy(update={**known, **ports}))


def by_file(path: Path) -> Target:
    """The installation that a file tells the URLs of; its token is in the environment.

    Raises UserError with file, line and field.
    """
    found = documents(read_text(path), str(path))
    if len(found) != 1:
        raise UserError(f"{path}: must hold one document with `profile` and `urls`")
    file = found[0].validate(_File)
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        raise UserError(f"set {TOKEN_VARIABLE} to the admin token of the installation in {path}")
    urls = {name: url.rstrip("/") for name, url in file.urls if url is not None}
    return Target(urls, token, file.profile, file.database)


@contextmanager
def own(home: Path, database: Database, *, mesh: bool = False) -> Iterator[Target]:
    """A drill of our own in `home`, on free ports; nothing of it runs afterwards.

    Raises UserError when it does not start.
    """
    may_mount = sys.platform == "linux" and os.geteuid() == 0
    settings = on_free_ports(home).model_copy(
        update={
            "profile": "drill",
            "database": database,
            "mesh": mesh,
            "disk_mb": DISK_MB if may_mount and database == "sqlite" else 0,
        }
    )
    binaries = processes.ensure_binaries()
    with lifecycle.lock(settings) as held:
        lifecycle.clean_up(settings.home)
        processes.prepare(settings, binaries)
        with supervised(settings, processes.specs(settings, binaries), held):
            yield of(settings)
        lifecycle.clean_up(settings.home)
