"""docs/evidence/cluster.md is what the figures beside it say."""

import json

import pytest

from tests.cluster.report import EVIDENCE, render


def test_the_page_is_of_the_figures() -> None:
    figures = EVIDENCE / "cluster.json"
    if not figures.exists():
        pytest.skip("make test-cluster has written no figures yet")
    assert (EVIDENCE / "cluster.md").read_text() == render(json.loads(figures.read_text()))


def test_what_was_not_measured_has_no_row() -> None:
    some = {"lab": {"seconds": {"all": 17.2}}}
    assert "| 17 s |" in render(some)
    assert "eviction" not in render(some)
