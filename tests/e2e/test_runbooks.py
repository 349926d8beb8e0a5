"""What runbooks tell to type under Diagnosis works: every command is run, against a real stack."""

import json
import os
import re
import shlex
import subprocess

import httpx
import pytest
from service_kit.testing import PATIENT_S, wait_until

from prove.stack.settings import StackSettings, port_fields
from prove.tools import repository_root
from tests.support import runbooks
from tests.support.stack import PROVECTL, Stack

BY_COMMAND: dict[str, list[str]] = {}
for _name, _page in sorted(runbooks.pages().items()):
    for _command in runbooks.commands(runbooks.sections(_page)["Diagnosis"]):
        BY_COMMAND.setdefault(_command, []).append(_name)

TIMEOUT_S = 240
TRIES = 3
METRIC = re.compile(r"\b(?:http|prove|process|probe|otelcol|otel|system)_[a-z_]+\b")
NOT_A_METRIC = re.compile(r"\{[^}]*\}|\b(?:by|without|on|ignoring) \([^)]*\)")
# Series that a stack at rest on this machine need not have.
NOT_ALWAYS = re.compile(
    r"otelcol_exporter_(send|enqueue)_failed_"  # nothing has been lost
    r"|probe_ssl_"  # no TLS
    r"|http_server_active_requests|http_client_request"
    r"|prove_(order_retries|peer_retries|order_recovery|checkouts_shed)"
)


def local(command: str, stack: Stack) -> str:
    """The command, with this stack's home and ports."""
    command = command.replace(runbooks.PROVECTL, str(PROVECTL))
    command = command.replace(".prove/", f"{stack.home}/")
    standard = StackSettings.model_construct()
    for name in port_fields():
        was, now = getattr(standard, name), getattr(stack.settings, name)
        command = command.replace(f"127.0.0.1:{was}", f"127.0.0.1:{now}")
    return command


def run(command: str, stack: Stack) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", local(command, stack)],
        cwd=repository_root(),
        env={**os.environ, **stack.env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


@pytest.mark.parametrize("command", BY_COMMAND)
def test_a_command_of_a_diagnosis_works(command: str, stack: Stack) -> None:
    # Books that differ, of orders other tests have under way, are an answer, too.
    answered = (0, 1) if shlex.split(command)[1:] == ["orders", "reconcile"] else (0,)
    for _ in range(TRIES):  # a busy process may not answer in time
        done = run(command, stack)
        if done.returncode in answered:
            break
    assert done.returncode in answered, f"{BY_COMMAND[command]}: {done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    if command.startswith("curl"):
        answer = json.loads(done.stdout)
        assert answer.get("status") != "error", answer
        assert "problems" not in str(answer.get("type")), answer


def test_the_metrics_of_diagnoses_exist(stack: Stack) -> None:
    text = "".join(runbooks.sections(page)["Diagnosis"] for page in runbooks.pages().values())
    wanted = {
        name
        for query in runbooks.promql(text)
        for name in METRIC.findall(NOT_A_METRIC.sub("", query))
        if not NOT_ALWAYS.search(name)
    }
    assert wanted
    stack.run("data", "import")
    stack.buy()

    def known() -> set[str]:
        url = f"{stack.url('prometheus')}/api/v1/label/__name__/values"
        return set(httpx.get(url, timeout=PATIENT_S, trust_env=False).json()["data"])

    missing: set[str] = set()

    def all_there() -> bool:
        missing.clear()
        missing.update(wanted - known())
        return not missing

    wait_until(all_there, what="every metric that runbooks ask for", timeout_s=240)
