"""The durable worker: asks the acquirer, writes down what came of it, and tells who waits.

An ask outlives the request that began it. What a crash, a time-out or a lost answer leaves open is
found by its expired lease and asked again under the same key. That is no retry of a failed call
(those belong to the Order Service): it is how an unknown outcome is resolved.
"""

import asyncio
from collections import defaultdict

from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from service_kit import logs
from sqlalchemy.exc import SQLAlchemyError

from payment_service.acquirer import Acquirer, OutcomeUnknownError, RefusedError
from payment_service.metrics import Metrics
from payment_service.model import Payment, Status
from payment_service.repository import Repository, unix_ms

_MOST_AT_ONCE = 32  # payments taken over by one process at the same time
_FIRST_PAUSE_S = 0.1  # before an unknown outcome is asked again; doubles each time
_LONGEST_PAUSE_S = 30.0
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
        self._asks: set[asyncio.Task[None]] = set()
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

    def lease_ms(self) -> int:
        """Until when a payment leased now belongs to this process."""
        return unix_ms() + int(self._lease_s * 1000)

    def submit(self, payment: Payment) -> asyncio.Task[None]:
        """Ask the acquirer in the background for a payment leased by this process."""
        ask = asyncio.create_task(self._ask(payment))
        self._asks.add(ask)
        ask.add_done_callback(self._asks.discard)
        return ask

    async def wait(self, payment: Payment, wait_s: float) -> Payment:
        """The payment once it is settled, or as it is after `wait_s`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        future: asyncio.Future[Payment] = loop.create_future()
        self._waiters[payment.id].add(future)
        try:
            while not payment.settled and (left := deadline - loop.time()) > 0:
                await asyncio.wait({future}, timeout=min(left, _GLANCE_S))
                if future.done():
                    return future.result()
                with suppress_instrumentation():
                    seen = await asyncio.to_thread(self._repository.get, payment.id)
                payment = seen or payment
            return payment
        finally:
            self._waiters[payment.id].discard(future)
            if not self._waiters[payment.id]:
                del self._waiters[payment.id]

    async def _poll(self) -> None:
        while True:
            try:
                room = _MOST_AT_ONCE - len(self._asks)
                if room > 0:
                    with suppress_instrumentation():
                        left = await asyncio.to_thread(
                            self._repository.claim, self.lease_ms(), room
                        )
                    for payment in left:
                        self._take_over(payment)
            except SQLAlchemyError as error:
                _log.warning("cannot look for unsettled payments", reason=_first_line(error))
            try:
                await asyncio.wait_for(self._due.wait(), self._poll_s)
            except TimeoutError:
                continue
            self._due.clear()

    def _take_over(self, payment: Payment) -> None:
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
        self._metrics.settled(payment, settled)
        _log.info(
            "payment settled",
            payment_id=settled.id,
            order_id=settled.order_id,
            status=settled.status,
            attempts=payment.attempts,
        )
        for future in self._waiters.get(settled.id, ()):
            if not future.done():
                future.set_result(settled)

    async def _settle(self, payment: Payment) -> Payment | None:
        """Ask once and write the outcome."""
        charging = payment.status == Status.PENDING
        reason = reference = None
        try:
            answer = await self._acquirer.ask(payment)
        except RefusedError as refused:
            _log.error("the acquirer refused", payment_id=payment.id, reason=str(refused))
            becomes = Status.FAILED if charging else Status.CAPTURED
        else:
            if charging:
                becomes = Status.CAPTURED if answer.approved else Status.DECLINED
                reason, reference = answer.reason, answer.reference
            else:
                becomes = Status.REFUNDED if answer.approved else Status.CAPTURED
        return await asyncio.to_thread(
            self._repository.settle, payment, becomes, reason=reason, reference=reference
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
