"""The durable worker: asks the acquirer, writes down what came of it, and tells who waits.

An ask outlives the request that began it. What a crash, a time-out or a lost answer leaves open is
found by its expired lease and asked again under the same key. That is no retry of a failed call
(those belong to the Order Service): it is how an unknown outcome is resolved.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection

from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from service_kit import logs
from sqlalchemy.exc import SQLAlchemyError

from payment_service.acquirer import MOST_ASKS, Acquirer, OutcomeUnknownError, RefusedError
from payment_service.metrics import Metrics
from payment_service.model import ASKS_FOR_CHARGE, UNSETTLED, Payment, Status
from payment_service.repository import Repository, unix_ms

_BATCH = 32  # payments taken over at once
_FIRST_PAUSE_S = 0.1  # before an unknown outcome is asked again; doubles each time
_LONGEST_PAUSE_S = 3.0
_SOON_MS = 500  # who asks for a payment that is due this soon need not hasten it
_GLANCE_S = 0.25  # how often a waiter looks for what another process has settled

_log = logs.get_logger("payment_service.worker")
_tracer = trace.get_tracer("payment_service")
_propagator = TraceContextTextMapPropagator()


class Worker:
    """Lives in the event loop of one process; any number of processes may have one."""

    def __init__(
        self,
        repository: Repository,
        acquirer: Acquirer,
        metrics: Metrics,
        *,
        lease_s: float,
        poll_s: float,
    ) -> None:
        self._repository = repository
        self._acquirer = acquirer
        self._metrics = metrics
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._asks: dict[asyncio.Task[None], str] = {}
        self._waiters: defaultdict[str, set[asyncio.Future[Payment]]] = defaultdict(set)
        self._due = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for payments left behind."""
        self._poller = asyncio.create_task(self._poll(), name="payment worker")

    async def stop(self, timeout_s: float) -> None:
        """Let running asks settle for `timeout_s`; the rest stay leased, for the next process."""
        if self._poller is not None:
            self._poller.cancel()
        if self._asks:
            await asyncio.wait(self._asks, timeout=timeout_s)
        for ask in self._asks:
            ask.cancel()

    @property
    def busy(self) -> bool:
        """Whether so much is being asked already that a new payment would only wait for it."""
        return len(self._asks) >= MOST_ASKS

    def lease_ms(self) -> int:
        """Until when a payment leased now belongs to this process."""
        return unix_ms() + int(self._lease_s * 1000)

    def submit(self, payment: Payment) -> asyncio.Task[None]:
        """Ask the acquirer in the background for a payment leased by this process."""
        ask = asyncio.create_task(self._ask(payment))
        self._asks[ask] = payment.id
        ask.add_done_callback(self._asks.pop)
        return ask

    async def hasten(self, payment: Payment) -> None:
        """Ask now for an unsettled payment that would be asked for later, or was left behind.

        What this process is asking already stays as it is: however often a caller comes again,
        the acquirer hears of it once.
        """
        due_ms = payment.lease_until_ms
        if due_ms is None or due_ms - unix_ms() <= _SOON_MS or payment.id in self._asks.values():
            return
        taken = await asyncio.to_thread(self._repository.take_over, payment, self.lease_ms())
        if taken is not None:
            self._resolve(taken)

    async def wait(
        self, payment: Payment, wait_s: float, while_in: Collection[str] = UNSETTLED
    ) -> Payment:
        """The payment once it has left the statuses `while_in`, or as it is after `wait_s`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while payment.status in while_in and (left := deadline - loop.time()) > 0:
            future: asyncio.Future[Payment] = loop.create_future()
            self._waiters[payment.id].add(future)
            try:
                await asyncio.wait({future}, timeout=min(left, _GLANCE_S))
            finally:
                self._waiters[payment.id].discard(future)
                if not self._waiters[payment.id]:
                    del self._waiters[payment.id]
            if future.done():
                payment = future.result()
                continue
            with suppress_instrumentation():
                seen = await asyncio.to_thread(self._repository.get, payment.id)
            payment = seen or payment
        return payment

    def tell(self, payment: Payment) -> None:
        """Let those who wait for this payment here know that it has changed."""
        for future in self._waiters.get(payment.id, ()):
            if not future.done():
                future.set_result(payment)

    async def _poll(self) -> None:
        while True:
            try:
                # Half of what can be asked is kept for new payments.
                room = min(_BATCH, MOST_ASKS // 2 - len(self._asks))
                if room > 0:
                    with suppress_instrumentation():
                        left = await asyncio.to_thread(
                            self._repository.claim, self.lease_ms(), room
                        )
                    for payment in left:
                        self._resolve(payment)
                    if len(left) == room:
                        continue  # after an outage there are many
            except SQLAlchemyError as error:
                _log.warning("cannot look for unsettled payments", reason=_first_line(error))
            try:
                await asyncio.wait_for(self._due.wait(), self._poll_s)
            except TimeoutError:
                continue
            self._due.clear()

    def _resolve(self, payment: Payment) -> None:
        # A trace of its own, linked to the one it belongs to: that one may be over for long.
        context = _propagator.extract({"traceparent": payment.traceparent or ""})
        began = trace.get_current_span(context).get_span_context()
        span = _tracer.start_span(
            "payment resolve",
            attributes={
                "prove.payment.id": payment.id,
                "prove.order.id": payment.order_id,
                "prove.payment.attempt": payment.attempts,
            },
            links=[trace.Link(began)] if began.is_valid else [],
        )
        with trace.use_span(span):
            self.submit(payment).add_done_callback(lambda _: span.end())

    async def _ask(self, payment: Payment) -> None:
        try:
            settled = await self._settle(payment)
        except OutcomeUnknownError as unknown:
            await self._ask_again_later(payment, str(unknown))
            return
        except SQLAlchemyError as error:
            # The lease runs out and someone asks again; the acquirer's answer will be the same.
            _log.error("outcome not written", payment_id=payment.id, reason=_first_line(error))
            return
        if settled is None:  # someone else wrote it; waiters here will see it
            return
        self.tell(settled)
        if not settled.settled:  # charged, but cancelled meanwhile
            self.submit(settled)
            return
        self._metrics.settled(payment, settled)
        _log.info(
            "payment settled",
            payment_id=settled.id,
            order_id=settled.order_id,
            status=settled.status,
            attempts=payment.attempts,
        )

    async def _settle(self, payment: Payment) -> Payment | None:
        """Ask once and write the outcome."""
        charging = payment.status in ASKS_FOR_CHARGE
        reason = reference = None
        try:
            answer = await self._acquirer.ask(payment)
        except RefusedError as refused:
            _log.error("the acquirer refused", payment_id=payment.id, reason=str(refused))
            if not charging and payment.cancelled:
                # It was never told to anyone as captured and must not become it: keep asking.
                raise OutcomeUnknownError(str(refused)) from refused
            becomes = Status.FAILED if charging else Status.CAPTURED
        else:
            if charging:
                becomes = Status.CAPTURED if answer.approved else Status.DECLINED
                reason, reference = answer.reason, answer.reference
            else:
                becomes = Status.REFUNDED
        return await asyncio.to_thread(
            self._repository.settle,
            payment,
            becomes,
            self.lease_ms(),
            reason=reason,
            reference=reference,
        )

    async def _ask_again_later(self, payment: Payment, reason: str) -> None:
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(payment.attempts - 1, 20))
        _log.warning(
            "outcome unknown", payment_id=payment.id, reason=reason, ask_again_in_s=pause_s
        )
        try:
            until_ms = unix_ms() + int(pause_s * 1000)
            await asyncio.to_thread(self._repository.postpone, payment, until_ms)
        except SQLAlchemyError as error:
            _log.warning("lease not shortened", payment_id=payment.id, reason=_first_line(error))
            return
        asyncio.get_running_loop().call_later(pause_s, self._due.set)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
