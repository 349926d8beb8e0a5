"""A cluster of kind, from `k8s/kind.yaml`. From then on it is a context like any other."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml

from prove import images, tools
from prove.errors import UserError
from prove.images import Image
from prove.kubernetes.context import Context

CONFIG = Path("k8s") / "kind.yaml"
METRICS = Path("k8s") / "kind-metrics-server.yaml"
PREFIX = "kind-"
"""kind's own: the context of its cluster `prove` is `kind-prove`."""
METRICS_SERVER = Image(
    name="prove/metrics-server",
    title="metrics-server",
    entrypoint=("/metrics-server",),
    values=(),
    version=tools.TOOLS["metrics_server"].version or "",
    program="metrics_server",
    binary="metrics-server",
)
_ANSWER_S = 60
_CREATE_S = 900


def name() -> str:
    """The cluster's name, as its configuration says."""
    config = yaml.safe_load((tools.repository_root() / CONFIG).read_text(encoding="utf-8"))
    return str(config["name"])


def create(told: Callable[[str], None]) -> str:
    """Make the cluster unless it is there, until its nodes are ready; its context.

    Raises UserError: Docker doesn't answer, or kind's own reason.
    """
    context = PREFIX + name()
    if name() in _clusters():
        return context
    told(f"making the cluster {name()} with kind, a minute or two")
    config = str(tools.repository_root() / CONFIG)
    _run(_kind(), "create", "cluster", "--config", config, "--wait", "300s", seconds=_CREATE_S)
    return context


def delete() -> bool:
    """Delete the cluster; whether there was one. Raises UserError."""
    if name() not in _clusters():
        return False
    _run(_kind(), "delete", "cluster", "--name", name(), seconds=300)
    return True


def load(cluster: str, reference: str) -> None:
    """Bring an image of Docker's into the nodes; raises UserError."""
    _run(_kind(), "load", "docker-image", reference, "--name", cluster, seconds=300)


def add_metrics(context: Context) -> None:
    """The autoscalers' figures, which kind's nodes don't bring; its image was loaded before."""
    manifest = tools.repository_root() / METRICS
    context.kubectl("apply", "--server-side", "-f", str(manifest))


def only_here(image: Image) -> bool:
    """It is built by no Dockerfile, and pulled from nowhere: the chart knows it by our own name."""
    chart = tools.repository_root() / "charts" / "prove" / "values.yaml"
    values = yaml.safe_load(chart.read_text(encoding="utf-8"))
    known = any(values[part]["image"]["repository"] == image.name for part in image.values)
    return not image.dockerfile and (known or image == METRICS_SERVER)


def needed() -> list[Image]:
    """The images a cluster of kind can't pull and no Dockerfile makes."""
    return [image for image in (*images.IMAGES.values(), METRICS_SERVER) if only_here(image)]


def _kind() -> str:
    return str(tools.ensure("kind")["kind"])


def _clusters() -> list[str]:
    try:
        _run("docker", "version", "--format", "{{.Server.Version}}", seconds=_ANSWER_S)
    except UserError as error:
        raise UserError(
            f"kind needs Docker, which doesn't answer ({error}): install it and start it, or use "
            "a cluster you have: `provectl up --on context NAME`"
        ) from error
    return _run(_kind(), "get", "clusters", seconds=_ANSWER_S).split()


def _run(*command: str, seconds: float) -> str:
    tool = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{tool} didn't end within {seconds:.0f} s") from error
    except OSError as error:
        raise UserError(f"{tool} can't be run: {error.strerror}") from error
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        # kind says why on the line that begins so; what follows is what a program of its said.
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise UserError(f"{tool}: {errors[0]}" if errors else f"{tool} failed")
    return done.stdout
