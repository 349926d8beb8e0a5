"""Terraform as it is run by tests: on a copy, asking and telling nobody."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from prove.tools import repository_root

ROOT = repository_root()
TERRAFORM = ROOT / "terraform"
CONFIGURATION = os.environ.get("TF_CLI_CONFIG_FILE", "")
Done = subprocess.CompletedProcess[str]


def run(*command: str | Path, cwd: Path, data: Path, seconds: float = 240) -> Done:
    """Run it in `cwd`, with its own files in `data`."""
    # One that isn't there is warned of in every answer.
    found = CONFIGURATION if Path(CONFIGURATION).is_file() else os.devnull
    own = {"TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"}
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **own, "TF_CLI_CONFIG_FILE": found, "TF_DATA_DIR": str(data / ".data")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def said(done: Done) -> str:
    """For whoever reads a failed test."""
    return f"{done.args}\n{done.stdout}\n{done.stderr}"


def copied(to: Path) -> Path:
    """`terraform/` with what it reads beside it; skips where no providers can be had."""
    if not Path(CONFIGURATION).is_file():
        pytest.skip(
            "no providers: TF_CLI_CONFIG_FILE names no file that says where they are "
            "(docs/how-to/run-on-kind.md)"
        )
    for part in ("terraform", "k8s", "charts"):
        shutil.copytree(ROOT / part, to / part, ignore=shutil.ignore_patterns(".terraform*"))
    return to / "terraform"


def initialised(terraform: Path, directory: Path) -> None:
    """Initialise a root or module; skips where one of its providers can't be had."""
    done = run(terraform, "init", "-backend=false", "-no-color", cwd=directory, data=directory)
    if lacking := re.findall(r"provider\s+(\S+/\S+/[\w-]+):?", done.stderr):
        pytest.skip(f"this provider is not to be had: {lacking[0]}")
    assert done.returncode == 0, said(done)
