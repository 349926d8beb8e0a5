"""`provectl up` and its companions with the whole real stack, ended and cut off on purpose."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from service_kit.testing import PATIENT_S, wait_until

from prove.stack import control, logfiles, state
from tests.support.stack import Stack

# The stacks of this file come one after the other: each takes some 500 MB and most of two cores.
pytestmark = pytest.mark.xdist_group("stack-of-its-own")

SHOP = {"product", "order", "payment", "acquirer"}
SERVERS = {
    "prometheus",
    "alertmanager",
    "blackbox",
    "jaeger",
    "victorialogs",
    "collector",
    "canary",
}


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Stack]:
    """A stack that isn't started; whatever the test left of it is ended."""
    stack = Stack.at(tmp_path / "home")
    yield stack
    stack.run("down")
    state.end(state.leftovers(stack.home))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack whose processes may be killed, with one product to sell."""
    stack = Stack.at(tmp_path_factory.mktemp("stack") / "home")
    started = stack.run("up", "--detach")
    try:
        assert started.returncode == 0, started.stderr
        item = {
            "sku": "MUG",
            "name": "Mug",
            "description": "A mug",
            "category": "kitchen",
            "price_minor": 500,
            "currency": "GBP",
            "stock": 1_000_000,
        }
        answer = httpx.post(
            f"{stack.url('product')}/api/v1/products/import",
            headers={"Authorization": f"Bearer {stack.token}"},
            json={"items": [item]},
            timeout=PATIENT_S,
        )
        assert answer.status_code == 200, answer.text
        yield stack
    finally:
        stack.run("down")
        state.end(state.leftovers(stack.home))


def buy(stack: Stack) -> dict[str, str]:
    """An order that is confirmed; asked for under its key for as long as the shop is busy."""
    key = uuid.uuid4().hex
    said: list[str] = []

    def confirmed() -> dict[str, str] | None:
        answer = httpx.post(
            f"{stack.url('order')}/api/v1/orders",
            headers={"Idempotency-Key": key},
            json={
                "customer_id": "C1",
                "lines": [{"sku": "MUG", "quantity": 1}],
                "payment_method": "tok_approve",
            },
            timeout=PATIENT_S,
        )
        said.append(f"{answer.status_code} {answer.text}")
        assert answer.status_code in (201, 202, 409, 503), said
        order: dict[str, str] = answer.json()
        return order if answer.status_code == 201 else None

    return wait_until(confirmed, what="a confirmed order")


def test_everything_is_ready_and_accounted_for(own: Stack) -> None:
    report = own.ready()
    assert {row["name"] for row in report["processes"] if row["ready"]} == {
        *SHOP,
        *SERVERS,
        "supervisor",
    }
    assert report["totals"]["shop"]["rss_bytes"] > 0
    assert report["totals"]["observability"]["rss_bytes"] > 0

    table = own.run("status").stdout.splitlines()
    assert max(map(len, table)) <= 100
    assert {line.split()[0] for line in table} > SHOP | SERVERS


def test_up_again_changes_nothing(own: Stack) -> None:
    before = own.state().supervisor
    answer = own.run("up")
    assert answer.returncode == 0
    assert "up already" in answer.stdout
    assert own.url("order") in answer.stdout
    assert own.state().supervisor == before


def test_the_doctor_knows_its_own_stack(own: Stack) -> None:
    answer = own.run("doctor", "--json")
    report = json.loads(answer.stdout)
    assert answer.returncode == 0, report
    assert {check["name"] for check in report["checks"]} > {"Python", "Go", "SQLite", "stack"}


def test_the_admin_token_is_private_and_passed_by_file(own: Stack) -> None:
    assert own.settings.admin_token_file.stat().st_mode & 0o777 == 0o600
    plan = (own.settings.run_dir / "stack.json").read_text()
    logs = "".join(log.read_text(errors="replace") for log in own.settings.logs_dir.glob("*"))
    assert own.token not in plan + logs


def test_logs_of_all_services_are_found_by_trace(own: Stack) -> None:
    trace = buy(own)["trace_id"]

    def stored() -> list[dict[str, str]] | None:
        answer = own.run("logs", "--trace", trace, "--json")
        entries = [json.loads(line) for line in answer.stdout.splitlines()]
        records = [entry for entry in entries if entry["kind"] == "log"]
        services = {record["service.name"] for record in records}
        wanted = {"product-service", "order-service", "payment-service"}
        return records if services == wanted else None

    records = wait_until(stored, what="all services' records in the log store")
    times = [record["_time"] for record in records]
    assert times == sorted(times)

    shown = own.run("logs", "--trace", trace, "payment-service").stdout.splitlines()
    assert shown
    assert all(" payment " in line for line in shown)
    short = trace[:8]
    assert f"trace_id={short}…" in own.run("logs", "order").stdout
    by_short = own.run("logs", "--trace", short, "payment-service").stdout.splitlines()
    assert by_short == shown


def test_what_logs_cannot_show_is_said(own: Stack) -> None:
    for arguments, said in (
        (["cashier"], "there is no log of cashier; choose one of acquirer, alertmanager"),
        (
            ["--trace", "xyz"],
            "--trace wants a trace id, 8 to 32 hex digits (got 'xyz')",
        ),
        (["--trace", "0" * 32], "has no record of trace 0000"),
        (["--trace", "0" * 32, "-f"], "leave --follow out"),
    ):
        answer = own.run("logs", *arguments)
        assert answer.returncode == 2
        assert said in answer.stderr
        assert "Traceback" not in answer.stderr


def test_following_logs_shows_what_happens(own: Stack) -> None:
    before = buy(own)["id"]
    with own.start("logs", "order", "-f", "--json") as following:
        assert following.stdout
        assert any(before in line for line in following.stdout)
        after = buy(own)["id"]
        assert any(after in line for line in following.stdout)
        following.send_signal(signal.SIGINT)
        assert following.wait() == 0


def test_a_killed_service_is_started_again_and_sells(own: Stack) -> None:
    before = own.state().process("payment")
    control.send(own.home, "payment", signal.SIGKILL)

    def back() -> bool:
        now = own.state().process("payment")
        return now.phase == "ready" and now.restarts == before.restarts + 1

    wait_until(back, what="payment to be ready again")
    buy(own)
    report = json.loads(own.run("status", "--json").stdout)
    (payment,) = [row for row in report["processes"] if row["name"] == "payment"]
    assert payment["restarts"] == before.restarts + 1
    assert payment["last_exit"] == "was ended by SIGKILL"


def test_the_shop_sells_without_its_collector_and_counts_what_is_dropped(own: Stack) -> None:
    logs = {name: own.state().process(name).log for name in ("product", "payment")}
    seen = {name: logfiles.size(log) for name, log in logs.items()}

    with control.held(own.home, "collector"):

        def spans_were_given_up() -> bool:
            buy(own)
            return all(
                "Failed to export spans batch" in "\n".join(logfiles.tail(log, 5000, seen[name]))
                for name, log in logs.items()
            )

        wait_until(spans_were_given_up, what="the exporters to give up on spans", timeout_s=300)
        assert own.state().process("collector").phase == "held"

    query = 'sum by (service_name) (otel_sdk_exporter_span_exported_total{error_type!=""}) > 0'

    def drops_are_counted() -> bool:
        answer = httpx.get(
            f"{own.url('prometheus')}/api/v1/query", params={"query": query}, timeout=PATIENT_S
        )
        counted = {row["metric"]["service_name"] for row in answer.json()["data"]["result"]}
        return counted == {"product-service", "order-service", "payment-service"}

    wait_until(drops_are_counted, what="every service's dropped spans in Prometheus", timeout_s=300)
    buy(own)


def test_after_a_killed_supervisor_up_clears_away_and_starts(own: Stack) -> None:
    before = own.state()
    orphans = [p.id for p in before.processes.values() if p.id]
    supervisor = before.supervisor.find()
    assert supervisor
    supervisor.kill()
    wait_until(lambda: not state.runs(supervisor), what="the supervisor to end")
    assert all(orphan.find() for orphan in orphans)

    status = own.run("status")
    assert status.returncode == 1
    assert "the supervisor was killed and left" in status.stdout
    doctor = own.run("doctor")
    assert doctor.returncode == 1
    assert "cleans up and starts again" in doctor.stdout

    again = own.run("up", "--detach")
    assert again.returncode == 0, again.stderr
    for name, process in before.processes.items():
        assert process.id
        said = f"ended {name} (pid {process.id.pid}), left by a stack whose supervisor was killed"
        assert said in again.stdout
    assert not any(orphan.find() for orphan in orphans)
    buy(own)


def test_down_leaves_nothing_and_may_be_repeated(own: Stack) -> None:
    first, second = own.run("down"), own.run("down")
    assert (first.returncode, second.returncode) == (0, 0)
    assert "The stack is down" in first.stdout
    assert "No stack is running" in second.stdout
    assert state.leftovers(own.home) == []
    assert own.run("status").returncode == 1


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ending_up_in_the_foreground_leaves_nothing(idle: Stack, ending: signal.Signals) -> None:
    with idle.start("up") as up:
        assert up.stdout
        said = []
        for line in up.stdout:
            said.append(line)
            if "Its log follows" in line:
                break
        assert idle.state().phase == "ready", "".join(said)
        up.send_signal(ending)
        out, err = up.communicate()
    assert up.returncode == 0, err
    assert "nothing of it is left running" in out
    assert state.leftovers(idle.home) == []
    assert state.load(idle.home) is None


def test_a_busy_port_is_named_with_its_holder_which_is_left_alone(idle: Stack) -> None:
    port = idle.settings.payment_port
    with socket.create_server(("127.0.0.1", port)) as holder:
        answer = idle.run("up", "--detach")
        assert answer.returncode == 2
        assert answer.stderr.startswith(f"provectl: port {port} (payment) is in use by ")
        assert answer.stderr.endswith("stop that or set PROVE_PAYMENT_PORT to another port\n")
        assert holder.getsockname()[1] == port
    assert state.leftovers(idle.home) == []


def test_missing_go_is_one_sentence(idle: Stack, tmp_path: Path) -> None:
    answer = idle.run(
        "up", "--detach", env={"PATH": str(tmp_path), "PROVE_CACHE": str(tmp_path / "cache")}
    )
    assert answer.returncode == 2
    assert "there is no `go` on PATH: install it" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    stack = Stack.at(tmp_path / "file" / "home")
    for arguments in (["up", "--detach"], ["doctor"]):
        answer = stack.run(*arguments)
        assert answer.returncode in (1, 2)
        assert "cannot be written" in answer.stdout + answer.stderr
        assert "Traceback" not in answer.stderr


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte; skipped where it can't be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("only root may mount a tiny disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_one_sentence(tiny_disk: Path) -> None:
    with (tiny_disk / "filler").open("wb") as filler, contextlib.suppress(OSError):
        filler.write(bytes(2**21))
    stack = Stack.at(tiny_disk / "home")
    answer = stack.run("up", "--detach")
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "set PROVE_HOME to a" in answer.stderr
    assert stack.run("doctor").returncode == 1


def test_a_read_only_disk_is_one_sentence(tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", tiny_disk], check=True)
    stack = Stack.at(tiny_disk / "home")
    answer = stack.run("up", "--detach")
    assert answer.returncode == 2
    assert answer.stderr == (
        f"provectl: {stack.home} cannot be written (Read-only file system); make room there or "
        "make it writable, or set PROVE_HOME to another directory\n"
    )
    assert "WRONG home" in stack.run("doctor").stdout


def test_a_process_that_fails_is_quoted_and_the_rest_is_stopped(idle: Stack) -> None:
    idle.settings.data_dir.mkdir(parents=True)
    (idle.settings.data_dir / "payment.db").write_bytes(b"this is no database" * 100)
    answer = idle.run("up", "--detach")
    assert answer.returncode == 1
    assert answer.stderr.startswith("provectl: payment exited with code 2; its log ")
    assert "payment.db" in answer.stderr.splitlines()[-1]
    assert state.leftovers(idle.home) == []
    assert "the last start failed: payment exited" in idle.run("status").stdout
