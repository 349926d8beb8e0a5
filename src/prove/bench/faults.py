"""Product reads with the fault middleware and without it, while no lease is set: does it cost?"""

import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import BaseModel

from prove import tools
from prove.bench import load, measure, reads, shop
from prove.bench.measure import Effort, Target
from prove.bench.progress import Progress
from prove.errors import UserError
from prove.stack import processes
from prove.stack.settings import StackSettings
from prove.stack.spec import ProcessSpec

Kind = Literal["with", "without"]
# Two processes of each kind: what two of the same differ by is noise.
PROCESSES: dict[str, Kind] = {
    "with 1": "with",
    "without 1": "without",
    "with 2": "with",
    "without 2": "without",
}
WITHOUT = Path("services/product-service/bench/without_faults.py")
# Connections in a closed loop, that ask one process after the other: none of them ever has a queue.
USERS = 2
MAX_PERCENT = 2.0


class Faults(BaseModel):
    """CPU µs of a request, by kind of read, by process, one a round."""

    seconds: int
    cpu_us: dict[str, dict[str, list[float]]]

    def percent(self, read: str) -> float:
        """What the middleware adds to a read: the median over rounds."""
        return median(
            (told["with"] / told["without"] - 1) * 100 for told in map(_by_kind, self._rounds(read))
        )

    def noise_percent(self, read: str) -> float:
        """What two processes of the same kind differ by: the median over rounds and kinds."""
        return median(
            abs(told[f"{kind} 1"] / told[f"{kind} 2"] - 1) * 100
            for told in self._rounds(read)
            for kind in ("with", "without")
        )

    def _rounds(self, read: str) -> list[dict[str, float]]:
        columns = self.cpu_us[read]
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def targets(self) -> list[Target]:
        """Nothing that one could notice."""
        return [
            Target(
                text=f"{read}: CPU added by the middleware, no lease set < {MAX_PERCENT:g}%",
                measured=f"{self.percent(read):+.2f}%",
                reached=self.percent(read) < MAX_PERCENT,
            )
            for read in self.cpu_us
        ]


def _by_kind(told: Mapping[str, float]) -> dict[Kind, float]:
    """The mean of the processes of each kind."""
    sums: dict[Kind, float] = {"with": 0.0, "without": 0.0}
    for name, kind in PROCESSES.items():
        sums[kind] += told[name] / 2
    return sums


def measure_faults(effort: Effort, progress: Progress) -> Faults:
    """Measure; raises UserError when something cannot be started."""
    with shop.home() as settings, shop.running(settings, specs(settings), progress) as state:
        pids = measure.pids(state)
        ports = ports_of(settings)
        for port in ports.values():
            shop.import_catalogue(settings, port, reads.CATALOGUE, progress)
        requests = {name: reads.requests_to(settings.url(port)) for name, port in ports.items()}
        cpu_us: dict[str, dict[str, list[float]]] = {
            read: {name: [] for name in PROCESSES} for read in requests["with 1"]
        }
        # The first round warms up and does not count.
        for number in range(effort.fault_rounds + 1):
            for read, readings in cpu_us.items():
                text = f"round {number}/{effort.fault_rounds}, {read}"
                targets = {name: requests[name][read] for name in PROCESSES}
                round_us = _round(pids, targets, effort.fault_s, progress, text)
                if number:
                    for name, spent_us in round_us.items():
                        readings[name].append(spent_us)
        return Faults(seconds=effort.fault_s, cpu_us=cpu_us)


def _round(
    pids: Mapping[str, int],
    targets: Mapping[str, list[load.Request]],
    seconds: int,
    progress: Progress,
    text: str,
) -> dict[str, float]:
    """CPU µs of a request, by process; all of them are asked in turn, request by request."""
    before = {name: measure.cpu_s(pids[name]) for name in targets}
    sent = load.run(load.Plan(targets, seconds, users=USERS), progress, text)
    if sent.failed:
        raise UserError(f"{sent.failed} reads failed ({text}): nothing to tell")
    return {
        name: (measure.cpu_s(pids[name]) - before[name]) / max(sent.targets[name].count, 1) * 1e6
        for name in targets
    }


def ports_of(settings: StackSettings) -> dict[str, int]:
    """Where each process listens."""
    ports = (
        settings.product_port,
        settings.order_port,
        settings.payment_port,
        settings.acquirer_port,
    )
    return dict(zip(PROCESSES, ports, strict=True))


def specs(settings: StackSettings) -> list[ProcessSpec]:
    """The product service as it is and without the middleware, twice each, telemetry off.

    What the middleware costs is the larger share of a request, the less there is beside it.
    """
    without = tools.repository_root() / WITHOUT
    if not without.is_file():
        raise UserError(f"{without} is missing, and the reads are compared with it: restore it")
    stack = processes.specs(settings, processes.ensure_binaries())
    product = shop.spec(stack, "product")
    argv: dict[Kind, tuple[str, ...]] = {"with": (), "without": (sys.executable, str(without))}
    env = {"OTEL_SDK_DISABLED": "true", "PYTHONHASHSEED": "0"}
    return [
        shop.another(settings, product, name, port, argv=argv[PROCESSES[name]], env=env)
        for name, port in ports_of(settings).items()
    ]
