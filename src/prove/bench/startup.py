"""How soon the shop is ready, and the memory it takes with its observability."""

import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from pydantic import BaseModel

from prove.bench import checkout, load, measure, shop
from prove.bench.measure import Effort, Group, Target
from prove.bench.progress import Progress
from prove.errors import UserError
from prove.stack import state
from prove.stack.settings import StackSettings

MAX_SECONDS = 10.0
MAX_RSS_MIB = 1024.0
COMMAND_LIMIT_S = 120


class Startup(BaseModel):
    """`seconds`: of `provectl up --detach` in a new home, one a run."""

    seconds: list[float]
    idle_s: int
    idle: Group
    rate: int
    load_s: int
    loaded: Group

    def targets(self) -> list[Target]:
        """Soon, and small."""
        seconds = median(self.seconds)
        return [
            Target(
                text=f"`provectl up` is ready in < {MAX_SECONDS:g} s",
                measured=f"{seconds:.1f} s",
                reached=seconds < MAX_SECONDS,
            ),
            *(
                Target(
                    text=f"RSS of shop and observability together < 1 GiB, {when}",
                    measured=f"{group.rss:,.0f} MiB",
                    reached=group.rss < MAX_RSS_MIB,
                )
                for when, group in (("idle", self.idle), (f"at {self.rate}/s", self.loaded))
            ),
        ]


def measure_startup(effort: Effort, progress: Progress) -> Startup:
    """Measure; raises UserError when a start fails."""
    seconds: list[float] = []
    for number in range(effort.start_runs - 1):
        with shop.home() as settings:
            seconds.append(_up_and_down(settings, f"start {number + 1}", progress))
    with shop.home() as settings:
        try:
            seconds.append(_provectl(settings, "up", f"start {effort.start_runs}", progress))
            running = state.require(settings.home)
            progress.wait("idle", effort.idle_s)
            idle = measure.memory_of(running)
            shop.import_catalogue(settings, settings.product_port, checkout.CATALOGUE, progress)
            orders = shop.orders(settings.url(settings.order_port), checkout.CATALOGUE)
            loaded: list[Group] = []
            load.run(
                load.Plan({"checkout": orders}, effort.checkout_s, rate=checkout.RATE),
                progress,
                f"checkout, {checkout.RATE}/s for {effort.checkout_s} s",
                late=lambda: loaded.append(measure.memory_of(running)),
            )
        finally:
            _provectl(settings, "down", "stopping", progress)
    return Startup(
        seconds=seconds,
        idle_s=effort.idle_s,
        idle=idle,
        rate=checkout.RATE,
        load_s=effort.checkout_s,
        loaded=loaded[0],
    )


def _up_and_down(settings: StackSettings, text: str, progress: Progress) -> float:
    try:
        return _provectl(settings, "up", text, progress)
    finally:
        _provectl(settings, "down", "stopping", progress)


def _provectl(settings: StackSettings, command: str, text: str, progress: Progress) -> float:
    """Run it as a person does; returns how long it took, in s. Raises UserError when it fails."""
    options = ["--detach"] if command == "up" else []
    started = time.monotonic()
    with progress.step(text):
        try:
            ended = subprocess.run(
                [Path(sys.executable).with_name("provectl"), command, *options],
                env={**os.environ, **shop.environment(settings)},
                capture_output=True,
                text=True,
                check=False,
                timeout=COMMAND_LIMIT_S,
                start_new_session=True,  # Ctrl-C reaches us alone, which run `down` for it
            )
        except subprocess.TimeoutExpired:
            raise UserError(
                f"`provectl {command}` did not end within {COMMAND_LIMIT_S} s; try it by itself"
            ) from None
    if ended.returncode != 0:
        raise UserError(f"`provectl {command}` failed: {ended.stderr.strip() or ended.stdout}")
    return time.monotonic() - started
