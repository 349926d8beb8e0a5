"""`python -m prove.mesh.issuer`: gives each identity of a local mesh its certificate, renews it.

A process of the stack that `PROVE_*` means. A certificate lives for a day and is renewed when half
of that is over, so it can be missing for twelve hours before anything breaks.
"""

import asyncio
import contextlib
import signal
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web
from service_kit import logs

from prove.errors import UserError
from prove.mesh import certificates, edges, envoy
from prove.mesh.certificates import Authority
from prove.serving import serving
from prove.stack import mesh
from prove.stack import settings as stack_settings
from prove.stack.settings import StackSettings

LIFETIME = timedelta(hours=24)
RENEWED_WITH = timedelta(hours=12)
"""What is left of a certificate's life when the next takes its place."""
POLL_S = 0.2

_log = logs.get_logger("prove.issuer")


@dataclass
class Issuer:
    """Of one stack's mesh; `keep` is to be called again and again."""

    settings: StackSettings
    authority: Authority
    _doomed: dict[str, datetime] = field(default_factory=dict)

    def keep(self) -> None:
        """Issue what is due; raises OSError."""
        for workload in mesh.identities():
            directory = mesh.certificates_dir(self.settings) / workload
            doom = self._doom(workload)
            if doom:
                if self._doomed.get(workload) != doom:
                    self._issue(workload, directory, doom)
                    self._doomed[workload] = doom
                continue
            was_doomed = self._doomed.pop(workload, None)
            expiry = certificates.expiry(directory)
            left = expiry - datetime.now(UTC) if expiry else timedelta(0)
            if was_doomed or left < RENEWED_WITH or not self._signed(directory):
                self._issue(workload, directory, datetime.now(UTC) + LIFETIME)

    def _issue(self, workload: str, directory: Path, until: datetime) -> None:
        pair = self.authority.issue(edges.identity(workload), until)
        certificates.store(directory, pair, self.authority.pem)
        _log.info("certificate_issued", workload=workload, until=until.isoformat())

    def _signed(self, directory: Path) -> bool:
        """By this authority, not one before it."""
        return (directory / envoy.CA).read_bytes() == self.authority.pem

    def _doom(self, workload: str) -> datetime | None:
        """When the certificate is to expire that an incident wants; None without one."""
        try:
            text = mesh.doomed_file(self.settings.home, workload).read_text(encoding="utf-8")
            return datetime.fromtimestamp(float(text), UTC)
        except (FileNotFoundError, ValueError):
            return None


async def serve(settings: StackSettings) -> None:
    """Until SIGTERM or Ctrl-C."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    issuer = Issuer(settings, Authority.at(mesh.certificates_dir(settings) / "ca"))
    await asyncio.to_thread(issuer.keep)
    app = web.Application()
    app.router.add_get("/readyz", _ready)
    async with serving(app, settings.issuer_port):
        while not stop.is_set():
            await asyncio.to_thread(issuer.keep)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await stop.wait()


async def _ready(_request: web.Request) -> web.Response:
    return web.Response(text="ready\n")


def main() -> None:
    """Entry point."""
    try:
        settings = stack_settings.load()
        logs.setup("issuer", "info")
        asyncio.run(serve(settings))
    except (UserError, OSError, ValueError) as error:
        sys.exit(f"issuer: {error}")


if __name__ == "__main__":
    main()
