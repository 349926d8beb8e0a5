"""`provectl trace`, `traces` and `logs --order` as a user meets them, with the real stack."""

import json
import secrets
from pathlib import Path
from typing import Any

import httpx
import pytest
from service_kit.testing import PATIENT_S, wait_until

from prove import otlp
from prove.examples import EXAMPLES, by_trace
from prove.tools import repository_root
from tests.support.stack import Stack

WIDTH = 100


@pytest.fixture(scope="module")
def recorded(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All examples, recorded anew."""
    assert stack.run("data", "import").returncode == 0
    directory = tmp_path_factory.mktemp("traces")
    answer = stack.run("traces", "record", "-o", str(directory))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == [str(directory / f"{name}.json") for name in EXAMPLES]
    return directory


def order_of(file: Path) -> str:
    spans = otlp.read(file)
    return next(str(s.attributes["prove.order.id"]) for s in spans if s.name == "checkout")


def test_examples_can_be_recorded_again(recorded: Path) -> None:
    for name, example in EXAMPLES.items():
        assert example.shows(by_trace(otlp.read(recorded / f"{name}.json")))


def test_the_lease_of_the_retry_was_taken_back(recorded: Path, stack: Stack) -> None:
    assert recorded.exists()
    headers = {"Authorization": f"Bearer {stack.token}"}
    url = f"{stack.url('product')}/faults"
    leases = httpx.get(url, headers=headers, timeout=PATIENT_S, trust_env=False).json()
    assert "worked-example" not in {lease["name"] for lease in leases["items"]}


def test_an_unknown_example_is_told(stack: Stack) -> None:
    answer = stack.run("traces", "record", "retries")
    assert answer.returncode == 2
    assert "choose of healthy-checkout, retry, decline" in answer.stderr


def test_a_worked_example_sent_to_the_stack_looks_the_same_there(stack: Stack) -> None:
    """What Jaeger gives back is what was recorded: both are OTLP."""
    file = repository_root() / "observability" / "traces" / "retry.json"
    (spans,) = by_trace(otlp.read(file))
    trace_id = secrets.token_hex(16)
    moved = file.read_text().replace(spans[0].trace_id, trace_id)
    url = f"{stack.url('otlp_http')}/v1/traces"
    headers = {"Content-Type": "application/json"}
    sent = httpx.post(url, content=moved, headers=headers, timeout=PATIENT_S, trust_env=False)
    assert sent.is_success

    def shown() -> str | None:
        answer = stack.run("trace", trace_id)
        complete = answer.returncode == 0 and f"{len(spans)} spans" in answer.stdout
        return answer.stdout if complete else None

    there = wait_until(shown, what="the trace in Jaeger")
    recorded = stack.run("trace", str(file)).stdout
    assert there == recorded.replace(spans[0].trace_id, trace_id)


def test_an_orders_story_has_all_its_traces_in_order_of_time(recorded: Path, stack: Stack) -> None:
    file = recorded / "time-out-resumed.json"
    order_id = order_of(file)
    traces = by_trace(otlp.read(file))

    def told() -> list[dict[str, Any]] | None:
        answer = stack.run("logs", "--order", order_id, "--json")
        entries = [json.loads(line) for line in answer.stdout.splitlines()]
        ended = any(entry.get("_msg") == "order finished in the background" for entry in entries)
        return entries if ended else None

    entries = wait_until(told, what="the whole story")
    times = [entry["_time"] for entry in entries]
    assert times == sorted(times)
    assert {entry["trace_id"] for entry in entries} >= {spans[0].trace_id for spans in traces}
    spans = [entry for entry in entries if entry["kind"] == "span"]
    assert len({entry["span_id"] for entry in spans}) == len(spans)
    assert {entry["span_id"] for entry in spans} >= {s.span_id for each in traces for s in each}
    logged = {entry["service.name"] for entry in entries if entry["kind"] == "log"}
    assert logged == {"order-service", "product-service", "payment-service"}

    shown = stack.run("logs", "--order", order_id).stdout.splitlines()
    assert shown[0] == f"order {order_id}"
    assert all(len(line) <= WIDTH for line in shown)
    assert len([line for line in shown if "resume order" in line]) == 1
    put_off = next(number for number, line in enumerate(shown) if "order put off" in line)
    resumed = next(number for number, line in enumerate(shown) if "resume order" in line)
    assert put_off < resumed
    assert stack.run("logs", "--order", order_id[:-4]).stdout.splitlines() == shown

    own = stack.run("logs", "payment", "--order", order_id).stdout.splitlines()
    assert own
    assert all(" payment " in line for line in own)


def test_a_trace_as_tree_and_as_json(recorded: Path, stack: Stack) -> None:
    (spans,) = by_trace(otlp.read(recorded / "decline.json"))
    trace_id = spans[0].trace_id
    shown = stack.run("trace", trace_id[:12]).stdout
    assert f"{len(spans)} spans of 3 services" in shown
    assert "payment declined prove.payment.reason=card_declined" in shown
    assert all(len(line) <= WIDTH for line in shown.splitlines())
    document = json.loads(stack.run("trace", trace_id, "--json").stdout)
    assert {span["span_id"] for span in document["spans"]} == {span.span_id for span in spans}
    root = document["spans"][0]
    assert (root["depth"], root["name"]) == (0, "POST /api/v1/orders")
    assert 0 <= root["self_us"] <= root["duration_us"] <= document["duration_us"]


def test_failed_and_slow_traces_are_found(recorded: Path, stack: Stack) -> None:
    def ids(*arguments: str) -> set[str]:
        answer = stack.run("traces", "find", *arguments, "--json", "-n", "1000")
        return {trace["trace_id"] for trace in json.loads(answer.stdout)["traces"]}

    def of(name: str) -> str:
        return by_trace(otlp.read(recorded / f"{name}.json"))[0][0].trace_id

    assert of("retry") in ids("product", "--failed")
    assert of("healthy-checkout") not in ids("product", "--failed")
    assert of("healthy-checkout") in ids("product-service")
    assert of("time-out-resumed") in ids("payment", "--slower", "1s")
    table = stack.run("traces", "find", "order").stdout.splitlines()
    assert all(len(line) <= WIDTH for line in table)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trace", "0" * 32], "no span of trace 000"),
        (["trace", "12345678"], "give all 32 digits"),
        (["trace", "xyz"], "wants a trace id, 8 to 32 hex digits"),
        (["trace", "none.json"], "none.json can't be read"),
        (["logs", "--order", "0" * 36], "neither the log store nor Jaeger knows order"),
        (["logs", "--order", "o", "--trace", "t"], "exclude each other"),
        (["logs", "--order", "0" * 36, "-f"], "leave --follow out"),
        (["traces", "find", "acquirer"], "acquirer makes no spans"),
    ],
)
def test_what_is_not_there_is_said(arguments: list[str], said: str, stack: Stack) -> None:
    answer = stack.run(*arguments)
    assert answer.returncode == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
