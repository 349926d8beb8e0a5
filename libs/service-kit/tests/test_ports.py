"""Ports that are free, and given once."""

import errno
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from service_kit import ports
from service_kit.ports import FIRST, HOST, LAST, claim, is_free


def test_what_is_claimed_is_free_and_below_the_ports_of_clients() -> None:
    claimed = claim(20)
    assert len(set(claimed)) == 20
    assert all(FIRST <= port <= LAST and is_free(port) for port in claimed)


def test_no_two_processes_are_given_the_same() -> None:
    code = "from service_kit.ports import claim; print(*claim(30))"

    def other(_: int) -> list[str]:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        return done.stdout.split()

    with ThreadPoolExecutor(4) as threads:
        given = [port for some in threads.map(other, range(4)) for port in some]
    assert len(given) == len(set(given)) == 120


def test_a_port_that_is_listened_on_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = claim(2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # a counter of its own
    monkeypatch.setattr(ports, "FIRST", one)
    monkeypatch.setattr(ports, "LAST", other)
    with socket.create_server((HOST, one)):
        assert not is_free(one)
        assert claim() == [other]
        with pytest.raises(OSError, match="no 2 ports are free") as refused:
            claim(2)
    assert refused.value.errno == errno.EADDRINUSE
