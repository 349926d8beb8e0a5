"""The contract of the injector: what may be asked of it, and how a lease is told (pure).

It is that of the services' fault endpoints, with other types; docs/reference/http.md, "Injector".
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from service_kit.faultmodel import MAX_TTL_S, NAME_PATTERN, lease_body
from service_kit.types import WholeNumber

from prove.stack.links import Link

MAX_DELAY_MS = 30_000
MAX_PER_S = 500
MAX_RETRIES = 10
MAX_BURST_S = 60


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Target(_Model):
    """A process of the stack, by the name that `provectl status` shows."""

    process: str = Field(pattern=r"^[a-z]{1,32}$")


class Nothing(_Model):
    """Takes no parameters."""


class Latency(_Model):
    """Each answer comes later, by `latency_ms` and up to `jitter_ms` more or less."""

    link: Link
    kind: Literal["latency"]
    latency_ms: Annotated[int, Field(ge=1, le=MAX_DELAY_MS), WholeNumber]
    jitter_ms: Annotated[int, Field(ge=0, le=MAX_DELAY_MS), WholeNumber] = 0


class Reset(_Model):
    """Connections are reset (TCP RST), `after_ms` after the first byte of an answer."""

    link: Link
    kind: Literal["reset"]
    after_ms: Annotated[int, Field(ge=0, le=MAX_DELAY_MS), WholeNumber] = 0


class Silent(_Model):
    """Connections stay open. `black-hole`: nothing arrives; `half-open`: requests alone do."""

    link: Link
    kind: Literal["black-hole", "half-open"]


class Bandwidth(_Model):
    """Answers get through at `kib_per_s` KiB a second and connection."""

    link: Link
    kind: Literal["bandwidth"]
    kib_per_s: Annotated[int, Field(ge=1, le=1_000_000), WholeNumber]


class Load(_Model):
    """More customers: `per_s` checkouts or product reads a second, whatever becomes of them.

    One that failed, or had no answer in `timeout_ms`, is tried again at once up to `retries` times.
    With `burst_s` all that would arrive in so many seconds come at once, again and again.
    """

    kind: Literal["checkouts", "reads"]
    per_s: float = Field(gt=0, le=MAX_PER_S)
    retries: Annotated[int, Field(ge=0, le=MAX_RETRIES), WholeNumber] = 0
    timeout_ms: Annotated[int, Field(ge=50, le=MAX_DELAY_MS), WholeNumber] = 2000
    burst_s: float | None = Field(default=None, ge=0.5, le=MAX_BURST_S)


class Certificate(_Model):
    """Whose certificate expires `expires_in_s` after the beginning: an identity of the mesh."""

    identity: str = Field(pattern=r"^[a-z]{1,32}$")
    expires_in_s: Annotated[int, Field(ge=1, le=MAX_TTL_S), WholeNumber]


LinkParams = Annotated[Latency | Reset | Silent | Bandwidth, Field(discriminator="kind")]


class _Fault(_Model):
    ttl_s: Annotated[int, Field(ge=1, le=MAX_TTL_S), WholeNumber]


class KillFault(_Fault):
    """The process and its workers are killed once; the supervisor starts it again."""

    type: Literal["kill"]
    params: Target


class PauseFault(_Fault):
    """The process and its workers are stopped (SIGSTOP) and go on at the end."""

    type: Literal["pause"]
    params: Target


class DownFault(_Fault):
    """The process is killed and not started again before the end."""

    type: Literal["down"]
    params: Target


class LinkFault(_Fault):
    """What passes between two processes is disturbed."""

    type: Literal["link"]
    params: LinkParams


class DiskFullFault(_Fault):
    """There is no room left where the process has its database."""

    type: Literal["disk-full"]
    params: Target


class DatabaseStopFault(_Fault):
    """The stack's own PostgreSQL is shut down and not started again before the end."""

    type: Literal["database-stop"]
    params: Nothing = Nothing()


class CertificateFault(_Fault):
    """An identity's certificate is near its end and isn't renewed before the fault's."""

    type: Literal["certificate"]
    params: Certificate


class LoadFault(_Fault):
    """Traffic beside that which there is."""

    type: Literal["load"]
    params: Load


Fault = (
    KillFault
    | PauseFault
    | DownFault
    | LinkFault
    | DiskFullFault
    | DatabaseStopFault
    | CertificateFault
    | LoadFault
)
fault_adapter: TypeAdapter[Fault] = TypeAdapter(Annotated[Fault, Field(discriminator="type")])
name_adapter: TypeAdapter[str] = TypeAdapter(Annotated[str, Field(pattern=NAME_PATTERN)])
TYPES: tuple[str, ...] = tuple(
    get_args(model.model_fields["type"].annotation)[0] for model in get_args(Fault)
)


class Lease(_Model):
    """A fault with its name and its time."""

    name: str
    fault: Annotated[Fault, Field(discriminator="type")]
    created_at_unix_ms: int
    expires_at_unix_ms: int

    def as_dict(self) -> dict[str, Any]:
        """The JSON answer of the endpoints."""
        return lease_body(self.name, self.fault, self.created_at_unix_ms, self.expires_at_unix_ms)
