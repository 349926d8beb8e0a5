"""The chart as Helm renders it, for tests."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from prove import tools

ROOT = tools.repository_root()
CHART = ROOT / "charts" / "prove"
PROFILES = ("values.yaml", "values-kind.yaml", "values-production.yaml")
Object = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm of the pinned version; it never asks a cluster."""
    binary = tools.ensure("helm")["helm"]
    return subprocess.run([binary, *arguments], capture_output=True, text=True, check=False)


@cache
def text(*arguments: str, profile: str = "values.yaml", chart: Path = CHART) -> str:
    """What `helm template` makes of a profile, with further arguments."""
    done = helm(
        *("template", "prove", str(chart), "--namespace=prove", "--kube-version=1.31.0"),
        f"--values={CHART / profile}",
        *arguments,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def objects(*arguments: str, profile: str = "values.yaml", chart: Path = CHART) -> list[Object]:
    """The same, read."""
    rendered = text(*arguments, profile=profile, chart=chart)
    return [each for each in yaml.safe_load_all(rendered) if each]


def of_kind(found: list[Object], *kinds: str) -> dict[str, Object]:
    """Those of some kinds, by their names."""
    return {each["metadata"]["name"]: each for each in found if each["kind"] in kinds}


def pod(workload: Object) -> Object:
    """The spec of its pods."""
    spec: Object = workload["spec"] if workload["kind"] == "Pod" else pods(workload)["spec"]
    return spec


def pods(workload: Object) -> Object:
    """The template of a workload's pods; of a Pod itself."""
    template: Object = workload if workload["kind"] == "Pod" else workload["spec"]["template"]
    return template


def workloads(found: list[Object]) -> dict[str, Object]:
    """What runs pods, by its name."""
    return of_kind(found, "Deployment", "StatefulSet", "Pod")


def containers(workload: Object) -> list[Object]:
    """All containers of its pods, also those before the others."""
    spec = pod(workload)
    return [*spec.get("initContainers", ()), *spec["containers"]]
