"""Fault leases: faults injected for a limited time, the same in every service.

Leases live in one small file that every worker process reads. They end by the wall clock whether
or not who set them lives, and end at once when their entry, or the file, is removed.
`decide` says what should happen to a request; doing it is the middleware's part. What hits the
process as a whole is `service_kit.burden`'s.
"""

import asyncio
import fcntl
import hashlib
import itertools
import json
import math
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from service_kit import logs
from service_kit.faultmodel import (
    MAX_DELAY_MS,
    PROCESS_FAULTS,
    Choice,
    Constant,
    ErrorParams,
    Fault,
    Lease,
    Normal,
    Pareto,
    Ramp,
    any_fault,
)
from service_kit.problem import Problem

EXEMPT = ("/livez", "/readyz", "/startupz", "/faults", "/incidents", "/openapi.json")
TEXT = "text/plain; charset=utf-8"

_CHECK_INTERVAL_S = 0.1
_UNITS = 10**9
"""What a rate is counted in."""
_BUCKETS = 10_000
"""What a percentage is counted in."""
_log = logs.get_logger("service_kit.faults")


class Facts(NamedTuple):
    """What a request is about; looked up only when a lease in force asks for it."""

    skus: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    customer: str | None = None
    key: str = ""
    """Tells requests apart that name no customer."""


class Effect(NamedTuple):
    """That a lease hits one request, and how long it delays it."""

    lease: Lease
    delay_s: float = 0.0

    @property
    def type(self) -> str:
        """Of the fault."""
        return self.lease.fault.type

    @property
    def params(self) -> Any:
        """Of the fault; the lease's type says of which class they are."""
        return self.lease.fault.params

    @property
    def attributes(self) -> dict[str, str]:
        """What the request's span says of it."""
        return {"prove.fault.name": self.lease.name, "prove.fault.type": self.lease.fault.type}


@dataclass(frozen=True)
class Active:
    """A lease, its count of requests, and random numbers repeatable by the seed it has."""

    lease: Lease
    rng: random.Random
    requests: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """Numbers the requests it matches; `next` is atomic, so threads need no lock."""

    @cached_property
    def wanted(self) -> Mapping[str, Any]:
        """What it matches."""
        return self.lease.fault.wanted

    def matches(self, method: str, route: str, facts: Callable[[], Facts]) -> bool:
        """Whether it hits requests like this one; `facts` are asked for last."""
        wanted = self.wanted
        if wanted.get("method", method) != method or wanted.get("route", route) != route:
            return False
        return not wanted.keys() - {"method", "route"} or _about(wanted, facts())


def _about(wanted: Mapping[str, Any], facts: Facts) -> bool:
    if "sku" in wanted and wanted["sku"] not in facts.skus:
        return False
    if "category" in wanted and wanted["category"] not in facts.categories:
        return False
    if "customer" in wanted and wanted["customer"] != facts.customer:
        return False
    share = wanted.get("percentage", 100)
    return bool(bucket(facts.customer or facts.key) < share * _BUCKETS / 100)


def bucket(who: str) -> int:
    """Where a customer, or a key, always is among the 10,000 parts of all of them."""
    return int.from_bytes(hashlib.sha256(who.encode()).digest()[:8], "big") % _BUCKETS


def no_facts() -> Facts:
    """For a service that knows of no request what it is about."""
    return Facts()


def decide(
    active: Iterable[Active],
    method: str,
    route: str,
    now_ms: float,
    facts: Callable[[], Facts] = no_facts,
) -> list[Effect]:
    """The effects on one request, by `route` template; counts it for each lease it matches."""
    effects = []
    for item in active:
        lease = item.lease
        if now_ms >= lease.expires_at_unix_ms or not item.matches(method, route, facts):
            continue
        params = lease.fault.params
        assert isinstance(params, Choice)  # noqa: S101 - what hits requests has these
        if not _hits(params, item):
            continue
        age_s = (now_ms - lease.created_at_unix_ms) / 1000
        effects.append(Effect(lease, _delay_ms(params, item.rng, age_s) / 1000))
    return effects


def _hits(params: Choice, active: Active) -> bool:
    if params.select == "random":
        return params.rate == 1 or active.rng.random() < params.rate
    # In whole numbers: 100 * 0.29 in floats is 28.999...
    number, share = next(active.requests), round(params.rate * _UNITS)
    return number * share // _UNITS > (number - 1) * share // _UNITS


def _delay_ms(params: Choice, rng: random.Random, age_s: float) -> float:
    match params:
        case Constant():
            delay = params.delay_ms
        case Normal():
            delay = rng.gauss(params.mean_ms, params.stddev_ms)
        case Pareto():
            # Inverse transform: scale * (1 - u) ** (-1 / shape), in logarithms against overflow.
            exponent = -math.log1p(-rng.random()) / params.shape
            delay = params.scale_ms * math.exp(min(exponent, 50.0))
        case Ramp():
            done = min(max(age_s / params.over_s, 0.0), 1.0)
            delay = params.from_ms + (params.to_ms - params.from_ms) * done
        case _:
            delay = 0.0
    return min(max(delay, 0.0), float(MAX_DELAY_MS))


class InjectedError(Problem):
    """The answer of an error effect; `text`, where the lease has one, instead of the problem."""

    def __init__(self, effect: Effect) -> None:
        params = effect.params
        assert isinstance(params, ErrorParams)  # noqa: S101
        name = effect.lease.name
        detail = f"The fault {name!r} answered this request."
        super().__init__(params.status, "injected", detail, fault=name)
        self.text = params.body


