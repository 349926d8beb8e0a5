"""What an incident cost: counted in the clients' ledger, and beside it what the servers counted.

Every figure is the answer to a question that is kept with it: SQL over the record's own tables, or
a query of Prometheus whose answer is in `sli.jsonl`. So no figure can differ from its evidence.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from prove.incident import sli, views
from prove.incident.objectives import Objective, Objectives
from prove.incident.record import Kind, Window, Windows
from prove.incident.tables import Tables

ENTRANCES = {"checkout": ("order-service", "POST"), "read": ("product-service", "GET")}
"""The service that clients ask, and how, by the kind of request."""
_PREFIX = {"checkout": "/api/v1/orders", "read": "/api/v1/products"}
HIT = 0.1
"""A second is one in which customers were hit when more of its requests went wrong."""
_HURT = f"{views.FAILED} OR {views.SLOW} OR {views.UNSETTLED}"
_SLOS: dict[Kind, str] = {"checkout": "checkout", "read": "product-reads"}

Way = Literal["failed", "slow", "unsettled", "refused"]
"""In which a request can go wrong for whoever sent it."""


@dataclass(frozen=True)
class Citation:
    """A question whose answer is told somewhere; `number` is by what that place refers to it."""

    number: int
    kind: Literal["ledger", "query", "bundle", "record"]
    what: str
    ask: str


@dataclass
class Citations:
    """All of them, each once, numbered as they were first used."""

    found: list[Citation] = field(default_factory=list)

    def add(self, kind: Literal["ledger", "query", "bundle", "record"], what: str, ask: str) -> str:
        """The mark to put behind what it answers."""
        known = next((each for each in self.found if each.ask == ask), None)
        if known is None:
            known = Citation(len(self.found) + 1, kind, what, ask)
            self.found.append(known)
        return mark(known.number)


def mark(number: int) -> str:
    """What templates turn into a link."""
    return f"\N{LEFT WHITE LENTICULAR BRACKET}{number}\N{RIGHT WHITE LENTICULAR BRACKET}"


def clearly_more(count: int, of: int, before: float, before_of: int) -> bool:
    """Whether that is a larger share than `before` was of `before_of`, and no chance.

    Three standard deviations of a Poisson count above what is usual, with one more supposed to have
    been in the baseline: where nothing was seen in a short time, something may well be usual.
    """
    usual = of * (before * before_of + 1) / (before_of + 1)
    return count > views.NOTABLE * of and count > usual + 3 * math.sqrt(usual)


@dataclass(frozen=True)
class Requests:
    """Of one kind, in the incident's window, as clients saw them."""

    kind: Kind
    sent: int
    failed: int
    """Answered 5xx."""
    unanswered: int
    slow: int
    unsettled: int
    """Taken, and not confirmed yet: 202."""
    refused: int
    first_bad_us: int | None
    last_bad_us: int | None
    commonest: str
    """What most of the failed were told: `503`, `no answer`."""
    reason: str
    """Of most of the refused: `price-changed`, `out-of-stock` …"""
    before: "Shares"
    """In the baseline."""
    cited: str
    cited_before: str

    @property
    def bad(self) -> int:
        """Failed or without an answer."""
        return self.failed + self.unanswered

    @property
    def bad_share(self) -> float:
        """Of those sent."""
        return self.bad / self.sent if self.sent else 0.0

    @property
    def slow_share(self) -> float:
        """Of those sent."""
        return self.slow / self.sent if self.sent else 0.0

    @property
    def refused_share(self) -> float:
        """Of those sent."""
        return self.refused / self.sent if self.sent else 0.0

    @property
    def unsettled_share(self) -> float:
        """Of those sent."""
        return self.unsettled / self.sent if self.sent else 0.0

    @property
    def hurt(self) -> list[Way]:
        """In which ways it was clearly worse than in the baseline."""
        counts: dict[Way, tuple[int, float]] = {
            "failed": (self.bad, self.before.bad),
            "slow": (self.slow, self.before.slow),
            "unsettled": (self.unsettled, self.before.unsettled),
            "refused": (self.refused, self.before.refused),
        }
        return [
            name
            for name, (count, before) in counts.items()
            if clearly_more(count, self.sent, before, self.before.sent)
        ]


