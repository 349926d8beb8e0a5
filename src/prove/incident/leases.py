"""The leases that scenarios set: whether one is left, and how to end one without its service."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from service_kit.faults import LeaseStore

from prove.clients.server import Server
from prove.errors import UserError
from prove.incident.catalogue import Entry
from prove.incident.schema import FAULT, Step
from prove.incident.target import Target


def left(target: Target, entries: Iterable[Entry]) -> list[str]:
    """Leases of the scenarios that are still there, and places that can't be asked."""
    found = []
    headers = {"Authorization": f"Bearer {target.token}"}
    for place, name in _set_by(entries):
        try:
            there = Server(place, target.urls[place]).read(
                lambda body: {str(item["name"]) for item in body["items"]},
                "GET",
                "/faults",
                headers=headers,
            )
        except UserError as error:
            found.append(f"{place} can't be asked: {error}")
            continue
        if name in there:
            found.append(f"{place}/{name}")
    return found


def revoke(target: Target, step: Step) -> Path | None:
    """Take the lease that a rollback should have ended out of its service's file, which is told.

    None where there is no such file within reach.
    """
    found, settings = FAULT.fullmatch(step.provider.url), target.settings
    if settings is None or found is None or step.provider.method != "DELETE":
        return None
    file = settings.data_dir / f"faults-{found['place']}.json"
    if not file.exists():
        return None
    try:
        LeaseStore(file).delete(found["name"])
    except OSError:
        return None
    return file


def _set_by(entries: Iterable[Entry]) -> Iterator[tuple[str, str]]:
    """Place and name of each."""
    for entry in entries:
        for step in entry.scenario.method:
            if (found := FAULT.fullmatch(step.provider.url)) and step.provider.method == "PUT":
                yield found["place"], found["name"]
