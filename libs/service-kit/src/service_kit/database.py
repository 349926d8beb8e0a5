"""SQLite (WAL) or PostgreSQL behind SQLAlchemy Core, and their migrations by Alembic.

SQLite settings, on every connection: WAL; `busy_timeout` 5 s; foreign keys on; `synchronous`
NORMAL unless the caller says FULL. With WAL, NORMAL survives a crash of the process and keeps the
file sound through a power cut, which may take the last commits; FULL keeps those, too.
"""

import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool

from service_kit.lifecycle import StartupError

BUSY_TIMEOUT_S = 5
_OVERFLOW = 10  # connections beyond the pool's size that may be open for a moment
_MIGRATION_LOCK = 0x70726F7665  # "prove": the key of PostgreSQL's advisory lock


class Database:
    """One database with two ways in: `read` and `write`."""

    def __init__(
        self, url: URL, *, pool_size: int = 8, synchronous: Literal["NORMAL", "FULL"] = "NORMAL"
    ) -> None:
        self.url = url
        self.capacity = pool_size + _OVERFLOW
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self.engine = create_engine(
                url,
                pool_size=pool_size,
                max_overflow=_OVERFLOW,
                connect_args={"timeout": BUSY_TIMEOUT_S},
            )
            _configure_sqlite(self.engine, synchronous)
            self._reader = self.engine
        else:
            self.engine = create_engine(
                url,
                pool_size=pool_size,
                max_overflow=_OVERFLOW,
                pool_pre_ping=True,
                connect_args={"connect_timeout": BUSY_TIMEOUT_S},
            )
            # One statement is its own transaction: no BEGIN and COMMIT round trips.
            self._reader = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writer = self.engine.execution_options(begin="BEGIN IMMEDIATE")
        self._turn = _sqlite_turn(threading.Lock()) if self.is_sqlite else nullcontext

    @property
    def has_free(self) -> bool:
        """Whether a connection can be had without waiting for one that is in use."""
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)  # noqa: S101
        return pool.checkedout() < self.capacity

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for single SELECTs, each of them its own (deferred) transaction."""
        with self._reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One write transaction: committed at the end, rolled back on an exception.

        On SQLite it takes the write lock at once (BEGIN IMMEDIATE): a transaction that reads first
        and wants to write later would fail with SQLITE_BUSY, however long it waits.
        """
        with self._turn(), self._writer.begin() as connection:
            yield connection

    def ping(self) -> None:
        """A health check: raises when the database cannot answer a read."""
        with self.read() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()


def _sqlite_turn(
    lock: threading.Lock, timeout_s: float = BUSY_TIMEOUT_S
) -> Callable[[], AbstractContextManager[None]]:
    """What lets one thread of this process write at a time.

    SQLite's own waiting is polling at growing intervals, whoever came first: threads that meet
    often wait long. Between processes it stays that way.
    """

    @contextmanager
    def turn() -> Iterator[None]:
        if not lock.acquire(timeout=timeout_s):
            locked = sqlite3.OperationalError("database is locked")  # as SQLite has it
            raise OperationalError("BEGIN IMMEDIATE", None, locked)
        try:
            yield
        finally:
            lock.release()

    return turn


def _configure_sqlite(engine: Engine, synchronous: str) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: DBAPIConnection, _record: object) -> None:
        # The driver must not open transactions behind our back.
        connection.isolation_level = None
        _execute(
            connection,
            "PRAGMA journal_mode = WAL",
            f"PRAGMA synchronous = {synchronous}",
            "PRAGMA foreign_keys = ON",
            "PRAGMA mmap_size = 268435456",
            # A bulk import makes a large log; give the disk back once it is copied into the file.
            "PRAGMA journal_size_limit = 67108864",
        )

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        statement = connection.get_execution_options().get("begin")
        if statement:
            # On the driver's connection: a BEGIN is not worth a span.
            _execute(connection.connection, statement)


def _execute(connection: DBAPIConnection, *statements: str) -> None:
    """Execute past SQLAlchemy, with SQLAlchemy's exceptions all the same."""
    cursor = connection.cursor()
    try:
        for statement in statements:
            cursor.execute(statement)
    except sqlite3.Error as error:
        raise OperationalError(statement, None, error) from error
    finally:
        cursor.close()


