"""Carries out a scenario's activities, by Chaos Toolkit's own code: they mean here what they mean
to `chaos run`.
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

from chaoslib.activity import run_activity
from chaoslib.exceptions import ActivityFailed
from chaoslib.hypothesis import within_tolerance

from prove.incident.record import Action, Phase
from prove.incident.schema import Probe, Step
from prove.stack.processes import LOOPBACK

SHOWN = 300


class Activities:
    """Of scenarios, at the installation that `configuration` (`order_url` …) tells of."""

    def __init__(self, configuration: Mapping[str, str], token: str) -> None:
        self._configuration = dict(configuration)
        self._secrets = {"prove": {"token": token}}
        # It warns of every answer from 400 on; here each is looked at.
        logging.getLogger("chaostoolkit").setLevel(logging.CRITICAL)
        # A proxy set for the machine is not for calls to processes on it.
        for name in ("NO_PROXY", "no_proxy"):
            os.environ[name] = ",".join(filter(None, (os.environ.get(name), LOOPBACK)))

    def do(self, step: Step, phase: Phase) -> Action:
        """What came of an action; it never raises."""
        answer, failure = self._run(step)
        at_us = time.time_ns() // 1000
        status = answer.get("status")
        ok = isinstance(status, int) and status < 400
        url = step.provider.url
        for name, value in self._configuration.items():
            url = url.replace(f"${{{name}}}", value)
        return Action(
            at_unix_us=at_us,
            phase=phase,
            name=step.name,
            method=step.provider.method,
            url=url,
            status=status,
            ok=ok,
            detail="" if ok else failure or _said(answer.get("body")),
        )

    def met(self, probe: Probe) -> str:
        """'' when the answer is within the probe's tolerance; else what it was."""
        answer, failure = self._run(probe)
        if failure:
            return failure
        tolerance = probe.model_dump()["tolerance"]
        try:
            met = within_tolerance(tolerance, answer, self._configuration, self._secrets)
        except TypeError:  # a pattern, and the body was JSON
            met = False
        return "" if met else f"{answer.get('status')} {_said(answer.get('body'))}".strip()

    def _run(self, activity: Step | Probe) -> tuple[dict[str, Any], str]:
        """The answer, or why there is none."""
        form = activity.model_dump(by_alias=True, exclude_none=True)
        try:
            answer = run_activity(form, self._configuration, self._secrets)
        except (ActivityFailed, OSError) as error:  # as every error of requests is
            return {}, " ".join(str(error).split())[:SHOWN]
        return dict(answer), ""


def _said(body: Any) -> str:
    """In a line; of a problem, its detail."""
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except ValueError:
            return " ".join(body.split())[:SHOWN]
    if isinstance(body, dict) and "detail" in body:
        body = body["detail"]
    return str(body)[:SHOWN] if body else ""
