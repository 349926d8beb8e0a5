"""A stored failure never hides a charge: what counts as the acquirer's word, and what does not."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from payment_harness import ledger, net, pay, run_payment, settled
from service_kit.testing import PATIENT_S, Running

Garbage = tuple[int, str, bytes]

REFUSAL = {"title": "No", "detail": "no"}


def of_the_acquirer(status: int, slug: str) -> Garbage:
    body = {"type": f"/problems/{slug}", "status": status, **REFUSAL}
    return status, "application/problem+json", json.dumps(body).encode()


class HalfBrokenProxy:
    """Hands the first charges on to the acquirer, but answers them with garbage."""

    def __init__(self, acquirer: Running, garbage: list[Garbage], *, hands_on: bool = True) -> None:
        proxy = self
        self.hands_on = hands_on
        self.garbage = garbage

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(httpx.get(acquirer.url + self.path, timeout=PATIENT_S))

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                if proxy.hands_on or not proxy.garbage:
                    headers = {"content-type": self.headers["content-type"]}
                    url = acquirer.url + self.path
                    answer = httpx.post(url, content=content, headers=headers, timeout=PATIENT_S)
                if proxy.garbage:
                    self.send(*proxy.garbage.pop(0))
                else:
                    self.answer(answer)

            def answer(self, given: httpx.Response) -> None:
                self.send(given.status_code, given.headers["content-type"], given.content)

            def send(self, status: int, kind: str, content: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.send_header("location", f"{acquirer.url}/v1/ledger")
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> "HalfBrokenProxy":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


Broken = tuple[httpx.Client, HalfBrokenProxy, Running]


@pytest.fixture(scope="module")
def broken(
    launched: tuple[Running, Running], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broken]:
    acquirer = launched[1]
    directory: Path = tmp_path_factory.mktemp("broken")
    with (
        HalfBrokenProxy(acquirer, []) as proxy,
        run_payment(directory, proxy) as service,
        httpx.Client(base_url=service.url, timeout=PATIENT_S) as client,
    ):
        yield client, proxy, acquirer


ALIEN: dict[str, Garbage] = {
    "404 page": (404, "text/html", b"<h1>no route</h1>"),
    "400 text": (400, "text/plain", b"Bad Request"),
    "413 page": (413, "text/html", b"<h1>too large</h1>"),
    "422 of someone else": (422, "application/problem+json", b'{"type":"about:blank"}'),
    "422 that is not JSON": (422, "application/problem+json", b"{"),
    "422 as plain JSON": (422, "application/json", of_the_acquirer(422, "validation")[2]),
    "422 that says 400": (
        422,
        "application/problem+json",
        of_the_acquirer(400, "validation")[2],
    ),
    "404 of the acquirer": of_the_acquirer(404, "not-found"),
    "409 of the acquirer": of_the_acquirer(409, "key-reused"),
    "422 of the acquirer, though it has booked": of_the_acquirer(422, "validation"),
    "200 page": (200, "text/html", b"<h1>welcome</h1>"),
    "200 about nothing": (200, "application/json", b'{"status":"declined","charge_id":"x"}'),
    "200 about another": (
        200,
        "application/json",
        b'{"status":"declined","charge_id":"x","key":"k","amount_minor":1250,"currency":"GBP"}',
    ),
    "302": (302, "text/plain", b""),
    "500": (500, "text/plain", b"oops"),
}


@pytest.mark.parametrize("name", ALIEN)
def test_what_was_booked_is_captured_whatever_was_answered(broken: Broken, name: str) -> None:
    client, proxy, acquirer = broken
    proxy.garbage, proxy.hands_on = [ALIEN[name]], True
    answer = settled(pay, client, name, headers={"Prefer": "wait=30"})
    assert (answer.status_code, answer.json()["status"]) == (201, "captured")
    assert net(acquirer, answer.json()["id"]) == (1, 1250)


@pytest.mark.parametrize("name", [name for name in ALIEN if "has booked" not in name])
def test_who_answers_for_the_acquirer_is_not_believed(broken: Broken, name: str) -> None:
    client, proxy, acquirer = broken
    proxy.garbage, proxy.hands_on = [ALIEN[name]], False
    key = f"not handed on: {name}"
    answer = settled(pay, client, key, headers={"Prefer": "wait=30"})
    assert (answer.status_code, answer.json()["status"]) == (201, "captured")
    assert net(acquirer, answer.json()["id"]) == (1, 1250)


def test_the_acquirers_own_refusal_is_final(broken: Broken) -> None:
    client, proxy, acquirer = broken
    proxy.garbage, proxy.hands_on = [of_the_acquirer(422, "validation")], False
    first, again = settled(pay, client, "refused"), pay(client, "refused")
    assert first.status_code == again.status_code == 402
    assert first.json()["reason"] == "refused"
    assert ledger(acquirer, first.json()["payment_id"]) == []
