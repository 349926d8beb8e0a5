"""The edges of the mesh as a typed model: who may call whom, how, and for how long."""

from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

SOURCE = Path(__file__).with_name("edges.yaml")
LOCAL_DOMAIN = "prove.local"
NAMESPACE = "prove"

Name = Annotated[str, Field(pattern=r"^[a-z][a-z-]{0,31}$")]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Workload(_Model):
    """Something with an identity of its own."""

    what: str


class Requests(_Model):
    """Requests by method and path; a path is exact, or ends in `/*` for all below it."""

    methods: tuple[Method, ...] = Field(min_length=1)
    paths: tuple[Annotated[str, Field(pattern=r"^/[\w./-]*\*?$")], ...] = Field(min_length=1)


class Edge(_Model):
    """What `caller` may ask of `called`."""

    caller: Name
    called: Name
    timeout_s: Annotated[float, Field(gt=0, le=600)]
    allow: tuple[Requests, ...] = Field(min_length=1)

    @property
    def name(self) -> str:
        """`order-product`, as the links of a drill are called."""
        return f"{self.caller}-{self.called}"


class Ejection(_Model):
    """When an instance that fails is left alone, and for how long."""

    consecutive_5xx: Annotated[int, Field(ge=1)]
    interval_s: Annotated[float, Field(gt=0)]
    for_s: Annotated[float, Field(gt=0)]
    at_most_percent: Annotated[int, Field(ge=0, le=100)]


class Limits(_Model):
    """Of one caller towards one called."""

    connect_timeout_s: Annotated[float, Field(gt=0)]
    connections: Annotated[int, Field(ge=1)]
    waiting: Annotated[int, Field(ge=1)]
    eject: Ejection


class Mesh(_Model):
    """The whole table."""

    workloads: dict[Name, Workload]
    edges: tuple[Edge, ...]
    limits: Limits

    @model_validator(mode="after")
    def _known(self) -> Self:
        for edge in self.edges:
            for end in (edge.caller, edge.called):
                if end not in self.workloads:
                    raise ValueError(f"{edge.name}: there is no workload {end!r}")
        names = [edge.name for edge in self.edges]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{', '.join(sorted(twice))}: written twice; put all into one edge")
        return self

    def into(self, called: str) -> list[Edge]:
        """The edges that lead to a workload."""
        return [edge for edge in self.edges if edge.called == called]

    def edge(self, caller: str, called: str) -> Edge:
        """The edge between two workloads; raises LookupError."""
        for edge in self.edges:
            if (edge.caller, edge.called) == (caller, called):
                return edge
        raise LookupError(f"{caller} may not call {called}")

    @property
    def services(self) -> list[str]:
        """The workloads that are called, in the order of the table."""
        called = {edge.called for edge in self.edges}
        return [name for name in self.workloads if name in called]


@cache
def load() -> Mesh:
    """The table of this repository; raises pydantic.ValidationError for one that can't be."""
    return Mesh.model_validate(yaml.safe_load(SOURCE.read_text(encoding="utf-8")))


def identity(workload: str, domain: str = LOCAL_DOMAIN, namespace: str = NAMESPACE) -> str:
    """The SPIFFE ID of a workload, in the form that Istio uses."""
    return f"spiffe://{domain}/ns/{namespace}/sa/{workload}"
