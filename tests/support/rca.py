"""Incidents made up: a front that asks `cart` and `pay`, and `pay`, which asks `bank`."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from prove.rca import bundle
from prove.rca.bundle import BASELINE, INCIDENT, Alert, Bundle, Window

BEFORE, DURING = Window(1000.0, 1060.0), Window(2000.0, 2060.0)
Row = dict[str, Any]


@dataclass
class Shape:
    """How the services behave; milliseconds."""

    work: dict[str, float] = field(
        default_factory=lambda: {"front": 5, "cart": 8, "pay": 10, "bank": 20}
    )
    wire: dict[str, float] = field(default_factory=lambda: {"cart": 2, "pay": 2, "bank": 3})
    fails: dict[str, float] = field(default_factory=dict)
    """Share of requests that a service fails."""
    skips: dict[str, float] = field(default_factory=dict)
    """Share of requests in which a service asks nobody."""
    unreached: dict[str, float] = field(default_factory=dict)
    """Share of calls to a service that fail before they reach it."""
    lost: dict[str, float] = field(default_factory=dict)
    """Share of calls to a service whose answers don't come back."""
    held: dict[str, float] = field(default_factory=dict)
    """Share of calls that a service is at for 30 s; its caller waits for two."""
    gives_up: int = 0
    """Requests that a service refuses without asking anybody, after a call of its has failed."""
    tries: int = 1
    """How often pay asks the bank."""
    silent: frozenset[str] = frozenset()
    """Services that leave no spans."""
    skew_ms: dict[str, float] = field(default_factory=dict)


ASKS = {"front": ("cart", "pay"), "pay": ("bank",)}


class Maker:
    """Spans of requests, by a seed."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._next = 0
        self._refuses: dict[str, int] = {}
        self.rows: list[Row] = []

    def requests(self, count: int, window: Window, shape: Shape) -> list[Row]:
        """So many, spread over a window."""
        self.rows = []
        for number in range(count):
            start = window.start_unix_s + window.seconds * (number + 0.5) / count
            self._serve("front", f"t{window.start_unix_s:.0f}-{number}", None, start * 1e9, shape)
        return self.rows

    def _id(self) -> str:
        self._next += 1
        return f"s{self._next}"

    def _took(self, ms: float) -> float:
        return ms * self._random.lognormvariate(0, 0.15) * 1e6

    def _serve(
        self, service: str, trace: str, parent: str | None, at: float, shape: Shape
    ) -> tuple[float, bool]:
        """Returns when it ends, and whether it failed."""
        mine = self._id()
        failed = self._random.random() < shape.fails.get(service, 0)
        if self._refuses.get(service, 0) > 0:
            self._refuses[service] -= 1
            failed = True
        end = at + self._took(shape.work[service])
        if not failed and self._random.random() >= shape.skips.get(service, 0):
            for other in ASKS.get(service, ()):
                for _ in range(shape.tries if other == "bank" else 1):
                    call = self._id()
                    begin = end
                    wire = self._took(shape.wire[other])
                    if other in shape.unreached and self._random.random() < shape.unreached[other]:
                        done, bad = begin + wire / 2, True
                    else:
                        done, bad = self._serve(other, trace, call, begin + wire / 2, shape)
                        if other in shape.lost:
                            bad = bad or self._random.random() < shape.lost[other]
                        if other in shape.held and self._random.random() < shape.held[other]:
                            self.rows[-1]["end_unix_nano"] += int(30e9)
                            done, bad = begin + 2e9, True
                    end = done + wire / 2
                    self._add(service, f"ask {other}", trace, call, mine, begin, end, bad, shape)
                    failed = failed or bad
                    if bad:
                        self._refuses[service] = shape.gives_up
        self._add(service, f"serve {service}", trace, mine, parent, at, end, failed, shape)
        return end, failed

    def _add(
        self,
        service: str,
        name: str,
        trace: str,
        own: str,
        parent: str | None,
        start: float,
        end: float,
        failed: bool,
        shape: Shape,
    ) -> None:
        if service in shape.silent:
            return
        skew = shape.skew_ms.get(service, 0) * 1e6
        self.rows.append(
            {
                "trace_id": trace,
                "span_id": own,
                "parent_span_id": parent,
                "service": service,
                "instance": f"{service}-1",
                "name": name,
                "start_unix_nano": int(start + skew),
                "end_unix_nano": int(end + skew),
                "status": "error" if failed else "unset",
                "peer": "bank" if name == "ask bank" and "bank" in shape.silent else None,
            }
        )


def incident(
    after: Shape,
    before: Shape | None = None,
    *,
    count: int = 200,
    count_after: int | None = None,
    keep: Callable[[Row], bool] = lambda _row: True,
    alert: Alert | None = None,
) -> Bundle:
    """A bundle of requests of two shapes; `keep` says which spans are there."""
    maker = Maker()
    healthy = maker.requests(count, BEFORE, before or Shape())
    during = maker.requests(count if count_after is None else count_after, DURING, after)
    return Bundle(
        id="made-up",
        incident=DURING,
        baseline=BEFORE,
        alert=alert,
        services=("bank", "cart", "front", "pay"),
        spans=table([*map(dict, healthy)], BASELINE, keep).vstack(table(during, INCIDENT, keep)),
    )


def told_wrongly(after: Shape, by_s: float, *, count: int = 200) -> Bundle:
    """Of an incident that is said to begin `by_s` after it did; negative: before."""
    maker = Maker()
    before_s, during_s = (window.seconds / count for window in (BEFORE, DURING))
    bad = round(max(by_s, 0) / before_s)
    good = round(max(-by_s, 0) / during_s)

    def part(window: Window, first: int, last: int, shape: Shape) -> list[Row]:
        step_s = window.seconds / count
        within = Window(window.start_unix_s + first * step_s, window.start_unix_s + last * step_s)
        return [*map(dict, maker.requests(last - first, within, shape))] if last > first else []

    healthy = part(BEFORE, 0, count - bad, Shape()) + part(BEFORE, count - bad, count, after)
    during = part(DURING, 0, good, Shape()) + part(DURING, good, count, after)
    return Bundle(
        id="made-up",
        incident=DURING,
        baseline=BEFORE,
        services=("bank", "cart", "front", "pay"),
        spans=table(healthy, BASELINE, lambda _row: True).vstack(
            table(during, INCIDENT, lambda _row: True)
        ),
    )


def table(rows: list[Row], window: int, keep: Callable[[Row], bool]) -> pl.DataFrame:
    """As bundle.read gives it."""
    kept = pl.DataFrame([row for row in rows if keep(row)], schema=bundle.SPANS)
    return kept.with_columns(pl.lit(window, dtype=pl.Int8).alias("window"))
