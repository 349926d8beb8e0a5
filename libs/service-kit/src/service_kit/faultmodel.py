"""The contract of fault leases: what kinds there are, with which parameters, for which requests.

The Order Service and the acquirer, in Go, keep to the same one. A fault hits requests (those that
`match` tells) or, without a match, the process as a whole, for as long as its lease is in force.
"""

from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar, Union

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema

from service_kit.types import WholeNumber, rfc3339

MAX_DELAY_MS = 30_000
MAX_TTL_S = 900
MAX_BODY = 4096
MAX_MEMORY_MB = 512
NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"

M = TypeVar("M", bound="Match")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# -- parameters


class Choice(_Model):
    """Which of the requests that match are hit."""

    rate: float = Field(default=1.0, gt=0, le=1, description="the share of requests that is hit")
    select: Literal["random", "count"] = Field(
        default="random",
        description="count: of n requests in a process exactly floor(n * rate) are hit, evenly "
        "spread; random: each by chance",
    )
    seed: Annotated[int, WholeNumber] | None = None


class Constant(Choice):
    """The same delay each time."""

    distribution: Literal["constant"]
    delay_ms: float = Field(ge=0, le=MAX_DELAY_MS)


class Normal(Choice):
    """A normally distributed delay."""

    distribution: Literal["normal"]
    mean_ms: float = Field(ge=0, le=MAX_DELAY_MS)
    stddev_ms: float = Field(ge=0, le=MAX_DELAY_MS)


class Pareto(Choice):
    """A Pareto (type I) distributed delay: at least `scale_ms`, a heavy tail for a small shape."""

    distribution: Literal["pareto"]
    scale_ms: float = Field(gt=0, le=MAX_DELAY_MS)
    shape: float = Field(gt=0, le=100)


class Ramp(Choice):
    """A delay that goes from one value to another in `over_s`, and stays there."""

    distribution: Literal["ramp"]
    from_ms: float = Field(ge=0, le=MAX_DELAY_MS)
    to_ms: float = Field(ge=0, le=MAX_DELAY_MS)
    over_s: float = Field(gt=0, le=MAX_TTL_S)


Delay = Constant | Normal | Pareto | Ramp


class ErrorParams(Choice):
    """Answer `status` instead of doing the work, for a share `rate` of requests."""

    rate: float = Field(gt=0, le=1, description="the share of requests that is hit")
    status: Annotated[int, Field(ge=400, le=599), WholeNumber] = 503
    body: str | None = Field(
        default=None, max_length=MAX_BODY, description="sent as text; else problem details"
    )


class DripParams(Choice):
    """Send the body of the answer so slowly."""

    bytes_per_s: float = Field(ge=1, le=1_000_000)


class WrongDataParams(Choice):
    """Multiply the prices in an answer."""

    factor: float = Field(gt=0, le=1000)


class CrashLoopParams(_Model):
    """End a process that has been up for so long."""

    after_s: float = Field(ge=1, le=MAX_TTL_S)


class CpuParams(_Model):
    """Burn a share of the CPU time that the process could use."""

    share: float = Field(gt=0, le=1)


class MemoryParams(_Model):
    """Keep more and more memory, up to a cap."""

    mb_per_s: float = Field(gt=0, le=MAX_MEMORY_MB)
    cap_mb: Annotated[int, Field(ge=1, le=MAX_MEMORY_MB), WholeNumber]


class SomeConnections(_Model):
    """Keep so many of the database pool's connections, or what there is."""

    connections: Annotated[int, Field(ge=1, le=100), WholeNumber]


class AllConnections(_Model):
    """Keep all of the database pool's connections."""

    all: Literal[True]


class LockParams(_Model):
    """Hold the database's write lock for `hold_ms`, beginning `every_ms`."""

    hold_ms: float = Field(gt=0, le=30_000)
    every_ms: float = Field(gt=0, le=60_000)


# -- requests


class Match(_Model):
    """Which requests a fault hits; what is absent matches everything."""

    method: str | None = Field(default=None, pattern=r"^[A-Z]{1,16}$")
    route: str | None = Field(
        default=None, max_length=200, description="a path template, as /api/v1/products/{sku}"
    )
    percentage: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="of the customers, always the same ones; where a request names no customer, "
        "of its keys",
    )


class ProductMatch(Match):
    """What the Product Service can tell besides."""

    sku: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$")
    category: str | None = Field(default=None, min_length=1, max_length=64)


class CategoryMatch(ProductMatch):
    """Answers about one category."""

    category: str = Field(min_length=1, max_length=64)


class AnyMatch(ProductMatch):
    """What all of the services together can tell."""

    customer: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,64}$")


# -- faults


