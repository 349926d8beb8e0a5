"""One catalogue per test, on SQLite or on a real PostgreSQL."""

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient
from product_service.app import ProductApp, create_app
from product_service.config import Settings
from pydantic import SecretStr
from service_kit import testing
from service_kit.database import migrate
from werkzeug.test import TestResponse

sys.path.insert(0, str(Path(__file__).parent))  # for what the tests share

TOKEN = "test-token"
PRODUCTS = "/api/v1/products"
RESERVATIONS = "/api/v1/reservations"

_numbers = itertools.count()


def make_product(sku: str = "A", **changes: Any) -> dict[str, Any]:
    fields = {
        "sku": sku,
        "name": f"Product {sku}",
        "description": "",
        "category": "mugs",
        "price_minor": 250,
        "currency": "GBP",
        "stock": 10,
    }
    return fields | changes


@pytest.fixture
def product() -> Callable[..., dict[str, Any]]:
    """A product's JSON, with changes."""
    return make_product


@dataclass
class Shop:
    """The service in this process, and shorthands for its API."""

    app: ProductApp
    client: FlaskClient

    def admin(self, method: str, path: str, body: Any = None) -> TestResponse:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return self.client.open(path, method=method, json=body, headers=headers)

    def add(self, *products: dict[str, Any]) -> None:
        response = self.admin("POST", f"{PRODUCTS}/import", {"items": list(products)})
        assert response.status_code == 200, response.text

    def list(self, **query: Any) -> dict[str, Any]:
        response = self.client.get(PRODUCTS, query_string=query)
        assert response.status_code == 200, response.text
        return dict(response.get_json())

    def stock(self, sku: str) -> int:
        return int(self.client.get(f"{PRODUCTS}/{sku}").get_json()["stock"])

    def reserve(self, order_id: str, ttl_s: int = 300, **quantities: int) -> TestResponse:
        lines = [{"sku": sku, "quantity": n} for sku, n in quantities.items()]
        body = {"order_id": order_id, "lines": lines, "ttl_s": ttl_s}
        return self.client.post(RESERVATIONS, json=body)

    def step(self, order_id: str, step: str, **body: Any) -> TestResponse:
        return self.client.post(f"{RESERVATIONS}/{order_id}/{step}", json=body)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with testing.postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/product.db"
    server = str(request.getfixturevalue("postgres_url"))
    name = f"test_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{server.rpartition('/')[0]}/{name}"


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/product.db"


@pytest.fixture
def open_shop(tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    apps = []

    def open_(url: str, **settings: Any) -> Shop:
        options: dict[str, Any] = {
            "database_url": url,
            "admin_token": SecretStr(TOKEN),
            "faults_file": tmp_path / "faults.json",
        }
        app = create_app(Settings(**(options | settings)))
        apps.append(app)
        migrate(app.database, "product_service")
        app.health.started = True
        return Shop(app, app.test_client())

    yield open_
    for app in apps:
        app.database.close()


@pytest.fixture
def shop(open_shop: Callable[..., Shop], database_url: str) -> Shop:
    return open_shop(database_url)


@pytest.fixture
def sqlite_shop(open_shop: Callable[..., Shop], sqlite_url: str) -> Shop:
    return open_shop(sqlite_url)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., testing.Running]]:
    """Start the real thing: `product-service serve` in its own processes."""
    with contextlib.ExitStack() as stack:

        def start_(
            command: Sequence[str] = (testing.script("product-service"),), **env: str
        ) -> testing.Running:
            settings = {
                "DATABASE_URL": f"sqlite:///{tmp_path}/product.db",
                "ADMIN_TOKEN": TOKEN,
                "OTEL_SDK_DISABLED": "true",
                **env,
            }
            port = testing.free_port()
            launch = [*command, "serve"]
            return stack.enter_context(testing.running(launch, settings, port, tmp_path))

        yield start_
