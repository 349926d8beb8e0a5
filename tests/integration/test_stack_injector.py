"""A real injector among small real processes: what it does to them, and that it takes it back."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from service_kit.testing import PATIENT_S, status_of, wait_until

from prove.injector import journal, processes
from prove.stack import disks, drill, lifecycle, state
from prove.stack.processes import ensure_admin_token
from prove.stack.settings import on_free_ports
from prove.stack.spec import ProcessSpec
from prove.stack.state import ProcessState
from prove.stack.supervisor import Plan
from tests.support.stack import READY_TIMEOUT_S

TOO_LONG = "much too long"
"""Stands for a body past the limit."""
PATIENT: dict[str, Any] = {"timeout": PATIENT_S, "trust_env": False}
STANDIN = Path(__file__).parents[1] / "support" / "standin.py"


def standin(name: str, port: int, *behaviours: str) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        argv=(sys.executable, str(STANDIN), str(port), *behaviours),
        ready_url=f"http://127.0.0.1:{port}/",
        ports=(port,),
        group="shop",
    )


class Drill:
    """Stand-ins for two services, and the injector; `disk_mb` as in the settings."""

    def __init__(self, home: Path, disk_mb: int = 0) -> None:
        self.settings = on_free_ports(home).model_copy(
            update={
                "profile": "drill",
                "restart_delay_min_s": 0.05,
                "ready_timeout_s": READY_TIMEOUT_S,
                "disk_mb": disk_mb,
            }
        )
        self.home = self.settings.home
        with lifecycle.lock(self.settings) as lock:
            ensure_admin_token(self.settings)
            plan = Plan(settings=self.settings, specs=self._specs())
            self.supervisor = lifecycle.spawn(plan, lock)
        lifecycle.wait_ready(self.supervisor, self.home, lambda _: None)
        token = self.settings.admin_token_file.read_text().strip()
        self.http = httpx.Client(
            base_url=self.settings.url(self.settings.injector_port),
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=PATIENT_S,
        )

    def _specs(self) -> list[ProcessSpec]:
        return [
            standin("product", self.settings.product_port, "parent"),
            standin("order", self.settings.order_port),
            drill.injector(self.settings, needs=()),
        ]

    def put(self, name: str, fault: str, ttl_s: int = 60, **params: Any) -> httpx.Response:
        body = {"type": fault, "params": params, "ttl_s": ttl_s}
        return self.http.put(f"/faults/{name}", json=body)

    def begin(self, name: str, fault: str, ttl_s: int = 60, **params: Any) -> None:
        answer = self.put(name, fault, ttl_s, **params)
        assert answer.status_code == 200, answer.text

    def names(self) -> list[str]:
        return [each["name"] for each in self.http.get("/faults").json()["items"]]

    def process(self, name: str) -> ProcessState:
        return state.require(self.home).process(name)

    def phase(self, name: str, wanted: str) -> None:
        wait_until(lambda: self.process(name).phase == wanted, what=f"{name} to be {wanted}")

    def family(self, name: str) -> list[psutil.Process]:
        return processes.family(self.home, name)

    def serves(self, name: str) -> bool:
        return status_of(self.process(name).ready_url, timeout_s=30) == 200

    def kill_injector(self) -> None:
        """As SIGKILL does it; returns when another is ready."""
        before = self.process("injector").id
        assert before
        os.kill(before.pid, signal.SIGKILL)

        def another() -> bool:
            now = self.process("injector")
            return now.phase == "ready" and now.id != before

        wait_until(another, what="another injector")

    def end(self) -> None:
        self.http.close()
        self.supervisor.terminate()
        self.supervisor.wait()
        with lifecycle.lock(self.settings):
            lifecycle.clean_up(self.home)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Drill]:
    opened = Drill(tmp_path / "home")
    yield opened
    opened.end()


def stopped(members: list[psutil.Process]) -> bool:
    return all(member.status() == psutil.STATUS_STOPPED for member in members)


def test_a_killed_process_comes_back(shop: Drill) -> None:
    before = shop.family("product")
    assert len(before) == 2
    shop.begin("k", "kill", process="product")
    assert not any(map(state.runs, before))
    wait_until(lambda: shop.process("product").restarts == 1 and shop.serves("product"))
    assert shop.names() == ["k"]
    assert shop.http.delete("/faults/k").status_code == 204
    assert shop.names() == []


def test_a_stopped_process_goes_on_by_itself_and_on_demand(shop: Drill) -> None:
    members = shop.family("product")
    shop.begin("p", "pause", process="product")
    assert stopped(members)
    shop.begin("p", "pause", ttl_s=1, process="product")
    wait_until(lambda: shop.serves("product"), what="the end of its time")
    assert shop.family("product") == members
    shop.begin("p", "pause", process="product")
    assert stopped(members)
    shop.http.delete("/faults/p")
    assert shop.serves("product")
    assert shop.names() == []


def test_a_process_that_is_down_stays_down(shop: Drill) -> None:
    shop.begin("d", "down", process="order")
    shop.phase("order", "held")
    assert not shop.serves("order")
    shop.http.delete("/faults/d")
    wait_until(lambda: shop.serves("order"), what="the process to be started again")
    assert shop.put("k", "pause", process="order").status_code == 200


def test_what_an_injector_that_was_killed_had_begun_is_taken_back(shop: Drill) -> None:
    shop.begin("p", "pause", process="product")
    shop.begin("d", "down", process="order")
    shop.begin("l", "load", kind="reads", per_s=1)
    load = processes.of_lease(shop.home, "l")
    assert load
    shop.kill_injector()
    assert shop.names() == []
    assert shop.serves("product")
    wait_until(lambda: shop.serves("order"), what="the process to be started again")
    wait_until(lambda: not any(map(state.runs, load)), what="the load to end")


def test_a_stack_that_is_stopped_takes_everything_back(shop: Drill) -> None:
    shop.begin("p", "pause", process="product")
    shop.begin("d", "down", process="order")
    assert lifecycle.stop(shop.home)
    assert not journal.in_force(journal.path(shop.home))
    assert not state.leftovers(shop.home)


def test_what_a_killed_supervisor_left_is_taken_back_by_the_next_start(shop: Drill) -> None:
    shop.begin("p", "pause", process="product")
    shop.begin("d", "down", process="order")
    members = shop.family("product")
    injector = shop.family("injector")
    shop.supervisor.kill()
    shop.supervisor.wait()
    processes.kill(injector)
    assert stopped(members)
    with lifecycle.lock(shop.settings):
        lifecycle.clean_up(shop.home)
    assert not any(map(state.runs, members))
    assert not journal.in_force(journal.path(shop.home))
    assert not state.hold_file(shop.home, "order").exists()


def test_load_comes_in_bursts_and_ends_with_its_lease(shop: Drill, tmp_path: Path) -> None:
    shop.begin("l", "load", kind="checkouts", per_s=10, burst_s=1, retries=1)
    (load,) = processes.of_lease(shop.home, "l")
    shop.begin("l", "load", kind="reads", per_s=1)
    assert not state.runs(load)
    (load,) = processes.of_lease(shop.home, "l")
    shop.begin("l", "load", ttl_s=1, kind="reads", per_s=1)
    assert not state.runs(load)
    wait_until(lambda: not processes.of_lease(shop.home, "l"), what="the end of its time")
    wait_until(lambda: shop.names() == [], what="the list to say so")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("PUT", "/faults/Not-A-Name", {}, 422, "path"),
        ("PUT", "/faults/a", {}, 422, "body: Unable to extract tag"),
        ("PUT", "/faults/a", {"type": "pause", "params": {}, "ttl_s": 1}, 422, "params.process"),
        ("PUT", "/faults/a", "{", 400, "not JSON"),
        ("PUT", "/faults/a", {"type": "pause", "params": {"process": "moon"}, "ttl_s": 1}, 422,
         "there is no moon; there are product, order"),
        ("PUT", "/faults/a", TOO_LONG, 413, "Too Large"),
        ("POST", "/pages", {}, 422, "alerts"),
        ("GET", "/pages?since_unix_us=-1", None, 422, "since_unix_us"),
        ("GET", "/none-such", None, 404, ""),
        ("PATCH", "/faults/a", {}, 405, ""),
    ],
)  # fmt: skip
def test_bad_input_is_a_problem(
    shop: Drill, method: str, path: str, body: object, status: int, says: str
) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    if body == TOO_LONG:
        content = " " * 2_000_000
    headers = {"Content-Type": "application/json"}
    answer = shop.http.request(method, path, content=content, headers=headers)
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.headers["X-Request-Id"] == answer.json()["request_id"]
    assert says in answer.json()["detail"]
    assert shop.names() == []


def test_without_the_token_nothing_is_told_or_done(shop: Drill) -> None:
    url = shop.settings.url(shop.settings.injector_port)
    wrong = {"Authorization": "Bearer sesame"}
    for headers in ({}, wrong):
        for method, path in (("GET", "/faults"), ("DELETE", "/faults/a"), ("GET", "/pages")):
            answer = httpx.request(method, f"{url}{path}", headers=headers, **PATIENT)
            assert answer.status_code == 401, answer.text
        body = {"type": "down", "params": {"process": "order"}, "ttl_s": 60}
        answer = httpx.put(f"{url}/faults/a", json=body, headers=headers, **PATIENT)
        assert answer.status_code == 401
    assert shop.serves("order")
    log = (shop.settings.logs_dir / "injector.log").read_text()
    assert "sesame" not in log
    assert shop.settings.admin_token_file.read_text().strip() not in log


def test_without_a_configured_token_there_are_no_faults(tmp_path: Path) -> None:
    settings = on_free_ports(tmp_path)
    settings.data_dir.mkdir()
    argv, env = [sys.executable, "-m", "prove.injector"], {**os.environ, **settings.environment()}
    with subprocess.Popen(argv, env=env) as injector:
        try:
            url = settings.url(settings.injector_port)
            wait_until(lambda: status_of(f"{url}/readyz") == 200, what="the injector")
            given = {"Authorization": "Bearer sesame"}
            statuses = [
                httpx.get(url + path, headers=given, **PATIENT).status_code
                for path in ("/faults", "/pages")
            ]
        finally:
            injector.terminate()
    assert statuses == [404, 404]
    assert injector.returncode == 0


def test_pages_are_kept(shop: Drill) -> None:
    alert = {
        "status": "firing",
        "labels": {"alertname": "CheckoutSlow", "sloth_severity": "page"},
        "annotations": {},
        "startsAt": "2026-01-02T03:04:05Z",
        "fingerprint": "f",
    }
    before = time.time_ns() // 1000
    for _ in range(2):
        assert shop.http.post("/pages", json={"alerts": [alert]}).status_code == 204
    shop.kill_injector()
    assert shop.http.post("/pages", json={"alerts": [alert]}).status_code == 204
    (page,) = shop.http.get("/pages", params={"since_unix_us": before}).json()["items"]
    assert page == {"received_at_unix_us": page["received_at_unix_us"], **alert}
    assert shop.settings.pages_file.read_text().count("\n") == 1
    after = {"since_unix_us": page["received_at_unix_us"] + 1}
    assert shop.http.get("/pages", params=after).json() == {"items": []}


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="small disks take root on Linux"
)
def test_a_full_disk_has_no_room_until_the_lease_ends(tmp_path: Path) -> None:
    shop = Drill(tmp_path / "home", disk_mb=2)
    disk = disks.directory(shop.settings, "order")
    try:
        if not disk.is_mount():
            pytest.skip("there is no leave to mount here")
        (disk / "before").write_bytes(b"x" * 5000)
        shop.begin("f", "disk-full", process="order")
        with pytest.raises(OSError, match="No space left"):
            (disk / "more").write_bytes(b"x" * 5000)
        assert shop.put("g", "disk-full", process="order").status_code == 409
        shop.kill_injector()
        (disk / "more").write_bytes(b"x" * 5000)
    finally:
        shop.end()
    assert not disk.is_mount()


def test_without_a_disk_of_its_own_it_is_refused(shop: Drill) -> None:
    answer = shop.put("f", "disk-full", process="order")
    assert answer.status_code == 422
    assert "PROVE_DISK_MB=64" in answer.json()["detail"]
