"""A real drill stack, on PostgreSQL: links, the database and the inbox of its injector."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from service_kit import postgres
from service_kit.testing import PATIENT_S, status_of, wait_until

from prove.clients.faults import INJECTOR, Faults
from prove.errors import UserError
from tests.support.stack import Stack

PRODUCT = "/api/v1/products?limit=1"
ORDERS = "/api/v1/orders?customer_id=nobody"
pytestmark = pytest.mark.xdist_group("drill stack")


@pytest.fixture(scope="module")
def drill() -> Iterator[Stack]:
    try:
        postgres.programs_directory()
    except postgres.MissingError as error:
        pytest.skip(str(error))
    # PostgreSQL's account must be able to enter it.
    directory = Path(tempfile.mkdtemp(prefix="prove-drill-"))
    directory.chmod(0o755)
    made = Stack.at(directory / "home")
    stack = Stack(made.settings.model_copy(update={"profile": "drill", "database": "postgres"}))
    done = stack.run("up", "--detach")
    try:
        assert done.returncode == 0, done.stderr
        assert f"faults    {stack.url('injector')}/faults" in done.stdout
        yield stack
    finally:
        stack.run("down")
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def faults(drill: Stack) -> Iterator[Faults]:
    injector = Faults(drill.settings, INJECTOR, timeout_s=PATIENT_S)
    yield injector
    for lease in injector.items():
        injector.delete(lease.name)
    injector.close()


def answers(drill: Stack, service: str, path: str, timeout_s: float = 30) -> int:
    """The status, or 0 when there is none in time."""
    try:
        url = drill.url(service) + path
        return httpx.get(url, timeout=timeout_s, trust_env=False).status_code
    except httpx.HTTPError:
        return 0


def test_every_process_is_one_of_the_stack(drill: Stack) -> None:
    report = drill.ready()
    assert report["ready"]
    names = {process["name"] for process in report["processes"]}
    assert names >= {"database", "toxiproxy", "injector", "product", "order", "payment"}


def test_the_books_are_read_from_its_databases(drill: Stack) -> None:
    assert drill.run("data", "import").returncode == 0
    drill.buy()
    done = drill.run("orders", "reconcile")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_cut_link_to_a_database_hurts_that_service_alone(drill: Stack, faults: Faults) -> None:
    cut = {"link": "order-database", "kind": "black-hole"}
    faults.put("cut", {"type": "link", "params": cut, "ttl_s": 300})
    assert answers(drill, "order", ORDERS, timeout_s=2) != 200
    assert answers(drill, "product", PRODUCT) == 200
    faults.delete("cut")
    wait_until(lambda: answers(drill, "order", ORDERS) == 200, what="the order's database")


def test_a_stopped_database_is_started_again(drill: Stack, faults: Faults) -> None:
    faults.put("stop", {"type": "database-stop", "ttl_s": 300})
    wait_until(lambda: drill.state().process("database").phase == "held", what="its end")
    assert answers(drill, "product", PRODUCT) != 200
    faults.delete("stop")
    wait_until(lambda: answers(drill, "product", PRODUCT) == 200, what="the database")
    wait_until(lambda: answers(drill, "order", ORDERS) == 200, what="the database")


def test_a_link_between_services_is_slow_for_its_callers_alone(
    drill: Stack, faults: Faults
) -> None:
    over_link = f"{drill.url('order_product_link')}/livez"
    assert status_of(over_link, PATIENT_S) == 200
    slow = {"link": "order-product", "kind": "half-open"}
    faults.put("slow", {"type": "link", "params": slow, "ttl_s": 300})
    with pytest.raises(httpx.TimeoutException):
        httpx.get(over_link, timeout=1, trust_env=False)
    assert answers(drill, "product", "/livez") == 200
    faults.put("slow", {"type": "link", "params": slow, "ttl_s": 1})
    wait_until(lambda: status_of(over_link) == 200, what="the end of its time")


def test_its_alerts_get_into_the_inbox(drill: Stack) -> None:
    alert = {"labels": {"alertname": "OnlyATest", "sloth_severity": "page"}}
    posted = httpx.post(
        f"{drill.url('alertmanager')}/api/v2/alerts",
        json=[alert],
        timeout=PATIENT_S,
        trust_env=False,
    )
    assert posted.status_code == 200, posted.text

    def pages() -> list[str]:
        answer = httpx.get(
            f"{drill.url('injector')}/pages",
            headers={"Authorization": f"Bearer {drill.token}"},
            timeout=PATIENT_S,
            trust_env=False,
        )
        return [each["labels"]["alertname"] for each in answer.json()["items"]]

    wait_until(lambda: "OnlyATest" in pages(), what="the page")


def test_it_says_what_it_has_no_disk_for(drill: Stack, faults: Faults) -> None:
    full = {"type": "disk-full", "params": {"process": "order"}, "ttl_s": 1}
    with pytest.raises(UserError, match="order has no SQLite file on a disk of this stack"):
        faults.put("full", full)
