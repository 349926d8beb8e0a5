"""How a server of the stack is asked."""

import httpx
import pytest

from prove.clients import server
from prove.clients.server import Server
from prove.errors import UserError

BUSY = httpx.Response(503, headers={"Retry-After": "0"}, json={"detail": "busy"})


def asked(*answers: httpx.Response) -> tuple[object, int]:
    """What is read in the end, and how often it was asked; the last answer is given for ever."""
    requests = 0

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal requests
        requests += 1
        return answers[min(requests, len(answers)) - 1]

    shop = Server("shop", "http://shop", transport=httpx.MockTransport(answer))
    try:
        return shop.read(lambda body: body, "GET", "/"), requests
    except UserError as error:
        return str(error), requests


def test_a_busy_server_is_asked_again() -> None:
    assert asked(BUSY, BUSY, httpx.Response(200, json=1)) == (1, 3)
    assert asked(BUSY) == ("the shop at http://shop answered 503: busy", 1 + server.RETRIES)


@pytest.mark.parametrize("status", [503, 500, 404])
def test_who_does_not_say_when_to_come_back_is_not(status: int) -> None:
    told, requests = asked(httpx.Response(status, json={"detail": "no"}))
    assert (told, requests) == (f"the shop at http://shop answered {status}: no", 1)
