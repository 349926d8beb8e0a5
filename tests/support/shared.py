"""What lies beside the repository, and is no part of it."""

import os
from pathlib import Path

import pytest


def labelled() -> Path:
    """The directory with `bundles`, `truth` and `score.py`; skips the test where it isn't."""
    shared = os.environ.get("PROVE_SHARED") or Path(__file__).resolve().parents[3] / "shared"
    directory = Path(shared) / "rca"
    if not (directory / "bundles").is_dir():
        pytest.skip(f"{directory} has no labelled incidents; set PROVE_SHARED to where they are")
    return directory
