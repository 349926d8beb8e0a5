"""The client of the acquirer, the outside provider that moves the money.

An answer counts only if it is beyond doubt the acquirer's own word about this very payment. All
else (a proxy's error page, a redirect, half an answer) leaves open whether money moved.
"""

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import aiohttp

from payment_service.model import ASKS_FOR_CHARGE, Payment

MOST_ASKS = 256  # at the same time: each has a connection, none spends its time waiting for one

# By these problems the acquirer says that it did nothing, and would not if asked again.
_REFUSED_CHARGE = {400: "malformed", 413: "body-too-large", 422: "validation"}
_REFUSED_REFUND = {**_REFUSED_CHARGE, 404: "not-found", 409: "not-refundable"}
_NOT_BOOKED = {404: "not-found"}
_KEY = re.compile(r"/pay_[0-9a-f]{32}$")


class OutcomeUnknownError(Exception):
    """Money may or may not have moved: ask again under the same key, never assume."""


class RefusedError(Exception):
    """The acquirer refused the request as such; no money moved."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the acquirer has booked."""

    approved: bool
    reason: str | None
    reference: str


class Acquirer:
    """Asks under the payment's id, by which the acquirer deduplicates."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(1.0, timeout_s))
        self._session: aiohttp.ClientSession | None = None
        self._trouble: str | None = None

    def open(self) -> None:
        """Make the connection pool; needs the running event loop."""
        connector = aiohttp.TCPConnector(limit=MOST_ASKS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def check(self) -> None:
        """A health check that costs nothing: how the last ask went."""
        if self._trouble is not None:
            raise RuntimeError(self._trouble)

    async def ask(self, payment: Payment) -> Answer:
        """Charge or refund, as the payment's status wants; one attempt, safe to repeat.

        Raises:
            OutcomeUnknownError: no answer, or one that does not tell.
            RefusedError: the acquirer will not do it, and has not done it before.
        """
        if payment.status in ASKS_FOR_CHARGE:
            return await self._charge(payment)
        body = {
            "key": refund_key(payment),
            "charge_key": charge_key(payment),
            "amount_minor": payment.amount_minor,
        }
        answer = await self._call("POST", "/v1/refunds", _REFUSED_REFUND, body)
        refund = _understood(answer, payment, refund_key(payment), "refund_id")
        if not refund.approved:
            raise RefusedError("the acquirer declined the refund")
        return refund

    async def _charge(self, payment: Payment) -> Answer:
        key = charge_key(payment)
        body = {
            "key": key,
            "amount_minor": payment.amount_minor,
            "currency": payment.currency,
            "method_token": payment.method_token,
            "reference": payment.order_id,
        }
        try:
            answer = await self._call("POST", "/v1/charges", _REFUSED_CHARGE, body)
        except RefusedError as refused:
            # That is about this ask. One before it, whose answer was lost, may have been booked.
            try:
                answer = await self._call("GET", f"/v1/charges/{key}", _NOT_BOOKED)
            except RefusedError:
                raise refused from None
        return _understood(answer, payment, key, "charge_id")

    async def _call(
        self,
        method: str,
        path: str,
        refusals: dict[int, str],
        body: dict[str, object] | None = None,
    ) -> Any:
        assert self._session is not None, "open() comes first"  # noqa: S101
        self._trouble = None
        try:
            async with self._session.request(
                method, self._url + path, json=body, allow_redirects=False
            ) as response:
                if response.status == 200:
                    return await response.json()
                if await _refuses(response, refusals):
                    raise RefusedError(f"the acquirer refused with status {response.status}")
                self._trouble = f"the acquirer answered {response.status}"
        except TimeoutError:
            self._trouble = "the acquirer did not answer in time"
        except (aiohttp.ClientError, ValueError, RecursionError, asyncio.IncompleteReadError) as e:
            self._trouble = f"the acquirer's answer was lost: {type(e).__name__}"
        raise OutcomeUnknownError(self._trouble)


def charge_key(payment: Payment) -> str:
    """The acquirer's key for the charge."""
    return payment.id


def refund_key(payment: Payment) -> str:
    """The acquirer's key for the refund."""
    return f"{payment.id}-refund"


def route(path: str) -> str:
    """The route of the acquirer that a path belongs to, for the names of spans."""
    return _KEY.sub("/{key}", path)


async def _refuses(response: aiohttp.ClientResponse, refusals: dict[int, str]) -> bool:
    """Whether this is one of the acquirer's own problems (RFC 9457) that are refusals."""
    slug = refusals.get(response.status)
    if slug is None or response.content_type != "application/problem+json":
        return False
    problem = await response.json(content_type=None)
    wanted = {"type": f"/problems/{slug}", "status": response.status}
    return isinstance(problem, dict) and wanted.items() <= problem.items()


def _understood(body: Any, payment: Payment, key: str, reference: str) -> Answer:
    try:
        answer = Answer(
            approved={"approved": True, "declined": False}[body["status"]],
            reason=body.get("reason") or None,
            reference=str(body[reference]),
        )
        ours = (key, payment.amount_minor, payment.currency)
        if (body["key"], body["amount_minor"], body["currency"]) == ours:
            return answer
    except (KeyError, TypeError, AttributeError):
        pass
    raise OutcomeUnknownError("the acquirer's answer makes no sense")
