"""What the acquirer takes at its fault endpoints (it is in Go), for checking scenarios."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from service_kit.faultmodel import MAX_TTL_S
from service_kit.types import WholeNumber


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Share(_Model):
    """Of the requests."""

    rate: float = Field(default=1.0, gt=0, le=1)


class Slow(_Model):
    """How much later it answers."""

    delay_ms: Annotated[int, Field(ge=1, le=60_000), WholeNumber]


class Flapping(_Model):
    """A half of each period is down."""

    period_s: float = Field(ge=1, le=MAX_TTL_S)


class _Fault(_Model):
    ttl_s: Annotated[int, Field(ge=1, le=MAX_TTL_S), WholeNumber]


class SlowFault(_Fault):
    """Books at once, answers late."""

    type: Literal["slow"]
    params: Slow


class FlappingFault(_Fault):
    """Works, and doesn't, and works."""

    type: Literal["flapping"]
    params: Flapping


class ShareFault(_Fault):
    """All others."""

    type: Literal["declining", "answer-twice", "lose-answer", "failing"]
    params: Share = Share()


fault_adapter: TypeAdapter[Any] = TypeAdapter(
    Annotated[SlowFault | FlappingFault | ShareFault, Field(discriminator="type")]
)
