"""`provectl tools` as it is called."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prove.commands.tools import app
from prove.errors import UserError
from prove.tools import TOOLS

CLI = CliRunner()


@pytest.fixture(autouse=True)
def nothing_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))


def test_list_tells_what_is_not_built() -> None:
    result = CLI.invoke(app, ["list"], catch_exceptions=False)

    assert result.exit_code == 0
    assert result.stdout.count("not built") == len(TOOLS)
    assert max(len(line) for line in result.stdout.splitlines()[:-1]) <= 100


def test_list_as_json_is_one_object() -> None:
    result = CLI.invoke(app, ["list", "--json"], catch_exceptions=False)

    listing = json.loads(result.stdout)
    assert [tool["name"] for tool in listing["tools"]] == list(TOOLS)
    assert {tool["source"] for tool in listing["tools"]} == {None}


def test_verify_fails_while_something_is_missing() -> None:
    result = CLI.invoke(app, ["verify"], catch_exceptions=False)

    assert result.exit_code == 1
    assert "k6: not built yet: run `provectl tools build k6`" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["path", "grafana"], "there is no binary 'grafana'; there are otelcol-prove"),
        (["build", "grafana"], "there is no tool 'grafana'; there are otelcol"),
        (["build", "k6"], "k6 is built with Go 1.25.0 or newer and there is no `go` on PATH"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(arguments: list[str], answer: str) -> None:
    with pytest.raises(UserError, match=answer):
        CLI.invoke(app, arguments, catch_exceptions=False)