@dataclass(frozen=True)
class Shares:
    """Of the requests of a kind, 0 to 1; and how many they were."""

    sent: int
    bad: float
    slow: float
    unsettled: float
    refused: float


@dataclass(frozen=True)
class Purchases:
    """What became of checkouts, each with all its attempts."""

    begun: int
    lost: int
    delayed: int
    unsettled: int
    retried: int
    saved: int
    """Of the retried, those that ended well."""
    refused: int
    begun_before: int
    refused_before: float
    """The share of refused ones in the baseline: sold out, declined cards."""
    lost_minor: int
    unsettled_minor: int
    refused_minor: int
    without_amount: int
    cited: dict[str, str]

    @property
    def turned_away(self) -> int:
        """How many of the refused are more than usual; 0 where that isn't clear."""
        if not clearly_more(self.refused, self.begun, self.refused_before, self.begun_before):
            return 0
        return round(self.refused - self.refused_before * self.begun)

    @property
    def turned_away_minor(self) -> int:
        """Their money, by the mean of the refused, minor units."""
        return round(self.refused_minor * self.turned_away / self.refused) if self.refused else 0

    @property
    def at_risk_minor(self) -> int:
        """What customers wanted to pay and may not have, minor units."""
        return self.lost_minor + self.unsettled_minor + self.turned_away_minor


@dataclass(frozen=True)
class Seen:
    """What the servers counted of one kind; None: nobody knows."""

    kind: Kind
    answered: float | None
    failed: float | None
    unseen: int | None
    """Requests that failed for their clients and left no span at the service they asked."""
    cited: dict[str, str]


@dataclass(frozen=True)
class Budget:
    """What of an SLO's error budget went, as a share of all of a period's.

    `by_clients` is the same by the ledger, None where it has no counterpart.
    """

    objective: Objective
    burned: float | None
    worst: float | None
    """The greatest bad share of a shortest window."""
    by_clients: float | None
    cited: str
    cited_clients: str


@dataclass(frozen=True)
class Impact:
    """All of it, of the incident's window."""

    window: Window
    requests: list[Requests]
    purchases: Purchases
    seen: list[Seen]
    budgets: list[Budget]
    hit_s: list[int]
    """Unix seconds in which more than a tenth of the requests of a kind went wrong."""
    cited_hit: str

    def of(self, kind: Kind) -> Requests:
        """The clients' requests of a kind."""
        return next(each for each in self.requests if each.kind == kind)


def measure(
    windows: Windows,
    answers: Tables,
    kept: sli.Kept,
    promised: Objectives | None,
    cite: Citations,
) -> Impact:
    """What the record says of the incident's window, and of the baseline to compare it with."""
    window = windows.incident
    within = _within(window)
    hit = (
        f"SELECT DISTINCT done_unix_us // 1000000 AS second FROM requests WHERE {within}"  # noqa: S608
        f" GROUP BY kind, second HAVING avg(({_HURT})::INT) > {HIT} ORDER BY second"
    )
    kinds: Sequence[Kind] = ("checkout", "read")
    requests = [_requests(kind, windows, answers, cite) for kind in kinds]
    return Impact(
        window=window,
        requests=requests,
        purchases=_purchases(windows, answers, cite),
        seen=[_seen(kind, window, within, answers, kept, cite) for kind in kinds],
        budgets=[_budget(slo, promised, window, requests, kept, cite) for slo in promised.slos]
        if promised
        else [],
        hit_s=[int(second) for (second,) in answers.ask(hit)],
        cited_hit=cite.add("ledger", "seconds in which over a tenth went wrong", hit),
    )


