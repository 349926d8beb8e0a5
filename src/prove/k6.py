"""Running k6 on a plan of requests, watching it, and ending it."""

import json
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from service_kit import ports

from prove.errors import UserError
from prove.loadtest import Request
from prove.tools import repository_root
from prove.units import Rate

SCRIPT = Path("load") / "play.js"
POLL_S = 1.0
END_TIMEOUT_S = 40.0
"""From the first signal to the kill; k6 lets requests in flight finish before it sums up."""
REPLAY_USERS = 100
OVERTIME_S = 60


@dataclass(frozen=True)
class Progress:
    """How far a running test is."""

    elapsed_s: float
    requests: int
    failures: int
    p95_ms: float | None
    """Of checkouts, or of items where there are none."""


@dataclass(frozen=True)
class Run:
    """What a k6 run left: the summary of load/play.js, and whether it was ended by a signal."""

    summary: Mapping[str, Any]
    interrupted: bool


def constant_rate(rate: Rate, duration_s: float) -> dict[str, Any]:
    """The scenario of arrivals at a constant rate; those that find no free user are dropped."""
    users = min(500, max(20, round(2 * rate.per_s)))
    return {
        "executor": "constant-arrival-rate",
        "rate": rate.count,
        "timeUnit": f"{rate.period_s}s",
        "duration": f"{round(duration_s * 1000)}ms",
        "preAllocatedVUs": min(users, 100),
        "maxVUs": users,
    }


def timed(count: int, duration_s: float) -> dict[str, Any]:
    """The scenario of `count` requests that each have their time, the last at `duration_s`."""
    return {
        "executor": "shared-iterations",
        "vus": min(REPLAY_USERS, count),
        "iterations": count,
        "maxDuration": f"{round(duration_s) + OVERTIME_S}s",
    }


def play(
    k6: Path,
    requests: Sequence[Request],
    scenario: Mapping[str, Any],
    shop: Mapping[str, str],
    show: Callable[[Progress], None],
) -> Run:
    """Send `requests`; `show` is called about once a second.

    Ctrl-C and SIGTERM end the test early, and what was sent until then is summed up; a second one
    ends it without. Raises UserError when k6 fails.
    """
    with tempfile.TemporaryDirectory(prefix="prove-load-") as name:
        work = Path(name)
        plan, summary, log = work / "plan.json", work / "summary.json", work / "k6.log"
        plan.write_text(json.dumps([request.as_json() for request in requests]))
        run = {
            "plan": str(plan),
            "summary": str(summary),
            "shop": dict(shop),
            "id": secrets.token_hex(8),
            "scenario": dict(scenario),
        }
        address = f"{ports.HOST}:{ports.claim()[0]}"
        process = start(k6, SCRIPT, {"RUN": json.dumps(run)}, log, address)
        interrupted = _wait(process, address, show)
        if interrupted and not summary.exists():
            return Run({"metrics": {}, "duration_ms": 0}, interrupted)  # k6 was still starting
        try:
            return Run(json.loads(summary.read_bytes()), interrupted)
        except (OSError, ValueError):
            raise failure(process, log) from None


def start(
    k6: Path, script: Path, env: Mapping[str, str], log: Path, address: str = ""
) -> "subprocess.Popen[bytes]":
    """k6 on a script of this repository, with its API at `address`, if any.

    In a session of its own: Ctrl-C reaches us alone, who end it or pass it on.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            [
                *(k6, "run", "--quiet", "--no-usage-report", "--no-color", "--no-thresholds"),
                *("--address", address, repository_root() / script),
            ],
            env=_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def failure(process: "subprocess.Popen[bytes]", log: Path) -> UserError:
    """What to raise when k6 left no result: the last it said."""
    said = log.read_text(errors="replace").strip().splitlines()[-1:]
    return UserError(
        f"k6 ended with code {process.returncode} and no result: {' '.join(said)[:500]}"
    )


def _wait(
    process: "subprocess.Popen[bytes]", address: str, show: Callable[[Progress], None]
) -> bool:
    """Until k6 ends; whether it was told to."""
    started = time.monotonic()
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=POLL_S, trust_env=False) as api:
            while True:
                try:
                    process.wait(POLL_S)
                except subprocess.TimeoutExpired:
                    if progress := _progress(api, time.monotonic() - started):
                        show(progress)
                else:
                    return False
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)
        return True
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _progress(api: httpx.Client, elapsed_s: float) -> Progress | None:
    try:
        listed = api.get("/v1/metrics").json()["data"]
        samples = {each["id"]: each["attributes"]["sample"] for each in listed}
    except (httpx.HTTPError, ValueError, KeyError):
        return None  # it is starting or ending

    def total(suffix: str) -> int:
        return sum(int(each["count"]) for name, each in samples.items() if name.endswith(suffix))

    return Progress(
        elapsed_s=elapsed_s,
        requests=total("_requests"),
        failures=total("_failures"),
        p95_ms=next(
            (
                samples[name]["p(95)"]
                for name in ("checkout_ms", "item_ms")
                if samples.get(name, {}).get("p(95)")
            ),
            None,
        ),
    )


def _environment(added: Mapping[str, str]) -> dict[str, str]:
    """Ours and what is `added`, without what would change the test or send it through a proxy."""
    proxies = {"http_proxy", "https_proxy", "all_proxy"}
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("K6_") and name.lower() not in proxies
    }
    return {
        **kept,
        **added,
        "K6_NO_USAGE_REPORT": "true",
        "K6_AUTO_EXTENSION_RESOLUTION": "false",
    }
