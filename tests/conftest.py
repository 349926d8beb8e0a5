"""Shared by all suites: one real stack for whoever asks for it."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.support.stack import SHARED, Stack, take_down_shared

DRILLS = ("test_verify_slos.py", "test_incidents.py", "test_verify_faults.py", "test_demo.py")
"""What judges alerts, in this order: the first was seen to hold while other tests run."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the shared stack run one after another: some of them break it for a while.

    So do drills: two of them at once are more than two cores carry in time. They take longest, and
    go first, lest one worker is still at them when all others are done.
    """
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("shared stack"))
        if item.path.name in DRILLS and item.path.parent.name == "e2e":
            item.add_marker(pytest.mark.xdist_group("drills"))
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    mine = item.get_closest_marker("xdist_group")
    ours = mine is not None and mine.args == ("drills",)
    return DRILLS.index(item.path.name) if ours else len(DRILLS)


def pytest_configure(config: pytest.Config) -> None:
    """The controller makes the directory that its workers share, by the environment."""
    if not hasattr(config, "workerinput"):
        os.environ[SHARED] = tempfile.mkdtemp(prefix="prove-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """The controller outlives its workers, also those that crashed: it cleans up for them."""
    if not hasattr(config, "workerinput"):
        shared = Path(os.environ[SHARED])
        take_down_shared(shared)
        shutil.rmtree(shared, ignore_errors=True)


@pytest.fixture(scope="session")
def stack() -> Stack:
    """The whole real stack on free ports: started by the first test of the run that asks.

    All workers share it. Leave it running and healthy; tests that kill take a stack of their own.
    """
    return Stack.shared(Path(os.environ[SHARED]))