def crash(lease: Lease) -> None:
    """End this process as SIGKILL does: nothing is finished, nothing is said but this."""
    _log.warning("crashing, as a fault wants it", fault=lease.name, type=lease.fault.type)
    os.kill(os.getpid(), signal.SIGKILL)


class LeaseStore:
    """The leases file: read by every worker, written atomically under a lock.

    A file that cannot be read as leases means no faults, and one warning.
    """

    def __init__(self, path: Path, clock_ms: Callable[[], float] = lambda: time.time() * 1000):
        self._path = path
        self._clock_ms = clock_ms
        self._active: tuple[Active, ...] = ()
        self._leases: tuple[Lease, ...] = ()
        self._seen: tuple[int, int, int] | None = None
        self._next_check = 0.0
        self._lock = threading.Lock()

    def current(self) -> tuple[Active, ...]:
        """The leases that may hit a request now; looks at the file every 100 ms at most.

        This is what every request pays when there is none.
        """
        if time.monotonic() >= self._next_check:
            self._refresh()
        return self._active

    def decide(
        self, method: str, route: str, facts: Callable[[], Facts] = no_facts
    ) -> list[Effect]:
        """What to do to this request now."""
        return decide(self.current(), method, route, self._clock_ms(), facts)

    def in_force(self, lease: Lease) -> bool:
        """Whether it is neither over nor revoked nor replaced."""
        self.current()
        return lease in self._leases and self._clock_ms() < lease.expires_at_unix_ms

    def background(self) -> list[Lease]:
        """The leases in force that hit the process as a whole."""
        return [lease for lease in self.items() if isinstance(lease.fault, PROCESS_FAULTS)]

    def hold(self, lease: Lease, seconds: float = math.inf) -> None:
        """Block for so long, or until the lease is no longer in force."""
        for pause_s in _pauses(seconds):
            if not self.in_force(lease):
                return
            time.sleep(pause_s)

    async def hold_async(self, lease: Lease, seconds: float = math.inf) -> None:
        """The same for an event loop."""
        for pause_s in _pauses(seconds):
            if not self.in_force(lease):
                return
            await asyncio.sleep(pause_s)

    def items(self) -> list[Lease]:
        """The leases that have not expired, by name."""
        self._refresh()
        now = self._clock_ms()
        live = [lease for lease in self._leases if lease.expires_at_unix_ms > now]
        return sorted(live, key=lambda lease: lease.name)

    def put(self, name: str, fault: Fault) -> Lease:
        """Set or replace a lease, from now for its `ttl_s`.

        Raises:
            Problem: 503 when the file cannot be written.
        """
        now = int(self._clock_ms())
        lease = Lease(name, fault, now, now + fault.ttl_s * 1000)
        with self._changing() as leases:
            leases[name] = lease
        return lease

    def delete(self, name: str) -> None:
        """Revoke a lease; nothing happens when there is none.

        Raises:
            Problem: 503 when the file cannot be written.
        """
        with self._changing() as leases:
            leases.pop(name, None)

    def _refresh(self) -> None:
        with self._lock:
            self._next_check = time.monotonic() + _CHECK_INTERVAL_S
            seen = None
            try:
                stat = self._path.stat()
                seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
                if seen == self._seen:
                    return
                leases = _read(self._path)
            except FileNotFoundError:
                leases = {}
            except (OSError, ValueError) as error:
                _log.warning("leases file ignored", path=str(self._path), reason=_first(error))
                leases = {}
            self._seen = seen
            kept = {item.lease: item for item in self._active}
            self._leases = tuple(leases.values())
            self._active = tuple(
                # One that is as it was goes on counting where it is.
                kept.get(lease) or Active(lease, random.Random(lease.fault.params.seed))  # noqa: S311
                for lease in self._leases
                if isinstance(lease.fault.params, Choice)
            )

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Lease]]:
        """The live leases, to be changed by the caller and then written."""
        try:
            with open(f"{self._path}.lock", "w", encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                try:
                    leases = _read(self._path)
                except (FileNotFoundError, ValueError):
                    leases = {}
                now = self._clock_ms()
                leases = {n: item for n, item in leases.items() if item.expires_at_unix_ms > now}
                yield leases
                _write(self._path, leases)
        except OSError as error:
            detail = f"The leases file {self._path} cannot be written: {error.strerror}."
            raise Problem(503, "unavailable", detail) from error
        self._refresh()


def _pauses(seconds: float) -> Iterator[float]:
    """Parts of the time, short enough to notice in between that a lease is no longer in force."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        yield min(left, _CHECK_INTERVAL_S)


def _read(path: Path) -> dict[str, Lease]:
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.get("version") != 1:
        raise ValueError("not a leases file of version 1")
    try:
        return {
            name: Lease(
                name,
                any_fault.validate_python(
                    {k: v for k, v in entry.items() if not k.endswith("_unix_ms")}
                ),
                int(entry["created_at_unix_ms"]),
                int(entry["expires_at_unix_ms"]),
            )
            for name, entry in document["leases"].items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not a lease: {error!r}") from None


def _write(path: Path, leases: dict[str, Lease]) -> None:
    document = {
        "version": 1,
        "leases": {
            lease.name: {
                **lease.fault.model_dump(exclude_none=True),
                "created_at_unix_ms": lease.created_at_unix_ms,
                "expires_at_unix_ms": lease.expires_at_unix_ms,
            }
            for lease in leases.values()
        },
    }
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error).partition("\n")[0]
