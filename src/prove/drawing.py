"""What the drawings of matplotlib have in common."""

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE: Any = {
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
}
"""For `rc_context`; with `svg.hashsalt` besides, what is the same is drawn the same."""


def svg(figure: "Figure") -> str:
    """As an element of a page: without what goes before it in a file, and without a date."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]
