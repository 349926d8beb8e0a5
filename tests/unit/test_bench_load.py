import json
from pathlib import Path

import pytest

from prove.bench import load, shop
from prove.bench.load import Plan, Request
from prove.stack.settings import on_free_ports

# Of a real run of load/bench-shop.js: 4 s at 60/s, in turn to a server that answers after 20 ms
# and to one that answers 503 after 2 s, so that k6 runs out of users.
SUMMARY = json.loads(Path(__file__).with_name("test_bench_k6.json").read_text())


def test_a_recorded_summary_is_read() -> None:
    told = load.parse(SUMMARY, ["fast", "slow"], cpu_s=1.5)

    assert (told.iterations, told.dropped, told.failed, told.cpu_s) == (234, 7, 117, 1.5)
    fast, slow = told.targets["fast"], told.targets["slow"]
    assert (fast.count, fast.failed) == (117, 0)
    assert (slow.count, slow.failed) == (117, 117)
    assert 20 < fast.p50 <= fast.p95 <= fast.p99 <= fast.max < 2000 < slow.p50


def test_what_k6_leaves_out_of_a_summary_is_nothing() -> None:
    told = load.parse({}, ["never asked"], cpu_s=0)

    assert (told.iterations, told.dropped, told.per_second) == (0, 0, 0)
    assert told.targets["never asked"].count == 0


def test_a_rate_is_an_open_loop_and_users_are_a_closed_one() -> None:
    open_loop = Plan({}, seconds=60, rate=200).scenario
    assert open_loop["executor"] == "constant-arrival-rate"
    assert (open_loop["rate"], open_loop["timeUnit"], open_loop["duration"]) == (200, "1s", "60s")
    # Enough for each request to take a second; no more are made while it measures.
    assert open_loop["preAllocatedVUs"] == 200
    assert "maxVUs" not in open_loop

    closed_loop = Plan({}, seconds=8, users=8).scenario
    assert (closed_loop["executor"], closed_loop["vus"]) == ("constant-vus", 8)


def test_a_request_tells_the_script_what_to_send_and_to_expect() -> None:
    release = Request("POST", "http://shop/reservations/$id/release")
    reserve = Request("POST", "http://shop/reservations", 201, {"order_id": "$id"}, then=release)

    told = reserve.as_json()

    assert told["headers"] == {"Content-Type": "application/json"}
    assert (told["expect"], told["body"]) == (201, {"order_id": "$id"})
    assert told["then"]["url"].endswith("/$id/release")
    assert "body" not in told["then"]


def test_orders_are_of_one_to_three_known_products_and_have_keys_of_their_own() -> None:
    sent = shop.orders("http://shop", size=50, count=200)

    known = {product["sku"] for product in shop.catalogue(50)}
    bodies = [request.body for request in sent if request.body]
    assert {len(body["lines"]) for body in bodies} == {1, 2, 3}
    assert {line["sku"] for body in bodies for line in body["lines"]} <= known
    assert {request.headers["Idempotency-Key"] for request in sent} == {"$id"}


@pytest.mark.parametrize("size", [100, 1_000])
def test_a_search_term_is_as_selective_in_a_large_catalogue_as_in_a_small_one(size: int) -> None:
    names = [product["name"].split() for product in shop.catalogue(size)]

    assert sum(shop.code(42) in words for words in names) == shop.PER_CODE


def test_a_catalogue_is_the_same_each_time() -> None:
    assert list(shop.catalogue(20)) == list(shop.catalogue(30))[:20]


def test_ports_of_a_measured_stack_are_free_and_its_environment_names_them(tmp_path: Path) -> None:
    settings = on_free_ports(tmp_path)

    assert len(set(settings.ports.values())) == len(settings.ports)
    told = shop.environment(settings)
    assert told["PROVE_HOME"] == str(tmp_path)
    assert told["PROVE_PRODUCT_PORT"] == str(settings.product_port) != "8001"
