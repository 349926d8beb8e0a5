"""One real cluster for all tests here: the lab's, or with --use-current that of KUBECONFIG."""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from prove import images
from prove.tools import ConsoleProgress, ensure
from tests.cluster.lab import Cluster, Kubectl, shopimages
from tests.cluster.lab.host import why_not, why_not_cilium
from tests.cluster.lab.kubectl import RefusedError
from tests.cluster.lab.shopimages import REGISTRY
from tests.cluster.shop import NAMESPACE, HelmError, Shop, lab_values

FIGURES = "PROVE_CLUSTER_FIGURES"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--use-current",
        action="store_true",
        help="run on the cluster that KUBECONFIG and its current context name",
    )
    parser.addoption(
        "--registry",
        default=REGISTRY,
        help="with --use-current: where that cluster pulls the shop's images from",
    )
    parser.addoption(
        "--network",
        choices=("cilium", "bridge"),
        help="the lab's pod network (default: cilium where it can run)",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Taking the shop away comes last; whichever test is first brings up cluster and shop."""
    for item in items:
        item.add_marker(pytest.mark.timeout(1800))
    items.sort(key=lambda item: item.path.name == "test_uninstall.py")


@dataclass
class Ground:
    """The cluster the tests stand on; `lab` None: one that was there before."""

    kubectl: Kubectl
    lab: Cluster | None
    _loaded: dict[str, Path] = field(default_factory=dict)

    def load(self, *names: str) -> dict[str, Path]:
        """Bring images into the lab, where they aren't yet; answers their archives, by name.

        Another cluster pulls its own: none.
        """
        if self.lab is None:
            return {}
        missing = [name for name in names if name not in self._loaded]
        with ConsoleProgress() as progress:
            made = shopimages.archives(missing, progress)
        for name, archive in zip(missing, made, strict=True):
            self.lab.load(archive)
            self._loaded[name] = archive
        return {name: self._loaded[name] for name in names}

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
        with kubectl.proxied() as proxied:
            yield Ground(proxied, None)
        return
    if reason := why_not():
        pytest.skip(f"no cluster on this machine: {reason}")
    network = request.config.getoption("--network")
    if network is None:
        network = "bridge" if why_not_cilium() else "cilium"
    with (
        ConsoleProgress() as progress,
        Cluster(network, progress) as lab,
        lab.kubectl.proxied() as kubectl,
    ):
        yield Ground(kubectl, lab)


@pytest.fixture(scope="session")
def kubectl(ground: Ground) -> Kubectl:
    """The administrator's kubectl."""
    return ground.kubectl


@pytest.fixture(scope="session")
def shop(ground: Ground, request: pytest.FixtureRequest, figures: "Figures") -> Iterator[Shop]:
    """The shop, installed from nothing and ready, with goods in it and customers at rest."""
    if ground.lab:
        ground.lab.provide_volumes()
    archives = ground.load(*(name for name, image in images.IMAGES.items() if image.values))
    if archives:
        sizes = {name: round(path.stat().st_size / 1e6) for name, path in archives.items()}
        figures.record("images", mb=sizes)
    registry = request.config.getoption("--registry")
    shop = Shop(ground.kubectl, ensure("helm")["helm"], lab_values(registry))
    shop.make_namespaces()
    try:
        began = time.monotonic()
        try:
            shop.deploy()
        except HelmError as error:
            pytest.fail(f"{error}\n{shop.kubectl.describe(NAMESPACE)}", pytrace=False)
        ready = time.monotonic()
        shop.stock()
        shop.start_customers(rate=2)
        figures.record(
            "install",
            seconds_to_ready=round(ready - began, 1),
            seconds_to_first_order=round(time.monotonic() - began, 1),
        )
        yield shop
    finally:
        shop.remove_namespaces()


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
    found = Figures(Path(kept) if kept else tmp_path_factory.mktemp("figures") / "cluster.json")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    busy = os.getloadavg()[2]
    is_ = f"{os.cpu_count()} cores and {memory:.0f} GiB of memory, with a load of {busy:.0f} before"
    found.record("machine", **{"is": is_})
    return found
