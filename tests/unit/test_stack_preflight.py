import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections import namedtuple
from contextlib import ExitStack
from pathlib import Path

import pytest
from service_kit.testing import wait_until

from prove import tools
from prove.errors import UserError
from prove.stack import preflight, state
from prove.stack.settings import StackSettings
from tests.support import standin
from tests.support.stack import Stack

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def settings(tmp_path: Path) -> StackSettings:
    return Stack.at(tmp_path / "home").settings


def test_a_fit_machine_passes(settings: StackSettings) -> None:
    preflight.require(settings)
    assert [check for check in preflight.ports(settings) if not check.ok] == []


def test_every_busy_port_is_named_with_its_holder_and_the_way_out(settings: StackSettings) -> None:
    with (
        socket.create_server(("127.0.0.1", settings.order_port)),
        socket.create_server(("127.0.0.1", settings.jaeger_port)),
        pytest.raises(UserError) as caught,
    ):
        preflight.require(settings)
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"port {settings.order_port} (order) is in use by ")
    assert f"(pid {os.getpid()}: " in first
    assert first.endswith("stop that or set PROVE_ORDER_PORT to another port")
    assert "PROVE_JAEGER_PORT" in second


def test_of_many_busy_ports_some_are_named_and_how_to_move_all(settings: StackSettings) -> None:
    busy = sorted(settings.used_ports.values())[:5]
    with ExitStack() as held:
        for port in busy:
            held.enter_context(socket.create_server(("127.0.0.1", port)))
        with pytest.raises(UserError) as caught:
            preflight.require(settings)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert (
        lines[-1].strip().startswith("and 2 ports more; PROVE_PORT_OFFSET=1000 moves all of them")
    )


def test_a_full_disk_is_named(settings: StackSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**30, 2**30, 2**20))
    with pytest.raises(UserError) as caught:
        preflight.require(settings)
    assert str(caught.value) == (
        f"only 1 MiB free in {settings.home}, and 256 MiB are needed; "
        "make room or set PROVE_HOME to a directory on another disk"
    )


def test_a_home_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = preflight.home(StackSettings(home=tmp_path / "file" / "home"))
    assert not check.ok
    assert "PROVE_HOME" in check.remedy


def test_sqlite_can_what_it_is_said_to() -> None:
    assert preflight.sqlite().ok
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE t USING fts5(x)")
    connection.execute("INSERT INTO t VALUES ('a') RETURNING x").fetchall()
    connection.close()


def test_missing_go_matters_only_while_something_is_to_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    check = preflight.go()
    assert not check.ok
    assert "no `go` on PATH" in check.detail
    monkeypatch.setattr(tools, "find", lambda _: object())
    assert preflight.go().ok


def test_the_first_build_needs_more_room_than_a_built_stack(
    settings: StackSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("go"):
        pytest.skip("Go is not installed")
    monkeypatch.setenv("GOCACHE", str(tmp_path / "go" / "build"))
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "go" / "modules"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 2**40, 6 * 2**30))
    assert preflight.disk(settings).ok
    assert preflight.cache().ok
    monkeypatch.setattr(tools, "find", lambda _: None)
    (check,) = preflight.build()
    assert not check.ok
    assert check.detail == (
        f"only 6,144 MiB free in {tmp_path}/go/modules, and {8 * 1024 + 512:,} MiB are needed"
    )
    assert "set GOMODCACHE to a directory on another disk" in check.remedy
    monkeypatch.setattr(tools, "find", lambda program: program.name not in tools.SERVICES or None)
    assert all(check.ok for check in preflight.build())
    monkeypatch.setattr(tools, "find", lambda _: object())
    assert not list(preflight.build())


def test_a_state_file_without_a_stack_is_stale(settings: StackSettings) -> None:
    assert preflight.stack(settings).ok
    settings.run_dir.mkdir(parents=True)
    (settings.run_dir / "stack.json").write_text("{")
    check = preflight.stack(settings)
    assert not check.ok
    assert "provectl down`" in check.remedy


def test_what_a_killed_stack_left_on_a_port_is_known_for_its_own(settings: StackSettings) -> None:
    port = settings.order_port
    left = subprocess.Popen(
        [sys.executable, standin.__file__, str(port)],
        env={**os.environ, state.MARKER: str(settings.home)},
        stdout=subprocess.DEVNULL,
    )
    try:
        check = wait_until(
            lambda: next((each for each in preflight.ports(settings) if not each.ok), None),
            what="the port is taken",
        )
    finally:
        left.kill()
        left.wait()
    assert check.detail.startswith(
        f"port {port} (order) is in use by what a killed stack left: python"
    )
    assert f"(pid {left.pid}: " in check.detail
    assert "up` cleans up" in check.remedy
    assert "down` only cleans up" in check.remedy
