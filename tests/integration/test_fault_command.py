"""`provectl fault` with the services of the shared stack."""

import json

import pytest
from service_kit.testing import status_of, wait_until

from tests.support.stack import Stack


@pytest.fixture(autouse=True)
def nothing_stays(stack: Stack) -> None:
    stack.run("fault", "clear", "--all")


def test_a_fault_is_set_listed_and_ended(stack: Stack) -> None:
    done = stack.run(
        *("fault", "set", "teapot", "-s", "payment", "-t", "error", "rate=1", "status=418"),
        *("-m", "method=GET", "--for", "1m"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("teapot is in force for ")
    url = f"{stack.url('payment')}/api/v1/payments/none-such"
    wait_until(lambda: status_of(url) == 418)

    shown = stack.run("fault", "list")
    assert shown.returncode == 0, shown.stderr
    assert "teapot" in shown.stdout
    assert "rate=1" in shown.stdout
    (listed,) = json.loads(stack.run("fault", "list", "--json").stdout)["faults"]
    assert (listed["service"], listed["name"], listed["type"]) == ("payment", "teapot", "error")
    assert 0 < listed["left_s"] <= 60

    ended = stack.run("fault", "clear", "teapot")
    assert (ended.returncode, ended.stdout) == (0, "teapot of payment is over\n")
    wait_until(lambda: status_of(url) == 404)
    assert stack.run("fault", "list").stdout == "Nothing is broken on purpose.\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("set", "x", "-s", "shop", "-t", "error"), "--service: must be one of product, order"),
        (("set", "x", "-s", "payment", "-t", "error", "rate"), "'rate' must be KEY=VALUE"),
        (("set", "x", "-s", "payment", "-t", "error", "rate=2"), "rate"),
        (("set", "x", "-s", "payment", "-t", "error", "rate=1", "--for", "1h"), "ttl_s"),
        (("set", "x", "-s", "payment", "-t", "quake"), "answered 422"),
        (("set", "x", "-s", "injector", "-t", "pause", "process=order"), "does not answer"),
        (("clear",), "name the fault to end, or give --all"),
        (("clear", "x"), "no fault that is in force is called x"),
    ],
)
def test_bad_input_says_why_and_breaks_nothing(
    stack: Stack, arguments: tuple[str, ...], says: str
) -> None:
    done = stack.run("fault", *arguments)
    assert done.returncode == 2, done.stdout
    assert says in done.stderr
    assert json.loads(stack.run("fault", "list", "--json").stdout)["faults"] == []


def test_without_a_stack_it_says_so(tmp_path: object, stack: Stack) -> None:
    done = stack.run("fault", "list", env={"PROVE_HOME": str(tmp_path)})
    assert done.returncode == 2
    assert "no stack is running" in done.stderr
