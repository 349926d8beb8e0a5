"""The running service keeps what /openapi.json promises: every check, stateful links on."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from service_kit.testing import script

CONFIG = Path(__file__).with_name("schemathesis.toml")
# The faults have ten types with limits at both ends: some hundred requests.
TIMEOUT_S = 600


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
    done = subprocess.run(
        [
            *(script("schemathesis"), "--config-file", str(CONFIG), "run", "--checks", "all"),
            *("-H", "Authorization: Bearer test-token", "--max-examples", "25"),
            *("--generation-deterministic", "--no-color", *selection),
            f"{service.url}/openapi.json",
        ],
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "service_kit.gentle"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S - 20,
    )
    assert done.returncode == 0, done.stdout
    assert '"level":"error"' not in service.logs()
