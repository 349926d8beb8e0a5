"""Ways from this machine to what runs in a cluster: `kubectl port-forward`, kept open."""

import subprocess
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from prove.cluster.install import Target

PORTS = {
    "product": 8001,
    "order": 8002,
    "payment": 8003,
    "prometheus": 9090,
    "alertmanager": 9093,
    "jaeger": 16686,
    "victorialogs": 9428,
    "grafana": 3000,
}
"""Services of the chart and their ports; here each is at the same one, moved by an offset."""
_PAUSE_S = 1.0


@dataclass(frozen=True)
class Way:
    """From a port of this machine's loopback to a Service."""

    service: str
    local: int

    @property
    def url(self) -> str:
        """Where it is here."""
        return f"http://127.0.0.1:{self.local}"


class Forwards:
    """Open while entered; one that breaks (its pod went) is opened again by `watch`."""

    def __init__(self, target: Target, services: list[str], offset: int = 0) -> None:
        self._target = target
        self.ways = [Way(name, PORTS[name] + offset) for name in services]
        self._open: dict[Way, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        for way in self.ways:
            self._start(way)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._open.values():
            process.terminate()
        for process in self._open.values():
            process.wait()

    def watch(self) -> None:
        """Open again what breaks, until interrupted."""
        while True:
            for way in self.ways:
                if self._open[way].poll() is not None:
                    self._start(way)
            time.sleep(_PAUSE_S)

    def _start(self, way: Way) -> None:
        words = ("port-forward", f"service/{way.service}", f"{way.local}:{PORTS[way.service]}")
        self._open[way] = subprocess.Popen(
            self._target.kubectl(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is ours to pass on
        )
