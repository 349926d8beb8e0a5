"""What the service says when it cannot start."""

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest
from service_kit import testing


def run(directory: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [testing.script("payment-service"), *arguments],
        cwd=directory,
        env={**os.environ, "OTEL_SDK_DISABLED": "true", **env},
        capture_output=True,
        text=True,
        timeout=testing.PATIENT_S,
    )


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ({"PORT": "99999"}, "PORT: Input should be less than or equal to 65535 (got '99999')"),
        ({"ACQUIRER_URL": "acquirer"}, "ACQUIRER_URL: "),
        ({"ACQUIRER_TIMEOUT_S": "20"}, "WORKER_LEASE_S must be more than ACQUIRER_TIMEOUT_S"),
        ({"DATABASE_URL": "mysql://u:secret@h/d"}, "DATABASE_URL: "),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL: "),
        ({"ADMIN_TOKEN_FILE": "/no/such/file"}, "ADMIN_TOKEN_FILE: "),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, env: dict[str, str], sentence: str) -> None:
    done = run(tmp_path, **env)
    assert done.returncode == 2
    assert done.stderr.startswith("payment-service: ")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


def test_a_busy_port_is_explained(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(tmp_path, PORT=str(port))
    assert done.returncode == 2
    assert done.stderr == (
        f"payment-service: 127.0.0.1:{port} is already in use; "
        "set PORT or stop the other process (ss -ltnp shows it)\n"
    )


@pytest.mark.parametrize("migrate", ["true", "false"])
def test_a_corrupt_database_is_explained(tmp_path: Path, migrate: str) -> None:
    (tmp_path / "payment.db").write_bytes(b"not a database " * 1000)
    done = run(tmp_path, PORT=str(testing.free_port()), MIGRATE_ON_START=migrate)
    assert done.returncode == 2
    assert "payment.db is not a sound SQLite file; move it away" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_database_server_that_is_not_there_is_explained(tmp_path: Path) -> None:
    url = f"postgresql://u:secret@127.0.0.1:{testing.free_port()}/payments"
    done = run(tmp_path, "migrate", DATABASE_URL=url)
    assert done.returncode == 2
    assert "check DATABASE_URL and that PostgreSQL runs" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


def test_migrate_can_be_repeated_and_openapi_needs_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        assert run(tmp_path, "migrate").returncode == 0
    document = json.loads(run(tmp_path, "openapi").stdout)
    assert document["openapi"].startswith("3.1")
    assert "/api/v1/payments" in document["paths"]
