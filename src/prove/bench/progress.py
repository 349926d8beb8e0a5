"""How far a measurement is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prove.bars import StepBars

TICK_S = 0.2


class Progress(StepBars):
    """Steps, each told with the figure that it belongs to."""

    _before = ""

    def figure(self, name: str) -> None:
        """The steps that follow belong to this figure."""
        self._before = f"{name}: "

    @contextmanager
    def step(self, text: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        """As of any bars, with the figure, if there is one, before the text."""
        with super().step(self._before + text, total) as done:
            yield done

    def wait(self, text: str, seconds: float) -> None:
        """Let the time pass that a measurement needs."""
        with self.step(text, seconds) as done:
            start = time.monotonic()
            while (elapsed := time.monotonic() - start) < seconds:
                done(elapsed)
                time.sleep(min(TICK_S, seconds - elapsed))
