"""Running the programs clusters are handled with, found on PATH or built."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prove import tools
from prove.tools import Progress

DOCKER = "docker"
_TIMEOUT_S = 120


class FailedError(Exception):
    """What a program said when it failed: its last line that says something."""


def find(name: str, progress: Progress | None = None) -> Path:
    """kubectl, helm or kind; raises UserError when it can't be built.

    kubectl and helm on PATH are taken whatever their version: they fit your cluster. kind is the
    pinned one, or a newer one on PATH, as its configuration is checked with it.
    """
    if name != "kind" and (path := shutil.which(name)):
        return Path(path)
    return tools.ensure(name, progress=progress)[name]


def run(
    command: Sequence[str | Path],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> str:
    """What a program prints on stdout; raises FailedError when it fails or doesn't end."""
    try:
        done = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            env=env,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FailedError(f"{Path(command[0]).name} didn't end in {timeout_s:.0f} s") from error
    except OSError as error:
        raise FailedError(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise FailedError(lines[-1] if lines else f"exit code {done.returncode}")
    return done.stdout


def run_json(command: Sequence[str | Path], timeout_s: float = _TIMEOUT_S) -> Any:
    """What a program prints, read as JSON; raises FailedError."""
    return json.loads(run(command, timeout_s=timeout_s))
