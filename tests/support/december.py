"""The real sales of December 2010, which are no part of the repository."""

import os
from pathlib import Path

import pytest

_NAME = Path("data") / "online-retail-2010-12.csv.gz"


def december() -> Path:
    """The file; skips the test where neither PROVE_SHARED nor ../shared has it."""
    shared = os.environ.get("PROVE_SHARED") or Path(__file__).resolve().parents[3] / "shared"
    file = Path(shared) / _NAME
    if not file.is_file():
        pytest.skip(f"{file} is not there; set PROVE_SHARED to the directory that has {_NAME}")
    return file
