"""Card numbers and credentials, sent through every door of the shop, are in no telemetry.

Each door has a card number and a secret of its own, so that what is found names the door. A card
number glued into a word (`X4111…`) can't be told from an id: that is the limit of masking, and none
of these doors.
"""

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from service_kit.testing import PATIENT_S, wait_until

from prove.stack import observability
from tests.support.stack import Stack

SKU = "SECRETS"
SERVICES = {
    "product": "/api/v1/products",
    "order": "/api/v1/orders",
    "payment": "/api/v1/payments",
}
JSON = {"Content-Type": "application/json"}


def card() -> str:
    return "4" + "".join(secrets.choice("0123456789") for _ in range(15))


@dataclass
class Door:
    """One way in, and what is sent through it."""

    name: str
    send: Callable[["Door", "Shop"], httpx.Response]
    card: str = field(default_factory=card)
    secret: str = field(default_factory=lambda: f"s3cr3t{secrets.token_hex(12)}")
    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def grouped(self) -> str:
        """As it is printed on the card."""
        return " ".join(self.card[at : at + 4] for at in range(0, 16, 4))

    def never_shown(self) -> tuple[str, ...]:
        grouped = (self.grouped.replace(" ", by) for by in (" ", "-", "+", "%20"))
        return self.card, *grouped, self.secret


@dataclass
class Shop:
    """The shop's addresses, and requests in the trace of a door."""

    stack: Stack
    http: httpx.Client

    def ask(
        self,
        door: Door,
        method: str,
        service: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: object = None,
        content: str | None = None,
    ) -> httpx.Response:
        traced = {"traceparent": f"00-{door.trace_id}-{secrets.token_hex(8)}-01"}
        return self.http.request(
            method,
            self.stack.url(service) + path,
            headers={**traced, **(headers or {})},
            json=body,
            content=content,
        )

    @property
    def admin(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.stack.token}"}


def of_every_service(service: str, path: str) -> list[Door]:
    """What any request may carry, whatever it is about."""
    ids = "?order_id=a&customer_id=a"
    key = {"Idempotency-Key": secrets.token_hex(8)}

    def door(name: str, send: Callable[[Door, Shop], httpx.Response]) -> Door:
        return Door(f"{service}: {name}", send)

    def headers(**names: str) -> Callable[[Door, Shop], httpx.Response]:
        def send(door: Door, shop: Shop) -> httpx.Response:
            told = {
                name.replace("_", "-"): form.format(card=door.card, secret=door.secret)
                for name, form in names.items()
            }
            return shop.ask(door, "GET", service, path + ids, told)

        return send

    return [
        door("request id", headers(X_Request_Id="{card}")),
        door("user agent", headers(User_Agent="shop/1.0 {card}", Referer="http://x/?pan={card}")),
        door("host", headers(Host="{card}")),
        door("forwarded for", headers(X_Forwarded_For="{card}", Forwarded="for={card}")),
        door("trace state and baggage", headers(tracestate="a={card}", baggage="b={secret}")),
        door(
            "credentials nobody asked for",
            headers(Authorization="Basic {secret}", Cookie="s={secret}", X_Api_Key="{secret}"),
        ),
        door(
            "wrong admin token",
            lambda door, shop: shop.ask(
                door,
                "PUT",
                service,
                "/faults/x",
                {"Authorization": f"Bearer {door.secret}"},
                {"card": door.card},
            ),
        ),
        door(
            "query",
            lambda door, shop: shop.ask(
                door,
                "GET",
                service,
                f"{path}?order_id={door.card}&customer_id={door.card}&cursor={door.card}"
                f"&q={door.grouped}&card_number={door.card}&password={door.secret}",
            ),
        ),
        door("path", lambda door, shop: shop.ask(door, "GET", service, f"{path}/{door.card}")),
        door(
            "path that leads nowhere",
            lambda door, shop: shop.ask(door, "GET", service, f"/{door.card}/{door.grouped}"),
        ),
        door("method", lambda door, shop: shop.ask(door, door.card, service, path)),
        door(
            "body that is no JSON",
            lambda door, shop: shop.ask(
                door,
                "POST",
                service,
                path,
                {**JSON, **shop.admin, **key},
                content=f'{{"card": {door.card} "password": "{door.secret}"',
            ),
        ),
        door(
            "fields nobody asked for",
            lambda door, shop: shop.ask(
                door,
                "POST",
                service,
                path,
                {**shop.admin, **key},
                {"card_number": door.card, door.grouped: 1, "password": door.secret},
            ),
        ),
        door(
            "content type",
            lambda door, shop: shop.ask(
                door,
                "POST",
                service,
                path,
                {**shop.admin, "Content-Type": f"text/{door.card}"},
                content="x",
            ),
        ),
    ]


