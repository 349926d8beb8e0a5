"""What `verify faults` breaks, where, and how it is seen that something is broken.

A fault counts as gone when its effect is: a list that says so proves nothing.
"""

import asyncio
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from prove.clients.faults import INJECTOR
from prove.injector import processes
from prove.stack import databases, disks, drill, state
from prove.stack.settings import StackSettings, link_port

SKU, CATEGORY, PRICE_MINOR = "FAULTS-01", "faults", 1999
PRODUCTS, DESCRIPTION = 50, "Sold while things break. " * 20
"""Of the catalogue: so many that a list of them is a long answer."""
PATIENCE_S = 1.0
SLOW_S = 0.4
DELAY_MS = 800
"""Of faults that delay: well over `SLOW_S`."""
CPU_SHARE = 0.3
CPU_SAMPLE_S = 0.4
LEAK_MB = 64
STATUS = 418
LINK_KINDS: Mapping[str, Mapping[str, Any]] = {
    "latency": {"latency_ms": DELAY_MS},
    "reset": {},
    "black-hole": {},
    "half-open": {},
    "bandwidth": {"kib_per_s": 4},
}

PATHS = {
    "product": f"/api/v1/products/{SKU}",
    "order": "/api/v1/orders?customer_id=verify-faults",
    "payment": "/api/v1/payments?order_id=verify-faults",
}
"""Read from the database."""
LONG = f"/api/v1/products?category={CATEGORY}&limit={PRODUCTS}"
"""The same, and much of it."""
TABLES = {"product": "products", "order": "orders", "payment": "payments"}
"""One that each service writes to."""


@dataclass
class World:
    """The stack that is looked at; `remembered` is what looks keep from one to the next."""

    settings: StackSettings
    http: aiohttp.ClientSession
    remembered: dict[str, Any] = field(default_factory=dict)

    def url(self, port: str) -> str:
        """Where a port of the stack is, by its name."""
        return self.settings.url(self.settings.ports[port])

    async def ask(
        self, method: str, url: str, *, patience_s: float = PATIENCE_S, **options: Any
    ) -> tuple[int, bytes, float]:
        """Status (0: no answer in time), body and seconds."""
        began = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=patience_s)
        try:
            async with self.http.request(method, url, timeout=timeout, **options) as answer:
                return answer.status, await answer.read(), time.monotonic() - began
        except (aiohttp.ClientError, TimeoutError):
            return 0, b"", time.monotonic() - began

    def is_starting(self, case: "Case") -> bool:
        """What it is about was started again: how long that takes is its own affair."""
        current = state.load(self.settings.home)
        known = current.processes.get(case.process) if current else None
        return known is not None and known.phase == "starting"

    def family(self, process: str) -> list[psutil.Process]:
        """A process of the stack with its workers."""
        return processes.family(self.settings.home, process)


@dataclass(frozen=True)
class Case:
    """A fault, and how to look whether it is there.

    Cases of one `target` are broken by turns, those of others meanwhile, but for those that are
    `alone`, for all others need what they break. `steady_s`: for so long nothing is to be seen of
    it, where it comes and goes. `crowd` requests are sent once it is set, for it to hold.
    """

    target: str
    place: str
    type: str
    params: Mapping[str, Any]
    look: "Look"
    match: Mapping[str, Any] | None = None
    detail: str = ""
    steady_s: float = 0.0
    crowd: int = 0
    alone: bool = False

    @property
    def name(self) -> str:
        """`injector link order-product half-open`."""
        return " ".join(part for part in (self.place, self.type, self.detail) if part)

    @property
    def process(self) -> str:
        """The process that it is about."""
        return str(self.params.get("process", self.target))

    def body(self, ttl_s: int) -> dict[str, Any]:
        """What to PUT to /faults/{name}."""
        match = {"match": dict(self.match)} if self.match else {}
        return {"type": self.type, "params": dict(self.params), "ttl_s": ttl_s, **match}


Look = Callable[[World, Case], Awaitable[bool]]
"""Whether the effect of the fault is there now."""


# -- looks


async def unready(world: World, case: Case) -> bool:
    """The process doesn't say that it is ready."""
    current = state.load(world.settings.home)
    if current is None:
        return True
    status, _, _ = await world.ask("GET", current.process(case.params["process"]).ready_url)
    return not 200 <= status < 300


async def killed(world: World, case: Case) -> bool:
    """It is another process than at the last look, or not ready yet."""
    return _is_another(world, case) or await unready(world, case)


def _is_another(world: World, case: Case) -> bool:
    current = state.load(world.settings.home)
    now = current.process(case.params["process"]).id if current else None
    before = world.remembered.get(case.name)
    world.remembered[case.name] = now
    return now is None or now != before


