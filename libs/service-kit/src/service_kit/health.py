"""Liveness, readiness and startup, as Kubernetes asks for them."""

from collections.abc import Callable, Mapping

from opentelemetry.instrumentation.utils import suppress_instrumentation

Check = Callable[[], None]
"""Returns when all is well, raises with the reason otherwise."""

Answer = tuple[int, dict[str, object]]

PATHS = ("/livez", "/readyz", "/startupz")


class Health:
    """The state behind /livez, /readyz and /startupz.

    Readiness looks at the service's own `checks` only; `peers` are reported and never fail it.
    """

    def __init__(
        self, checks: Mapping[str, Check], peers: Mapping[str, Check] | None = None
    ) -> None:
        self._checks = dict(checks)
        self._peers = dict(peers or {})
        self.started = False
        self.draining = False

    def livez(self) -> Answer:
        """200 as long as the process can answer at all."""
        return _answer(True, {})

    def startupz(self) -> Answer:
        """200 once the service has started."""
        return _answer(self.started, {"started": "ok" if self.started else "not yet"})

    def readyz(self) -> Answer:
        """200 when the service should get traffic: started, not shutting down, checks pass."""
        if self.draining:
            return _answer(False, {"shutdown": "draining"})
        checks = {name: _run(check) for name, check in self._checks.items()}
        ready = self.started and all(result == "ok" for result in checks.values())
        peers = {name: _run(check) for name, check in self._peers.items()}
        return _answer(ready, checks, peers)

    def answer(self, path: str) -> Answer:
        """The answer for one of `PATHS`."""
        return {"/livez": self.livez, "/readyz": self.readyz, "/startupz": self.startupz}[path]()


def _run(check: Check) -> str:
    try:
        with suppress_instrumentation():
            check()
    except Exception as error:  # whatever it is, it is the answer
        return str(error).partition("\n")[0] or type(error).__name__
    return "ok"


def _answer(ok: bool, checks: dict[str, str], peers: dict[str, str] | None = None) -> Answer:
    body: dict[str, object] = {
        "status": "ok" if ok else "unavailable",
        "checks": checks,
        "peers": peers or {},
    }
    return (200 if ok else 503), body
