"""`python -m prove.injector`: the injector of the stack that `PROVE_*` means."""

import asyncio
import contextlib
import signal
import sys
from typing import Any

from service_kit import logs

from prove.errors import UserError
from prove.injector import api
from prove.injector.effects import Effects
from prove.injector.leases import Leases
from prove.injector.pages import Inbox
from prove.serving import serving
from prove.stack import settings as stack_settings
from prove.stack.drill import INJECTOR
from prove.stack.settings import StackSettings

SHUTDOWN_S = 1.0


async def serve(settings: StackSettings) -> None:
    """Until SIGTERM or Ctrl-C; then every fault is taken back."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    leases = Leases(settings, Effects(settings))
    app = api.application(leases, Inbox(settings.pages_file), _token(settings))
    try:
        async with serving(app, settings.injector_port, shutdown_timeout_s=SHUTDOWN_S):
            working = asyncio.gather(leases.recover(), leases.run())
            either: set[asyncio.Future[Any]] = {working, asyncio.ensure_future(stop.wait())}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
    finally:
        await leases.close()


def main() -> None:
    """Entry point."""
    try:
        settings = stack_settings.load()
        logs.setup(INJECTOR, "info")
        asyncio.run(serve(settings))
    except (UserError, OSError) as error:
        sys.exit(f"{INJECTOR}: {error}")


def _token(settings: StackSettings) -> str | None:
    try:
        return settings.admin_token_file.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    main()
