"""A pager of our own: the webhook that Alertmanager tells of alerts, and when it was told."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, ValidationError

from prove.errors import UserError
from prove.injector.pages import Message
from prove.serving import HOST, serving


class Notice(BaseModel):
    """News of a page: it fires, or is over. `at` is monotonic time in seconds."""

    slo: str
    alert: str
    status: Literal["firing", "resolved"]
    at: float


class Pager:
    """Notices of pages in order of arrival, each once however often Alertmanager repeats it."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self._known: set[tuple[str, str, str]] = set()
        self._arrived = asyncio.Condition()

    async def wait(self, slo: str, status: str, since: float, until: float) -> float | None:
        """When the first such notice came after `since`; None when none has by `until`."""
        try:
            async with asyncio.timeout_at(_loop_time(until)), self._arrived:
                while True:
                    for notice in self.notices:
                        if (notice.slo, notice.status) == (slo, status) and notice.at >= since:
                            return notice.at
                    await self._arrived.wait()
        except TimeoutError:
            return None

    def since(self, moment: float) -> list[Notice]:
        """The pages that came after it."""
        return [n for n in self.notices if n.status == "firing" and n.at >= moment]

    async def take(self, body: bytes) -> None:
        """Note what is new in a message; raises ValidationError for one that isn't one."""
        at = time.monotonic()
        for alert in Message.model_validate_json(body).alerts:
            # A message tells of its whole group again, with all that was told before.
            if alert.labels.get("sloth_severity") != "page" or alert.news in self._known:
                continue
            self._known.add(alert.news)
            self.notices.append(
                Notice(
                    slo=alert.labels.get("sloth_id", ""),
                    alert=alert.labels.get("alertname", ""),
                    status=alert.status,
                    at=at,
                )
            )
        async with self._arrived:
            self._arrived.notify_all()


@asynccontextmanager
async def listening(port: int) -> AsyncIterator[Pager]:
    """A pager at http://127.0.0.1:`port`/; raises UserError when the port is taken."""
    pager = Pager()

    async def post(request: web.Request) -> web.Response:
        try:
            await pager.take(await request.read())
        except ValidationError as error:
            return web.Response(status=400, text=str(error))
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/", post)])
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(serving(app, port))
        except OSError as error:
            raise UserError(f"the pager can't listen on port {port}: {error.strerror}") from None
        yield pager


def url(port: int) -> str:
    """Where Alertmanager is to post."""
    return f"http://{HOST}:{port}/"


def _loop_time(monotonic: float) -> float:
    return asyncio.get_running_loop().time() + monotonic - time.monotonic()
