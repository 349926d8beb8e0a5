"""`provectl rca --live` on the real stack: the cause of a fault that was set by hand is named."""

import json
import time
from typing import Any

import pytest

from tests.support.stack import Stack

WITHIN_S = 240
"""For the machine may be busy: spans come late then, and customers are few."""
NAME = "rca-live"


@pytest.mark.timeout(600)
def test_who_fails_on_a_running_stack_is_named(stack: Stack) -> None:
    """Without a page, for a standard stack's comes after minutes: the last quarter is compared."""
    assert stack.run("data", "import").returncode == 0
    load = ("load", "--rate", "5/s", "--mix", "checkout", "--json")
    stack.run(*load, "--duration", "20s")
    deadline = time.monotonic() + WITHIN_S
    told: dict[str, Any] = {}
    try:
        while time.monotonic() < deadline:
            lease = ("-t", "error", "rate=1.0", "status=503", "-m", "method=POST", "--for", "2m")
            assert stack.run("fault", "set", NAME, "-s", "payment", *lease).returncode == 0
            stack.run(*load, "--duration", "15s")
            answer = stack.run("rca", "--live", "--since", "60s", "--json")
            assert answer.returncode in (0, 3), answer.stderr
            told = json.loads(answer.stdout)
            first = told["causes"][0]
            if not told["abstained"] and first["service"] == "payment-service":
                break
            # A healthy past again, or the fault becomes what is usual.
            stack.run("fault", "clear", NAME, "-s", "payment")
            stack.run(*load, "--duration", "30s")
    finally:
        stack.run("fault", "clear", NAME, "-s", "payment")
    assert told["ranking"][0] == "payment-service", told
    assert not told["abstained"], told
    assert told["causes"][0]["evidence"]
    assert any("No page fires" in note for note in told["notes"])
    # What set the fault is not among what is looked at.
    assert "/faults" not in json.dumps(told)