def order(**fields: object) -> Callable[[Door, Shop], httpx.Response]:
    def send(door: Door, shop: Shop) -> httpx.Response:
        body = {
            "customer_id": "secrets",
            "lines": [{"sku": SKU, "quantity": 1}],
            "payment_method": "tok_approve",
            **filled(fields, door),
        }
        return shop.ask(
            door, "POST", "order", "/api/v1/orders", {"Idempotency-Key": door.card}, body
        )

    return send


def payment(**fields: object) -> Callable[[Door, Shop], httpx.Response]:
    def send(door: Door, shop: Shop) -> httpx.Response:
        body = {
            "order_id": "secrets",
            "amount_minor": 100,
            "currency": "GBP",
            "method_token": "tok_approve",
            **filled(fields, door),
        }
        headers = {"Idempotency-Key": door.card}
        return shop.ask(door, "POST", "payment", "/api/v1/payments", headers, body)

    return send


def reservation(**fields: object) -> Callable[[Door, Shop], httpx.Response]:
    def send(door: Door, shop: Shop) -> httpx.Response:
        lines = [{"sku": SKU, "quantity": 1}]
        body = {"order_id": secrets.token_hex(8), "lines": lines, **filled(fields, door)}
        return shop.ask(door, "POST", "product", "/api/v1/reservations", body={**body, "ttl_s": 1})

    return send


def product(door: Door, shop: Shop) -> httpx.Response:
    body = {
        "sku": door.card,
        "name": f"Gift for {door.grouped}",
        "description": door.card,
        "category": door.card,
        "price_minor": 1,
        "currency": "GBP",
        "stock": 1,
    }
    path = f"/api/v1/products/{door.card}"
    return shop.ask(door, "PUT", "product", path, shop.admin, body)


def filled(fields: dict[str, object], door: Door) -> dict[str, object]:
    """`CARD` in values is the door's; `INT` its number."""
    text = json.dumps(fields).replace('"INT"', door.card).replace("CARD", door.card)
    filled: dict[str, object] = json.loads(text)
    return filled


DOORS = [
    *(door for service, path in SERVICES.items() for door in of_every_service(service, path)),
    Door("order: customer", order(customer_id="CARD")),
    Door("order: sku", order(lines=[{"sku": "CARD", "quantity": 1}])),
    Door("order: quantity", order(lines=[{"sku": SKU, "quantity": "INT"}])),
    Door("order: payment method", order(payment_method="CARD")),
    Door("order: currency", order(currency="CARD")),
    Door("payment: order", payment(order_id="CARD")),
    Door("payment: method token", payment(method_token="CARD")),
    Door("payment: amount", payment(amount_minor="INT")),
    Door("product: name and category", product),
    Door("reservation: order", reservation(order_id="CARD")),
    Door("reservation: sku", reservation(lines=[{"sku": "CARD", "quantity": 1}])),
]
# Neither makes a span: httptools refuses the method before there is a request.
UNTRACED = {"payment: method"}