async def without_data(world: World, _: Case) -> bool:
    """A service doesn't answer what it has to read from the database."""
    answers = (world.ask("GET", world.url(service) + path) for service, path in PATHS.items())
    return any(status != 200 for status, _, _ in await asyncio.gather(*answers))


async def database_killed(world: World, case: Case) -> bool:
    """The server is another process than at the last look, or services don't get at it yet."""
    return _is_another(world, case) or await without_data(world, case)


async def odd_answer(world: World, case: Case) -> bool:
    """The service doesn't answer as it does, or late."""
    status, _, took_s = await world.ask("GET", world.url(case.target) + PATHS[case.target])
    return status != 200 or took_s > SLOW_S


async def restless(world: World, case: Case) -> bool:
    """The service's processes change, or don't answer."""
    pids = {member.pid for member in world.family(case.target)}
    before = world.remembered.get(case.name)
    world.remembered[case.name] = pids
    return pids != before or await odd_answer(world, case)


async def slow_link(world: World, case: Case) -> bool:
    """What is asked over the link isn't answered, or late."""
    url = world.url(link_port(case.params["link"]))
    path = "/healthz" if case.params["link"] == "payment-acquirer" else "/livez"
    status, _, took_s = await world.ask("GET", url + path)
    return status != 200 or took_s > SLOW_S


async def narrow_link(world: World, case: Case) -> bool:
    """A long answer takes its time over the link."""
    url = world.url(link_port(case.params["link"]))
    status, _, took_s = await world.ask("GET", url + "/openapi.json")
    return status != 200 or took_s > SLOW_S


async def narrow_database_link(world: World, _: Case) -> bool:
    """A list takes its time from the database to the service."""
    status, _body, took_s = await world.ask("GET", world.url("product") + LONG)
    return status != 200 or took_s > SLOW_S


async def full_disk(world: World, case: Case) -> bool:
    """There is no room on the disk."""
    disk = drill.disk(world.settings, case.params["process"])
    return disk is not None and os.statvfs(disk).f_bavail == 0


async def more_customers(world: World, case: Case) -> bool:
    """The process that sends them runs."""
    found = await asyncio.to_thread(processes.of_lease, world.settings.home, lease_name(case))
    return any(map(state.runs, found))


async def burning(world: World, case: Case) -> bool:
    """The service takes much CPU time."""
    before = _cpu_s(world, case)
    began = time.monotonic()
    await asyncio.sleep(CPU_SAMPLE_S)
    return (_cpu_s(world, case) - before) / (time.monotonic() - began) > CPU_SHARE / 2


async def bloated(world: World, case: Case) -> bool:
    """The service has much more memory than it had at the beginning."""
    total = 0
    for member in world.family(case.target):
        try:
            total += member.memory_info().rss
        except psutil.Error:
            continue
    before = world.remembered.setdefault(case.name, total)
    return bool(total - before > LEAK_MB / 2 * 2**20)


async def locked(world: World, case: Case) -> bool:
    """Nobody can write to the service's database."""
    url = databases.url(world.settings, case.target)
    if url.startswith(databases.SCHEME):
        return await asyncio.to_thread(_is_table_locked, url, TABLES[case.target])
    file = world.settings.home / url.removeprefix("sqlite:///")
    return await asyncio.to_thread(_is_locked, file)


async def wrong_price(world: World, _: Case) -> bool:
    """The catalogue shows another price than that of the product."""
    status, body, _s = await world.ask("GET", f"{world.url('product')}/api/v1/products/{SKU}")
    return status != 200 or json.loads(body)["price_minor"] != PRICE_MINOR


async def odd_charge(world: World, _: Case) -> bool:
    """The acquirer does not approve a charge, or late, or says so twice."""
    body = {
        "key": f"verify-faults-{secrets.token_hex(8)}",
        "amount_minor": 1,
        "currency": "GBP",
        "method_token": "tok_approve",
        "reference": "verify faults",
    }
    port = world.settings.acquirer_port
    began = time.monotonic()
    try:
        async with asyncio.timeout(PATIENCE_S):
            answer = await _raw(port, "POST", "/v1/charges", json.dumps(body).encode())
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return True
    late = time.monotonic() - began > SLOW_S
    return late or answer.count(b"HTTP/1.1 ") != 1 or b'"approved"' not in answer


