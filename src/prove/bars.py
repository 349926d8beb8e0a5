"""Progress bars on stderr for people, lines for a pipe."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn


class Bars:
    """Bars of `columns` while it is entered; where stderr is no terminal (CI, a pipe), lines.

    A `transient` one leaves no bars behind.
    """

    def __init__(
        self, *columns: ProgressColumn, console: Console | None = None, transient: bool = False
    ) -> None:
        self._console = console or Console(stderr=True)
        self._bars = Progress(
            *columns,
            console=self._console,
            transient=transient,
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

    def _line(self, text: str) -> None:
        """Tell it where there are no bars."""
        if not self._console.is_terminal:
            self._console.print(text, highlight=False, soft_wrap=True)


class StepBars(Bars):
    """A bar a step; where there are no bars, a line a step."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )

    @contextmanager
    def step(self, text: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        """Yields what to call with the part of `total` that is done; None: of unknown length."""
        self._line(text)
        task = self._bars.add_task(text, total=total)
        try:
            yield lambda done: self._bars.update(task, completed=done)
        finally:
            self._bars.remove_task(task)


class PhaseBar(Bars):
    """One bar, of the phase that a run is in; its field `count` is shown behind it."""

    def __init__(self, console: Console | None = None, total: float = 1) -> None:
        super().__init__(
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            TextColumn("{task.fields[count]}"),
            console=console,
            transient=True,
        )
        self._task = self._bars.add_task("", total=total, count="")
