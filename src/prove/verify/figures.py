"""What a run was and how it went, from its history, its journal and the books (pure)."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import quantiles

from pydantic import BaseModel

from prove.verify.books import Books, Step
from prove.verify.history import Event
from prove.verify.nemesis import KILLS, Act

US = 1_000_000


class Spread(BaseModel):
    """Seconds: of how many, their median, 99th percentile and maximum."""

    count: int
    p50_s: float
    p99_s: float
    max_s: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> "Spread":
        """All 0 when there are none."""
        values = sorted(seconds)
        if len(values) < 2:
            only = round(values[0], 3) if values else 0.0
            return cls(count=len(values), p50_s=only, p99_s=only, max_s=only)
        cuts = quantiles(values, n=100, method="inclusive")
        return cls(
            count=len(values),
            p50_s=round(cuts[49], 3),
            p99_s=round(cuts[98], 3),
            max_s=round(values[-1], 3),
        )


class Figures(BaseModel):
    """Of all rounds of a run together.

    `purchases` by what became of them, `attempts` by how they ended (`unanswered`: no end was
    written), `orders` by status in the books. `kills` by kind, `crash_points` by point, `missed`
    faults that did not come about, `restarts` by process, `cuts` by link and kind. `late` arrivals
    were sent more than 0.1 s after they were due.

    `put_off` orders had a step that was tried more than once.

    `settled`: seconds from an order's creation until it was first recorded as finished, over all
    orders, faults included. `recovery`: seconds from a heal until then, over the orders that were
    unfinished at that heal, or unfinished again because of a cancellation; its maximum is what the
    oldest of them needed. `goodput_per_s`: purchases with a final answer, a second
    of `duration_s`, which is from the first request to the last answer, pauses between rounds
    left out.
    """

    purchases: dict[str, int]
    attempts: dict[str, int]
    orders: dict[str, int]
    put_off: int
    stuck: int
    kills: dict[str, int]
    crash_points: dict[str, int]
    missed: int
    restarts: dict[str, int]
    cuts: dict[str, int]
    late: int
    settled: Spread
    recovery: Spread
    rounds: int
    duration_s: float
    goodput_per_s: float

    @property
    def sent(self) -> int:
        """Purchases that were sent."""
        return sum(self.purchases.values())

    @property
    def killed(self) -> int:
        """Processes that were killed, by whatever means."""
        return sum(self.kills.values())


def measure(
    books: Books, events: Sequence[Sequence[Event]], acts: Sequence[Act], late: int = 0
) -> Figures:
    """`events` by round; `acts` of all rounds."""
    everything = [event for part in events for event in part]
    outcome: dict[int, str] = {}
    for event in everything:
        if event.kind == "order":
            final = {"ok": "confirmed", "fail": event.detail or "refused"}.get(event.type)
            outcome[event.op] = final or outcome.get(event.op, "open")
    types = Counter(event.type for event in everything)
    unanswered = types.pop("invoke", 0) - types.total()
    heals = [act.at_unix_us for act in acts if act.did == "heal"]
    restarts: Counter[str] = Counter()
    for act in acts:
        if act.did == "heal":
            restarts.update(act.detail)
    steps: dict[str, list[Step]] = defaultdict(list)
    for step in books.steps:
        steps[step.order_id].append(step)
    duration_s = sum(_seconds(part) for part in events)
    answered = sum(1 for each in outcome.values() if each != "open")
    return Figures(
        purchases=dict(Counter(outcome.values()).most_common()),
        attempts=dict(types) | ({"unanswered": unanswered} if unanswered else {}),
        orders=dict(Counter(order.status for order in books.orders).most_common()),
        put_off=sum(1 for each in steps.values() if any(step.attempts for step in each)),
        stuck=sum(1 for order in books.orders if order.step),
        kills={kind: n for kind in KILLS if (n := sum(act.did == kind for act in acts))},
        crash_points=_targets(acts, "crash-point"),
        missed=sum(act.did == "missed" for act in acts),
        restarts=dict(restarts),
        cuts=_targets(acts, "cut"),
        late=late,
        settled=Spread.of(_settled(steps.values())),
        recovery=Spread.of(_recoveries(steps.values(), heals)),
        rounds=len(events),
        duration_s=round(duration_s, 1),
        goodput_per_s=round(answered / duration_s, 1) if duration_s else 0,
    )


def _targets(acts: Sequence[Act], did: str) -> dict[str, int]:
    return dict(sorted(Counter(act.target for act in acts if act.did == did).items()))


def _seconds(events: Sequence[Event]) -> float:
    return (events[-1].at_unix_us - events[0].at_unix_us) / US if events else 0.0


def _settled(histories: Iterable[Sequence[Step]]) -> Iterator[float]:
    for steps in histories:
        if finished := _finished(steps):
            yield (finished.at_us - steps[0].at_us) / US


def _recoveries(histories: Iterable[Sequence[Step]], heals: Sequence[int]) -> Iterator[float]:
    for steps in histories:
        for heal in heals:
            before = [step for step in steps if step.at_us <= heal]
            if before and before[-1].step and (finished := _finished(steps[len(before) :])):
                yield (finished.at_us - heal) / US


def _finished(steps: Sequence[Step]) -> Step | None:
    return next((step for step in steps if not step.step), None)