def _within(window: Window) -> str:
    """Requests whose end was in it: what was under way when it began is hit, too."""
    start_us, end_us = (round(each * 1e6) for each in (window.start_unix_s, window.end_unix_s))
    return f"done_unix_us >= {start_us} AND done_unix_us < {end_us}"


def _requests(kind: Kind, windows: Windows, answers: Tables, cite: Citations) -> Requests:
    of = f"kind = '{kind}' AND {_within(windows.incident)}"
    ask = (
        "SELECT count(*) AS sent, count(*) FILTER (outcome = 'failed') AS failed,"  # noqa: S608
        " count(*) FILTER (outcome = 'no-answer') AS unanswered,"
        f" count(*) FILTER ({views.SLOW}) AS slow,"
        f" count(*) FILTER ({views.UNSETTLED}) AS unsettled,"
        f" count(*) FILTER ({views.REFUSED}) AS refused,"
        f" min(done_unix_us) FILTER ({_HURT}) AS first_bad,"
        f" max(done_unix_us) FILTER ({_HURT}) AS last_bad,"
        f" mode(status) FILTER ({views.FAILED}) AS commonest,"
        f" mode(detail) FILTER ({views.REFUSED}) AS reason"
        f" FROM requests WHERE {of}"
    )
    (sent, failed, unanswered, slow, unsettled, refused, first, last, commonest, reason) = (
        answers.ask(ask)[0]
    )
    before = (
        f"SELECT count(*), coalesce(avg(({views.FAILED})::INT), 0),"  # noqa: S608
        f" coalesce(avg(({views.SLOW})::INT), 0),"
        f" coalesce(avg(({views.UNSETTLED})::INT), 0),"
        f" coalesce(avg(({views.REFUSED})::INT), 0)"
        f" FROM requests WHERE kind = '{kind}' AND {_within(windows.baseline)}"
    )
    return Requests(
        kind=kind,
        sent=sent,
        failed=failed,
        unanswered=unanswered,
        slow=slow,
        unsettled=unsettled,
        refused=refused,
        first_bad_us=first,
        last_bad_us=last,
        commonest="no answer" if commonest == 0 else str(commonest or ""),
        reason=str(reason or ""),
        before=Shares(*answers.ask(before)[0]),
        cited=cite.add("ledger", f"{kind}s in the incident's window", ask),
        cited_before=cite.add("ledger", f"shares of {kind}s in the baseline", before),
    )


def _purchases(windows: Windows, answers: Tables, cite: Citations) -> Purchases:
    cited: dict[str, str] = {}
    baseline = windows.baseline

    def ask(
        name: str, what: str, select: str, where: str = "", of: Window = windows.incident
    ) -> Any:
        first = _within(of).replace("done_unix_us", "first_done_unix_us")
        wanted = f"{where} AND {first}" if where else first
        sql = f"SELECT {select} FROM purchases WHERE {wanted}"  # noqa: S608
        cited[name] = cite.add("ledger", what, sql)
        return answers.value(sql)

    lost, unsettled, refused = views.FAILED, views.UNSETTLED, views.REFUSED
    late = f"outcome = 'ok' AND took_ms > {views.SLOW_MS}"
    money = "coalesce(sum(amount_minor), 0)"
    return Purchases(
        begun=ask("begun", "purchases begun", "count(*)"),
        lost=ask("lost", "purchases whose last attempt failed", "count(*)", lost),
        delayed=ask("delayed", "orders confirmed late", "count(*)", late),
        unsettled=ask("unsettled", "orders taken and not settled at once", "count(*)", unsettled),
        retried=ask("retried", "purchases tried more than once", "count(*)", "attempts > 1"),
        saved=ask(
            "saved",
            "of these, those that ended well",
            "count(*)",
            "attempts > 1 AND outcome IN ('ok', 'unsettled')",
        ),
        refused=ask("refused", "purchases that were refused in the end", "count(*)", refused),
        begun_before=ask(
            "begun_before", "purchases begun in the baseline", "count(*)", of=baseline
        ),
        refused_before=float(
            ask(
                "refused_before",
                "the share of purchases that were refused in the baseline",
                f"coalesce(avg(({refused})::INT), 0)",
                of=baseline,
            )
        ),
        refused_minor=ask(
            "refused_minor", "money of refused purchases, minor units", money, refused
        ),
        lost_minor=ask("lost_minor", "money of lost purchases, minor units", money, lost),
        unsettled_minor=ask(
            "unsettled_minor", "money of unsettled orders, minor units", money, unsettled
        ),
        without_amount=ask(
            "without_amount",
            "lost purchases whose amount is not known",
            "count(*)",
            f"{lost} AND amount_minor IS NULL",
        ),
        cited=cited,
    )


