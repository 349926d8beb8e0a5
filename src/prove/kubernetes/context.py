"""One context of the user's kubeconfig: kubectl and Helm on it, and is it fit for the chart."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prove import tools
from prove.errors import UserError
from prove.tools import Progress

NAMESPACE = "prove"
OLDEST = (1, 31)
"""The oldest Kubernetes of which the chart's API versions are all there."""
MEMORY_MIB = 3072
"""What the chart with its own PostgreSQL and observability asks for, and some room."""
ANSWER_S = 20


@dataclass(frozen=True)
class Context:
    """A context, and the namespace in it; commands raise UserError with what the tool said."""

    name: str
    namespace: str
    kubectl_binary: Path
    helm_binary: Path

    def kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = 120) -> str:
        """What kubectl prints."""
        command = [str(self.kubectl_binary), "--context", self.name, *arguments]
        return _run(command, stdin, seconds)

    def helm(self, *arguments: str, seconds: float = 120) -> str:
        """What Helm prints, asked about the namespace."""
        where = ("--kube-context", self.name, "--namespace", self.namespace)
        return _run([str(self.helm_binary), *where, *arguments], None, seconds)

    def get(self, *what: str) -> Any:
        """Objects, as JSON."""
        return json.loads(self.kubectl("get", *what, "-o", "json"))


def find(name: str, namespace: str = NAMESPACE, progress: Progress | None = None) -> Context:
    """A context that answers and is fit for the chart.

    Raises UserError: there is no such context, no answer, an old Kubernetes, too little memory.
    """
    binaries = tools.ensure("helm", progress=progress)
    kubectl = shutil.which("kubectl") or tools.ensure("kubectl", progress=progress)["kubectl"]
    context = Context(name, namespace, Path(kubectl), binaries["helm"])
    known = _run([str(kubectl), "config", "get-contexts", "-o", "name"], None, ANSWER_S).split()
    if name not in known:
        there = ", ".join(known) or "none: KUBECONFIG names no file with one"
        raise UserError(f"there is no context {name!r}; there are {there}")
    try:
        answer = json.loads(
            context.kubectl("version", "-o", "json", f"--request-timeout={ANSWER_S}s")
        )
        server = answer["serverVersion"]
    except (UserError, KeyError, ValueError) as error:
        raise UserError(
            f"the cluster of context {name} doesn't answer; see `kubectl --context {name} version`"
        ) from error
    version = tuple(int(re.sub(r"\D.*", "", server[part])) for part in ("major", "minor"))
    if version < OLDEST:
        raise UserError(
            f"the cluster of context {name} is Kubernetes {server['gitVersion']}, and the chart "
            f"needs {OLDEST[0]}.{OLDEST[1]} or newer: choose another or upgrade it"
        )
    free = sum(mebibytes(node["status"]["allocatable"]["memory"]) for node in _nodes(context))
    if free < MEMORY_MIB:
        raise UserError(
            f"the nodes of context {name} have {free} MiB of memory for pods and the shop needs "
            f"{MEMORY_MIB}: give them more, or switch parts off with --values"
        )
    return context


def mebibytes(quantity: str) -> int:
    """A quantity of memory as Kubernetes writes it, in MiB, rounded down."""
    units = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    units |= {
        f"{prefix}i": 1 << shift for prefix, shift in zip("KMGT", (10, 20, 30, 40), strict=True)
    }
    match = re.fullmatch(r"(\d+)([kMGT]?|[KMGT]i)", quantity)
    if match is None:
        raise ValueError(f"{quantity!r} is no quantity of memory")
    return int(match[1]) * units[match[2]] >> 20


def _nodes(context: Context) -> list[Any]:
    nodes: list[Any] = context.get("nodes")["items"]
    return [node for node in nodes if not node["spec"].get("unschedulable")]


def _run(command: Sequence[str], stdin: str | None, seconds: float) -> str:
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{name} had no answer within {seconds:.0f} s: try again") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"{name}: {said[-1].removeprefix('Error: ') if said else 'failed'}")
    return done.stdout
