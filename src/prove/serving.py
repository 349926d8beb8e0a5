"""Small HTTP servers of our own, beside what else their process does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

HOST = "127.0.0.1"


@asynccontextmanager
async def serving(
    app: web.Application, port: int = 0, host: str = HOST, shutdown_timeout_s: float = 60
) -> AsyncIterator[int]:
    """Answer at a port while the block lasts, and then finish what is under way; gives the port.

    0: one that is free. Raises OSError when it can't listen there.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=shutdown_timeout_s)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
