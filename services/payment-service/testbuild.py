"""The payment service with crash points and mutants: `python testbuild.py serve`, for tests only.

What it runs is the service's own code; its repository, acquirer client and rules are wrapped.
"""

import sys
import uuid
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from payment_service import acquirer, app
from payment_service.acquirer import Acquirer, Answer, OutcomeUnknownError
from payment_service.model import Payment, Status
from payment_service.repository import Repository
from payment_service.service import PaymentService

from services.testbuild import crash

_SERVICE = "payment"


def _failure_hides_charge() -> None:
    """A lost answer of the acquirer is taken for a decline."""
    ask = Acquirer.ask

    async def assume(self: Acquirer, payment: Payment) -> Answer:
        try:
            return await ask(self, payment)
        except OutcomeUnknownError:
            return Answer(approved=False, reason="card_declined", reference="")

    Acquirer.ask = assume  # type: ignore[method-assign]


def _refund_twice() -> None:
    """What was refunded is written down as captured, so that it can be refunded again."""
    settle = Repository.settle

    def forget(self: Repository, payment: Payment, status: Status, *args: Any, **kw: Any) -> Any:
        written = Status.CAPTURED if status == Status.REFUNDED else status
        return settle(self, payment, written, *args, **kw)

    Repository.settle = forget  # type: ignore[method-assign]


def _new_key_per_ask() -> None:
    """The acquirer cannot tell a repeated ask from a new charge."""
    acquirer.charge_key = lambda payment: f"{payment.id}-{uuid.uuid4().hex[:8]}"


def main() -> None:
    """Wrap, then be the service."""
    crash.mutate(
        {
            "failure-hides-charge": _failure_hides_charge,
            "refund-twice": _refund_twice,
            "new-key-per-ask": _new_key_per_ask,
        }
    )
    crash.wrap(Repository, "open", _SERVICE, "open.before", "open.after")
    crash.wrap(Acquirer, "ask", _SERVICE, "ask.before", "ask.after")
    crash.wrap(Repository, "settle", _SERVICE, "settle.before", "settle.after")
    crash.wrap(Repository, "cancel", _SERVICE, "cancel.before", "cancel.after")
    for method in ("pay", "cancel", "refund"):
        crash.wrap(PaymentService, method, _SERVICE, after="answer.before")
    app.main()


if __name__ == "__main__":
    main()
