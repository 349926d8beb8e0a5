"""From "there is a cluster" to "the shop is ready", the same for kind and for any other cluster."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prove import tools
from prove.cluster.programs import FailedError, find, run, run_json
from prove.errors import UserError

RELEASE = "prove"
NAMESPACE = "prove"
OURS = {"app.kubernetes.io/managed-by": "provectl"}
"""Label of a namespace that `install` made, and `remove` may therefore delete."""
OLDEST = (1, 31)
"""The Kubernetes the chart needs."""
POLL_S = 1.0
_SECURITY = "pod-security.kubernetes.io"

Show = Callable[[str, int, int], None]
"""Told what is waited for, how many workloads are ready, and of how many."""


@dataclass(frozen=True)
class Target:
    """A cluster by its context in the kubeconfig (None: the one kubectl finds), and a namespace."""

    context: str
    namespace: str = NAMESPACE
    kubeconfig: Path | None = None

    @property
    def where(self) -> tuple[str, ...]:
        """The option that names the kubeconfig, which both programs call the same."""
        return ("--kubeconfig", str(self.kubeconfig)) if self.kubeconfig else ()

    def kubectl(self, *arguments: str) -> list[str | Path]:
        """A kubectl command line for this namespace."""
        at = ("--context", self.context, "--namespace", self.namespace)
        return [find("kubectl"), *self.where, *at, *arguments]

    def helm(self, *arguments: str) -> list[str | Path]:
        """A helm command line for this namespace."""
        at = ("--kube-context", self.context, "--namespace", self.namespace)
        return [find("helm"), *arguments, *self.where, *at]


def require(target: Target) -> None:
    """The context exists, its cluster answers and is new enough; raises UserError."""
    listed = run([find("kubectl"), *target.where, "config", "get-contexts", "-o", "name"]).split()
    if target.context not in listed:
        known = f"there are {', '.join(listed)}" if listed else "there are none"
        raise UserError(
            f"the kubeconfig has no context {target.context!r}; {known} "
            "(`kubectl config get-contexts`)"
        )
    try:
        told = run_json(target.kubectl("version", "-o", "json", "--request-timeout=10s"))
    except FailedError as error:
        raise UserError(
            f"the cluster of context {target.context!r} doesn't answer: {error}"
        ) from error
    server = told["serverVersion"]
    minor = int("".join(filter(str.isdigit, server["minor"])))
    if (int(server["major"]), minor) < OLDEST:
        raise UserError(
            f"the cluster runs Kubernetes {server['gitVersion']}; the chart needs "
            f"{OLDEST[0]}.{OLDEST[1]} or newer"
        )


def install(
    target: Target,
    values: Sequence[Path],
    show: Show,
    *,
    settings: Sequence[str] = (),
    timeout_s: float = 600,
) -> None:
    """Install the chart or upgrade it, and wait until every workload is ready.

    `values` are files of chart values, `settings` single ones as `helm --set` takes them; the last
    wins. Raises UserError: a wrong value, an interrupted release, or what isn't ready and why.
    """
    require(target)
    chart = tools.repository_root() / "charts" / "prove"
    _require_settled(target)
    _make_namespace(target)
    files = [word for file in values for word in ("--values", str(file))]
    single = [word for setting in settings for word in ("--set", setting)]
    show("installing the chart", 0, 0)
    try:
        run(
            target.helm("upgrade", "--install", RELEASE, str(chart), *files, *single),
            timeout_s=timeout_s,
        )
    except FailedError as error:
        raise UserError(f"the chart can't be installed: {error}") from error
    _wait(target, show, timeout_s)


def remove(target: Target) -> list[str]:
    """Uninstall the release, its volumes, and the namespace if `install` made it; what went."""
    require(target)
    gone = []
    release = _release(target)
    if release is not None:
        _asked(target.helm("uninstall", RELEASE, "--wait"), 300)
        gone.append(f"release {RELEASE}")
        # Claims of StatefulSets outlive them on purpose; here that purpose is over.
        claims = target.kubectl(
            *("delete", "persistentvolumeclaims", "--ignore-not-found"),
            *("--selector", f"app.kubernetes.io/instance={RELEASE}"),
        )
        if _asked(claims, 300).strip():
            gone.append("its volumes")
    if _is_ours(_namespace(target)):
        _asked(target.kubectl("delete", "namespace", target.namespace), 300)
        gone.append(f"namespace {target.namespace}")
    return gone


def _asked(command: list[str | Path], timeout_s: float) -> str:
    try:
        return run(command, timeout_s=timeout_s)
    except FailedError as error:
        raise UserError(f"the cluster refused: {error}") from error


def _release(target: Target) -> dict[str, Any] | None:
    """The release, whatever state it is in."""
    listed = _asked(target.helm("list", "--all", "--filter", f"^{RELEASE}$", "-o", "json"), 60)
    found: list[dict[str, Any]] = json.loads(listed)
    return found[0] if found else None


def _require_settled(target: Target) -> None:
    release = _release(target)
    if release is not None and release["status"].startswith("pending"):
        raise UserError(
            f"an earlier run was interrupted and left release {RELEASE} {release['status']}: "
            f"remove it with `provectl down --on context {target.context}` and start again"
        )


def _namespace(target: Target) -> dict[str, Any] | None:
    answer = _asked(
        target.kubectl("get", "namespace", target.namespace, "--ignore-not-found", "-o", "json"), 60
    )
    found: dict[str, Any] | None = json.loads(answer) if answer.strip() else None
    return found


def _is_ours(namespace: dict[str, Any] | None) -> bool:
    labels = namespace["metadata"].get("labels", {}) if namespace else {}
    return all(labels.get(name) == value for name, value in OURS.items())


def _make_namespace(target: Target) -> None:
    """Make it where it isn't there; one that is belongs to somebody else and stays as it is."""
    if _namespace(target) is not None:
        return
    modes = ("enforce", "warn", "audit")
    labels = {**OURS, **{f"{_SECURITY}/{mode}": "restricted" for mode in modes}}
    metadata = {"name": target.namespace, "labels": labels}
    manifest = json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    try:
        run(target.kubectl("create", "-f", "-"), stdin=manifest)
    except FailedError as error:
        raise UserError(f"namespace {target.namespace} can't be made: {error}") from error


