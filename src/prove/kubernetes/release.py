"""The chart's release in a namespace: installed with progress, and taken away with all it made."""

import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from prove import images
from prove.errors import UserError
from prove.kubernetes import kind
from prove.kubernetes.context import Context
from prove.stack.hints import command
from prove.tools import repository_root

NAME = "prove"
MADE_BY = "prove.dev/made-by"
"""Label of a namespace that `up` made, and `down` may therefore delete."""
LOOK_S = 1.0
_RESTRICTED = {
    f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")
}


def status(context: Context) -> str | None:
    """Helm's word for the state of the release, as `deployed`; None when there is none."""
    listed = json.loads(context.helm("list", "--filter", f"^{NAME}$", "-o", "json"))
    return str(listed[0]["status"]) if listed else None


def install(
    context: Context,
    registry: str,
    values: Sequence[Path],
    seconds: int,
    show: Callable[[dict[str, bool]], None],
) -> None:
    """Install or upgrade, until all is ready; `show` is told which pods are, now and then.

    Images of ours are taken from `registry`. A failed upgrade is rolled back, a failed first
    installation taken away again. Raises UserError.
    """
    state = status(context)
    if state not in (None, "deployed"):
        down = command(f"down --on context {context.name}")
        raise UserError(f"the release in {context.namespace} is only half there ({state}): {down}")
    _make_namespace(context)
    with tempfile.TemporaryDirectory() as directory:
        ours = Path(directory) / "images.yaml"
        ours.write_text(yaml.safe_dump(own_images(registry)))
        chart = repository_root() / "charts" / "prove"
        files = [chart / "values-kind.yaml", ours, *values]
        arguments = [
            *("upgrade", "--install", NAME, str(chart)),
            *(part for file in files for part in ("--values", str(file))),
            *("--rollback-on-failure", "--wait", f"--timeout={seconds}s"),
        ]
        failures: list[UserError] = []

        def run() -> None:
            try:
                context.helm(*arguments, seconds=seconds + 120)
            except UserError as error:
                failures.append(error)

        helm = threading.Thread(target=run)
        helm.start()
        last: dict[str, bool] = {}
        while helm.is_alive():
            helm.join(LOOK_S)
            last = pods(context) or last
            show(last)
        if failures:
            waiting = ", ".join(name for name, ready in last.items() if not ready)
            raise UserError(f"{failures[0]}" + (f" (not ready: {waiting})" if waiting else ""))


def pods(context: Context) -> dict[str, bool]:
    """Which pods there are, and whether each is ready."""
    try:
        items = context.get("pods", "-n", context.namespace)["items"]
    except UserError:
        return {}
    return {
        pod["metadata"]["name"]: any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in pod["status"].get("conditions", [])
        )
        for pod in items
        if pod["status"].get("phase") != "Succeeded"
    }


def uninstall(context: Context) -> list[str]:
    """Take away what `install` made and nothing else; what that was, a phrase each."""
    gone = []
    if status(context) is not None:
        context.helm("uninstall", NAME, "--wait", "--timeout=180s", seconds=240)
        gone.append(f"the release {NAME}")
    found = json.loads(
        context.kubectl(
            "get",
            "namespace",
            "-o",
            "json",
            "-l",
            f"{MADE_BY}=provectl,kubernetes.io/metadata.name={context.namespace}",
        )
    )
    if found["items"]:
        context.kubectl("delete", "namespace", context.namespace, "--timeout=240s", seconds=300)
        gone.append(f"the namespace {context.namespace} with its volumes")
    return gone


def own_images(registry: str) -> dict[str, Any]:
    """Values by which our images come from `registry`; all others stay where they are."""
    values: dict[str, Any] = {}
    for image in images.IMAGES.values():
        if image.dockerfile:
            for part in image.values:
                values[part] = {"image": {"registry": registry}}
    return values


def publish(context: Context, registry: str, told: Callable[[str], None]) -> str:
    """Build our images and bring them to the cluster; the registry it is to take them from.

    To a cluster of kind they are loaded; else pushed to `registry`. Raises UserError.
    """
    cluster = context.name.removeprefix(kind.PREFIX) if context.name.startswith(kind.PREFIX) else ""
    if not registry and not cluster:
        raise UserError(
            f"say with --registry where context {context.name} pulls images from: they are built "
            "and pushed there"
        )
    if not shutil.which("docker"):
        raise UserError(
            "docker is needed to build the images: install it, or push them yourself "
            "(docs/how-to/run-on-kubernetes.md) and add --no-images"
        )
    root = repository_root()
    for image in images.IMAGES.values():
        if not image.dockerfile or not image.values:
            continue
        reference = image.reference(registry)
        told(f"building {reference}")
        _docker(root, "build", "--quiet", "-f", image.dockerfile, "-t", reference, ".")
        told(f"{'pushing' if registry else 'loading'} {reference}")
        if registry:
            _docker(root, "push", "--quiet", reference)
        else:
            kind.load(cluster, reference)
    if cluster and not registry:
        for image in kind.needed():
            told(f"building and loading {image.reference('')}")
            _load_into_docker(root, image)
            kind.load(cluster, image.reference(""))
        kind.add_metrics(context)
    return registry


def _load_into_docker(root: Path, image: images.Image) -> None:
    """An image of one program, which needs no base and so no Dockerfile."""
    with tempfile.TemporaryDirectory() as scratch:
        layer, archive = Path(scratch) / "layer", Path(scratch) / "image.tar"
        layer.mkdir()
        images.contents(image, layer)
        images.archive(image, image.reference(""), [layer], archive)
        _docker(root, "load", "--input", str(archive))


def _docker(root: Path, *arguments: str) -> None:
    _call(root, "docker", *arguments)


def _call(root: Path, *call: str) -> None:
    done = subprocess.run(call, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it failed"]
        raise UserError(f"{' '.join(call[:2])}: {said[-1]}")


def _make_namespace(context: Context) -> None:
    """The namespace, for restricted pods alone, unless it is there."""
    name = context.namespace
    there = json.loads(context.kubectl("get", "namespaces", "-o", "json"))["items"]
    if any(item["metadata"]["name"] == name for item in there):
        return
    labels = {**_RESTRICTED, MADE_BY: "provectl"}
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": labels},
    }
    context.kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
