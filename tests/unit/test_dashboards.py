"""Dashboards as Grafana will read them, and the commands that write and open them."""

import json
import os
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from typer.testing import CliRunner

from prove import dashboards
from prove.cli import app
from prove.slo.rules import Links
from prove.tools import repository_root
from tests.support.stack import PROVECTL

ROOT = repository_root()
CHECKED_IN = ROOT / "observability" / "dashboards"
PROVISIONING = ROOT / "observability" / "grafana" / "provisioning"
BOARDS: dict[str, dict[str, Any]] = {
    name.removesuffix(".json"): json.loads(text) for name, text in dashboards.build().items()
}
ON_KUBERNETES: dict[str, dict[str, Any]] = {
    name.removesuffix(".json"): json.loads(text)
    for name, text in dashboards.build(kubernetes=True).items()
}
# Ids of Grafana's unit list that we use.
UNITS = {"reqps", "percentunit", "s", "d", "bytes", "Bps", "cps", "cpm", "short", "none"}
PANELS = {"row", "stat", "table", "timeseries", "heatmap"}
BUILT_IN = {"__rate_interval", "__range", "__field", "__all"}
VARIABLE = re.compile(r"\$(?:\{(\w+)[^}]*\}|(\w+))")

each_board = pytest.mark.parametrize("board", ON_KUBERNETES.values(), ids=ON_KUBERNETES)


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(board: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in panels(board) for target in panel["targets"]]


def variables(board: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def test_the_uids_are_those_that_alerts_and_documentation_link_to() -> None:
    assert set(BOARDS) == {
        *("services", "slo", "resources", "business", "saga", "telemetry-pipeline")
    }
    assert all(board["uid"] == uid for uid, board in BOARDS.items())


def test_an_alert_opens_the_slo_it_is_about() -> None:
    link = urlsplit(Links().dashboard.format(id="checkout-errors", alert="CheckoutErrors"))
    assert link.path.startswith("/d/slo/")
    assert parse_qs(link.query)["var-slo"] == ["checkout-errors"]
    assert "slo" in variables(BOARDS["slo"])


@each_board
def test_grafanas_own_model_reads_it_and_loses_nothing(board: dict[str, Any]) -> None:
    plugins.register_default_plugins()
    read = Dashboard.from_json(json.loads(json.dumps(board)))
    # 36 is what the SDK writes, 39 what Grafana 11.0 has: it raises the former, and no later one.
    assert 36 <= (read.schema_version or 0) <= 39
    assert (read.uid, read.title) == (board["uid"], board["title"])
    assert all(panel.type_val in PANELS for panel in read.panels or ())

    again = json.loads(json.dumps(read, cls=JSONEncoder))
    for panel in again["panels"]:
        defaults = panel.get("fieldConfig", {}).get("defaults", {})
        if defaults.get("custom") in ({}, {"align": "auto", "inspect": False}):
            del defaults["custom"]  # its own defaults, where we say nothing
    assert again == board


@each_board
def test_panels_are_complete(board: dict[str, Any]) -> None:
    for panel in panels(board):
        assert panel["title"]
        assert len(panel["description"]) > 10, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["targets"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@each_board
def test_ids_and_names_are_unique(board: dict[str, Any]) -> None:
    ids = Counter(panel["id"] for panel in board["panels"])
    assert min(ids) == 1
    assert set(ids.values()) == {1}
    within_a_row: list[str] = []
    for panel in board["panels"]:
        if panel["type"] == "row":
            within_a_row = []
            continue
        assert panel["title"] not in within_a_row
        within_a_row.append(panel["title"])
    for panel in panels(board):
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs))
        assert all(refs)


@each_board
def test_panels_fit_the_grid_and_nothing_lies_on_another(board: dict[str, Any]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]


@each_board
def test_every_variable_is_there_described_and_used(board: dict[str, Any]) -> None:
    known = variables(board)
    assert known["datasource"]["type"] == "datasource"
    assert all(variable["description"] for variable in known.values())
    named = {braced or plain for braced, plain in VARIABLE.findall(json.dumps(board))}
    assert named - BUILT_IN == set(known)


@each_board
def test_every_query_asks_the_chosen_source(board: dict[str, Any]) -> None:
    for panel in panels(board):
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert target.get("instant") or target.get("range"), panel["title"]


