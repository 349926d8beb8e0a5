"""How a build tells how far it is."""

from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn

from prove.bars import Bars


class Progress(Protocol):
    """Told what happens to a program, in order: phases, steps of the latest phase, the end."""

    def phase(self, program: str, text: str, total: int | None = None) -> None:
        """A phase of `total` steps begins; None: of unknown length."""

    def advance(self, program: str) -> None:
        """One step of the phase is done."""

    def done(self, program: str, text: str) -> None:
        """The program is there."""


class Silent:
    """Tells nobody."""

    def phase(self, program: str, text: str, total: int | None = None) -> None:
        """Nothing."""

    def advance(self, program: str) -> None:
        """Nothing."""

    def done(self, program: str, text: str) -> None:
        """Nothing."""


class ConsoleProgress(Bars):
    """A bar per program on stderr; where that is no terminal (CI, a pipe), a line per phase."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(
            TextColumn("{task.fields[program]:<14}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def phase(self, program: str, text: str, total: int | None = None) -> None:
        """A bar that starts again; without a total it only pulses."""
        self._show(program, text, total, completed=0)
        self._line(f"{program}: {text}" + ("" if total is None else f", packages: {total}"))

    def advance(self, program: str) -> None:
        """One step further."""
        self._bars.advance(self._tasks[program])

    def done(self, program: str, text: str) -> None:
        """The bar is full and stays."""
        self._show(program, text, total=1, completed=1)
        self._line(f"{program}: {text}")

    def _show(self, program: str, text: str, total: int | None, completed: int) -> None:
        if program not in self._tasks:
            self._tasks[program] = self._bars.add_task(text, program=program, total=total)
        self._bars.update(
            self._tasks[program], description=text, total=total, completed=completed, refresh=True
        )
