"""Incidents on a real drill: what their scenarios claim holds. When, is judged by `make prove`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from service_kit.testing import PATIENT_S

from prove.incident import catalogue, record, schema
from tests.support import reviews
from tests.support.stack import Stack

TIMEOUT_S = 1500
SIX = (
    "product-down",  # a service
    "acquirer-declining",  # dependencies, one that pages and one that doesn't
    "prometheus-down",
    "product-pool-exhausted",  # capacity
    "order-release-errors",  # changes
    "wrong-prices",
)
BY_URL = "order-release-errors"
"""Of these the one that is run on the drill from elsewhere, by its URLs."""
OF_TIME = (" in time", " too soon", "recovery:")
"""Ends and begins of expectations that a busy machine may miss."""

pytestmark = pytest.mark.timeout(2 * TIMEOUT_S)


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A drill of these tests' own: they break it all the time."""
    drill = Stack.at(tmp_path_factory.mktemp("drill") / "home")
    up = drill.run("up", "--drill", "--detach")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        yield drill
    finally:
        drill.run("down")


def leases(drill: Stack) -> list[str]:
    """All that are in force."""
    headers = {"Authorization": f"Bearer {drill.token}"}
    found = []
    for place in ("product", "order", "payment", "acquirer", "injector"):
        answer = httpx.get(
            f"{drill.url(place)}/faults", headers=headers, timeout=PATIENT_S, trust_env=False
        )
        found += [f"{place}/{item['name']}" for item in answer.raise_for_status().json()["items"]]
    return found


def run(
    stack: Stack, names: list[str], *options: str, env: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """What came of incidents that are as told; each is begun again once.

    For a machine that other tests keep busy may let no steady state come about.
    """
    ended: list[dict[str, Any]] = []
    for _ in range(2):
        arguments = ("incident", "run", *names, *options, "--load", "0.5", "--json")
        with stack.start(*arguments, env=env) as running:
            out, err = running.communicate(timeout=TIMEOUT_S)
        assert running.returncode in (0, 1), out + err
        document = json.loads(out)
        assert [each["scenario"] for each in document["incidents"]] == names
        assert document["figures"]["wrong_pages"] == 0
        assert document["figures"]["integrity_differences"] == 0
        unsteady = [each for each in document["incidents"] if "no steady state" in each["why"]]
        ended += [each for each in document["incidents"] if each not in unsteady]
        names = [each["scenario"] for each in unsteady]
        if not names:
            break
    assert not names, err
    for each in ended:
        is_as_told(each)
    return ended


def is_as_told(incident: dict[str, Any]) -> None:
    assert incident["verdict"] in ("holds", "does not hold"), incident["why"]
    failed = [each for each in incident["expectations"] if not each["holds"]]
    told = [each for each in failed if not _of_time(each)]
    assert not told, (incident["scenario"], told)
    assert incident["figures"]["recovery_s"] is not None
    assert incident["analysed"]["ranking"], incident["scenario"]
    directory = Path(incident["record"])
    assert record.read(directory).id == incident["id"]
    reviews.check(directory)


def test_six_incidents_are_as_told(drill: Stack) -> None:
    families = {catalogue.find(name).prove.family for name in SIX}
    assert families == set(get_args(schema.Family))
    here = [name for name in SIX if name != BY_URL]

    run(drill, here)

    assert not leases(drill)


def test_one_of_them_by_url_from_where_no_stack_runs(drill: Stack, tmp_path: Path) -> None:
    elsewhere = Stack.at(tmp_path / "elsewhere")
    file = installation(drill, tmp_path)

    (incident,) = run(
        elsewhere, [BY_URL], "--on", str(file), env={"PROVE_ADMIN_TOKEN": drill.token}
    )

    assert Path(incident["record"]).parent == elsewhere.home / record.DIRECTORY
    assert not (elsewhere.home / "data").exists()
    books = next(each for each in incident["expectations"] if each["what"].startswith("books"))
    assert "books aren't to be read from here" in books["found"]
    assert not leases(drill)


def installation(drill: Stack, directory: Path) -> Path:
    """A file with as few URLs of the drill as an installation may have."""
    names = ("product", "order", "payment", "prometheus", "alertmanager")
    file = directory / "shop.yaml"
    urls = {name: drill.url(name) for name in names}
    file.write_text(json.dumps({"profile": "drill", "urls": urls}))
    return file


def test_chaos_toolkit_runs_the_same_file(drill: Stack, tmp_path: Path) -> None:
    """One where nothing pages: its steady state holds before and after."""
    journal = tmp_path / "journal.json"
    places = ("product", "order", "payment", "acquirer", "injector", "prometheus")
    done = subprocess.run(
        [
            Path(sys.executable).with_name("chaos"),
            *("--no-version-check", "--no-log-file", "run", "--rollback-strategy", "always"),
            *("--journal-path", journal),
            catalogue.directory() / "poison-product.yaml",
        ],
        env={
            **os.environ,
            **{f"PROVE_{place.upper()}_URL": drill.url(place) for place in places},
            "PROVE_ADMIN_TOKEN": drill.token,
            "NO_PROXY": "127.0.0.1",
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(journal.read_text())
    assert told["status"] == "completed"
    assert [each["output"]["status"] for each in told["run"]] == [200]
    assert [each["output"]["status"] for each in told["rollbacks"]] == [204]
    assert not leases(drill)


def test_an_interrupted_run_leaves_no_fault(drill: Stack) -> None:
    with drill.start("incident", "run", "product-cpu") as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "inject:" in line:
                break
        time.sleep(1)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=TIMEOUT_S)
    assert running.returncode == 130, out + err
    assert not leases(drill)
    assert record.read(record.find(drill.home, "product-cpu")).verdict == "interrupted"


def test_what_can_not_be_run_is_told_and_nothing_is_injected(drill: Stack, tmp_path: Path) -> None:
    unknown = drill.run("incident", "run", "product-up")
    assert unknown.returncode == 2
    assert "there is no scenario 'product-up'; there are product-" in unknown.stderr

    file = installation(drill, tmp_path)
    nameless = drill.run("incident", "run", "product-cpu", "--on", str(file))
    assert nameless.returncode == 2
    assert "set PROVE_ADMIN_TOKEN" in nameless.stderr
    refused = drill.run(
        "incident", "run", "product-cpu", "--on", str(file), env={"PROVE_ADMIN_TOKEN": "wrong"}
    )
    assert refused.returncode == 2
    assert "401" in refused.stderr
    assert not leases(drill)


def _of_time(expectation: dict[str, Any]) -> bool:
    what: str = expectation["what"]
    return what.endswith(OF_TIME) or what.startswith(OF_TIME)