def test_latency_panels_show_exemplars() -> None:
    for uid in ("services", "saga"):
        quantiles = [
            [target.get("exemplar", False) for target in panel["targets"]]
            for panel in panels(BOARDS[uid])
            if panel["type"] in ("timeseries", "heatmap")
            and any("_bucket" in target["expr"] for target in panel["targets"])
        ]
        assert quantiles
        assert all(any(shown) for shown in quantiles)


def test_links_lead_to_logs_and_to_the_other_dashboards() -> None:
    for board in BOARDS.values():
        kinds = {link["type"] for link in board["links"]}
        assert kinds == {"dashboards", "link"}
        (logs,) = (link["url"] for link in board["links"] if link["type"] == "link")
        assert logs.startswith("${logs:raw}/select/vmui/#/?query=")
    elsewhere = json.loads(dashboards.build(logs_url="http://logs.example")["slo.json"])
    assert variables(elsewhere)["logs"]["query"] == "http://logs.example"


def test_containers_are_shown_on_kubernetes_only() -> None:
    def rows(boards: dict[str, dict[str, Any]]) -> list[str]:
        return [p["title"] for p in boards["resources"]["panels"] if p["type"] == "row"]

    assert rows(ON_KUBERNETES) == [*rows(BOARDS), "Containers (Kubernetes)"]
    others = set(BOARDS) - {"resources"}
    assert all(ON_KUBERNETES[uid] == BOARDS[uid] for uid in others)


def test_the_reference_names_every_dashboard_and_its_rows() -> None:
    page = (ROOT / "docs" / "reference" / "dashboards.md").read_text()
    for uid, board in ON_KUBERNETES.items():
        assert f"`{uid}`" in page
        rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
        assert [row for row in rows if row not in page and row != "$slo"] == []


def test_every_metric_is_documented() -> None:
    documented = documented_metrics()
    missing = {
        f"{name} ({uid})"
        for uid, board in ON_KUBERNETES.items()
        for query in queries(board)
        for name in metrics(query)
        if not {name, re.sub(r"_(bucket|count|sum)$", "", name)} & documented
    }
    assert not missing


def documented_metrics() -> set[str]:
    """Every name in backquotes on the reference pages of telemetry and SLOs."""
    pages = [
        (ROOT / "docs" / "reference" / name).read_text() for name in ("telemetry.md", "slo.md")
    ]
    return set(re.findall(r"`([a-zA-Z_:][\w:]*)", "\n".join(pages)))


def metrics(query: str) -> Iterator[str]:
    """The series a query names."""
    yield from (name.rstrip(".+") for name in re.findall(r'__name__=~"([^"]+)"', query))
    bare = re.sub(r'"[^"]*"|\[[^]]*\]', "", query)
    bare = re.sub(r"\{[^}]*\}", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", "", bare)
    words = re.findall(r"(?<![\w:$])([a-zA-Z_:][\w:]*)\b(?!\s*\()", bare)
    for word in words:
        if word not in {"or", "and", "unless", "bool", "sum", "max", "count", "e"}:
            yield word


def test_metrics_are_found_in_queries() -> None:
    query = (
        'sum by (a, le) (rate(x_seconds_bucket{b=~"c_d"}[$__rate_interval])) / (y_total > 0) '
        'or max by (z) ({__name__=~"slo:ratio.+", k="v"}) * scalar(up)'
    )
    assert set(metrics(query)) == {"slo:ratio", "x_seconds_bucket", "y_total", "up"}


# -- provectl dashboards


def test_the_checked_in_files_are_what_the_code_makes() -> None:
    answer = CliRunner().invoke(app, ["dashboards", "build", "-o", str(CHECKED_IN), "--check"])
    assert (answer.exit_code, answer.output) == (0, "")
    assert all(
        "Generated by `provectl dashboards build`" in b["description"] for b in BOARDS.values()
    )


def test_check_names_what_differs(tmp_path: Path) -> None:
    def run(*more: str) -> tuple[int, str]:
        answer = CliRunner().invoke(app, ["dashboards", "build", "-o", str(tmp_path), *more])
        return answer.exit_code, answer.stderr

    assert run() == (0, "")
    assert run("--check") == (0, "")
    (tmp_path / "slo.json").write_text("{}")
    (tmp_path / "saga.json").unlink()
    (tmp_path / "old.json").write_text("{}")
    code, said = run("--check")
    assert code == 1
    assert f"{tmp_path}/slo.json is not what its code makes" in said
    assert f"{tmp_path}/saga.json is missing" in said
    assert f"{tmp_path}/old.json has no code any more; remove it" in said
    assert "dashboards build` writes them" in said


# -- provectl grafana, with a stand-in: what a real Grafana makes of it was not seen here


@pytest.fixture
def bin_directory(tmp_path: Path) -> Path:
    directory = tmp_path / "grafana" / "bin"
    directory.mkdir(parents=True)
    return directory


def stand_in(
    directory: Path, version: str, *, name: str = "grafana", complete: bool = True
) -> None:
    program = directory / name
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = -v ]; then echo "{version}"; else echo "ran $*"; env; fi\n'
    )
    program.chmod(0o755)
    if complete:
        (directory.parent / "conf").mkdir()
        (directory.parent / "conf" / "defaults.ini").touch()