@lru_cache
def _scripts(package: str) -> tuple[Config, ScriptDirectory]:
    config = Config()
    config.set_main_option("script_location", f"{package}:migrations")
    config.set_main_option("path_separator", "os")
    return config, ScriptDirectory.from_config(config)


@lru_cache
def _heads(package: str) -> frozenset[str]:
    """The newest revisions. Alembic reads the directory again each time it is asked."""
    return frozenset(_scripts(package)[1].get_heads())


def _is_newer(revisions: Collection[str], package: str) -> bool:
    """Whether a schema was migrated by a newer version; revisions are numbered: 0001, 0002 …"""
    return bool(revisions) and min(revisions) > max(_heads(package))


def migrate(database: Database, package: str) -> None:
    """Bring the schema to the newest revision in `package`/migrations, in one transaction.

    Processes that start together wait for each other: on SQLite by the exclusive lock, on
    PostgreSQL by an advisory lock. A schema that a newer version has migrated stays as it is: its
    migrations only add to what this version knows, so that it can be rolled back to.

    Raises:
        StartupError: the database cannot be reached, read or written; the message says what to do.
    """
    config, scripts = _scripts(package)

    def steps(revision: Any, _context: MigrationContext) -> Any:
        if _is_newer(revision, package):
            return []
        return scripts._upgrade_revs("head", revision)

    with explained(database.url):
        options = {"begin": "BEGIN EXCLUSIVE"} if database.is_sqlite else {}
        with database.engine.execution_options(**options).begin() as connection:
            if not database.is_sqlite:
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK}
                )
            with EnvironmentContext(config, scripts, fn=steps) as environment:
                environment.configure(connection=connection, transactional_ddl=True)
                environment.run_migrations()


def check_migrated(database: Database, package: str) -> None:
    """A health check: raises when the schema is older than the newest revision.

    A newer one will do: during a rollout it was migrated by the version that comes.
    """
    with database.read() as connection:
        current = set(MigrationContext.configure(connection).get_current_heads())
    if current != _heads(package) and not _is_newer(current, package):
        raise RuntimeError(f"schema is at {sorted(current) or 'nothing'}: run the migrate command")


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """Turn what a database throws at start into one sentence that says what to do.

    Raises:
        StartupError: instead of what the driver or the file system raises.
    """
    try:
        yield
    except (DBAPIError, OSError) as error:
        raise StartupError(_explain(url, error)) from None


def _explain(url: URL, error: DBAPIError | OSError) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    reason = " ".join(str(cause).split()) or type(cause).__name__
    if url.get_backend_name() != "sqlite":
        shown = url.render_as_string(hide_password=True)
        return f"cannot use {shown}: {reason}; check DATABASE_URL and that PostgreSQL runs"
    path = Path(url.database or "").absolute()
    code = getattr(cause, "sqlite_errorcode", None)
    primary = code & 0xFF if code is not None else None
    number = cause.errno if isinstance(cause, OSError) else None
    if primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return f"{path} is not a sound SQLite file; move it away or restore a backup of it"
    if primary == sqlite3.SQLITE_FULL or number == errno.ENOSPC or _is_full(path):
        return f"no space left for {path}; free some, or put the file elsewhere by DATABASE_URL"
    if not path.parent.is_dir():
        return f"the directory {path.parent} does not exist; make it or change DATABASE_URL"
    if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR):
        return (
            f"cannot write {path}; the file and its directory must be writable "
            "(or change DATABASE_URL)"
        )
    if primary == sqlite3.SQLITE_BUSY:
        return f"{path} is locked by another process; stop it (fuser {path} shows it) and retry"
    return f"cannot use {path}: {reason}"


def _is_full(path: Path) -> bool:
    # SQLite reports a full disk as an I/O error when it cannot even make the shared memory file.
    try:
        free = os.statvfs(path.parent)
    except OSError:
        return False
    return free.f_bavail * free.f_frsize < 65536
