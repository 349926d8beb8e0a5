"""The load generator: what to send, sent by k6, and its summary."""

import json
import os
import resource
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from prove import k6, tools
from prove.bench.progress import TICK_S, Progress
from prove.errors import UserError

SCRIPT = Path("load") / "bench-shop.js"
# Time from a request's due moment that its user may take; beyond, k6 drops iterations.
USERS_PER_RATE_S = 1
MIN_USERS = 20
# After the last request is due: its time limit, and k6's own start and end.
OVERTIME_S = 60


@dataclass(frozen=True)
class Request:
    """One request; `$id` anywhere in it becomes an id of its own each time it is sent.

    `then` follows it when the status was the expected one; its time is not counted.
    """

    method: str
    url: str
    expect: int = 200
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    then: "Request | None" = None

    def as_json(self) -> dict[str, Any]:
        """For the script."""
        headers = {**self.headers} | ({"Content-Type": "application/json"} if self.body else {})
        fields: dict[str, Any] = {
            "method": self.method,
            "url": self.url,
            "expect": self.expect,
            "headers": headers,
        }
        if self.body is not None:
            fields["body"] = self.body
        if self.then is not None:
            fields["then"] = self.then.as_json()
        return fields


@dataclass(frozen=True)
class Plan:
    """What to send to each target, in turn, for `seconds`: at a constant `rate` a second
    (open loop), or by `users` that send the next request when they have an answer (closed loop).
    """

    targets: Mapping[str, Sequence[Request]]
    seconds: int
    rate: int | None = None
    users: int | None = None

    @property
    def scenario(self) -> dict[str, Any]:
        """The k6 scenario."""
        duration = {"duration": f"{self.seconds}s", "gracefulStop": "30s"}
        if self.rate is None:
            return {"executor": "constant-vus", "vus": self.users, **duration}
        users = max(MIN_USERS, self.rate * USERS_PER_RATE_S)
        return {
            "executor": "constant-arrival-rate",
            "rate": self.rate,
            "timeUnit": "1s",
            "preAllocatedVUs": users,
            **duration,
        }


class Latency(BaseModel):
    """Of the requests to one target, in ms."""

    count: int
    failed: int
    p50: float
    p95: float
    p99: float
    max: float


class Load(BaseModel):
    """What k6 did. `dropped`: iterations it could not start in time, all its users being busy."""

    iterations: int
    per_second: float
    dropped: int
    cpu_s: float
    targets: dict[str, Latency]

    @property
    def failed(self) -> int:
        """Requests that were not answered as expected."""
        return sum(latency.failed for latency in self.targets.values())


def run(
    plan: Plan,
    progress: Progress,
    text: str,
    *,
    late: Callable[[], None] = lambda: None,
) -> Load:
    """Send a plan; `late` is called once, when nine tenths of its time are over.

    Raises UserError when k6 fails.
    """
    binary = tools.ensure("k6")["k6"]
    with tempfile.TemporaryDirectory(prefix="prove-bench-") as name:
        work = Path(name)
        _write(plan, work)
        cpu_before = _children_cpu_s()
        env, log = {"PLAN": str(work), "SUMMARY": str(work / "summary.json")}, work / "k6.log"
        with progress.step(text, plan.seconds) as done:
            process = k6.start(binary, SCRIPT, env, log)
            try:
                _wait(process, plan.seconds, done, late)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode != 0:
            raise k6.failure(process, log)
        metrics = json.loads((work / "summary.json").read_text())
        return parse(metrics, list(plan.targets), _children_cpu_s() - cpu_before)


def parse(metrics: Mapping[str, Any], targets: Sequence[str], cpu_s: float) -> Load:
    """Read the `metrics` of a k6 summary; those that nothing was added to are not in it."""

    def value(metric: str, name: str) -> float:
        return float(metrics.get(metric, {}).get("values", {}).get(name, 0))

    return Load(
        iterations=int(value("iterations", "count")),
        per_second=value("iterations", "rate"),
        dropped=int(value("dropped_iterations", "count")),
        cpu_s=cpu_s,
        targets={
            target: Latency(
                count=int(value(f"latency_{n}", "count")),
                failed=int(value(f"failed_{n}", "count")),
                p50=value(f"latency_{n}", "med"),
                p95=value(f"latency_{n}", "p(95)"),
                p99=value(f"latency_{n}", "p(99)"),
                max=value(f"latency_{n}", "max"),
            )
            for n, target in enumerate(targets)
        },
    )


def _write(plan: Plan, work: Path) -> None:
    """One file of request texts a target, beside the plan."""
    for n, requests in enumerate(plan.targets.values()):
        texts = [json.dumps(request.as_json()) for request in requests]
        (work / f"{n}.json").write_text(json.dumps(texts))
    head = {
        "id": secrets.token_hex(6),
        "scenario": plan.scenario,
        "targets": list(plan.targets),
    }
    (work / "plan.json").write_text(json.dumps(head))


def _wait(
    process: "subprocess.Popen[bytes]",
    seconds: int,
    done: Callable[[float], None],
    late: Callable[[], None],
) -> None:
    start = time.monotonic()
    late_called = False
    while process.poll() is None:
        elapsed = time.monotonic() - start
        if elapsed > seconds + OVERTIME_S:
            raise UserError(f"k6 did not end {OVERTIME_S} s after its time: the shop hangs")
        if elapsed > 0.9 * seconds and not late_called:
            late_called = True
            late()
        done(elapsed)
        time.sleep(TICK_S)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
