"""What has to fit together in a scenario, beyond its form: leases, rollbacks, alerts, theory."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from chaoslib.exceptions import ChaosException
from chaoslib.experiment import ensure_experiment_is_valid
from pydantic import TypeAdapter, ValidationError
from service_kit import faultmodel

from prove.errors import UserError
from prove.incident import acquirer, judge
from prove.incident.catalogue import Entry
from prove.incident.record import Cause
from prove.incident.schema import FAULT, Probe, Provider, Step, plain
from prove.incident.theory import Objectives
from prove.injector.faults import fault_adapter
from prove.slo.yamltext import Path
from prove.stack.settings import default_ports

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
BEARER = "Bearer ${token}"
JSON = "application/json"
SERVICES = (
    "product-service",
    "order-service",
    "payment-service",
    "acquirer",
    "database",
    "network",
    "customers",
    "otel-collector",
    "prometheus",
)
"""Where a root cause can be."""
_STARTED = re.compile(r"(?P<what>\$\{payment_url\}/incidents/[a-z0-9-]+)/(?P<verb>start|stop)")
_CONTRACTS: Mapping[str, "TypeAdapter[Any]"] = {
    "product": faultmodel.product_fault,
    "order": faultmodel.plain_fault,
    "payment": faultmodel.plain_fault,
    "acquirer": acquirer.fault_adapter,
    "injector": fault_adapter,
}

Problem = Callable[[Path, str], UserError]


def check(entry: Entry, objectives: Objectives) -> list[str]:
    """Every problem of a scenario as `file:line: field: problem`."""
    found = [
        str(entry.document.error(path, problem)) for path, problem in _problems(entry, objectives)
    ]
    if not found and (refused := _refused(entry)):
        found.append(str(entry.document.error((), refused)))
    return found


def check_together(entries: Iterable[Entry]) -> list[str]:
    """Leases that two scenarios share: run at once, one would end the other's."""
    owners: dict[tuple[str, str], str] = {}
    found = []
    for entry in entries:
        for index, step in enumerate(entry.scenario.method):
            lease = FAULT.fullmatch(step.provider.url)
            if lease is None:
                continue
            owner = owners.setdefault((lease["place"], lease["name"]), entry.name)
            if owner != entry.name:
                problem = f"{owner} has a lease called {lease['name']}, too; rename one of them"
                found.append(str(entry.document.error(("method", index, "provider"), problem)))
    return found


def _problems(entry: Entry, objectives: Objectives) -> Iterator[tuple[Path, str]]:
    if not NAME.fullmatch(entry.name):
        yield (), "the file's name must be small letters and digits, joined by '-'"
    yield from _configuration(entry)
    yield from _activities(entry)
    yield from _undone(entry)
    yield from _expectations(entry, objectives)
    cause: Cause = entry.prove.truth
    if cause.service not in SERVICES:
        where = ("extensions", 0, "truth", "service")
        yield where, f"must be one of {', '.join(SERVICES)} (got {cause.service!r})"


def _configuration(entry: Entry) -> Iterator[tuple[Path, str]]:
    ports = default_ports()
    for name, value in entry.scenario.configuration.items():
        place = name.removesuffix("_url")
        wanted = f"PROVE_{name.upper()}"
        if value.key != wanted:
            yield ("configuration", name, "key"), f"must be {wanted}"
        default = f"http://127.0.0.1:{ports[place]}"
        if value.default != default:
            yield ("configuration", name, "default"), f"must be {default}"


def _activities(entry: Entry) -> Iterator[tuple[Path, str]]:
    scenario = entry.scenario
    activities: dict[Path, Sequence[Probe | Step]] = {
        ("steady-state-hypothesis", "probes"): scenario.hypothesis.probes,
        ("method",): scenario.method,
        ("rollbacks",): scenario.rollbacks,
    }
    asked: list[tuple[Path, Provider]] = [
        ((*path, index, "provider"), each.provider)
        for path, some in activities.items()
        for index, each in enumerate(some)
    ]
    for here, provider in asked:
        for name in re.findall(r"\$\{([a-z_]+)\}", provider.url):
            if name not in scenario.configuration:
                yield (*here, "url"), f"{name} is not in the configuration"
        headers, admin = provider.headers, re.search("/(faults|incidents)", provider.url)
        sends = provider.arguments and provider.method != "GET"
        if sends and headers.get("Content-Type") != JSON:
            yield (*here, "headers"), f"must have `Content-Type: {JSON}`"
        if admin and headers.get("Authorization") != BEARER:
            yield (*here, "headers"), f'must have `Authorization: "{BEARER}"`'
    for index, step in enumerate(scenario.method):
        if (found := FAULT.fullmatch(step.provider.url)) and step.provider.method == "PUT":
            here = ("method", index, "provider", "arguments")
            yield from _lease(found["place"], step.provider.arguments, here)


