"""The Order Service, with its real peers, keeps what /openapi.json promises, by schemathesis.

(The other two services need no peers for this: their own suites have the same test.)
"""

import contextlib
import sqlite3
from pathlib import Path

import pytest
from service_kit.ports import claim
from service_kit.testing import running, schemathesis

from prove import tools
from tests.support.stack import Stack

CONFIG = Path(__file__).with_name("schemathesis.toml")
TOKEN = "test-token"
# The faults have ten types with limits at both ends: some hundred requests.
TIMEOUT_S = 1200

pytestmark = pytest.mark.timeout(TIMEOUT_S)


def test_every_check_of_the_shop(stack: Stack, tmp_path: Path) -> None:
    # Without the token: with it, the run would set faults on a service that others use, too.
    assert stack.run("data", "import", "--stock", "100000", "--restock").returncode == 0
    hooks, places = "tests.support.basket", ("--exclude-path-regex", "^/faults")
    before = placed(stack)
    schemathesis(stack.url("order"), CONFIG, tmp_path, *places, hooks=hooks)
    assert placed(stack) > before, "no order was placed that could be read or cancelled"


def placed(stack: Stack) -> int:
    """How many orders of the shop have got as far as a payment, but for the canary's."""
    with contextlib.closing(sqlite3.connect(stack.settings.data_dir / "order.db")) as books:
        query = "SELECT count(*) FROM orders WHERE payment_id <> '' AND customer_id <> 'canary'"
        return int(books.execute(query).fetchone()[0])


def test_every_check_of_the_faults(tmp_path: Path) -> None:
    env = {
        "ADMIN_TOKEN": TOKEN,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'order.db'}",
        "OTEL_SDK_DISABLED": "true",
    }
    command = [str(tools.ensure_service("order-service")), "serve"]
    with running(command, env, claim()[0], tmp_path) as service:
        schemathesis(
            service.url,
            CONFIG,
            tmp_path,
            *("--include-path-regex", "^/faults", "-H", f"Authorization: Bearer {TOKEN}"),
        )
