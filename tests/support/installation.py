"""An installation that is one small server: a shop, its telemetry and its pager, for runs of
incidents in no time. A lease at `/faults` makes every second checkout fail, and after a while page.
"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from prove.incident.target import Target
from prove.serving import serving as listening

SLO = "checkout-errors"
PAGES_AFTER_S = 0.6


@dataclass
class Installation:
    """What it does, and what was asked of it.

    `refuses`: the status that a lease is refused with. `pages`: SLOs that page while one is there.
    """

    slos: list[str]
    ready: bool = True
    refuses: int = 0
    pages: tuple[str, ...] = (SLO,)
    leases: dict[str, float] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    orders: dict[str, int] = field(default_factory=dict)
    news: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0

    @property
    def broken(self) -> bool:
        return bool(self.leases)

    def paging(self) -> list[str]:
        now = time.time()
        if any(now - since > PAGES_AFTER_S for since in self.leases.values()):
            return list(self.pages)
        return []

    # -- the shop

    async def imported(self, _request: web.Request) -> web.Response:
        return web.json_response({"created": 0})

    async def readyz(self, _request: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 503)

    async def product(self, request: web.Request) -> web.Response:
        return web.json_response({"sku": request.match_info["sku"], "price_minor": 500})

    async def products(self, _request: web.Request) -> web.Response:
        return web.json_response({"items": [], "next_cursor": None})

    async def order(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.broken and self.asked % 2:
            problem = {"type": "/problems/injected", "detail": "injected"}
            return web.json_response(problem, status=500)
        key, body = request.headers["Idempotency-Key"], await request.json()
        self.orders[key] = body["expected_total_minor"]
        answer = {"id": key, "status": "confirmed", "total_minor": self.orders[key]}
        return web.json_response(answer, status=201)

    async def found(self, request: web.Request) -> web.Response:
        total = self.orders[request.match_info["id"]]
        return web.json_response({"status": "confirmed", "total_minor": total})

    # -- faults

    async def put(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer secret":
            return web.json_response({"detail": "no token"}, status=401)
        if self.refuses:
            return web.json_response({"detail": "can't be had here"}, status=self.refuses)
        self.leases[request.match_info["name"]] = time.time()
        return web.json_response(await request.json())

    async def delete(self, request: web.Request) -> web.Response:
        self.deleted.append(request.match_info["name"])
        self.leases.pop(request.match_info["name"], None)
        return web.Response(status=204)

    async def listed(self, _request: web.Request) -> web.Response:
        return web.json_response({"items": [{"name": name} for name in self.leases]})

    # -- telemetry

    async def query(self, request: web.Request) -> web.Response:
        query, now = request.query["query"], time.time()
        if query.startswith("ALERTS"):
            found = [({"sloth_id": slo, "sloth_severity": "page"}, 1.0) for slo in self.paging()]
        else:
            bad = 0.5 if self.broken else 0.0
            found = [({"sloth_id": slo}, bad if slo == SLO else 0.0) for slo in self.slos]
        result = [{"metric": labels, "value": [now, str(value)]} for labels, value in found]
        return web.json_response({"data": {"result": result}})

    async def range(self, _request: web.Request) -> web.Response:
        return web.json_response({"data": {"result": []}})

    async def federate(self, _request: web.Request) -> web.Response:
        return web.Response(text="".join(f"ALERTS{{{slo}}} 1\n" for slo in self.paging()))

    async def told(self, request: web.Request) -> web.Response:
        known = {json.dumps(each["labels"]) for each in self.news}
        for slo in self.paging():
            labels = {"sloth_id": slo, "sloth_severity": "page", "alertname": f"Page-{slo}"}
            if json.dumps(labels) not in known:
                self.news.append(
                    {
                        "received_at_unix_us": time.time_ns() // 1000,
                        "status": "firing",
                        "labels": labels,
                        "annotations": {},
                        "startsAt": "2026-11-29T20:00:00Z",
                        "fingerprint": slo,
                    }
                )
        since = int(request.query["since_unix_us"])
        items = [each for each in self.news if each["received_at_unix_us"] >= since]
        return web.json_response({"items": items})


@asynccontextmanager
async def serving(installation: Installation) -> AsyncIterator[Target]:
    """It answers, in this event loop, on a port of its own."""
    app = web.Application()
    app.add_routes(
        [
            web.post("/api/v1/products/import", installation.imported),
            web.get("/api/v1/products", installation.products),
            web.get("/api/v1/products/{sku}", installation.product),
            web.post("/api/v1/orders", installation.order),
            web.get("/api/v1/orders/{id}", installation.found),
            web.get("/readyz", installation.readyz),
            web.get("/faults", installation.listed),
            web.put("/faults/{name}", installation.put),
            web.delete("/faults/{name}", installation.delete),
            web.get("/pages", installation.told),
            web.get("/federate", installation.federate),
            web.get("/api/v1/query", installation.query),
            web.post("/api/v1/query_range", installation.range),
        ]
    )
    async with listening(app) as port:
        url = f"http://127.0.0.1:{port}"
        names = ("product", "order", "payment", "injector", "prometheus", "alertmanager")
        yield Target(dict.fromkeys(names, url), "secret", "drill", "sqlite")
