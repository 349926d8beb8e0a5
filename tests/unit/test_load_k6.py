"""The real k6 against a shop that answers as it is told."""

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path

import pytest

from prove import k6, tools
from prove.errors import UserError
from prove.loadtest import Mix, Offer, Request, requests, result
from prove.units import Rate

OFFERS = [Offer(f"S{n}", f"BLUE MUG {n}", "kitchen") for n in range(10)]


class Answers(ThreadingHTTPServer):
    """Answers orders with the given statuses in turn, and everything else with 200."""

    daemon_threads = True

    def __init__(self, *statuses: int) -> None:
        self.statuses = cycle(statuses)
        self.keys: Counter[str] = Counter()
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def urls(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self.server_port}"
        return {"products": url, "orders": url}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Answers

    def do_GET(self) -> None:
        self._answer(200)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.keys[self.headers["Idempotency-Key"]] += 1
            status = next(self.server.statuses)
        self._answer(status)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base's name
        """Quiet."""


@pytest.fixture
def binary() -> Path:
    return tools.ensure("k6")["k6"]


@pytest.fixture
def shop(request: pytest.FixtureRequest) -> Iterator[Answers]:
    with Answers(*request.param) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def quiet(_: k6.Progress) -> None:
    """Nobody looks."""


def orders(count: int, spacing_ms: int) -> list[Request]:
    return [
        Request(each.operation, each.path, each.body, at_ms=n * spacing_ms)
        for n, each in enumerate(requests(OFFERS, Mix.CHECKOUT, count, 1, 0.0))
    ]


@pytest.mark.parametrize("shop", [(201, 201, 202, 402, 409, 503, 400)], indirect=True)
def test_answers_are_told_apart(binary: Path, shop: Answers) -> None:
    run = k6.play(binary, orders(70, 10), k6.timed(70, 0.7), shop.urls, quiet)
    got = result(run.summary, planned=70)
    assert not run.interrupted
    assert got.outcomes == {"confirmed": 20, "unsettled": 10, "declined": 10, "short": 10}
    assert got.failed_by == {"4xx": 10, "5xx": 10}
    assert (got.requests, got.failures) == (70, 20)
    assert set(shop.keys.values()) == {1}, "every order has a key of its own"


@pytest.mark.parametrize("shop", [(201,)], indirect=True)
def test_a_replay_sends_nothing_before_it_is_due(binary: Path, shop: Answers) -> None:
    run = k6.play(binary, orders(5, 400), k6.timed(5, 1.6), shop.urls, quiet)
    got = result(run.summary, planned=5)
    assert got.requests == len(shop.keys) == 5
    assert got.duration_s >= 1.6


@pytest.mark.parametrize("shop", [(201,)], indirect=True)
def test_a_constant_rate_of_everything(binary: Path, shop: Answers) -> None:
    scenario = k6.constant_rate(Rate(40, 1), 2)
    run = k6.play(binary, requests(OFFERS, Mix.MIXED, 80, 1, 0.0), scenario, shop.urls, quiet)
    got = result(run.summary)
    assert got.failures == 0
    assert set(got.operations) == {"list", "search", "item", "checkout"}
    assert got.requests + got.dropped >= 80


def test_a_shop_that_is_not_there_is_a_failure(binary: Path) -> None:
    nobody = {"products": "http://127.0.0.1:1", "orders": "http://127.0.0.1:1"}
    got = result(k6.play(binary, orders(3, 1), k6.timed(3, 0.1), nobody, quiet).summary)
    assert got.failed_by == {"no answer": 3}
    assert got.operations["checkout"].p50_ms is None


@pytest.mark.parametrize("shop", [(201,)], indirect=True)
def test_an_interrupted_test_is_summed_up(binary: Path, shop: Answers) -> None:
    def interrupt(now: k6.Progress) -> None:
        if now.requests:
            raise KeyboardInterrupt

    run = k6.play(binary, orders(200, 300), k6.timed(200, 60), shop.urls, interrupt)
    got = result(run.summary)
    assert run.interrupted
    assert 0 < got.requests < 200
    assert got.failures == 0


def test_a_k6_that_fails_is_told(binary: Path) -> None:
    with pytest.raises(UserError, match=r"k6 ended with code \d+ and no result"):
        k6.play(binary, orders(1, 1), {"executor": "unheard-of"}, {}, quiet)


@pytest.mark.parametrize("shop", [(201,)], indirect=True)
def test_the_environment_cannot_change_the_test(
    binary: Path, shop: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("K6_ITERATIONS", "7")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:2")
    got = result(k6.play(binary, orders(2, 1), k6.timed(2, 0.1), shop.urls, quiet).summary)
    assert (got.requests, got.failures) == (2, 0)
