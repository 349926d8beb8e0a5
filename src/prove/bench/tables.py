"""A table, on a page and on a terminal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """Rows of texts; all columns but the first are aligned to the right."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        """As GitHub renders it."""
        rule = [":--", *("--:" for _ in self.header[1:])]
        lines = [_row(self.header), _row(rule), *map(_row, self.rows)]
        return "\n\n".join([*filter(None, [self.title]), "\n".join(lines)])

    def show(self, console: Console) -> None:
        """On a terminal."""
        console.print(self.title, highlight=False)
        table = RichTable(box=None, pad_edge=False)
        for n, name in enumerate(self.header):
            table.add_column(name, justify="right" if n else "left")
        for row in self.rows:
            table.add_row(*(cell.replace("**", "") for cell in row))
        console.print(table)
        console.print()


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
