"""What fault leases of each type do to a request, and which requests they hit."""

import asyncio
import json
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from service_kit import faultanswers, faults
from service_kit.faultmodel import Fault, Lease, any_fault, plain_fault, product_fault
from service_kit.faults import Active, Effect, Facts, LeaseStore, bucket, decide
from service_kit.testing import PATIENT_S, wait_until

ABOUT = Facts(frozenset({"A", "B"}), frozenset({"toys"}), "c1", "k")


def lease(kind: str, ttl_s: int = 10, **parts: Any) -> Lease:
    fault = {"type": kind, "params": {}, "ttl_s": ttl_s, **parts}
    return Lease("x", any_fault.validate_python(fault), 0, ttl_s * 1000)


def put(store: LeaseStore, kind: str, ttl_s: int = 900, **parts: Any) -> Active:
    store.put("x", lease(kind, ttl_s, **parts).fault)
    return store.current()[0]


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({"sku": "B"}, True),
        ({"sku": "C"}, False),
        ({"category": "toys"}, True),
        ({"category": "food"}, False),
        ({"customer": "c1"}, True),
        ({"customer": "c2"}, False),
        ({"sku": "A", "category": "toys", "method": "GET"}, True),
        ({"sku": "A", "category": "food"}, False),
        ({"percentage": 100}, True),
        ({"percentage": 0.001}, False),
    ],
)
def test_what_a_request_is_about_is_matched(match: dict[str, Any], hit: bool) -> None:
    active = Active(lease("hang", match=match), random.Random())
    assert bool(decide([active], "GET", "/", 0, lambda: ABOUT)) is hit


def test_nobody_looks_at_a_request_unless_a_fault_asks() -> None:
    def facts() -> Facts:
        raise AssertionError("asked")

    active = Active(lease("hang", match={"route": "/a", "customer": "c"}), random.Random())
    assert decide([active], "GET", "/b", 0, facts) == []


def test_the_percentage_is_always_of_the_same_customers() -> None:
    def hit(percentage: float) -> set[str]:
        active = Active(lease("hang", match={"percentage": percentage}), random.Random())
        names = [f"customer-{n}" for n in range(2000)]
        return {
            name
            for name in names
            if active.matches("GET", "/", lambda: Facts(customer=name, key=str(len(names))))  # noqa: B023
        }

    assert 150 < len(hit(10)) < 250
    assert hit(10) < hit(20)
    assert bucket("customer-1") == 8135  # as the Order Service computes it


def test_a_ramp_goes_from_one_delay_to_the_other() -> None:
    ramp = {"distribution": "ramp", "from_ms": 100, "to_ms": 900, "over_s": 5}
    active = Active(lease("latency", params=ramp), random.Random())
    delays = [decide([active], "GET", "/", now)[0].delay_s for now in (0, 2500, 5000, 9000)]
    assert delays == [0.1, 0.5, 0.9, 0.9]


@pytest.mark.parametrize("end", ["revoked", "file removed", "set anew", "over"])
@pytest.mark.parametrize("kind", ["thread", "event loop"])
def test_what_is_held_goes_on_when_the_lease_ends(tmp_path: Path, kind: str, end: str) -> None:
    path = tmp_path / "faults.json"
    store = LeaseStore(path)
    # May be over before it is held: that must end as well.
    held = store.put("x", lease("hang", ttl_s=1 if end == "over" else 900).fault)
    thread = threading.Thread(
        target=(lambda: asyncio.run(store.hold_async(held)))
        if kind == "event loop"
        else (lambda: store.hold(held))
    )
    thread.start()
    if end == "revoked":
        LeaseStore(path).delete("x")
    elif end == "file removed":
        path.unlink()
    elif end == "set anew":
        put(LeaseStore(path), "hang", ttl_s=800)
    thread.join(PATIENT_S)
    assert not thread.is_alive()


def test_a_crash_is_a_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, sig: killed.append((pid, sig)))
    faults.crash(lease("crash"))
    assert killed == [(os.getpid(), signal.SIGKILL)]


def test_a_body_drips_until_the_lease_is_over(tmp_path: Path) -> None:
    store = LeaseStore(tmp_path / "faults.json")
    effect = Effect(put(store, "drip", params={"bytes_per_s": 20}).lease)
    drops = faultanswers.drops(b"0123456789", effect, store)
    assert [next(drops), next(drops)] == [(b"01", 0.1), (b"23", 0.1)]
    store.delete("x")
    assert list(drops) == [(b"456789", 0.0)]


def test_wrong_prices_are_those_of_one_category() -> None:
    effect = Effect(lease("wrong-data", params={"factor": 10}, match={"category": "toys"}))
    ball = {"sku": "A", "category": "toys", "price_minor": 100}
    bread = {"sku": "B", "category": "food", "price_minor": 100}
    wrong = {**ball, "price_minor": 1000}

    def altered(document: object) -> Any:
        body = faultanswers.with_wrong_prices(json.dumps(document).encode(), effect)
        return body and json.loads(body)

    assert altered(ball) == wrong
    assert altered(bread) is None
    page = {"items": [ball, bread], "next_cursor": None}
    assert altered(page) == {"items": [wrong, bread], "next_cursor": None}
    assert altered({"type": "/problems/not-found"}) is None
    assert altered([ball]) is None
    assert faultanswers.with_wrong_prices(b"text", effect) is None