def _lease(place: str, body: Any, here: Path) -> Iterator[tuple[Path, str]]:
    contract = _CONTRACTS.get(place)
    if contract is None:
        return
    try:
        contract.validate_python(body)
    except ValidationError as error:
        for each in error.errors():
            # A union's location names the kind that was tried, which is no key of the body.
            known = tuple(part for part in each["loc"] if part != (body or {}).get("type"))
            yield (*here, *known), each["msg"].removeprefix("Value error, ")


def _undone(entry: Entry) -> Iterator[tuple[Path, str]]:
    scenario = entry.scenario
    begun = list(_keys(scenario.method, "PUT", "start"))
    ended = list(_keys(scenario.rollbacks, "DELETE", "stop"))
    for index, key in begun:
        if key not in [each for _, each in ended]:
            yield ("method", index), "must be undone by a rollback: DELETE of the same URL"
    for index, key in ended:
        if key not in [each for _, each in begun]:
            yield ("rollbacks", index), "undoes nothing of the method"
    keys = [key for _, key in begun]
    for index, key in begun:
        if keys.index(key) < [i for i, _ in begun].index(index):
            yield ("method", index, "provider", "url"), "the same lease is set twice"
    if not begun:
        yield ("method",), "must set a lease or start an incident"


def _keys(steps: Iterable[Step], method: str, verb: str) -> Iterator[tuple[int, str]]:
    """What steps begin or end, and where."""
    for index, step in enumerate(steps):
        url = step.provider.url
        if FAULT.fullmatch(url) and step.provider.method == method:
            yield index, url
        elif (found := _STARTED.fullmatch(url)) and found["verb"] == verb:
            yield index, found["what"]


def _expectations(entry: Entry, objectives: Objectives) -> Iterator[tuple[Path, str]]:
    expect = entry.prove.expect
    here: Path = ("extensions", 0, "expect")
    names = [step.name for step in entry.scenario.method]
    slos = objectives.slos
    needed_s = 0.0 if expect.quiet is None else expect.quiet.for_s
    for index, page in enumerate(expect.pages):
        at: Path = (*here, "pages", index)
        if page.slo not in slos:
            yield (*at, "slo"), f"there is no such SLO; there are {', '.join(slos)}"
            continue
        if page.since is not None and page.since not in names:
            yield (*at, "since"), f"no action of the method is called {page.since!r}"
        if page.bad is not None and objectives.due_s(page.slo, page.bad) is None:
            yield (*at, "bad"), "at this share there is never a page (`provectl slo explain`)"
            continue
        within_s = judge.due([page], objectives)[0].within_s
        needed_s = max(needed_s, within_s + judge.LATE_S + entry.prove.hold_s)
    for index, possible in enumerate(expect.may_page):
        if possible.slo not in slos:
            where = (*here, "may_page", index, "slo")
            yield where, f"there is no such SLO; there are {', '.join(slos)}"
    for index, step in enumerate(entry.scenario.method):
        ttl_s = (step.provider.arguments or {}).get("ttl_s")
        if isinstance(ttl_s, int) and ttl_s < needed_s:
            at = ("method", index, "provider", "arguments", "ttl_s")
            yield at, f"must be at least {needed_s:.0f}: the lease would end before the page"


def _refused(entry: Entry) -> str:
    """Why Chaos Toolkit itself takes the experiment for invalid; '' when it doesn't."""
    experiment = plain(entry.document.value)
    # It would want the token of an installation to be there.
    experiment["secrets"] = {"prove": {"token": "none"}}
    logging.getLogger("chaostoolkit").setLevel(logging.CRITICAL)
    try:
        ensure_experiment_is_valid(experiment)
    except ChaosException as error:
        return f"Chaos Toolkit refuses it: {error}"
    return ""
