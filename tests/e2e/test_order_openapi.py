"""The Order Service, with its real peers, keeps what /openapi.json promises, by schemathesis.

(The other two services need no peers for this: their own suites have the same test.)
"""

import os
import subprocess
from pathlib import Path

import pytest
from service_kit.ports import claim
from service_kit.testing import running, script

from prove import tools
from tests.support.stack import Stack

CONFIG = Path(__file__).with_name("schemathesis.toml")
TOKEN = "test-token"
# The faults have ten types with limits at both ends: some hundred requests.
TIMEOUT_S = 600

pytestmark = pytest.mark.timeout(TIMEOUT_S)


def _schemathesis(url: str, cwd: Path, *options: str) -> None:
    done = subprocess.run(
        [
            script("schemathesis"),
            *("--config-file", CONFIG, "run", "--checks", "all", "--max-examples", "25"),
            *("--seed", "1", "--no-color", *options, f"{url}/openapi.json"),
        ],
        cwd=cwd,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "service_kit.gentle"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S - 20,
    )
    assert done.returncode == 0, done.stdout


def test_every_check_of_the_shop(stack: Stack, tmp_path: Path) -> None:
    # Without the token: with it, the run would set faults on a service that others use, too.
    stack.run("data", "import")
    _schemathesis(stack.url("order"), tmp_path, "--exclude-path-regex", "^/faults")


def test_every_check_of_the_faults(tmp_path: Path) -> None:
    env = {
        "ADMIN_TOKEN": TOKEN,
        "DATABASE_URL": f"sqlite:///{tmp_path / 'order.db'}",
        "OTEL_SDK_DISABLED": "true",
    }
    command = [str(tools.ensure_service("order-service")), "serve"]
    with running(command, env, claim()[0], tmp_path) as service:
        _schemathesis(
            service.url,
            tmp_path,
            *("--include-path-regex", "^/faults", "-H", f"Authorization: Bearer {TOKEN}"),
        )
