"""The requests that are made of Toxiproxy."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from prove.stack.links import Route
from prove.stack.toxiproxy import Toxiproxy
from prove.verify.plan import Cut

CUT = Cut(
    after_op=0,
    link="order-payment",
    name="half-open",
    toxic="timeout",
    stream="downstream",
    attributes={"timeout": 0},
    duration_s=1.0,
)


class Proxies:
    """Answers as Toxiproxy does; `answers` are the next ones' statuses, 0: none at all."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: list[int] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.method, request.url.path, json.loads(request.content)))
        status = self.answers.pop(0) if self.answers else 200
        if not status:
            raise httpx.RemoteProtocolError("gone", request=request)
        return httpx.Response(status, json={"listen": "here", "upstream": "there", "toxics": []})

    def client(self) -> Toxiproxy:
        return Toxiproxy("http://proxy", httpx.MockTransport(self))


def test_a_disturbed_link_gets_another_proxy() -> None:
    proxies = Proxies()

    async def run() -> None:
        toxiproxy = proxies.client()
        first = await toxiproxy.add(CUT, "half-open-0")
        other = await toxiproxy.add(CUT, "half-open-1")
        await toxiproxy.replace("order-payment", first)
        await toxiproxy.replace("order-payment", other)  # has gone with the first
        await toxiproxy.add(CUT, "half-open-2")
        await toxiproxy.close()

    asyncio.run(run())

    toxic = {
        "name": "half-open-0",
        "type": "timeout",
        "stream": "downstream",
        "toxicity": 1.0,
        "attributes": {"timeout": 0},
    }
    assert proxies.asked[0] == ("POST", "/proxies/order-payment/toxics", toxic)
    assert proxies.asked[2] == ("POST", "/proxies/order-payment", {"enabled": False})
    method, path, successor = proxies.asked[3]
    name = successor.pop("name")
    assert (method, path) == ("POST", "/proxies")
    assert successor == {"enabled": True, "listen": "here", "upstream": "there"}
    assert [asked[1] for asked in proxies.asked[4:]] == [f"/proxies/{name}/toxics"]


def test_a_cut_that_cannot_be_mended_at_once_is_mended_later() -> None:
    proxies = Proxies()

    async def run() -> None:
        toxiproxy = proxies.client()
        proxies.answers = [200, 503, 0, 200, 200]
        await toxiproxy.replace("order-payment")
        assert not proxies.answers
        proxies.answers = [503] * 10
        with pytest.raises(httpx.HTTPStatusError):
            await toxiproxy.replace("order-payment")

    asyncio.run(run())


def test_links_are_adopted_from_whoever_made_them_and_made_where_missing() -> None:
    links = {
        "order-payment": Route(8012, "127.0.0.1:8003"),
        "order-product": Route(8011, "127.0.0.1:8001"),
    }
    there = {
        "order-payment": {"listen": "127.0.0.1:8012", "enabled": False},
        "order-payment-1f": {"listen": "127.0.0.1:8012", "enabled": True},
        "order-product": {"listen": "127.0.0.1:8011", "enabled": False},
    }
    asked: list[tuple[str, str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        asked.append((request.method, request.url.path, body))
        return httpx.Response(200, json=there)

    async def run() -> None:
        toxiproxy = Toxiproxy("http://proxy", httpx.MockTransport(answer))
        await toxiproxy.adopt(links)
        await toxiproxy.add(CUT, "x")
        await toxiproxy.close()

    asyncio.run(run())

    assert [(method, path) for method, path, _ in asked] == [
        ("GET", "/proxies"),
        ("POST", "/proxies"),
        ("POST", "/proxies/order-payment-1f/toxics"),
    ]
    made = asked[1][2]
    assert made.pop("name").startswith("order-product-")
    assert made == {"enabled": True, "listen": "127.0.0.1:8011", "upstream": "127.0.0.1:8001"}
