"""The client of the acquirer, the outside provider that moves the money."""

import asyncio
from dataclasses import dataclass
from typing import Any

import aiohttp

from payment_service.model import Payment, Status

# The answers by which the acquirer says that it did nothing and never will. Anything else that is
# not a 200 leaves open whether money moved.
_REFUSALS = frozenset({400, 404, 413, 422})


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
        self._session = aiohttp.ClientSession(timeout=self._timeout)

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
            RefusedError: the acquirer will not do it.
        """
        if payment.status == Status.PENDING:
            body = await self._post(
                "/v1/charges",
                {
                    "key": payment.id,
                    "amount_minor": payment.amount_minor,
                    "currency": payment.currency,
                    "method_token": payment.method_token,
                    "reference": payment.order_id,
                },
            )
            reference = "charge_id"
        else:
            body = await self._post(
                "/v1/refunds",
                {
                    "key": f"{payment.id}-refund",
                    "charge_key": payment.id,
                    "amount_minor": payment.amount_minor,
                },
            )
            reference = "refund_id"
        try:
            return Answer(
                approved={"approved": True, "declined": False}[body["status"]],
                reason=body.get("reason") or None,
                reference=body[reference],
            )
        except (KeyError, TypeError, AttributeError):
            raise OutcomeUnknownError("the acquirer's answer makes no sense") from None

    async def _post(self, path: str, body: dict[str, object]) -> Any:
        assert self._session is not None, "open() comes first"  # noqa: S101
        self._trouble = None
        try:
            async with self._session.post(self._url + path, json=body) as response:
                if response.status == 200:
                    return await response.json()
                if response.status in _REFUSALS:
                    raise RefusedError(f"the acquirer refused with status {response.status}")
                self._trouble = f"the acquirer answered {response.status}"
        except TimeoutError:
            self._trouble = "the acquirer did not answer in time"
        except (aiohttp.ClientError, ValueError, asyncio.IncompleteReadError) as error:
            self._trouble = f"the acquirer's answer was lost: {type(error).__name__}"
        raise OutcomeUnknownError(self._trouble)
