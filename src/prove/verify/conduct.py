"""Was the run the one that its plan asks for? (pure)

A shop that refuses everything, answers nothing or is never killed keeps every promise: such a run
would hold, and prove nothing.
"""

from collections.abc import Iterable, Iterator, Sequence

from prove.verify import audit
from prove.verify.audit import Kind
from prove.verify.checker import Violation
from prove.verify.history import Event
from prove.verify.nemesis import KILLS, Act
from prove.verify.plan import Fault, Plan, Purchase


def check(
    plan: Plan,
    purchases: Sequence[Purchase],
    faults: Sequence[Fault],
    events: Sequence[Event],
    acts: Iterable[Act],
) -> list[Violation]:
    """Purchases that stayed open, refusals without a reason in the plan, kills that are missing.

    `purchases` and `faults` are those of the plan that were due by now.
    """
    found = [*_unanswered(purchases, events), *_refusals(plan, events)]
    return [*found, *_kills(faults, events, acts)]


def _unanswered(purchases: Sequence[Purchase], events: Sequence[Event]) -> Iterator[Violation]:
    last = {(event.op, event.kind): event for event in events}
    ended = {(event.op, event.kind) for event in events if event.type in ("ok", "fail")}
    for purchase in purchases:
        for kind in ("order", "cancel"):
            end = last.get((purchase.op, kind))
            if (purchase.op, kind) in ended or (end is None and kind == "cancel"):
                continue
            yield Violation(
                kind=Kind.UNANSWERED,
                op=purchase.op,
                order_id="",
                trace_id="",
                subject=purchase.key,
                at_unix_us=end.at_unix_us if end else 0,
                expected=f"a final answer to its {kind} once everything was healed",
                found=_last(end),
            )


def _last(end: Event | None) -> str:
    if end is None:
        return "it was never sent"
    answer = end.status or end.detail or "no answer"
    return f"still open after attempt {end.attempt}: {answer}"


def _refusals(plan: Plan, events: Sequence[Event]) -> Iterator[Violation]:
    """One a purchase: all its final answers are the same, or the checker tells."""
    wanted = audit.quantities(line for purchase in plan.purchases for line in purchase.lines)
    scarce = {product.sku for product in plan.products if product.stock < wanted[product.sku]}
    planned = {purchase.op: purchase for purchase in plan.purchases}
    told = set()
    for event in events:
        if event.type != "fail" or (event.op, event.kind) in told:
            continue
        purchase = planned[event.op]
        if event.kind == "order":
            explained = _explained(purchase, event, scarce)
        else:
            explained = (event.status, event.detail) == (409, "not-cancellable")
        if not explained:
            told.add((event.op, event.kind))
            yield Violation(
                kind=Kind.WRONG_REFUSAL,
                op=event.op,
                order_id=event.order_id,
                trace_id="",
                subject=event.order_id or event.key,
                at_unix_us=event.at_unix_us,
                expected=f"no refusal but one that the plan explains ({purchase.method})",
                found=f"its {event.kind} was answered {event.status} {event.detail}".rstrip(),
            )


def _explained(purchase: Purchase, refusal: Event, scarce: set[str]) -> bool:
    match refusal.status, refusal.detail:
        case 402, "declined":
            return purchase.method.startswith("tok_decline")
        case 409, "stock-short" | "reservation-gone":
            return any(sku in scarce for sku, _ in purchase.lines)
        case 409, "order-cancelled":
            return purchase.cancel_after_s is not None
    return False


def _kills(
    faults: Sequence[Fault], events: Sequence[Event], acts: Iterable[Act]
) -> Iterator[Violation]:
    planned = sum(fault.kind != "cut" for fault in faults)
    killed = sum(act.did in KILLS for act in acts)
    if killed < planned:
        yield Violation(
            kind=Kind.TOO_FEW_KILLS,
            op=None,
            order_id="",
            trace_id="",
            subject="kills",
            at_unix_us=events[-1].at_unix_us if events else 0,
            expected=f"{planned} kills, as the plan asks",
            found=f"{killed}",
        )
