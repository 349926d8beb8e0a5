"""Text for terminals."""

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100
"""Columns that output has at the most."""


def paragraph(text: str, first: str = "", rest: str = "") -> str:
    """`text` on lines of `WIDTH` columns: the first begins with `first`, the others with `rest`.

    A word is never taken apart, even one that is too long, for somebody may want to copy it.
    """
    return textwrap.fill(
        " ".join(text.split()),
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def console() -> "Console":
    """Of stdout, and no wider than `WIDTH`."""
    from rich.console import Console

    made = Console()
    made.width = min(made.width, WIDTH)
    return made
