"""Small disks: a file system of its own for the SQLite file of each service, which can be filled.

They are in memory (tmpfs), which takes root on Linux, and are gone with the stack.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prove.stack.settings import StackSettings

SERVICES = ("product", "order", "payment")
TIMEOUT_S = 10


def directory(settings: StackSettings, service: str) -> Path:
    """Where the disk of a service is mounted, if it has one."""
    return _all(settings.home) / service


@contextmanager
def mounted(settings: StackSettings) -> Iterator[str | None]:
    """The disks that the settings ask for; yields why there are none, None when all is well.

    Without leave to mount their directories are still there, on the disk of the home.
    """
    problem = None
    try:
        if settings.disk_mb:
            problem = _mount(settings)
        yield problem
    finally:
        release(settings.home)


def release(home: Path) -> None:
    """Unmount all disks of a home; what is on them is gone."""
    for mounted_at in _all(home).glob("*"):
        if os.path.ismount(mounted_at) and _run("umount", str(mounted_at)):
            _run("umount", "-l", str(mounted_at))  # somebody looks at it


def _mount(settings: StackSettings) -> str | None:
    for service in SERVICES:
        at = directory(settings, service)
        at.mkdir(parents=True, exist_ok=True)
        options = f"size={settings.disk_mb}m,mode=0700"
        problem = _run("mount", "-t", "tmpfs", "-o", options, f"prove-{service}", str(at))
        if problem:
            return problem
    return None


def _all(home: Path) -> Path:
    return home / "data" / "disk"


def _run(*argv: str) -> str | None:
    """Why it failed; None when it didn't."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{argv[0]}: {error}"
    return " ".join(done.stderr.split()) or f"{argv[0]} failed" if done.returncode else None
