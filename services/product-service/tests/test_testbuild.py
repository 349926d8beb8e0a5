"""The launcher of the test build: every crash point kills one worker, once, and nothing leaks."""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from product_harness import done
from service_kit.testing import PATIENT_S, wait_until

Product = Callable[..., dict[str, Any]]

LAUNCHER = (sys.executable, str(Path(__file__).parents[1] / "testbuild.py"))
STEPS = ("reserve", "commit", "release", "extend")
RESERVATIONS = "/api/v1/reservations"
BASKET = {"order_id": "o-1", "lines": [{"sku": "A", "quantity": 3}]}


def call(url: str, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
    """A status and a body; 0 when the connection is lost."""
    try:
        return done(url, path, method, body)
    except (OSError, http.client.HTTPException):
        return 0, None


def stock(url: str) -> int:
    return int(call(url, "/api/v1/products/A")[1]["stock"])


def take(url: str, step: str) -> int:
    if step == "reserve":
        return call(url, RESERVATIONS, "POST", BASKET)[0]
    body = {"ttl_s": 60} if step == "extend" else None
    return call(url, f"{RESERVATIONS}/o-1/{step}", "POST", body)[0]


def add(url: str, product: dict[str, Any]) -> None:
    assert call(url, "/api/v1/products/import", "POST", {"items": [product]})[0] == 200


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_kill_at_any_point_leaves_all_or_nothing(
    start: Any, tmp_path: Path, product: Product, side: str
) -> None:
    crash = tmp_path / "crash"
    crash.mkdir()
    service = start(command=LAUNCHER, PROVE_CRASH_DIR=str(crash), WEB_CONCURRENCY="1")
    add(service.url, product("A"))
    for step, left in (("reserve", 7), ("extend", 7), ("commit", 7), ("release", 10)):
        was = stock(service.url)
        (crash / f"product.{step}.{side}").touch()
        assert take(service.url, step) == 0
        fired = [path.name for path in crash.glob(f"product.{step}.*")]
        assert len(fired) == 1
        assert fired[0].startswith(f"product.{step}.{side}.fired.")
        # The arbiter replaces the worker; the caller asks again.
        wait_until(lambda: call(service.url, "/livez")[0] == 200)
        assert stock(service.url) == (was if side == "before" else left)
        assert take(service.url, step) in (200, 201)
        assert stock(service.url) == left
    assert service.process.poll() is None


def test_the_service_as_shipped_knows_nothing_of_it(
    start: Any, tmp_path: Path, product: Product
) -> None:
    for step in STEPS:
        for side in ("before", "after"):
            (tmp_path / f"product.{step}.{side}").touch()
    service = start(PROVE_CRASH_DIR=str(tmp_path), PROVE_MUTANT="no-such")
    add(service.url, product("A"))
    assert [take(service.url, step) for step in STEPS] == [201, 200, 200, 409]
    assert not list(tmp_path.glob("*.fired.*"))
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(PATIENT_S) == 0


def test_an_unknown_mutant_is_refused(tmp_path: Path) -> None:
    env = {**os.environ, "PROVE_MUTANT": "no-such"}
    done = subprocess.run(LAUNCHER, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no mutant 'no-such' here; there are expired-counts," in done.stderr


def test_a_release_that_gives_twice(start: Any, product: Product) -> None:
    url = start(command=LAUNCHER, PROVE_MUTANT="release-gives-twice").url
    add(url, product("A"))
    assert [take(url, step) for step in ("reserve", "release", "release")] == [201, 200, 200]
    assert stock(url) == 13


def test_an_expired_one_that_counts(start: Any, product: Product) -> None:
    url = start(command=LAUNCHER, PROVE_MUTANT="expired-counts").url
    add(url, product("A"))
    assert call(url, RESERVATIONS, "POST", {**BASKET, "ttl_s": 1})[0] == 201
    wait_until(lambda: stock(url) == 10, what="the sweeper has given it back")
    assert take(url, "commit") == 200
    assert stock(url) == 10


def test_updates_that_are_lost(start: Any, product: Product) -> None:
    url = start(command=LAUNCHER, PROVE_MUTANT="lost-update").url
    add(url, product("A", stock=1000))

    def order(number: int) -> int:
        return call(url, RESERVATIONS, "POST", {**BASKET, "order_id": f"o-{number}"})[0]

    def once(batch: int) -> bool:
        with ThreadPoolExecutor(8) as pool:
            held = list(pool.map(order, range(batch * 50, batch * 50 + 50))).count(201)
        taken = 1000 - stock(url)
        return taken < 3 * (held + batch * 50)

    assert any(once(batch) for batch in range(5))