@pytest.fixture(scope="module")
def told(stack: Stack) -> Iterator[dict[str, str]]:
    """What every store and file of the stack holds after all doors were tried, by its name."""
    with httpx.Client(trust_env=False, timeout=PATIENT_S) as http:
        shop = Shop(stack, http)
        since_s = time.time()
        product = {"sku": SKU, "name": "Parcel", "description": "", "category": "secrets"}
        product |= {"price_minor": 100, "currency": "GBP", "stock": 1000}  # type: ignore[dict-item]
        made = http.put(
            f"{stack.url('product')}/api/v1/products/{SKU}", headers=shop.admin, json=product
        )
        assert made.is_success, made.text
        for door in DOORS:
            door.send(door, shop)

        def arrived(door: Door) -> bool:
            trace = http.get(f"{stack.url('jaeger')}/api/traces/{door.trace_id}")
            query = {"query": f'trace_id:="{door.trace_id}"'}
            logged = http.post(f"{stack.url('victorialogs')}/select/logsql/query", data=query)
            return trace.is_success and bool(logged.text)

        def written() -> bool:
            spans = span_files(stack)
            return all(door.trace_id in spans for door in DOORS if door.name not in UNTRACED)

        for door in DOORS:
            if door.name not in UNTRACED:
                wait_until(lambda door=door: arrived(door), what=door.name)  # type: ignore[misc]
        wait_until(written, what="the spans in the Collector's files")
        wait_until(lambda: gauge(http, stack), what="the metrics of the new category")
        yield everything(http, stack, since_s)


def gauge(http: httpx.Client, stack: Stack) -> bool:
    """Whether the category, which is a card number, is a label already, masked."""
    url = f"{stack.url('prometheus')}/api/v1/query"
    query = 'prove_stock_level{prove_category="****"}'
    return bool(http.get(url, params={"query": query}).json()["data"]["result"])


def everything(http: httpx.Client, stack: Stack, since_s: float) -> dict[str, str]:
    prometheus = stack.url("prometheus")
    since = {"start": str(since_s), "end": str(time.time())}
    every = '{__name__=~".+"}'
    found = {
        f"Jaeger, {service}": http.get(
            f"{stack.url('jaeger')}/api/traces",
            params={
                "service": f"{service}-service",
                "limit": "1500",
                "start": str(int(since_s * 1e6)),
                "end": str(int(time.time() * 1e6)),
            },
        ).text
        for service in SERVICES
    }
    found["VictoriaLogs"] = http.post(
        f"{stack.url('victorialogs')}/select/logsql/query",
        data={"query": f"_time:[{since_s}, {time.time()}]"},
    ).text
    found["Prometheus, series"] = http.get(
        f"{prometheus}/api/v1/series", params={"match[]": every, **since}
    ).text
    found["Prometheus, exemplars"] = http.get(
        f"{prometheus}/api/v1/query_exemplars", params={"query": every, **since}
    ).text
    for file in stack.settings.logs_dir.iterdir():
        found[f"file {file.name}"] = file.read_text(errors="replace")
    found["span files"] = span_files(stack)
    return found


def span_files(stack: Stack) -> str:
    """All that the Collector has written, with what it has rotated; one may go meanwhile."""
    texts = []
    for file in observability.span_file(stack.settings).parent.iterdir():
        with contextlib.suppress(FileNotFoundError):
            texts.append(file.read_text(errors="replace"))
    return "".join(texts)


@pytest.mark.parametrize("door", DOORS, ids=[door.name for door in DOORS])
def test_nothing_comes_in_by(door: Door, told: dict[str, str]) -> None:
    leaks = [
        f"{name}: …{text[max(0, at - 100) : at]}[here]"
        for name, text in told.items()
        for secret in door.never_shown()
        if (at := text.find(secret)) >= 0
    ]
    assert not leaks


def test_the_telemetry_of_it_all_was_looked_at(told: dict[str, str]) -> None:
    """Or nothing being found would mean nothing."""
    traced = [door for door in DOORS if door.name not in UNTRACED]
    jaeger = "".join(text for name, text in told.items() if name.startswith("Jaeger"))
    assert all(door.trace_id in jaeger for door in traced)
    assert all(door.trace_id in told["VictoriaLogs"] for door in traced)
    assert all(door.trace_id in told["span files"] for door in traced)
    logs = "".join(text for name, text in told.items() if name.endswith(".log"))
    assert all(door.trace_id in logs for door in traced)
    assert "****" in jaeger
    assert "****" in told["VictoriaLogs"]
    assert "****" in logs
    assert 'prove_category":"****' in told["Prometheus, series"]


def test_the_admin_token_is_nowhere_either(told: dict[str, str], stack: Stack) -> None:
    assert not [name for name, text in told.items() if stack.token in text]
