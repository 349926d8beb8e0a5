"""The customers of an experiment: they arrive by the plan, whatever becomes of those before them.

Each attempt is in the history before it is sent. What leaves a purchase open (no answer, 202, 409
while the key is in flight, 5xx) is tried again under the same key until an answer is final, as a
careful client would: RFC 9110 §9.2.2 and the Idempotency-Key draft.
"""

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from prove.verify.history import Event, HistoryWriter, Kind, Type
from prove.verify.plan import PATIENT_S, Purchase

LATE_S = 0.1
MAX_OPEN = 1_000
"""Purchases under way at once; above it, arrivals wait and are counted as late."""
BACKOFF_MIN_S = 0.05
BACKOFF_MAX_S = 16.0
RETRIABLE = frozenset({"key-in-flight", "conflict"})
"""Problems with status 409 that say: not now."""
PER_REQUEST = frozenset({"trace_id", "request_id"})
"""Members of a problem (RFC 9457) that tell of the request, not of the purchase."""


@dataclass(frozen=True)
class Answer:
    """What came back. `status` 0: nothing; `detail`: the problem's slug or the error's name.

    `retry_after_s`: what the shop asks to wait before the next attempt.
    """

    status: int = 0
    body: Mapping[str, Any] = field(default_factory=dict)
    replayed: bool = False
    detail: str = ""
    retry_after_s: int = 0

    @property
    def order_id(self) -> str:
        """The order that the answer names, or ''."""
        return str(self.body.get("id" if self.status < 300 else "order_id") or "")

    @property
    def digest(self) -> str:
        """SHA-256 of what the body says, whatever the order of its members."""
        said = {k: v for k, v in self.body.items() if self.status < 300 or k not in PER_REQUEST}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def order_type(answer: Answer) -> Type:
    """Whether the answer to an order ends the purchase, and how."""
    if answer.status == 201:
        return "ok"
    return "fail" if _is_refusal(answer) else "info"


def cancel_type(answer: Answer) -> Type:
    """The same for the answer to a cancellation; 202: cancelled, the refund is under way."""
    if answer.status in (200, 202):
        return "ok"
    return "fail" if _is_refusal(answer) else "info"


def _is_refusal(answer: Answer) -> bool:
    return 400 <= answer.status < 500 and not (
        answer.status in (408, 429) or (answer.status == 409 and answer.detail in RETRIABLE)
    )


def backoff_s(failures: int, answer: Answer) -> float:
    """Before the next attempt: what the shop asks for, and then some.

    That doubles and is drawn from all of it ("full jitter"), lest those who failed together come
    back together.
    """
    limit = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(failures, 20))
    return answer.retry_after_s + random.uniform(BACKOFF_MIN_S, BACKOFF_MIN_S + limit)  # noqa: S311


@dataclass
class _Attempts:
    """Of one purchase: the number of the latest, and the order once it is known."""

    count: int = 0
    order_id: "asyncio.Future[str]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def next(self) -> int:
        self.count += 1
        return self.count

    def name(self, order_id: str) -> None:
        if not self.order_id.done():
            self.order_id.set_result(order_id)


