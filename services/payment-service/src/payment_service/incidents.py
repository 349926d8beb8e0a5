"""The admin endpoints: fault leases by hand, and named incidents made of them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Path, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from service_kit import asgi, auth
from service_kit.faultmodel import MAX_TTL_S, NAME_PATTERN, Fault, PlainFault, plain_fault
from service_kit.faults import LeaseStore
from service_kit.problem import Problem
from service_kit.types import WholeNumber, rfc3339

_CHARGE = {"method": "POST", "route": "/api/v1/payments"}
_LATENCY = {
    "type": "latency",
    "params": {"distribution": "normal", "mean_ms": 1500, "stddev_ms": 300},
    "match": _CHARGE,
}
_ERRORS = {"type": "error", "params": {"rate": 0.5, "status": 503}, "match": _CHARGE}
_RAMP = {
    "type": "latency",
    "params": {"distribution": "ramp", "from_ms": 0, "to_ms": 3000, "over_s": 60},
    "match": _CHARGE,
}
_HANG = {"type": "hang", "params": {"rate": 1}, "match": _CHARGE}
_DRIP = {"type": "drip", "params": {"rate": 1, "bytes_per_s": 100}, "match": _CHARGE}
_CRASH = {"type": "crash", "params": {"rate": 0.02}, "match": _CHARGE}
_CRASH_LOOP = {"type": "crash-loop", "params": {"after_s": 5}}
_CPU = {"type": "cpu", "params": {"share": 1}}
_MEMORY = {"type": "memory", "params": {"mb_per_s": 4, "cap_mb": 256}}
_POOL = {"type": "pool", "params": {"all": True}}
_LOCK = {"type": "lock", "params": {"hold_ms": 1500, "every_ms": 2000}}


@dataclass(frozen=True)
class Incident:
    """A preset of faults; `faults` are the leases it sets, by name, without their `ttl_s`."""

    name: str
    description: str
    faults: dict[str, dict[str, Any]]


CATALOGUE = {
    incident.name: incident
    for incident in (
        Incident(
            "payment-latency",
            "Charging is slow: 1.5 s more on average. Parameters: mean_ms, stddev_ms.",
            {"payment-latency": _LATENCY},
        ),
        Incident(
            "payment-errors",
            "Half of the charges are answered with 503. Parameters: rate, status.",
            {"payment-errors": _ERRORS},
        ),
        Incident(
            "payment-brownout",
            "Charging is slow and fails: both of the above. Parameters: mean_ms, stddev_ms, rate, "
            "status.",
            {"payment-brownout-latency": _LATENCY, "payment-brownout-errors": _ERRORS},
        ),
        Incident(
            "payment-degradation",
            "Charging gets slower and slower. Parameters: from_ms, to_ms, over_s.",
            {"payment-degradation": _RAMP},
        ),
        Incident(
            "payment-hang",
            "Charges are held until the incident is over. Parameter: rate.",
            {"payment-hang": _HANG},
        ),
        Incident(
            "payment-drip",
            "Answers to charges arrive byte by byte. Parameters: rate, bytes_per_s.",
            {"payment-drip": _DRIP},
        ),
        Incident(
            "payment-crash",
            "Some charges end the process that takes them. Parameter: rate.",
            {"payment-crash": _CRASH},
        ),
        Incident(
            "payment-crash-loop",
            "The service ends, whenever it has been up for a while. Parameter: after_s.",
            {"payment-crash-loop": _CRASH_LOOP},
        ),
        Incident(
            "payment-cpu",
            "Every process burns CPU time. Parameter: share.",
            {"payment-cpu": _CPU},
        ),
        Incident(
            "payment-memory",
            "Every process leaks memory. Parameters: mb_per_s, cap_mb.",
            {"payment-memory": _MEMORY},
        ),
        Incident(
            "payment-pool",
            "No process has a database connection left. No parameters.",
            {"payment-pool": _POOL},
        ),
        Incident(
            "payment-lock",
            "Somebody holds the database's write lock most of the time. Parameters: hold_ms, "
            "every_ms.",
            {"payment-lock": _LOCK},
        ),
    )
}


class LeaseBody(BaseModel):
    """A fault lease."""

    model_config = ConfigDict(title="Lease")

    name: str
    type: str
    params: dict[str, Any]
    match: dict[str, Any] = Field(
        default_factory=dict, description="absent where the fault hits the process as a whole"
    )
    ttl_s: int
    created_at: datetime
    expires_at: datetime


class LeaseList(BaseModel):
    """The leases in force."""

    items: list[LeaseBody]


class IncidentBody(BaseModel):
    """An incident of the catalogue and whether it is on."""

    model_config = ConfigDict(title="Incident")

    name: str
    description: str
    active: bool
    until: datetime | None = Field(description="when the first of its faults ends")
    faults: dict[str, dict[str, Any]] = Field(description="the leases it sets, by name")


class IncidentList(BaseModel):
    """The catalogue."""

    items: list[IncidentBody]


class IncidentStart(BaseModel):
    """For how long, and what to change in the preset."""

    model_config = ConfigDict(extra="forbid")

    ttl_s: Annotated[int, Field(strict=True, ge=1, le=MAX_TTL_S), WholeNumber]
    params: dict[str, Annotated[float, Field(strict=True, allow_inf_nan=False)]] = Field(
        default_factory=dict,
        max_length=8,
        description="replaces parameters of the preset's faults; its description names them",
    )


FaultName = Annotated[str, Path(pattern=NAME_PATTERN)]
FaultBody = Annotated[PlainFault, Body()]
IncidentName = Annotated[str, Path(pattern=NAME_PATTERN)]


def add_routes(app: FastAPI, leases: LeaseStore, token: str | None) -> None:
    """Add /faults and /incidents to the app, behind the admin token."""
    bearer = HTTPBearer(auto_error=False, description="the admin token")

    def admin(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> None:
        auth.require_admin(f"{given.scheme} {given.credentials}" if given else None, token)

    guarded = [Depends(admin)]

    @app.get(
        "/faults",
        tags=["faults"],
        summary="The fault leases in force",
        operation_id="listFaults",
        dependencies=guarded,
        responses={200: {"model": LeaseList}, **asgi.problems(401, 404, 431, 500)},
    )
    def list_faults() -> Response:
        return asgi.json_response({"items": [lease.as_dict() for lease in leases.items()]})

    @app.put(
        "/faults/{name}",
        tags=["faults"],
        summary="Set or replace a fault lease",
        operation_id="putFault",
        dependencies=guarded,
        responses={
            200: {"model": LeaseBody},
            **asgi.problems(400, 401, 404, 413, 415, 422, 431, 500, 503),
        },
    )
    def put_fault(name: FaultName, fault: FaultBody) -> Response:
        return asgi.json_response(leases.put(name, fault).as_dict())

    @app.delete(
        "/faults/{name}",
        tags=["faults"],
        summary="Revoke a fault lease",
        operation_id="deleteFault",
        dependencies=guarded,
        status_code=204,
        responses=asgi.problems(401, 404, 431, 500, 503),
    )
    def delete_fault(name: FaultName) -> Response:
        leases.delete(name)
        return Response(status_code=204)

    @app.get(
        "/incidents",
        tags=["incidents"],
        summary="The incidents this service can play",
        operation_id="listIncidents",
        dependencies=guarded,
        responses={200: {"model": IncidentList}, **asgi.problems(401, 404, 431, 500)},
    )
    def list_incidents() -> Response:
        return asgi.json_response(
            {"items": [_state(incident, leases) for incident in CATALOGUE.values()]}
        )

    @app.post(
        "/incidents/{name}/start",
        tags=["incidents"],
        summary="Start an incident, or start it anew with other parameters",
        operation_id="startIncident",
        dependencies=guarded,
        responses={
            200: {"model": IncidentBody},
            **asgi.problems(400, 401, 404, 413, 415, 422, 431, 500, 503),
        },
    )
    def start(name: IncidentName, body: IncidentStart) -> Response:
        incident = _find(name)
        # All of them are checked before the first is set.
        for lease, fault in _configured(incident, body).items():
            leases.put(lease, fault)
        return asgi.json_response(_state(incident, leases))

    @app.post(
        "/incidents/{name}/stop",
        tags=["incidents"],
        summary="Stop an incident",
        operation_id="stopIncident",
        dependencies=guarded,
        responses={
            200: {"model": IncidentBody},
            **asgi.problems(401, 404, 413, 415, 431, 500, 503),
        },
    )
    def stop(name: IncidentName) -> Response:
        incident = _find(name)
        for lease in incident.faults:
            leases.delete(lease)
        return asgi.json_response(_state(incident, leases))


def _find(name: str) -> Incident:
    if name not in CATALOGUE:
        raise Problem(404, "not-found", f"There is no incident {name!r}; GET /incidents has all.")
    return CATALOGUE[name]


def _configured(incident: Incident, start: IncidentStart) -> dict[str, Fault]:
    known = {name for fault in incident.faults.values() for name in fault["params"]}
    if unknown := sorted(start.params.keys() - known):
        wanted = ", ".join(sorted(known - {"distribution", "all"})) or "none"
        raise Problem(
            422, "validation", f"Unknown parameter {unknown[0]!r}; {incident.name} has {wanted}."
        )
    try:
        return {
            name: plain_fault.validate_python(
                {
                    **fault,
                    "ttl_s": start.ttl_s,
                    "params": {k: start.params.get(k, v) for k, v in fault["params"].items()},
                }
            )
            for name, fault in incident.faults.items()
        }
    except ValidationError as error:
        errors = [
            {"loc": ["body", "params", str(item["loc"][-1])], "msg": item["msg"]}
            for item in error.errors(include_url=False)
        ]
        detail = f"{errors[0]['loc'][-1]}: {errors[0]['msg']}"
        raise Problem(422, "validation", detail, errors=errors) from error


def _state(incident: Incident, leases: LeaseStore) -> dict[str, object]:
    on = {lease.name: lease for lease in leases.items() if lease.name in incident.faults}
    active = on.keys() == incident.faults.keys()
    shown = {
        name: {
            key: value
            for key, value in (on[name].as_dict() if name in on else fault).items()
            if key in ("type", "params", "match")
        }
        for name, fault in incident.faults.items()
    }
    ends_ms = min((lease.expires_at_unix_ms for lease in on.values()), default=0)
    return {
        "name": incident.name,
        "description": incident.description,
        "active": active,
        "until": rfc3339(ends_ms) if active else None,
        "faults": shown,
    }
