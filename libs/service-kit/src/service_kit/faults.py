"""Fault leases: latency and errors injected for a limited time, the same in every service.

Leases live in one small file that every worker process reads. They end by the wall clock whether
or not who set them lives, and end at once when their entry, or the file, is removed.
`decide` says what should happen to a request; sleeping and answering is the middleware's part.
"""

import fcntl
import itertools
import json
import math
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from service_kit import logs
from service_kit.problem import Problem
from service_kit.types import WholeNumber

MAX_DELAY_MS = 30_000
MAX_TTL_S = 900
NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
EXEMPT = ("/livez", "/readyz", "/startupz", "/faults", "/incidents", "/openapi.json")

_CHECK_INTERVAL_S = 0.1
_UNITS = 10**9
"""What a rate is counted in."""
_log = logs.get_logger("service_kit.faults")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Params(_Model):
    select: Literal["random", "count"] = Field(
        default="random",
        description="count: of n requests in a process exactly floor(n * rate) are hit, evenly "
        "spread; random: each by chance",
    )
    seed: Annotated[int, WholeNumber] | None = None


class _Delay(_Params):
    rate: float = Field(default=1.0, gt=0, le=1, description="the share of requests that is hit")


class Constant(_Delay):
    """The same delay each time."""

    distribution: Literal["constant"]
    delay_ms: float = Field(ge=0, le=MAX_DELAY_MS)


class Normal(_Delay):
    """A normally distributed delay."""

    distribution: Literal["normal"]
    mean_ms: float = Field(ge=0, le=MAX_DELAY_MS)
    stddev_ms: float = Field(ge=0, le=MAX_DELAY_MS)


class Pareto(_Delay):
    """A Pareto (type I) distributed delay: at least `scale_ms`, a heavy tail for a small shape."""

    distribution: Literal["pareto"]
    scale_ms: float = Field(gt=0, le=MAX_DELAY_MS)
    shape: float = Field(gt=0, le=100)


class ErrorParams(_Params):
    """Answer `status` instead of doing the work, for a share `rate` of requests."""

    rate: float = Field(gt=0, le=1)
    status: Annotated[int, Field(ge=400, le=599), WholeNumber] = 503


class Match(_Model):
    """Which requests a fault hits; what is absent matches everything."""

    method: str | None = Field(default=None, pattern=r"^[A-Z]{1,16}$")
    route: str | None = Field(
        default=None, max_length=200, description="a path template, as /api/v1/products/{sku}"
    )


class _Fault(_Model):
    match: Match = Match()
    ttl_s: Annotated[int, Field(ge=1, le=MAX_TTL_S), WholeNumber]


class LatencyFault(_Fault):
    """Delay requests."""

    type: Literal["latency"]
    params: Annotated[Constant | Normal | Pareto, Field(discriminator="distribution")]


class ErrorFault(_Fault):
    """Fail requests."""

    type: Literal["error"]
    params: ErrorParams


Fault = Annotated[LatencyFault | ErrorFault, Field(discriminator="type")]
fault_adapter: TypeAdapter[LatencyFault | ErrorFault] = TypeAdapter(Fault)


class Lease(NamedTuple):
    """A fault with its name and its time."""

    name: str
    fault: LatencyFault | ErrorFault
    created_at_unix_ms: int
    expires_at_unix_ms: int

    def as_dict(self) -> dict[str, object]:
        """The JSON answer of the fault endpoints."""
        return {
            "name": self.name,
            **self.fault.model_dump(exclude_none=True),
            "created_at": _rfc3339(self.created_at_unix_ms),
            "expires_at": _rfc3339(self.expires_at_unix_ms),
        }


class Effect(NamedTuple):
    """What one fault does to one request: wait `delay_s`, then fail with `status` if it is set."""

    name: str
    type: str
    delay_s: float
    status: int | None


@dataclass(frozen=True)
class Active:
    """A lease, its count of requests, and random numbers repeatable by the seed it has."""

    lease: Lease
    rng: random.Random
    requests: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """Numbers the requests it matches; `next` is atomic, so threads need no lock."""


def decide(active: Iterable[Active], method: str, route: str, now_ms: float) -> list[Effect]:
    """The effects on one request, by `route` template; counts it for each lease it matches."""
    effects = []
    for item in active:
        lease = item.lease
        match = lease.fault.match
        if (
            now_ms >= lease.expires_at_unix_ms
            or (match.method is not None and match.method != method)
            or (match.route is not None and match.route != route)
        ):
            continue
        params = lease.fault.params
        if not _hits(params, item):
            continue
        if isinstance(params, ErrorParams):
            effects.append(Effect(lease.name, lease.fault.type, 0.0, params.status))
        else:
            delay_s = _delay_ms(params, item.rng) / 1000
            effects.append(Effect(lease.name, lease.fault.type, delay_s, None))
    return effects


def _hits(params: _Delay | ErrorParams, active: Active) -> bool:
    if params.select == "random":
        return params.rate == 1 or active.rng.random() < params.rate
    # In whole numbers: 100 * 0.29 in floats is 28.999...
    number, share = next(active.requests), round(params.rate * _UNITS)
    return number * share // _UNITS > (number - 1) * share // _UNITS


def _delay_ms(params: Constant | Normal | Pareto, rng: random.Random) -> float:
    if isinstance(params, Constant):
        delay = params.delay_ms
    elif isinstance(params, Normal):
        delay = rng.gauss(params.mean_ms, params.stddev_ms)
    else:
        # Inverse transform: scale * (1 - u) ** (-1 / shape), in logarithms against overflow.
        exponent = -math.log1p(-rng.random()) / params.shape
        delay = params.scale_ms * math.exp(min(exponent, 50.0))
    return min(max(delay, 0.0), float(MAX_DELAY_MS))


def injected(effect: Effect) -> Problem:
    """The problem that an error effect answers with."""
    status = effect.status or 503
    return Problem(
        status, "injected", f"The fault {effect.name!r} answered this request.", fault=effect.name
    )


class LeaseStore:
    """The leases file: read by every worker, written atomically under a lock.

    A file that cannot be read as leases means no faults, and one warning.
    """

    def __init__(self, path: Path, clock_ms: Callable[[], float] = lambda: time.time() * 1000):
        self._path = path
        self._clock_ms = clock_ms
        self._active: tuple[Active, ...] = ()
        self._seen: tuple[int, int, int] | None = None
        self._next_check = 0.0
        self._lock = threading.Lock()

    def decide(self, method: str, route: str) -> list[Effect]:
        """What to do to this request now; looks at the file every 100 ms at most."""
        if time.monotonic() >= self._next_check:
            self._refresh()
        if not self._active:
            return []
        return decide(self._active, method, route, self._clock_ms())

    def items(self) -> list[Lease]:
        """The leases that have not expired, by name."""
        self._refresh()
        now = self._clock_ms()
        live = [item.lease for item in self._active if item.lease.expires_at_unix_ms > now]
        return sorted(live)

    def put(self, name: str, fault: LatencyFault | ErrorFault) -> Lease:
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
            self._active = tuple(
                kept.get(lease) or Active(lease, random.Random(lease.fault.params.seed))  # noqa: S311
                for lease in leases.values()
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


def _read(path: Path) -> dict[str, Lease]:
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or document.get("version") != 1:
        raise ValueError("not a leases file of version 1")
    try:
        return {
            name: Lease(
                name,
                fault_adapter.validate_python(
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


def _rfc3339(unix_ms: int) -> str:
    when = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
