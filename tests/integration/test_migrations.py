"""Migrations as Kubernetes runs them: by several replicas at once, and beside a newer version."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from service_kit import testing

from prove import tools

REPLICAS = 3
NEWER = {
    # where a service keeps its version, and what a newer one would have left there
    "product": "UPDATE alembic_version SET version_num = '9999'",
    "payment": "UPDATE alembic_version SET version_num = '9999'",
    "order": "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)",
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with testing.postgres() as url:
        yield url


@pytest.fixture
def database(server: str, request: pytest.FixtureRequest) -> str:
    name = f"{request.node.callspec.params['service']}_{abs(hash(request.node.name))}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return server.rpartition("/")[0] + f"/{name}"


def program(service: str) -> str:
    if service == "order":
        return str(tools.ensure_service("order-service"))
    return str(Path(sys.executable).parent / f"{service}-service")


def environment(database: str) -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": database, "OTEL_SDK_DISABLED": "true"}


@pytest.mark.parametrize("service", NEWER)
def test_replicas_that_start_together_migrate_one_after_another(
    service: str, database: str
) -> None:
    replicas = [
        subprocess.Popen(
            [program(service), "migrate"],
            env=environment(database),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(REPLICAS)
    ]
    said = [replica.communicate()[0] for replica in replicas]

    assert [replica.returncode for replica in replicas] == [0] * REPLICAS, said


@pytest.mark.parametrize("service", NEWER)
def test_an_old_version_serves_upon_a_newer_schema(
    service: str, database: str, tmp_path: Path
) -> None:
    migrate = [program(service), "migrate"]
    subprocess.run(migrate, env=environment(database), check=True)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(NEWER[service])

    subprocess.run(migrate, env=environment(database), check=True)  # of a rollback's pod
    port = testing.free_port()
    own = {"DATABASE_URL": database, "MIGRATE_ON_START": "false", "OTEL_SDK_DISABLED": "true"}
    with testing.running(
        [program(service), "serve"], {**os.environ, **own, "PORT": str(port)}, port, tmp_path
    ):
        pass  # it became ready