def _seen(
    kind: Kind, window: Window, within: str, answers: Tables, kept: sli.Kept, cite: Citations
) -> Seen:
    service, method = ENTRANCES[kind]
    cited: dict[str, str] = {}
    answered = failed = unseen = None
    if (found := kept.find(sli.ANSWERS)) is not None and found.series:
        counts = [
            (
                series.labels.get("http_response_status_code", ""),
                sli.increase(series.points, window.start_unix_s, window.end_unix_s),
            )
            for series in found.series
            if series.labels.get("service_name") == service
            and series.labels.get("http_request_method") == method
            and series.labels.get("http_route", "").startswith(_PREFIX[kind])
        ]
        answered = sum(count for _, count in counts)
        failed = sum(count for status, count in counts if status.startswith("5"))
        of = f'service_name="{service}", http_request_method="{method}"'
        cited["answered"] = cite.add(
            "query",
            f"requests that {service} answered, counted at every step; resets counted whole",
            f"{found.query.replace(sli.COUNT, f'{sli.COUNT}{{{of}}}')}"
            f" from {window.start_unix_s:.0f} to {window.end_unix_s:.0f}",
        )
    if answers.value("SELECT count(*) FROM spans"):
        sql = (
            "SELECT count(*) FROM requests ANTI JOIN (SELECT DISTINCT trace_id"  # noqa: S608
            f" FROM spans WHERE service = '{service}') USING (trace_id)"
            f" WHERE kind = '{kind}' AND {views.FAILED} AND trace_id <> '' AND {within}"
        )
        unseen = answers.value(sql)
        cited["unseen"] = cite.add("bundle", f"failed {kind}s that left no span at {service}", sql)
    return Seen(kind=kind, answered=answered, failed=failed, unseen=unseen, cited=cited)


def _budget(
    slo: Objective,
    promised: Objectives,
    window: Window,
    requests: Sequence[Requests],
    kept: sli.Kept,
    cite: Citations,
) -> Budget:
    points = [
        (at_s, value)
        for at_s, value in kept.points(slo.id)
        if window.start_unix_s <= at_s < window.end_unix_s
    ]
    burned = worst = None
    cited = ""
    if points and (found := kept.find(slo.id)) is not None:
        burned = sum(value for _, value in points) * found.step_s / slo.budget / promised.period_s
        worst = max(value for _, value in points)
        cited = cite.add(
            "query",
            f"bad share of {slo.id}; burned: its mean over the budget, times its time over the"
            " period",
            f"{slo.recorded} from {window.start_unix_s:.0f} to {window.end_unix_s:.0f}",
        )
    by_clients, cited_clients = None, ""
    of = next((each for each in requests if _SLOS[each.kind] == slo.service), None)
    if of is not None and of.sent and slo.name in ("errors", "latency"):
        share = of.bad_share if slo.name == "errors" else of.slow / max(1, of.sent - of.bad)
        lasted_s = window.end_unix_s - window.start_unix_s
        by_clients = share / slo.budget * lasted_s / promised.period_s
        cited_clients = of.cited
    return Budget(slo, burned, worst, by_clients, cited, cited_clients)
