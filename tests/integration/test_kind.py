"""`k8s/kind.yaml` by kind's own parser, and what `--on` says where something is missing."""

import os
import subprocess
from pathlib import Path

import pytest

from prove.kubernetes import kind
from prove.tools import ensure, repository_root
from tests.support.stack import PROVECTL

ROOT = repository_root()

STAND_IN = """\
#!/bin/sh
# Docker as far as kind needs one to come to its containers: says what it was asked, makes none.
printf '%s\\n' "$*" >> "$ASKED"
case "$1 $2" in
"-v "*) echo 'Docker version 27.0.0' ;;
info*) echo '{"CgroupVersion":"2","MemoryLimit":true,"PidsLimit":true,"CPUShares":true}' ;;
"network ls") echo kind ;;
"network inspect") echo 172.18.0.0/16 ;;
logs*) echo 'Reached target Multi-User System.' ;;
esac
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(STAND_IN)
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{docker.parent}:{os.environ['PATH']}")
    log = tmp_path / "asked"
    log.touch()
    monkeypatch.setenv("ASKED", str(log))
    return log


def create(configuration: Path, kubeconfig: Path) -> str:
    """What kind says of it; without containers it always fails, but not before it has read it."""
    words = ("create", "cluster", "--config", str(configuration), "--kubeconfig", str(kubeconfig))
    done = subprocess.run(
        [ensure("kind")["kind"], *words], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode != 0
    return done.stderr


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:1"])
def test_kind_reads_the_configuration_and_asks_for_its_nodes(
    asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    """Behind a proxy kind asks for the network's addresses too."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    told = create(ROOT / kind.CONFIG, tmp_path / "kubeconfig")

    nodes = [line for line in asked.read_text().splitlines() if line.startswith("run ")]
    assert 'Creating cluster "prove"' in told
    assert nodes, told + asked.read_text()
    roles = sorted(line.partition("io.x-k8s.kind.role=")[2].split()[0] for line in nodes)
    assert roles == ["control-plane", "worker", "worker"]
    assert all("io.x-k8s.kind.cluster=prove" in line for line in nodes)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (("role: worker", "role: werker"), '"werker" is not a valid node role'),
        (("nodes:", "nodez:"), "field nodez not found"),
    ],
)
def test_kind_refuses_what_is_wrong(
    asked: Path, tmp_path: Path, wrong: tuple[str, str], why: str
) -> None:
    configuration = tmp_path / "kind.yaml"
    configuration.write_text((ROOT / kind.CONFIG).read_text().replace(*wrong))

    assert why in create(configuration, tmp_path / "kubeconfig")
    assert "run " not in asked.read_text()


def up(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [PROVECTL, "up", *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_without_docker_one_sentence_says_what_to_do() -> None:
    done = up("--on", "kind", DOCKER_HOST="tcp://127.0.0.1:1")

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "kind needs Docker" in done.stderr
    assert "provectl up --on context NAME" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--on", "moon"), "write `--on context NAME` or `--on kind`"),
        (("--on", "context"), "needs a NAME"),
        (("--on", "kind", "mine"), "takes no name"),
        (("mine",), "only with --on context"),
    ],
)
def test_wrong_places_are_refused(arguments: tuple[str, ...], why: str) -> None:
    done = up(*arguments)

    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr
