"""Carries out the fault of a cell in a running stack, and puts it right again."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aiohttp

from prove.errors import UserError
from prove.stack import control, state
from prove.stack.settings import StackSettings
from prove.verify import traffic
from prove.verify.cells import FRESH_S, STUCK_S, Cell, Lease, Stop

LEASE_TTL_S = 900
TIMEOUT_S = 20.0
SETTLED_S = 30.0
"""How long the stuck order may take to be finished once its payment is known."""
READY_S = 60.0
POLL_S = 0.1


@dataclass
class Times:
    """Of a fault: when its first bad event is, and when its last was (monotonic)."""

    began: float
    ended: float = 0.0


@asynccontextmanager
async def broken(settings: StackSettings, cell: Cell, sku: str) -> AsyncIterator[Times]:
    """The stack with the cell's fault; `ended` is known afterwards.

    Raises UserError when the fault can't be begun or ended.
    """
    if isinstance(cell.fault, Lease):
        async with _leased(settings, cell.fault, f"verify-slos-{cell.slo}"):
            times = Times(time.monotonic())
            yield times
    elif isinstance(cell.fault, Stop):
        times = Times(time.monotonic())
        async with held(settings, cell.fault.process):
            yield times
        await _ready(settings, cell.fault.process)
    else:
        async with aiohttp.ClientSession(settings.url(settings.order_port)) as http:
            path, made = await _stuck(http, sku)
            times = Times(made + FRESH_S)
            yield times
            await _finished(http, path, made + STUCK_S + SETTLED_S)
    times.ended = time.monotonic()


@asynccontextmanager
async def held(settings: StackSettings, process: str) -> AsyncIterator[None]:
    """A process of the stack is killed and kept down; raises UserError."""
    with ExitStack() as stack:
        down = control.held(settings.home, process)
        await asyncio.to_thread(stack.enter_context, down)
        yield


@asynccontextmanager
async def _leased(settings: StackSettings, lease: Lease, name: str) -> AsyncIterator[None]:
    token = settings.admin_token_file.read_text().strip()
    url, path = settings.url(settings.ports[lease.service]), f"/faults/{name}"
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(url, headers=headers) as http:
        await _ask(http, "PUT", path, json=lease.body(LEASE_TTL_S))
        try:
            yield
        finally:
            await _ask(http, "DELETE", path)


async def _stuck(http: aiohttp.ClientSession, sku: str) -> tuple[str, float]:
    """Where to ask for an order whose payment stays unknown, and when it was made (monotonic)."""
    made = await _ask(
        http,
        "POST",
        "/api/v1/orders",
        json=traffic.order("stuck", sku, "tok_slow"),
        headers={"Idempotency-Key": str(uuid4())},
    )
    age_s = (datetime.now(UTC) - datetime.fromisoformat(made["created_at"])).total_seconds()
    return f"/api/v1/orders/{made['id']}", time.monotonic() - age_s


async def _finished(http: aiohttp.ClientSession, path: str, until: float) -> None:
    while (await _ask(http, "GET", path))["status"] != "confirmed":
        if time.monotonic() > until:
            raise UserError(f"the order at {path} is still unfinished; see the log of order")
        await asyncio.sleep(POLL_S)


async def _ready(settings: StackSettings, process: str) -> None:
    until = time.monotonic() + READY_S
    while state.require(settings.home).process(process).phase != "ready":
        if time.monotonic() > until:
            raise UserError(f"{process} did not become ready again within {READY_S:g} s")
        await asyncio.sleep(POLL_S)


async def _ask(http: aiohttp.ClientSession, method: str, path: str, **options: Any) -> Any:
    """The JSON of a successful answer, None when it has none; raises UserError."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with http.request(method, path, timeout=timeout, **options) as answer:
            if not answer.ok:
                raise UserError(f"{method} {path} was answered {answer.status}")
            return await answer.json(content_type=None) if answer.status != 204 else None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UserError(f"{method} {path} was not answered: {error or 'time-out'}") from None
