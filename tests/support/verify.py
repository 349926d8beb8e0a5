"""`provectl verify` as it is called, in a home of its own."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from service_kit import postgres

from prove.stack import state
from tests.support.stack import PROVECTL, READY_TIMEOUT_S

TIMEOUT_S = 1500


@contextmanager
def enterable() -> Iterator[Path]:
    """A directory that PostgreSQL's account may enter, where the tests run as root.

    Not pytest's own: each run of pytest shuts the directory of all of them to other users.
    """
    with tempfile.TemporaryDirectory(prefix="prove-verify-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name)


def needs_postgres() -> None:
    """Skips the test where there is none."""
    try:
        postgres.programs_directory()
    except postgres.MissingError as error:
        pytest.skip(str(error))


@contextmanager
def verify(home: Path, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    with subprocess.Popen(
        [PROVECTL, "verify", *arguments],
        env={**os.environ, "PROVE_HOME": str(home), "PROVE_READY_TIMEOUT_S": str(READY_TIMEOUT_S)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process


def verdict(home: Path, *arguments: str) -> dict[str, Any]:
    """Its document, and what it said beside."""
    with verify(home, *arguments, "--json") as process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode in (0, 1), err
    document: dict[str, Any] = json.loads(out)
    document["stderr"] = err
    return document


def left(home: Path) -> list[psutil.Process]:
    """Processes of any run in this home."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(home) in process.environ().get(state.MARKER, "") + " ".join(process.cmdline()):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return [process for process in found if process.pid != os.getpid()]