class Clients:
    """All customers of one round; `run` returns when each has a final answer."""

    def __init__(self, url: str, purchases: Sequence[Purchase], history: HistoryWriter) -> None:
        self._orders = f"{url}/api/v1/orders"
        self._purchases = purchases
        self._history = history
        self.all_sent = asyncio.Event()
        self.last_op = -1
        self.sent = 0
        self.late = 0
        self.open = 0

    async def run(self) -> None:
        """Raises OSError when the history cannot be written."""
        started = time.monotonic()
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(connector=connector, trust_env=False) as session,
            asyncio.TaskGroup() as tasks,
        ):
            first_s = self._purchases[0].offset_s if self._purchases else 0
            for purchase in self._purchases:
                due = started + purchase.offset_s - first_s
                while (early_s := due - time.monotonic()) > 0 or self.open >= MAX_OPEN:  # noqa: ASYNC110
                    await asyncio.sleep(max(early_s, 0.001))
                self.late += early_s < -LATE_S
                self.sent += 1
                self.open += 1
                tasks.create_task(self._buy(session, purchase))
            self.all_sent.set()

    async def _buy(self, session: aiohttp.ClientSession, purchase: Purchase) -> None:
        attempts = _Attempts()
        try:
            async with asyncio.TaskGroup() as tasks:
                if purchase.cancel_after_s is not None:
                    after_s = purchase.cancel_after_s
                    tasks.create_task(self._cancel(session, purchase, attempts, after_s))
                submits = 1 + purchase.double
                await asyncio.gather(
                    *(self._submit(session, purchase, attempts) for _ in range(submits))
                )
                attempts.name("")  # nothing to cancel, if no answer has named an order
        finally:
            self.open -= 1

    async def _submit(
        self, session: aiohttp.ClientSession, purchase: Purchase, attempts: _Attempts
    ) -> None:
        """Until the purchase has a final answer."""
        body = json.dumps(
            {
                "customer_id": purchase.customer,
                "lines": [{"sku": sku, "quantity": n} for sku, n in purchase.lines],
                "payment_method": purchase.method,
            }
        ).encode()
        timeout_s, failures = purchase.timeout_s, 0
        while True:
            attempt = attempts.next()
            invoke = _event(
                purchase, attempt, "order", "invoke", lines=purchase.lines, method=purchase.method
            )
            await self._history.append(invoke)
            self.last_op = max(self.last_op, purchase.op)
            answer = await _post(
                session, self._orders, body, {"Idempotency-Key": purchase.key}, timeout_s
            )
            outcome = order_type(answer)
            await self._history.append(_end(purchase, attempt, "order", outcome, answer))
            if answer.order_id:
                attempts.name(answer.order_id)
            if outcome != "info":
                return
            await asyncio.sleep(backoff_s(failures, answer))
            timeout_s, failures = PATIENT_S, failures + 1

    async def _cancel(
        self,
        session: aiohttp.ClientSession,
        purchase: Purchase,
        attempts: _Attempts,
        after_s: float,
    ) -> None:
        """Once the order is known; until it is cancelled or refuses to be."""
        order_id = await attempts.order_id
        if not order_id:
            return
        await asyncio.sleep(after_s)
        url, failures = f"{self._orders}/{order_id}/cancel", 0
        while True:
            attempt = attempts.next()
            await self._history.append(
                _event(purchase, attempt, "cancel", "invoke", order_id=order_id)
            )
            answer = await _post(session, url, b"", {}, PATIENT_S)
            outcome = cancel_type(answer)
            await self._history.append(_end(purchase, attempt, "cancel", outcome, answer))
            if outcome != "info":
                return
            await asyncio.sleep(backoff_s(failures, answer))
            failures += 1


def _end(purchase: Purchase, attempt: int, kind: Kind, outcome: Type, answer: Answer) -> Event:
    total = answer.body.get("total_minor")
    return _event(
        purchase,
        attempt,
        kind,
        outcome,
        order_id=answer.order_id,
        status=answer.status,
        replayed=answer.replayed,
        body_sha256="" if outcome == "info" else answer.digest,
        total_minor=total if isinstance(total, int) else None,
        detail=answer.detail,
    )


def _event(purchase: Purchase, attempt: int, kind: Kind, outcome: Type, **more: Any) -> Event:
    now_us = time.time_ns() // 1000
    key, customer = purchase.key, purchase.customer
    return Event(now_us, purchase.op, attempt, kind, outcome, key, customer, **more)


async def _post(
    session: aiohttp.ClientSession,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    timeout_s: float,
) -> Answer:
    try:
        async with session.post(
            url,
            data=body,
            headers={
                **headers,
                **({"Content-Type": "application/json"} if body else {}),
                "x-envoy-expected-rq-timeout-ms": str(max(1, round(1000 * timeout_s))),
            },
            timeout=aiohttp.ClientTimeout(total=timeout_s),
        ) as response:
            text = await response.read()
            status, answered = response.status, response.headers
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return Answer(detail=type(error).__name__)
    try:
        content = json.loads(text)
    except ValueError:
        return Answer(detail=f"no JSON in an answer with status {status}")
    content = content if isinstance(content, dict) else {}
    problem = str(content.get("type", "")).rpartition("/")[2] if status >= 400 else ""
    replayed = answered.get("Idempotency-Replayed") == "true"
    retry_after = answered.get("Retry-After", "")
    wait_s = int(retry_after) if retry_after.isdecimal() else 0
    return Answer(status, content, replayed, problem, wait_s)
