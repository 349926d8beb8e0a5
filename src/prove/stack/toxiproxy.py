"""Toxiproxy: a TCP proxy on every link that can be disturbed, as a process and by its HTTP API."""

import asyncio
import json
import secrets
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import httpx

from prove.stack.links import HOST, Route
from prove.stack.spec import ProcessSpec

NAME = "toxiproxy"
PROGRAM = "toxiproxy-server"
POLL_S = 0.01
PROXY_TIMEOUT_S = 30.0
REPLACE_ATTEMPTS = 5


class Cut(Protocol):
    """How a link is disturbed, in Toxiproxy's own terms."""

    @property
    def link(self) -> str:
        """The name of its proxy."""

    @property
    def toxic(self) -> str:
        """The type of the toxic."""

    @property
    def stream(self) -> str:
        """`upstream` or `downstream`."""

    @property
    def attributes(self) -> Mapping[str, int]:
        """Those of the toxic."""


class Toxiproxy:
    """Its HTTP API, as much of it as is needed (Toxiproxy 2.5, README).

    A cut is not ended by removing its toxic: that waits up to 5 s for each piece of data that can't
    be written any more, and blocks the whole of Toxiproxy meanwhile (its issues 412 and 558).
    Another proxy takes the disturbed one's place instead, and all connections end.
    """

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            timeout=PROXY_TIMEOUT_S,
            # A kept connection may be closed by Toxiproxy just when it is used again.
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
            transport=transport,
        )
        self._names: dict[str, str] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def add(self, cut: Cut, name: str) -> str:
        """Disturb a link; returns the proxy that is to be replaced for it.

        Raises httpx.HTTPError; so does `replace`.
        """
        toxic = {
            "name": name,
            "type": cut.toxic,
            "stream": cut.stream,
            "toxicity": 1.0,
            "attributes": cut.attributes,
        }
        async with self._locks[cut.link]:
            proxy = self._name(cut.link)
            answer = await self._client.post(f"/proxies/{proxy}/toxics", json=toxic)
            answer.raise_for_status()
            return proxy

    async def replace(self, link: str, proxy: str | None = None) -> bool:
        """End all that disturbs a link; False when `proxy` is given and was replaced before.

        Tried again, for a cut that stays spoils the run.
        """
        async with self._locks[link]:
            old = self._name(link)
            if proxy not in (None, old):
                return False
            for left in reversed(range(REPLACE_ATTEMPTS)):
                try:
                    self._names[link] = await self._successor(link, old)
                except httpx.HTTPError:
                    if not left:
                        raise
                    await asyncio.sleep(POLL_S)
                else:
                    break
        return True

    async def adopt(self, links: Mapping[str, Route]) -> None:
        """Find the proxies that carry links now, whoever made them; make those that are missing.

        Raises httpx.HTTPError.
        """
        answer = await self._client.get("/proxies")
        answer.raise_for_status()
        carrying = {
            proxy["listen"]: name for name, proxy in answer.json().items() if proxy["enabled"]
        }
        for link, route in links.items():
            async with self._locks[link]:
                if route.listen in carrying:
                    self._names[link] = carrying[route.listen]
                else:
                    self._names[link] = await self._make(link, route.listen, route.upstream)

    def forget(self) -> None:
        """It was started again: the proxies that carry links are those of its file."""
        self._names.clear()

    def _name(self, link: str) -> str:
        return self._names.get(link, link)

    async def _successor(self, link: str, old: str) -> str:
        answer = await self._client.post(f"/proxies/{old}", json={"enabled": False})
        answer.raise_for_status()
        return await self._make(link, answer.json()["listen"], answer.json()["upstream"])

    async def _make(self, link: str, listen: str, upstream: str) -> str:
        name = f"{link}-{secrets.token_hex(4)}"
        body = {"name": name, "enabled": True, "listen": listen, "upstream": upstream}
        answer = await self._client.post("/proxies", json=body)
        answer.raise_for_status()
        return name

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


def process(
    argv: tuple[str, ...], port: int, config: Path, links: Mapping[str, Route]
) -> ProcessSpec:
    """The spec of a Toxiproxy that reads its links from `config`, written by `configure`."""
    return ProcessSpec(
        name=NAME,
        argv=(*argv, "-host", HOST, "-port", str(port), "-config", str(config)),
        env={"LOG_LEVEL": "fatal"},
        ready_url=f"http://{HOST}:{port}/version",
        ports=(port, *(route.port for route in links.values())),
        group="shop",
    )


def configure(config: Path, links: Mapping[str, Route]) -> None:
    """Write what it reads when it starts.

    A file, not requests: should it ever be started again, it has its links again.
    """
    proxies = [
        {"name": name, "listen": route.listen, "upstream": route.upstream, "enabled": True}
        for name, route in links.items()
    ]
    config.write_text(json.dumps(proxies))
