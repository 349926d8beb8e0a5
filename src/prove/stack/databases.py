"""Where the services' databases are, and the stack's own PostgreSQL."""

import signal
from pathlib import Path
from urllib.parse import urlsplit

from service_kit import postgres

from prove.errors import UserError
from prove.stack import disks
from prove.stack.links import HOST
from prove.stack.settings import StackSettings
from prove.stack.spec import ProcessSpec

NAME = "database"
SCHEME = "postgresql://"
MAX_CONNECTIONS = 200


def url(settings: StackSettings, service: str) -> str:
    """The URL of a service's database; a SQLite file's is relative to the home."""
    if given := getattr(settings, f"{service}_database_url", ""):
        return str(given)
    if settings.database == "postgres" and service in disks.SERVICES:
        return f"{SCHEME}{postgres.SUPERUSER}@{HOST}:{settings.database_port}/{service}"
    directory = settings.data_dir
    if settings.disk_mb and service in disks.SERVICES:
        directory = disks.directory(settings, service)
    return f"sqlite:///{(directory / service).relative_to(settings.home)}.db"


def address(database_url: str) -> str | None:
    """`host:port` of a PostgreSQL server; None for one that isn't reached by TCP."""
    if not database_url.startswith(SCHEME):
        return None
    parts = urlsplit(database_url)
    return f"{parts.hostname}:{parts.port or 5432}" if parts.hostname else None


def moved(database_url: str, to: str) -> str:
    """The URL with another `host:port`."""
    parts = urlsplit(database_url)
    user, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}{at}{to}").geturl()


def has_own_server(settings: StackSettings) -> bool:
    """Whether PostgreSQL is a process of this stack."""
    return settings.database == "postgres"


def prepare(settings: StackSettings) -> None:
    """Make the server's data directory and a database for each service, unless they are there.

    Raises UserError when PostgreSQL is missing or refuses.
    """
    if not has_own_server(settings):
        return
    import psycopg

    try:
        with (
            postgres.server(_directory(settings), port=settings.database_port) as base,
            psycopg.connect(base, autocommit=True) as connection,
        ):
            there = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
            for service in disks.SERVICES:
                if service not in there:
                    connection.execute(f'CREATE DATABASE "{service}"')
    except (postgres.MissingError, postgres.ServerError, psycopg.Error) as error:
        raise UserError(str(error)) from None


def process(settings: StackSettings) -> ProcessSpec:
    """The server; raises UserError when PostgreSQL is missing."""
    # What a drill knows may go with the machine. Waiting for a disk that others use as well makes
    # checkouts too slow to begin with; a killed server loses nothing by it.
    fsync = settings.profile != "drill"
    try:
        argv, user = postgres.command(
            _directory(settings), settings.database_port, MAX_CONNECTIONS, fsync=fsync
        )
    except postgres.MissingError as error:
        raise UserError(str(error)) from None
    return ProcessSpec(
        name=NAME,
        argv=argv,
        user=user,
        ready_url=f"{SCHEME}{postgres.SUPERUSER}@{HOST}:{settings.database_port}/postgres",
        ports=(settings.database_port,),
        group="shop",
        stop_signal=signal.SIGINT,  # its "fast shutdown": it waits for no client
    )


def answers(ready_url: str) -> bool:
    """Whether a server takes connections."""
    import psycopg

    try:
        psycopg.connect(ready_url, connect_timeout=2).close()
    except psycopg.Error:
        return False
    return True


def _directory(settings: StackSettings) -> Path:
    return settings.data_dir / "postgres"
