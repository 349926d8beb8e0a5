"""The Payment Service as it runs: its own process, a real acquirer, and either database."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from service_kit.testing import PATIENT_S, Running

sys.path.insert(0, str(Path(__file__).parent))  # for what the tests share

from payment_harness import run_acquirer, run_payment

ACQUIRER = Path(__file__).parents[3] / "simulators" / "acquirer"


@pytest.fixture(scope="session")
def acquirer_binary(tmp_path_factory: pytest.TempPathFactory) -> str:
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed: the acquirer cannot be built")
    binary = tmp_path_factory.mktemp("bin") / "acquirer"
    # As releases are, so that Go's cache serves both.
    command = [go, "build", "-trimpath", "-o", str(binary), "./cmd/acquirer"]
    subprocess.run(command, cwd=ACQUIRER, check=True, env={**os.environ, "CGO_ENABLED": "0"})
    return str(binary)


@pytest.fixture(scope="module")
def launched(
    acquirer_binary: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, Running]]:
    """One acquirer and one payment service for the tests of a module that break nothing."""
    with ExitStack() as stack:
        acquirer = stack.enter_context(
            run_acquirer(acquirer_binary, tmp_path_factory.mktemp("acquirer"))
        )
        directory = tmp_path_factory.mktemp("payment")
        yield stack.enter_context(run_payment(directory, acquirer)), acquirer


@pytest.fixture(scope="module")
def api(launched: tuple[Running, Running]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=launched[0].url, timeout=PATIENT_S) as client:
        yield client


@pytest.fixture
def acquirer(acquirer_binary: str, tmp_path: Path) -> Iterator[Running]:
    with run_acquirer(acquirer_binary, tmp_path) as running:
        yield running
