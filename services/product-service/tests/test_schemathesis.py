"""The running service keeps what /openapi.json promises: every check, stateful links on."""

from pathlib import Path
from typing import Any

import pytest
from service_kit.testing import schemathesis

CONFIG = Path(__file__).with_name("schemathesis.toml")
# The faults have ten types with limits at both ends: some hundred requests.
TIMEOUT_S = 1200


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize(
    "selection",
    [
        # A latency fault set by one request would hold up all the others.
        ("--exclude-operation-id", "put_fault"),
        ("--include-path-regex", "^/faults"),
    ],
    ids=["shop", "faults"],
)
def test_every_check(start: Any, tmp_path: Path, selection: tuple[str, str]) -> None:
    service = start(WEB_CONCURRENCY="1")
    token = "Authorization: Bearer test-token"
    schemathesis(
        service.url, CONFIG, tmp_path, "--generation-deterministic", "-H", token, *selection
    )
    assert '"level":"error"' not in service.logs()
