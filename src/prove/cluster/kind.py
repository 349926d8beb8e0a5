"""A cluster of kind, from `k8s/kind.yaml`, with the images that are built here."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml

from prove import images, tools
from prove.cluster.install import Target
from prove.cluster.programs import DOCKER, FailedError, find, run
from prove.errors import UserError
from prove.images import Image

CONFIG = Path("k8s") / "kind.yaml"
METRICS = Path("k8s") / "kind-metrics-server.yaml"
VALUES = Path("charts") / "prove" / "values-kind.yaml"
_METRICS_SERVER = Image(
    name="prove/metrics-server",
    title="metrics-server",
    entrypoint=("/metrics-server",),
    values=(),
    version=tools.TOOLS["metrics_server"].version or "",
    program="metrics_server",
    binary="metrics-server",
)
_CREATE_S = 900
_BUILD_S = 1800

Tell = Callable[[str], None]


def name() -> str:
    """The cluster's name, as its configuration says."""
    config = yaml.safe_load((tools.repository_root() / CONFIG).read_text(encoding="utf-8"))
    return str(config["name"])


def target() -> Target:
    """What to install into: kind writes the context into the kubeconfig."""
    return Target(f"kind-{name()}")


def require_docker() -> None:
    """Docker answers; raises UserError that says what to do."""
    instead = "install it and start it, or use a cluster you have: `provectl up --on context NAME`"
    try:
        run([DOCKER, "version", "--format", "{{.Server.Version}}"], timeout_s=30)
    except FailedError as error:
        raise UserError(f"kind needs Docker, which doesn't answer ({error}): {instead}") from error


def create(tell: Tell) -> bool:
    """Make the cluster unless it is there, until its nodes are ready; whether it was made.

    Raises UserError.
    """
    require_docker()
    kind = find("kind")
    if name() in run([kind, "get", "clusters"]).split():
        tell(f"kind: cluster {name()} is there")
        return False
    config = str(tools.repository_root() / CONFIG)
    tell(f"kind: creating cluster {name()}, a minute or two")
    _do([kind, "create", "cluster", "--config", config, "--wait", "300s"], _CREATE_S)
    return True


def delete() -> bool:
    """Delete the cluster; whether there was one. Raises UserError."""
    require_docker()
    kind = find("kind")
    if name() not in run([kind, "get", "clusters"]).split():
        return False
    _do([kind, "delete", "cluster", "--name", name()], 300)
    return True


def load(tell: Tell) -> str:
    """Build our images with Docker, bring them and metrics-server into the nodes; their tag.

    The tag is of what they hold, so what didn't change isn't rolled out again. Raises UserError.
    """
    ours = [image for image in images.IMAGES.values() if image.dockerfile or _is_only_ours(image)]
    identities = {}
    for number, image in enumerate(ours, 1):
        tell(f"image {number} of {len(ours)}: {image.name}")
        identities[image.name] = _build(image)
    together = json.dumps(identities, sort_keys=True)
    tag = f"dev-{hashlib.sha256(together.encode()).hexdigest()[:12]}"
    for repository, identity in identities.items():
        _do([DOCKER, "tag", identity, f"{repository}:{tag}"], 60)
    tell("kind: loading the images into the nodes")
    _build(_METRICS_SERVER)
    named = [*(f"{repository}:{tag}" for repository in identities), _METRICS_SERVER.reference("")]
    _do([find("kind"), "load", "docker-image", "--name", name(), *named], _BUILD_S)
    # The autoscalers' figures, which kind's nodes don't bring.
    metrics = str(tools.repository_root() / METRICS)
    _do(target().kubectl("apply", "--server-side", "-f", metrics), 60)
    return tag


def _is_only_ours(image: Image) -> bool:
    """No Dockerfile, and the chart takes it from nowhere else."""
    chart = tools.repository_root() / "charts" / "prove" / "values.yaml"
    values = yaml.safe_load(chart.read_text(encoding="utf-8"))
    return any(values[part]["image"]["repository"] == image.name for part in image.values)


def _build(image: Image) -> str:
    """Docker's id of the image."""
    root = tools.repository_root()
    if image.dockerfile:
        words = ("build", "--quiet", "--file", str(root / image.dockerfile), str(root))
        return _do([DOCKER, *words], _BUILD_S, {**os.environ, "DOCKER_BUILDKIT": "1"}).strip()
    with tempfile.TemporaryDirectory() as scratch:
        layer, archive = Path(scratch) / "layer", Path(scratch) / "image.tar"
        layer.mkdir()
        images.contents(image, layer)
        identity = images.archive(image, image.reference(""), [layer], archive)
        _do([DOCKER, "load", "--input", str(archive)], 300)
    return identity


def _do(command: list[str | Path], timeout_s: float, env: dict[str, str] | None = None) -> str:
    try:
        return run(command, timeout_s=timeout_s, env=env)
    except FailedError as error:
        raise UserError(f"{Path(command[0]).name} {command[1]}: {error}") from error
