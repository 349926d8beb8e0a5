"""The OpenAPI document against the running service, by schemathesis, with every check on."""

import os
import subprocess
from pathlib import Path

import pytest
from payment_harness import TOKEN, run_payment
from service_kit import testing
from service_kit.testing import Running

# The faults have ten types with limits at both ends: some hundred requests.
TIMEOUT_S = 600


# Apart: a fault lease that the one run makes would hit what the other one does.
@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("side", ["--include-path-regex", "--exclude-path-regex"])
def test_the_service_keeps_to_its_openapi(acquirer: Running, tmp_path: Path, side: str) -> None:
    with run_payment(tmp_path, acquirer) as service:
        done = subprocess.run(
            [
                testing.script("st"),
                *("--config-file", str(Path(__file__).with_name("schemathesis.toml"))),
                *("run", f"{service.url}/openapi.json", side, "^/(faults|incidents)"),
                *("-H", f"Authorization: Bearer {TOKEN}"),
                *("--checks", "all", "--max-examples", "25", "--seed", "1", "--no-color"),
            ],
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "service_kit.gentle"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S - 20,
        )
    assert done.returncode == 0, done.stdout
