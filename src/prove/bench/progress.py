"""How far a measurement is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn

from prove.bars import Bars

TICK_S = 0.2


class Progress(Bars):
    """A bar a step on stderr; where that is no terminal (CI, a pipe), a line a step."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
        self._figure = ""

    def figure(self, name: str) -> None:
        """The steps that follow belong to this figure."""
        self._figure = name

    @contextmanager
    def step(self, text: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        """Yields what to call with the part of `total` that is done; None: of unknown length."""
        text = f"{self._figure}: {text}" if self._figure else text
        self._line(text)
        task = self._bars.add_task(text, total=total)
        try:
            yield lambda done: self._bars.update(task, completed=done)
        finally:
            self._bars.remove_task(task)

    def wait(self, text: str, seconds: float) -> None:
        """Let the time pass that a measurement needs."""
        with self.step(text, seconds) as done:
            start = time.monotonic()
            while (elapsed := time.monotonic() - start) < seconds:
                done(elapsed)
                time.sleep(min(TICK_S, seconds - elapsed))
