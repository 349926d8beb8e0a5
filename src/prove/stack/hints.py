"""How messages name the CLI: as it was called."""

import shutil
import sys
from pathlib import Path

NAME = "provectl"


def command(arguments: str) -> str:
    """A command to run, in backquotes: `.venv/bin/provectl up`."""
    called = Path(sys.argv[0])
    if called.name != NAME or str(called) == shutil.which(NAME):
        return f"`{NAME} {arguments}`"
    if called.is_absolute() and called.is_relative_to(Path.cwd()):
        called = called.relative_to(Path.cwd())
    return f"`{called} {arguments}`"
