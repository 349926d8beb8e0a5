"""What fault leases do to a process as a whole: burn CPU, leak memory, hold connections or locks.

One thread for each process follows the leases file. A burden has a thread of its own for as long
as its lease is in force, and puts back what it took when that ends.
"""

import mmap
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from opentelemetry.instrumentation.utils import suppress_instrumentation
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from service_kit import faults, logs
from service_kit.database import Database
from service_kit.faultmodel import (
    CpuParams,
    CrashLoopParams,
    Lease,
    LockParams,
    MemoryParams,
    SomeConnections,
)
from service_kit.faults import LeaseStore

_IDLE_S = 1.0  # nobody is to pay for what is not there: a thread that wakes up costs 50 µs
_TICK_S = 0.2
_ANSWER_S = 1.0  # whoever sets a crash loop is answered by a process that it would end
_CPU_PERIOD_S = 0.1
_MB = 1024 * 1024
_RETRY_S = 0.1
_log = logs.get_logger("service_kit.burden")

_Work = Callable[[threading.Event], None]


class _Burden(NamedTuple):
    lease: Lease
    over: threading.Event
    thread: threading.Thread


class Burdens(threading.Thread):
    """Starts and ends the burdens of this process; begin it after the fork."""

    def __init__(self, leases: LeaseStore, database: Database) -> None:
        super().__init__(name="burdens", daemon=True)
        self._leases = leases
        self._database = database
        self._stopping = threading.Event()
        self._born = time.monotonic()
        self._burdens: dict[str, _Burden] = {}

    def stop(self) -> None:
        """End the thread, and all burdens, at its next step."""
        self._stopping.set()

    def run(self) -> None:
        """Follow the file until stopped."""
        pause_s = _IDLE_S
        while not self._stopping.wait(pause_s):
            try:
                wanted = self._leases.background()
                self.follow(wanted)
                pause_s = _TICK_S if wanted or self._burdens else _IDLE_S
            except Exception as error:  # whatever is wrong with one lease, the others have an end
                _log.warning("faults cannot be followed", reason=str(error).partition("\n")[0])
        self.follow([])

    def follow(self, wanted: list[Lease]) -> None:
        """Bear what is wanted now, and nothing else."""
        for name, burden in list(self._burdens.items()):
            if burden.lease not in wanted:
                burden.over.set()
                del self._burdens[name]
                _log.warning("fault ends", fault=name, type=burden.lease.fault.type)
        for lease in wanted:
            params = lease.fault.params
            if isinstance(params, CrashLoopParams):
                old = time.monotonic() - self._born >= params.after_s
                if old and time.time() - lease.created_at_unix_ms / 1000 >= _ANSWER_S:
                    faults.crash(lease)
            elif lease.name not in self._burdens:
                self._burdens[lease.name] = self._begin(lease)

    def _begin(self, lease: Lease) -> _Burden:
        _log.warning("fault begins", fault=lease.name, type=lease.fault.type)
        over, work = threading.Event(), self._work(lease)

        def bear() -> None:
            with suppress_instrumentation():
                while not over.is_set():
                    try:
                        work(over)
                    except Exception as error:  # no database, no memory: perhaps later
                        reason = str(error).partition("\n")[0]
                        _log.warning("fault has no effect", fault=lease.name, reason=reason)
                        over.wait(1)

        thread = threading.Thread(target=bear, name=f"fault-{lease.name}", daemon=True)
        thread.start()
        return _Burden(lease, over, thread)

    def _work(self, lease: Lease) -> _Work:
        params = lease.fault.params
        match params:
            case CpuParams():
                return lambda over: burn(params.share, over)
            case MemoryParams():
                return lambda over: leak(params.mb_per_s, params.cap_mb, over)
            case LockParams():
                return lambda over: lock(self._database, params.hold_ms, params.every_ms, over)
            case SomeConnections():
                return lambda over: occupy(self._database, params.connections, over)
            case _:
                return lambda over: occupy(self._database, self._database.capacity, over)


def burn(share: float, over: threading.Event) -> None:
    """Use a share of one core, in Python: who else wants the interpreter has to wait for it."""
    while not over.is_set():
        begun = time.monotonic()
        end = time.thread_time() + share * _CPU_PERIOD_S
        while time.thread_time() < end and not over.is_set():
            sum(range(1000))
        over.wait(max(0.0, begun + _CPU_PERIOD_S - time.monotonic()))


def leak(mb_per_s: float, cap_mb: int, over: threading.Event) -> None:
    """Keep memory that is really used; outside the heap, so that all of it can be given back."""
    begun, kept, size = time.monotonic(), list[mmap.mmap](), 0
    try:
        while not over.wait(_RETRY_S):
            grown = min(int((time.monotonic() - begun) * mb_per_s * _MB), cap_mb * _MB)
            if grown - size >= mmap.PAGESIZE:
                part = mmap.mmap(-1, grown - size)
                kept.append(part)
                part.write(b"\x01" * (grown - size))
                size = grown
    finally:
        for part in kept:
            part.close()


def occupy(database: Database, connections: int, over: threading.Event) -> None:
    """Take connections as they come free, and keep them."""
    held: list[Connection] = []
    try:
        while not over.is_set():
            # Never wait within the pool: the end of the lease would not be noticed there.
            while len(held) < min(connections, database.capacity) and database.has_free:
                held.append(database.engine.connect())
            over.wait(_RETRY_S / 10)
    finally:
        for connection in held:
            connection.close()


def lock(database: Database, hold_ms: float, every_ms: float, over: threading.Event) -> None:
    """Hold the write lock again and again, on a connection of its own."""
    own = Database(database.url, pool_size=1)
    try:
        while not over.is_set():
            begun = time.monotonic()
            try:
                with own.write() as connection:
                    if not own.is_sqlite:
                        _lock_tables(connection)
                    over.wait(hold_ms / 1000)
            except DBAPIError:
                over.wait(_RETRY_S)  # somebody else holds it
                continue
            over.wait(max(_RETRY_S / 10, begun + every_ms / 1000 - time.monotonic()))
    finally:
        own.close()


def _lock_tables(connection: Connection) -> None:
    """PostgreSQL has no write lock: keep everybody from writing to any table."""
    # Less than deadlock_timeout: where two wait for each other, this one gives in.
    connection.execute(text("SET LOCAL lock_timeout = '500ms'"))
    tables = connection.execute(
        text(
            "SELECT string_agg(format('%I', tablename), ', ' ORDER BY tablename) "
            "FROM pg_tables WHERE schemaname = current_schema()"
        )
    ).scalar()
    if tables:
        connection.execute(text(f"LOCK TABLE {tables} IN EXCLUSIVE MODE"))
