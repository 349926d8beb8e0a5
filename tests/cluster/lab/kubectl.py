"""kubectl, called as a person would."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

_PATHS = {
    **{
        kind: ("api/v1", f"{kind}s")
        for kind in (
            *("pod", "node", "namespace", "secret", "service", "serviceaccount"),
            "resourcequota",
        )
    },
    "deployment": ("apis/apps/v1", "deployments"),
    "hpa": ("apis/autoscaling/v2", "horizontalpodautoscalers"),
}
T = TypeVar("T")
Object = dict[str, Any]
POLL_S = 0.5


class RefusedError(Exception):
    """What kubectl said when it failed."""


@dataclass(frozen=True)
class Kubectl:
    """One cluster's kubectl; `kubeconfig` None: what kubectl finds by itself."""

    binary: Path
    kubeconfig: Path | None = None
    proxy: str | None = None

    @property
    def command(self) -> list[str]:
        """The start of its command line."""
        config = ["--kubeconfig", str(self.kubeconfig)] if self.kubeconfig else []
        return [str(self.binary), *config]

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """What it prints on stdout; raises RefusedError with what it says on stderr."""
        done = subprocess.run(
            [*self.command, *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise RefusedError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def apply(self, *objects: Object | Path, namespace: str | None = None) -> None:
        """Create or change objects, given as such or in files."""
        documents = [item for item in objects if not isinstance(item, Path)]
        where = ["-n", namespace] if namespace else []
        for path in objects:
            if isinstance(path, Path):
                self("apply", "--server-side", *where, "-f", str(path))
        if documents:
            text = yaml.safe_dump_all(documents)
            self("apply", "--server-side", *where, "-f", "-", stdin=text)

    def make_namespace(self, namespace: Object) -> None:
        """Create a namespace and wait until pods can be put into it."""
        self.apply(namespace)
        name = namespace["metadata"]["name"]
        eventually(f"{name} is usable", lambda: self.get("serviceaccount", "default", name))

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object:
        """One object."""
        return self._ask(kind, name, namespace)

    def all(self, kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
        """All objects of a kind in one namespace, or in all."""
        found: list[Object] = self._ask(kind, "", namespace, selector)["items"]
        return found

    def _ask(self, kind: str, name: str, namespace: str | None, selector: str = "") -> Object:
        """By the proxy where there is one: kubectl itself takes a tenth of a second of a core."""
        found: Object
        if self.proxy is None:
            where = ["-n", namespace] if namespace else [] if name else ["--all-namespaces"]
            which = [name] if name else ["-l", selector] if selector else []
            found = json.loads(self("get", kind, *which, *where, "-o", "json"))
            return found
        group, plural = _PATHS[kind.removesuffix("s")]
        within = f"/namespaces/{namespace}" if namespace else ""
        try:
            answer = httpx.get(
                f"{self.proxy}/{group}{within}/{plural}/{name}".rstrip("/"),
                params={"labelSelector": selector} if selector else None,
                timeout=60,
            )
        except httpx.HTTPError as error:
            raise RefusedError(f"no answer about {plural}: {error}") from error
        if answer.status_code != 200:
            raise RefusedError(answer.text)
        found = answer.json()
        return found

    @contextmanager
    def proxied(self) -> Iterator["Kubectl"]:
        """The same, asking for objects through one `kubectl proxy` that runs meanwhile."""
        # Where Linux can: the proxy ends with whoever runs it, however that ends.
        leash = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        process = subprocess.Popen(
            [*leash, *self.command, "proxy", "--port=0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.search(r"127\.0\.0\.1:\d+", line)
            if match is None:
                raise RefusedError(f"kubectl proxy said {line!r}")
            yield replace(self, proxy=f"http://{match[0]}")
        finally:
            process.kill()
            process.communicate()

    def pods(self, namespace: str, selector: str = "") -> list[Object]:
        """Pods that aren't on their way out."""
        found = self.all("pods", namespace, selector)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def exec(self, namespace: str, pod: str, *command: str, container: str | None = None) -> str:
        """Run a program in a pod; what it prints."""
        which = ["-c", container] if container else []
        return self("exec", "-n", namespace, pod, *which, "--", *command)

    def rolled_out(self, namespace: str, *workloads: str, seconds: float = 240) -> None:
        """Wait until all pods of each workload (`deployment/web`) are new and ready."""
        for workload in workloads:
            limit = f"--timeout={seconds:.0f}s"
            try:
                self("rollout", "status", "-n", namespace, workload, limit, timeout=seconds + 30)
            except RefusedError as error:
                raise RefusedError(f"{workload}: {error}\n{self.describe(namespace)}") from error

    def describe(self, namespace: str) -> str:
        """What goes on in a namespace, for whoever reads a failed test."""
        pods = self("get", "pods", "-n", namespace, "-o", "wide")
        events = self("get", "events", "-n", namespace, "--sort-by=.lastTimestamp")
        return pods + "\n".join(events.splitlines()[-15:])


def eventually(what: str, ask: Callable[[], T], seconds: float = 120) -> T:
    """The first true answer of `ask`, asked again until then.

    RefusedError and AssertionError count as "not yet". Raises AssertionError with `what` and the
    last answer at the deadline.
    """
    deadline = time.monotonic() + seconds
    while True:
        last: object
        try:
            answer = ask()
            if answer:
                return answer
            last = answer
        except (RefusedError, AssertionError) as error:
            last = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}; last: {last}")
        time.sleep(POLL_S)


def is_ready(pod: Object) -> bool:
    """Whether a pod gets traffic."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
