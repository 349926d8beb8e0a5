"""Bugs that live in the real services' test builds, and for each the run that must catch it.

A proof is worth what it can refute: every bug here breaks a promise in its own way, and its run is
small and arranged so that the bug has its effect: whatever the timing, but for rivals, of whom the
second must come before the first's order is taken up again.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from prove.errors import UserError
from prove.verify.plan import PATIENT_S, CrashPoint, Fault, Plan, Product, Purchase, Service

RATE_PER_S = 10.0
STOCK = 1_000
START = -1
"""Faults are due after a purchase: this one is before the first."""
SHORT_TTL: Mapping[Service, Mapping[str, str]] = {"order": {"RESERVATION_TTL_S": "1"}}
"""A reservation lapses before a dead process's orders are taken up by another (4 s)."""

SLOW_ACQUIRER: Mapping[Service, Mapping[str, str]] = {"acquirer": {"SLOW_MS": "6000"}}
"""Its answer comes later than the customer's."""


@dataclass(frozen=True)
class Mutant:
    """A bug: of which service, what it does, and the run that shows it."""

    name: str
    service: Service
    bug: str
    purchases: tuple[Purchase, ...]
    faults: tuple[Fault, ...] = ()
    stock: int = STOCK
    env: Mapping[Service, Mapping[str, str]] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The run."""
        product = Product("SKU-0001", "Product 1", 1_250, self.stock)
        return Plan(0, RATE_PER_S, False, (product,), self.purchases, self.faults)

    @property
    def environment(self) -> dict[Service, dict[str, str]]:
        """Of the services: what the run needs, and what plants the bug."""
        given: dict[Service, dict[str, str]] = {
            service: dict(variables) for service, variables in self.env.items()
        }
        given.setdefault(self.service, {})["PROVE_MUTANT"] = self.name
        return given


def environment(name: str) -> Mapping[Service, Mapping[str, str]]:
    """What plants a bug in its service; raises UserError naming those there are."""
    if name not in MUTANTS:
        raise UserError(f"there is no mutant {name!r}; there are {', '.join(MUTANTS)}")
    return MUTANTS[name].environment


def _buy(op: int, at_s: float = 0.0, **more: object) -> Purchase:
    ordinary = Purchase(
        op=op,
        offset_s=at_s,
        customer=f"customer-{op}",
        key=f"mutant-{op}",
        lines=(("SKU-0001", 1),),
        method="tok_approve",
        timeout_s=PATIENT_S,
        double=False,
        cancel_after_s=None,
    )
    return dataclasses.replace(ordinary, **more)  # type: ignore[arg-type]


_ONE = (_buy(0),)
_CANCELLED = (_buy(0, cancel_after_s=0.2),)
_REGRETTED = tuple(_buy(op, op / 10, method="tok_slow", cancel_after_s=op / 3) for op in range(10))
"""Cancelled before, while and after the outcomes of their payments become known."""
_UNHEARD = (_buy(0, method="tok_unknown"),)
_CROWD = tuple(_buy(op, op / 400) for op in range(120))
_RIVALS = (_buy(0), _buy(1, 2.5))
"""The second buys the last one when the first's reservation has lapsed."""


def _at(service: Service, point: str) -> tuple[Fault, ...]:
    return (CrashPoint(START, service, point),)


MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant
    for mutant in (
        Mutant(
            "charge-without-key", "order", "each charge is asked for under a key of its own",
            _ONE, _at("order", "charge.after"),
        ),
        Mutant(
            "retry-with-new-key", "order", "a charge that is asked for again has a new key",
            _ONE, _at("order", "charge.after"),
        ),
        Mutant(
            "ack-before-commit", "order", "the customer is told before the order is recorded",
            _ONE,
        ),
        Mutant(
            "release-after-commit", "order", "a confirmed order's goods are put back", _ONE,
        ),
        Mutant(
            "lost-refund", "order", "a cancelled order's payment is left as it is", _CANCELLED,
        ),
        Mutant(
            "stale-read", "order", "recovery goes by an order as it once was",
            _REGRETTED, env=SLOW_ACQUIRER,
        ),
        Mutant(
            "double-recovery", "order", "an order that is being worked on is taken up once more",
            _REGRETTED, env=SLOW_ACQUIRER,
        ),
        Mutant(
            "forgotten-extend", "order", "goods whose reservation lapsed are sold all the same",
            _RIVALS, _at("order", "charge.before"), stock=1, env=SHORT_TTL,
        ),
        Mutant(
            "key-forgotten", "order", "the same key twice makes two orders",
            (_buy(0, double=True),),
        ),
        Mutant(
            "failure-hides-charge", "payment", "no answer of the acquirer is taken for a refusal",
            _UNHEARD,
        ),
        Mutant(
            "refund-twice", "payment", "a refunded payment is recorded as captured", _CANCELLED,
        ),
        Mutant(
            "new-key-per-ask", "payment", "the acquirer is asked again under another key", _UNHEARD,
        ),
        Mutant(
            "release-gives-twice", "product", "releasing again gives the goods back again",
            _CANCELLED, _at("product", "release.after"),
        ),
        Mutant(
            "lost-update", "product", "stock is read, then written", _CROWD,
        ),
        Mutant(
            "expired-counts", "product", "a lapsed reservation is sold without taking stock again",
            _ONE, _at("order", "commit.before"), env=SHORT_TTL,
        ),
    )
}  # fmt: skip
