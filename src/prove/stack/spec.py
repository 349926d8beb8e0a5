"""What the supervisor needs to know about one process."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Group = Literal["shop", "observability"]


@dataclass(frozen=True)
class ProcessSpec:
    """One process of the stack: how it is started, known to be ready, and stopped.

    `ready_url` answers 2xx once the process can do its work. `env` is laid over the environment
    of `provectl`. The process is started when all it `needs` are ready, and stopped after all that
    need it. `stop_timeout_s` is the time from SIGTERM to SIGKILL.
    """

    name: str
    argv: tuple[str, ...]
    ready_url: str
    ports: tuple[int, ...]
    group: Group
    env: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    stop_timeout_s: float = 10
