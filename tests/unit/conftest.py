"""Shared by the unit tests."""

import shutil
from pathlib import Path

import pytest

from prove.incident import record
from tests.support import incidents


@pytest.fixture(scope="session")
def _written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return incidents.write(tmp_path_factory.mktemp("incident"))


@pytest.fixture
def kept(_written: Path, tmp_path: Path) -> Path:
    """The record of an incident in the home `tmp_path`, to do with as one likes."""
    directory = tmp_path / record.DIRECTORY / incidents.ID
    shutil.copytree(_written, directory)
    return directory
