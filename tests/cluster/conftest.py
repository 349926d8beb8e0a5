"""One real cluster for all tests here: the lab's, or with --use-current that of KUBECONFIG."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from prove.tools import ConsoleProgress, ensure
from tests.cluster.lab import Cluster, Kubectl
from tests.cluster.lab.host import why_not, why_not_cilium
from tests.cluster.lab.kubectl import RefusedError

FIGURES = "PROVE_CLUSTER_FIGURES"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--use-current",
        action="store_true",
        help="run on the cluster that KUBECONFIG and its current context name",
    )
    parser.addoption(
        "--network",
        choices=("cilium", "bridge"),
        help="the lab's pod network (default: cilium where it can run)",
    )


@dataclass
class Ground:
    """The cluster the tests stand on; `lab` None: one that was there before."""

    kubectl: Kubectl
    lab: Cluster | None

    def needs_lab(self, why: str) -> Cluster:
        """The lab, or a skipped test."""
        if self.lab is None:
            pytest.skip(f"only on the lab's own cluster: {why}")
        return self.lab


@pytest.fixture(scope="session")
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """A cluster that is up and ready."""
    if request.config.getoption("--use-current"):
        binary = shutil.which("kubectl") or ensure("kubectl")["kubectl"]
        kubectl = Kubectl(Path(binary))
        try:
            kubectl("version")
        except RefusedError as error:
            pytest.exit(f"--use-current: the cluster doesn't answer: {error}", returncode=2)
        yield Ground(kubectl, None)
        return
    if reason := why_not():
        pytest.skip(f"no cluster on this machine: {reason}")
    network = request.config.getoption("--network")
    if network is None:
        network = "bridge" if why_not_cilium() else "cilium"
    with ConsoleProgress() as progress, Cluster(network, progress) as lab:
        yield Ground(lab.kubectl, lab)


@pytest.fixture(scope="session")
def kubectl(ground: Ground) -> Kubectl:
    """The administrator's kubectl."""
    return ground.kubectl


class Figures:
    """What the tests measured: written into one JSON file, of which the docs' tables are made."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, name: str, **values: object) -> None:
        """Keep one test's figures under its name."""
        known = json.loads(self.path.read_text()) if self.path.exists() else {}
        known[name] = values
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
        print(f"{name}: {json.dumps(values)}", file=sys.stderr)  # noqa: T201


@pytest.fixture(scope="session")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    """Where figures go: $PROVE_CLUSTER_FIGURES, or a file that nobody keeps."""
    kept = os.environ.get(FIGURES)
    return Figures(Path(kept) if kept else tmp_path_factory.mktemp("figures") / "cluster.json")