def _wait(target: Target, show: Show, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        workloads = _workloads(target)
        waiting = [name for name, ready in workloads.items() if not ready]
        show(f"waiting for {waiting[0]}" if waiting else "ready", *_count(workloads))
        if workloads and not waiting:
            return
        if time.monotonic() > deadline:
            raise UserError(
                f"after {timeout_s:.0f} s {', '.join(waiting) or 'nothing'} isn't ready: "
                f"{_reason(target)}; all of it: `kubectl --context {target.context} "
                f"-n {target.namespace} describe pods`"
            )
        time.sleep(POLL_S)


def _count(workloads: dict[str, bool]) -> tuple[int, int]:
    return sum(workloads.values()), len(workloads)


def _workloads(target: Target) -> dict[str, bool]:
    """Whether all replicas of each workload of the release are new and ready, by its name."""
    listed = json.loads(
        _asked(
            target.kubectl(
                *("get", "deployments,statefulsets", "-o", "json"),
                *("--selector", f"app.kubernetes.io/instance={RELEASE}"),
            ),
            60,
        )
    )
    return {item["metadata"]["name"]: _is_ready(item) for item in listed["items"]}


def _is_ready(workload: dict[str, Any]) -> bool:
    status, wanted = workload.get("status", {}), workload["spec"].get("replicas", 1)
    seen = status.get("observedGeneration", 0) >= workload["metadata"]["generation"]
    new, ready = status.get("updatedReplicas", 0), status.get("readyReplicas", 0)
    return bool(seen and new >= wanted and ready >= wanted)


def _reason(target: Target) -> str:
    """Why pods aren't ready, in the words of the scheduler and the kubelet."""
    listed = json.loads(_asked(target.kubectl("get", "pods", "-o", "json"), 60))
    for pod in listed["items"]:
        name, status = pod["metadata"]["name"], pod.get("status", {})
        for condition in status.get("conditions", []):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return f"{name} can't be placed: {condition.get('message', 'no reason given')}"
        states = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
        for container in states:
            waiting = container.get("state", {}).get("waiting", {})
            if waiting.get("reason", "") not in {"", "PodInitializing", "ContainerCreating"}:
                return f"{name} is in {waiting['reason']}: {waiting.get('message', '')}".rstrip(
                    ": "
                )
    return "its pods run but don't answer their readiness probes"
