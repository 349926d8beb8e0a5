"""What the supervisor needs to know about one process."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Group = Literal["shop", "observability"]


@dataclass(frozen=True)
class ProcessSpec:
    """One process of the stack: how it is started, known to be ready, and stopped.

    `ready_url` answers 2xx once the process can do its work, or takes connections
    (`postgresql://`). `env` is laid over the environment of `provectl`. The process is started when
    all it `needs` are ready, and stopped after all that need it. `stop_timeout_s` is the time from
    `stop_signal` to SIGKILL. `user`: another account to run it as.
    """

    name: str
    argv: tuple[str, ...]
    ready_url: str
    ports: tuple[int, ...]
    group: Group
    env: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    stop_timeout_s: float = 10
    stop_signal: int = signal.SIGTERM
    user: str | None = None
