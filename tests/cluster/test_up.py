"""`provectl up --on context NAME` and the commands that then work on the cluster."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from prove.stack import state
from tests.cluster.conftest import Ground
from tests.cluster.lab.kubectl import eventually
from tests.cluster.shop import NAMESPACE, PORTS, Shop
from tests.support.stack import Stack

CONTEXT = "prove"


@pytest.fixture(scope="module")
def stack(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A home and ports of its own, and the lab's kubeconfig."""
    lab = ground.needs_lab("its context is called `prove`")
    found = Stack.at(tmp_path_factory.mktemp("up") / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(lab.control.kubeconfig))
        patch.setenv("PATH", f"{lab.kubectl.binary.parent}:{os.environ['PATH']}")
        yield found
        found.run("down")


@pytest.fixture(scope="module")
def forwarded(stack: Stack, shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """The shop that is installed, brought up once more: nothing changes, and it is forwarded."""
    values = tmp_path_factory.mktemp("values") / "values.yaml"
    values.write_text(yaml.safe_dump(shop.values))
    answer = stack.run(
        *("up", "--on", "context", CONTEXT, "--namespace", NAMESPACE, "--detach"),
        *("--no-images", "--registry", "prove.local", "--values", str(values)),
    )
    assert answer.returncode == 0, answer.stderr
    assert f"in namespace {NAMESPACE} of {CONTEXT}" in answer.stdout
    return stack


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("context", "nowhere"), "there is no context 'nowhere'; there are prove"),
        (("cluster", "prove"), "write `--on context NAME`"),
        (("context", "prove"), "say with --registry where context prove pulls images from"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    stack: Stack, arguments: tuple[str, str], said: str
) -> None:
    answer = stack.run("up", "--on", *arguments, "--namespace", "prove-test-never")
    assert answer.returncode == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_order_is_bought_and_followed_through_forwards(forwarded: Stack) -> None:
    answer = forwarded.run("buy", "--json")
    assert answer.returncode == 0, answer.stderr
    bought = json.loads(answer.stdout)
    assert bought["order"]["status"] == "confirmed"

    def has_logs() -> bool:
        told = forwarded.run("logs", "--trace", bought["trace_id"])
        return told.returncode == 0 and "order" in told.stdout

    eventually("its logs are found", has_logs)
    assert forwarded.run("trace", bought["trace_id"]).returncode == 0


def test_faults_reach_the_cluster(forwarded: Stack) -> None:
    faults: Any = forwarded.run("fault", "list", "--json")
    assert faults.returncode == 0, faults.stderr


def test_a_forward_that_ends_with_its_pod_is_begun_anew(forwarded: Stack, shop: Shop) -> None:
    before = state.require(forwarded.home).processes["product"].id
    for pod in shop.ready_pods("product"):
        shop.kubectl("delete", "pod", pod["metadata"]["name"], "-n", NAMESPACE, "--wait=false")

    def is_anew() -> bool:
        # A forward notices when it is used.
        forwarded.run("buy", "--timeout", "5s")
        process = state.require(forwarded.home).processes["product"]
        return process.id != before and process.phase == "ready"

    eventually("product is forwarded again", is_anew, seconds=180)
    shop.kubectl.rolled_out(NAMESPACE, "deployment/product")


def test_down_ends_the_forwards_and_leaves_the_shop(forwarded: Stack, shop: Shop) -> None:
    assert forwarded.run("down").returncode == 0
    assert not Path(forwarded.home / "run" / state.FILE).exists()
    assert shop.ready_pods("order")
    assert set(PORTS) >= {"product"}