def grafana(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [PROVECTL, "grafana", *arguments],
        env={
            "PATH": f"{directory}:/usr/bin:/bin",
            "PROVE_HOME": str(directory.parent.parent / "home"),
            "PROVE_PORT_OFFSET": "17000",
        },
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.parametrize(
    ("name", "version", "ran"),
    [
        ("grafana", "grafana version 11.3.0", "ran server --homepath"),
        ("grafana-server", "Version 12.0.1 (commit: abc, branch: HEAD)", "ran --homepath"),
    ],
)
def test_grafana_is_started_on_loopback_with_the_provisioning(
    bin_directory: Path, name: str, version: str, ran: str
) -> None:
    stand_in(bin_directory, version, name=name)
    answer = grafana(bin_directory)
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert f"{ran} {bin_directory.parent}" in lines
    given = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    assert given["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert given["GF_SERVER_HTTP_PORT"] == "20000"
    assert given["PROMETHEUS_URL"] == "http://127.0.0.1:26090"
    assert Path(given["GF_PATHS_PROVISIONING"]) == PROVISIONING
    written = {path.name for path in Path(given["PROVE_DASHBOARDS"]).iterdir()}
    assert written == {f"{uid}.json" for uid in BOARDS}
    assert "The shop is not up" in answer.stdout
    for file in PROVISIONING.rglob("*.yaml"):
        text = file.read_text().replace("$$", "")
        assert set(re.findall(r"\$\{(\w+)\}", text)) <= set(given)


@pytest.mark.parametrize(
    ("version", "complete", "said"),
    [
        ("grafana version 10.4.1", True, "is Grafana 10.4.1; the dashboards need 11 or newer"),
        ("no idea", True, "names no version"),
        ("grafana version 11.3.0", False, "set GF_PATHS_HOME to their directory"),
    ],
)
def test_a_grafana_that_does_not_fit_is_one_sentence(
    bin_directory: Path, version: str, complete: bool, said: str
) -> None:
    stand_in(bin_directory, version, complete=complete)
    answer = grafana(bin_directory)
    assert answer.returncode == 2
    assert said in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_busy_port_is_named(bin_directory: Path) -> None:
    stand_in(bin_directory, "grafana version 11.3.0")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        answer = grafana(bin_directory, "--port", port)
    assert answer.returncode == 2
    assert f"port {port} is in use; choose another with --port" in answer.stderr


def test_without_grafana_the_files_for_one_are_named(bin_directory: Path) -> None:
    answer = grafana(bin_directory)
    assert answer.returncode == 2
    assert "no `grafana` on PATH" in answer.stderr
    assert str(PROVISIONING) in answer.stdout
    (pattern,) = re.findall(r"^  (\S+/\*\.json)$", answer.stdout, re.MULTILINE)
    assert len(list(Path(os.sep).glob(pattern.lstrip(os.sep)))) == len(BOARDS)


def test_provisioned_exemplars_lead_to_the_provisioned_jaeger() -> None:
    sources = yaml.safe_load((PROVISIONING / "datasources" / "prove.yaml").read_text())
    by_uid = {source["uid"]: source for source in sources["datasources"]}
    (trace, logs) = by_uid["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert by_uid[trace["datasourceUid"]]["type"] == "jaeger"
    assert "$${__value.raw}" in logs["url"]
    assert not any(field for _, field, _, _ in Formatter().parse(logs["urlDisplayLabel"]) if field)
