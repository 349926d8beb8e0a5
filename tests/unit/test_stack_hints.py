import sys
from pathlib import Path

import pytest

from prove.stack.hints import command


@pytest.mark.parametrize(
    ("called", "named"),
    [
        (".venv/bin/provectl", ".venv/bin/provectl"),
        (str(Path.cwd() / ".venv/bin/provectl"), ".venv/bin/provectl"),
        ("/opt/prove/bin/provectl", "/opt/prove/bin/provectl"),
        ("/usr/bin/pytest", "provectl"),
        ("", "provectl"),
    ],
)
def test_messages_name_the_cli_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch, called: str, named: str
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert command("up") == f"`{named} up`"


def test_a_cli_on_the_path_needs_no_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cli = tmp_path / "provectl"
    cli.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(cli)])
    assert command("up") == "`provectl up`"