def test_wrong_prices_are_in_every_read_that_may_have_them() -> None:
    fault = lease("wrong-data", params={"factor": 10}, match={"category": "toys", "sku": "A"})
    active = Active(fault, random.Random())
    assert decide([active], "GET", "/", 0)
    assert decide([active], "POST", "/", 0) == []


def test_what_hits_the_process_hits_no_request(tmp_path: Path) -> None:
    store = LeaseStore(tmp_path / "faults.json")
    store.put("x", lease("cpu", params={"share": 0.5}).fault)
    store.put("y", lease("hang").fault)
    assert wait_until(lambda: [item.lease.name for item in store.current()]) == ["y"]
    assert [item.name for item in store.background()] == ["x"]
    assert [item.name for item in store.items()] == ["x", "y"]


GOOD: list[dict[str, Any]] = [
    {"type": "latency", "params": {"distribution": "ramp", "from_ms": 0, "to_ms": 1, "over_s": 2}},
    {"type": "error", "params": {"rate": 1, "body": "gone"}, "match": {"percentage": 5}},
    {"type": "hang"},
    {"type": "hang", "params": {"rate": 0.1, "select": "count", "seed": 3}, "match": {}},
    {"type": "crash", "params": {}, "match": {"method": "GET"}},
    {"type": "drip", "params": {"bytes_per_s": 10}},
    {"type": "crash-loop", "params": {"after_s": 2}},
    {"type": "cpu", "params": {"share": 1}},
    {"type": "memory", "params": {"mb_per_s": 10, "cap_mb": 512}},
    {"type": "pool", "params": {"connections": 5}},
    {"type": "pool", "params": {"all": True}},
    {"type": "lock", "params": {"hold_ms": 100, "every_ms": 1000}},
]


@pytest.mark.parametrize("adapter", [plain_fault, product_fault, any_fault])
@pytest.mark.parametrize("fault", GOOD)
def test_the_contract_of_all_services(adapter: TypeAdapter[Fault], fault: dict[str, Any]) -> None:
    taken = adapter.validate_json(json.dumps({**fault, "ttl_s": 900}))
    again = adapter.validate_json(taken.model_dump_json(exclude_none=True))
    assert again == taken


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ({"type": "disk"}, None),
        ({"type": "cpu", "params": {"share": 0}}, "share"),
        ({"type": "cpu", "params": {"share": 1}, "match": {"method": "GET"}}, "match"),
        ({"type": "memory", "params": {"mb_per_s": 1, "cap_mb": 513}}, "cap_mb"),
        ({"type": "pool", "params": {}}, "connections"),
        ({"type": "pool", "params": {"all": False}}, "connections"),
        ({"type": "pool", "params": {"connections": 101}}, "connections"),
        ({"type": "lock", "params": {"hold_ms": 1}}, "every_ms"),
        ({"type": "crash-loop", "params": {"after_s": 0.5}}, "after_s"),
        ({"type": "drip", "params": {"bytes_per_s": 0}}, "bytes_per_s"),
        ({"type": "drip"}, "params"),
        ({"type": "error", "params": {"rate": 1, "body": "x" * 4097}}, "body"),
        ({"type": "error", "params": {"rate": 1, "delay_ms": 5}}, "delay_ms"),
        ({"type": "hang", "match": {"percentage": 0}}, "percentage"),
        ({"type": "hang", "match": {"percentage": 101}}, "percentage"),
        ({"type": "hang", "match": {"sku": "A"}}, "sku"),
        ({"type": "hang", "match": {"category": "toys"}}, "category"),
        ({"type": "hang", "match": {"customer": "c"}}, "customer"),
        ({"type": "hang", "ttl_s": 901}, "ttl_s"),
        ({"type": "wrong-data", "params": {"factor": 2}, "match": {"category": "toys"}}, None),
    ],
)
def test_what_breaks_the_contract_is_named(fault: dict[str, Any], field: str | None) -> None:
    with pytest.raises(ValidationError) as refused:
        plain_fault.validate_python({"ttl_s": 1, **fault})
    first = refused.value.errors()[0]
    if field is None:
        assert first["type"] == "union_tag_invalid"
        assert "type" in first["msg"]
    else:
        assert first["loc"][-1] == field


def test_the_catalogue_takes_more() -> None:
    fault = {"type": "hang", "params": {}, "ttl_s": 1, "match": {"sku": "A", "category": "toys"}}
    assert product_fault.validate_python(fault).wanted == {"sku": "A", "category": "toys"}
    for match in ({}, {"category": ""}, {"category": "toys", "customer": "c"}):
        with pytest.raises(ValidationError):
            product_fault.validate_python(
                {"type": "wrong-data", "params": {"factor": 2}, "ttl_s": 1, "match": match}
            )