class Fault(_Model):
    """A fault of any kind."""

    type: str
    params: _Model
    ttl_s: Annotated[int, Field(ge=1, le=MAX_TTL_S), WholeNumber]

    @property
    def wanted(self) -> dict[str, Any]:
        """What it must know of a request, by the field of its match; without a match, nothing."""
        match = getattr(self, "match", None)
        return match.model_dump(exclude_none=True) if match is not None else {}


class _RequestFault(Fault, Generic[M]):
    params: Choice
    match: M = Field(default_factory=dict, validate_default=True)


class LatencyFault(_RequestFault[M], Generic[M]):
    """Delay requests."""

    type: Literal["latency"]
    params: Annotated[Delay, Field(discriminator="distribution")]


class ErrorFault(_RequestFault[M], Generic[M]):
    """Fail requests."""

    type: Literal["error"]
    params: ErrorParams


class HangFault(_RequestFault[M], Generic[M]):
    """Hold requests until the lease ends or is revoked; then they go on."""

    type: Literal["hang"]
    params: Choice = Choice()


class CrashFault(_RequestFault[M], Generic[M]):
    """The process that takes such a request ends at once, as SIGKILL ends one."""

    type: Literal["crash"]
    params: Choice = Choice()


class DripFault(_RequestFault[M], Generic[M]):
    """Answer byte by byte."""

    type: Literal["drip"]
    params: DripParams


class WrongDataFault(_RequestFault[CategoryMatch]):
    """Wrong prices in what the catalogue answers; what it stores and reserves stays right."""

    type: Literal["wrong-data"]
    params: WrongDataParams
    match: CategoryMatch

    @property
    def wanted(self) -> dict[str, Any]:
        """Any read may have such products in its answer: only the answer tells."""
        wanted = {k: v for k, v in super().wanted.items() if k not in ("category", "sku")}
        return {"method": "GET", **wanted}


class CrashLoopFault(Fault):
    """Every process ends at an age, for as long as the lease is in force."""

    type: Literal["crash-loop"]
    params: CrashLoopParams


class CpuFault(Fault):
    """Every process burns CPU time."""

    type: Literal["cpu"]
    params: CpuParams


class MemoryFault(Fault):
    """Every process leaks memory, and gives it back at the end."""

    type: Literal["memory"]
    params: MemoryParams


class PoolFault(Fault):
    """Every process has fewer database connections, or none."""

    type: Literal["pool"]
    params: SomeConnections | AllConnections


class LockFault(Fault):
    """Writers of the database have to wait."""

    type: Literal["lock"]
    params: LockParams


REQUEST_FAULTS = (LatencyFault, ErrorFault, HangFault, CrashFault, DripFault)
PROCESS_FAULTS = (CrashLoopFault, CpuFault, MemoryFault, PoolFault, LockFault)


class _OneOf:
    """Makes `Annotated[Fault, ...]` a union of kinds, told apart by `type`."""

    def __init__(self, match: type[Match], *more: type[Fault]) -> None:
        self._kinds = (*(kind[match] for kind in REQUEST_FAULTS), *more, *PROCESS_FAULTS)

    def __get_pydantic_core_schema__(
        self, _source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        kinds = Annotated[Union[self._kinds], Field(discriminator="type")]  # type: ignore[name-defined]  # noqa: UP007
        return handler.generate_schema(kinds)


PlainFault = Annotated[Fault, _OneOf(Match)]
"""What a service takes that knows of a request what HTTP says."""

ProductFault = Annotated[Fault, _OneOf(ProductMatch, WrongDataFault)]
AnyFault = Annotated[Fault, _OneOf(AnyMatch, WrongDataFault)]
"""What the leases file of any service may hold."""

plain_fault: TypeAdapter[Fault] = TypeAdapter(PlainFault)
product_fault: TypeAdapter[Fault] = TypeAdapter(ProductFault)
any_fault: TypeAdapter[Fault] = TypeAdapter(AnyFault)


def lease_body(
    name: str, fault: BaseModel, created_at_unix_ms: int, expires_at_unix_ms: int
) -> dict[str, Any]:
    """A lease as all fault endpoints tell it."""
    return {
        "name": name,
        **fault.model_dump(exclude_none=True),
        "created_at": rfc3339(created_at_unix_ms),
        "expires_at": rfc3339(expires_at_unix_ms),
    }


class Lease(NamedTuple):
    """A fault with its name and its time."""

    name: str
    fault: Fault
    created_at_unix_ms: int
    expires_at_unix_ms: int

    def as_dict(self) -> dict[str, object]:
        """The JSON answer of the fault endpoints."""
        return lease_body(self.name, self.fault, self.created_at_unix_ms, self.expires_at_unix_ms)
