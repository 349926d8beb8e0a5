"""What the tests of the cluster measured, as tables: `make test-cluster` writes the figures."""

from collections.abc import Callable
from typing import Any

from prove.bench.tables import Table

Figures = dict[str, Any]
"""By the name under which a test kept them."""
PEERS = (
    ("OpenTelemetry Demo", "6.9 GB"),
    ("Online Boutique", "2.5 GiB"),
    ("AWS Retail sample, without its databases", "2 GiB"),
)
"""Limits of memory that others publish for all they run."""


def machine(known: Figures) -> str:
    """Where it was measured."""
    return str(known.get("machine", {}).get("is", "this machine"))


def proofs(known: Figures) -> Table:
    """What was done to the shop, and what customers noticed of it."""
    return _table(known, _FIGURES + _PROOFS)


def costs(known: Figures) -> list[Table]:
    """Of that what takes time, memory and room; what wasn't measured is left out."""
    tables = [_table(known, _FIGURES)]
    if "footprint" in known:
        tables.append(_footprint(known))
    if "images" in known:
        tables.append(_sizes(known))
    return tables


def _footprint(known: Figures) -> Table:
    """Memory of each part of the chart, in use and allowed, beside what others allow themselves."""
    parts: dict[str, dict[str, int]] = known["footprint"]["parts"]
    rows = [(name, *_amounts(part)) for name, part in sorted(parts.items())]
    keys = ("pods", "used_mib", "limit_mib")
    together = {key: sum(part[key] for part in parts.values()) for key in keys}
    peers = [(name, "", "", limit) for name, limit in PEERS]
    return Table(
        "Memory by part, as `kubectl top` tells it, and the limits; beside them the limits that "
        "other shops publish:",
        ("part", "pods", "MiB in use", "limit"),
        [*rows, ("all", *_amounts(together)), *peers],
    )


def _sizes(known: Figures) -> Table:
    """Images, uncompressed, with their base."""
    of_each = dict(known["images"]["mb"])
    if "provectl_image" in known:
        of_each["provectl"] = known["provectl_image"]["mb"]
    rows = [(name, str(mb)) for name, mb in sorted(of_each.items())]
    return Table("Images with their base, uncompressed:", ("image", "MB"), rows)


def _amounts(part: dict[str, int]) -> tuple[str, str, str]:
    return str(part["pods"]), f"{part['used_mib']:,}", f"{part['limit_mib']:,} MiB"


def _table(known: Figures, of: "tuple[Row, ...]") -> Table:
    rows = []
    for what, figure in of:
        try:
            rows.append((what, figure(known)))
        except KeyError:  # not measured
            continue
    return Table("", ("what", "figure"), rows)


Row = tuple[str, Callable[[Figures], str]]


def _told(*found: dict[str, Any]) -> str:
    failed, requests = (sum(each[what] for each in found) for what in ("failed", "requests"))
    return f"**{failed} failed** of {requests} requests"


def _failed(name: str) -> Callable[[Figures], str]:
    return lambda known: _told(known[name])


def _rollout(service: str) -> Callable[[Figures], str]:
    def text(known: Figures) -> str:
        found = known["a_rolling_update_of_every_service_fails_no_request"][service]
        return f"{_told(found)}, in {found['rollout_seconds']:.0f} s"

    return text


def _mesh_rollouts(known: Figures) -> str:
    return _told(*(known[f"mesh_rollout_{part}"] for part in _MESH))


def _seconds(found: list[int]) -> str:
    return " and ".join(f"{each} s" for each in found)


def _hpa(name: str) -> Callable[[Figures], str]:
    def text(known: Figures) -> str:
        found = known[name]
        steps = " → ".join(str(count) for _, count in found["steps"])
        told = f"after {found['seconds_to_scale']:.0f} s; replicas {steps}"
        if "requests" in found:
            told += f"; {_told(found)}, P95 of orders {found['p95_ms']} ms"
        return told

    return text


_MESH = ("product", "order", "payment", "edge")
_EVICTED = "eviction_of_every_pod_fails_no_request_and_loses_no_order"
_FIGURES: tuple[Row, ...] = (
    (
        "the cluster itself, from nothing to name server and metrics",
        lambda known: f"{known['lab']['seconds']['all']:.0f} s",
    ),
    (
        "`helm install` to all ready; to the first order",
        lambda known: (
            f"{known['install']['seconds_to_ready']:.0f} s; "
            f"{known['install']['seconds_to_first_order']:.0f} s"
        ),
    ),
    ("rolling update of the product service under load", _rollout("product")),
    ("… of the order service", _rollout("order")),
    ("… of the payment service", _rollout("payment")),
    ("upgrade", _failed("an_upgrade_fails_no_request")),
    (
        "upgrade that fails, and is rolled back by Helm",
        _failed("a_failed_upgrade_rolls_back_and_fails_no_request"),
    ),
    ("rollback to the first revision", _failed("a_rollback_fails_no_request")),
    ("autoscaler by CPU", _hpa("hpa_cpu")),
    ("autoscaler by memory", _hpa("hpa_memory")),
)
_PROOFS: tuple[Row, ...] = (
    (
        "eviction of every pod of the services, one by one",
        lambda known: (
            f"{_told(known[_EVICTED])}; "
            f"{known[_EVICTED]['evicted']} evicted, 0 of {known[_EVICTED]['orders']} orders lost"
        ),
    ),
    ("rolling update while another migration holds the lock", _failed("slow_migration")),
    (
        "a process that hangs, restarted by its liveness probe",
        lambda known: f"0 of {known['hung']['orders']} orders lost",
    ),
    (
        "a database that stands still",
        lambda known: (
            f"all {known['dead_database']['pods_out_and_back']} pods got no traffic, and did again "
            "when it was back; none was restarted"
        ),
    ),
    (
        "a pod killed for its memory, seen and alerted",
        lambda known: f"0 of {known['memory_kill']['orders']} orders lost",
    ),
    (
        "pairs of pods and ports, tried each",
        lambda known: (
            f"{known['policies']['allowed']} connect as intended, "
            f"{known['policies']['denied']} don't; without the enforcer "
            f"all {known['policies']['connect_without_enforcer']} do"
        ),
    ),
    (
        "queries of the dashboards",
        lambda known: (
            f"{known['dashboards']['queries']} answered, "
            f"{known['dashboards']['with_data']} with data"
        ),
    ),
    (
        "in the mesh: certificates renewed twice under load",
        lambda known: (
            f"{_failed('mesh_rotation')(known)}; all {known['mesh_rotation']['proxies']} proxies "
            f"had them after {_seconds(known['mesh_rotation']['read_after_seconds'])}"
        ),
    ),
    ("… rolling update of each service, and of the edge", _mesh_rollouts),
    ("… one of three product services that always answers 500", _failed("mesh_ejection")),
    ("alert that paged by webhook", lambda known: ", ".join(known["page"]["alerts"])),
)
