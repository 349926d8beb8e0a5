"""How far a measurement is."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

TICK_S = 0.2


class Progress:
    """A bar a step on stderr; where that is no terminal (CI, a pipe), a line a step."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._figure = ""
        self._bars = Bars(
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def figure(self, name: str) -> None:
        """The steps that follow belong to this figure."""
        self._figure = name

    @contextmanager
    def step(self, text: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        """Yields what to call with the part of `total` that is done; None: of unknown length."""
        text = f"{self._figure}: {text}"
        if not self._console.is_terminal:
            self._console.print(text, highlight=False, soft_wrap=True)
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