def _cpu_s(world: World, case: Case) -> float:
    total = 0.0
    for member in world.family(case.target):
        try:
            times = member.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def _is_locked(file: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=rw", uri=True, timeout=0)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.OperationalError:
        return True
    return False


def _is_table_locked(url: str, table: str) -> bool:
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            connection.execute(f'LOCK TABLE "{table}" IN ROW EXCLUSIVE MODE NOWAIT'.encode())
    except psycopg.Error:
        return True
    return False


async def _raw(port: int, method: str, path: str, body: bytes) -> bytes:
    """All that comes back over a connection that is used once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        return await reader.read(-1)
    finally:
        writer.close()


# -- the catalogue


def lease_name(case: Case) -> str:
    """What its lease is called."""
    return f"verify-{case.name.replace(' ', '-')}"[:63]


def catalogue(settings: StackSettings) -> list[Case]:
    """All that can be broken in a stack."""
    cases = [
        *(case for service in PATHS for case in _of_service(service)),
        *_of_product(),
        *_of_acquirer(),
        *_of_processes(),
        *_of_links(),
        _load("reads"),
        _load("checkouts"),
    ]
    if databases.has_own_server(settings):
        cases += [*_of_database_links(), *_of_database()]
    if settings.disk_mb and disks.directory(settings, "order").is_mount():
        for service in disks.SERVICES:
            target = {"process": service}
            cases.append(Case(service, INJECTOR, "disk-full", target, full_disk, detail=service))
    return cases


def _of_service(service: str) -> list[Case]:
    def case(type_: str, look: Look = odd_answer, **more: Any) -> Case:
        params = more.pop("params", {})
        return Case(service, service, type_, params, look, **more)

    delay = {"distribution": "constant", "delay_ms": DELAY_MS}
    match = {"method": "GET"}
    return [
        case("latency", params=delay, match=match),
        case("error", params={"rate": 1, "status": STATUS}, match=match),
        case("hang", crowd=12),
        case("crash", match=match),
        case("drip", params={"bytes_per_s": 5}, match=match),
        case("crash-loop", restless, params={"after_s": 1}, steady_s=3),
        case("cpu", burning, params={"share": CPU_SHARE}),
        case("memory", bloated, params={"mb_per_s": 200, "cap_mb": LEAK_MB}),
        case("pool", params={"all": True}),
        case("lock", locked, params={"hold_ms": 900, "every_ms": 1000}, steady_s=1.5),
    ]


def _of_product() -> list[Case]:
    category = {"category": CATEGORY}
    return [Case("product", "product", "wrong-data", {"factor": 10}, wrong_price, match=category)]


def _of_acquirer() -> list[Case]:
    scenarios: Mapping[str, Mapping[str, Any]] = {
        "slow": {"delay_ms": DELAY_MS},
        "declining": {},
        "flapping": {"period_s": 1},
        "answer-twice": {},
        "lose-answer": {},
        "failing": {},
    }
    return [
        Case(
            "acquirer",
            "acquirer",
            type_,
            params,
            odd_charge,
            steady_s=1.5 if type_ == "flapping" else 0,
        )
        for type_, params in scenarios.items()
    ]


def _of_processes() -> list[Case]:
    looks: Mapping[str, Look] = {"kill": killed, "pause": unready, "down": unready}
    targets = {name: name for name in (*PATHS, "acquirer")}
    # One at a time: who watches needs the others.
    targets |= dict.fromkeys(("collector", "prometheus", "jaeger", "canary"), "watchers")
    return [
        Case(target, INJECTOR, type_, {"process": name}, look, detail=name)
        for name, target in targets.items()
        for type_, look in looks.items()
    ]


def _of_links() -> list[Case]:
    return [
        Case(
            link.partition("-")[2],
            INJECTOR,
            "link",
            {"link": link, "kind": kind, **params},
            narrow_link if kind == "bandwidth" else slow_link,
            detail=f"{link} {kind}",
        )
        for link in ("order-product", "order-payment", "payment-acquirer")
        for kind, params in LINK_KINDS.items()
        if (link, kind) != ("payment-acquirer", "bandwidth")  # it has no long answers
    ]


def _of_database_links() -> list[Case]:
    """Between each service and its database; of the answers a list alone is long."""
    return [
        Case(
            service,
            INJECTOR,
            "link",
            {"link": f"{service}-{databases.NAME}", "kind": kind, **params},
            narrow_database_link if kind == "bandwidth" else odd_answer,
            detail=f"{service}-{databases.NAME} {kind}",
        )
        for service in PATHS
        for kind, params in LINK_KINDS.items()
        if kind != "bandwidth" or service == "product"
    ]


def _of_database() -> list[Case]:
    looks: Mapping[str, Look] = {
        "kill": database_killed,
        "pause": without_data,
        "down": without_data,
    }
    name = databases.NAME
    return [
        Case(name, INJECTOR, "database-stop", {}, without_data, alone=True),
        *(
            Case(name, INJECTOR, type_, {"process": name}, look, detail=name, alone=True)
            for type_, look in looks.items()
        ),
    ]


def _load(kind: str) -> Case:
    params = {"kind": kind, "per_s": 5, "retries": 2}
    return Case("customers", INJECTOR, "load", params, more_customers, detail=kind)
