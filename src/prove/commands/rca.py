"""`provectl rca`: from an incident to its cause."""

import typer

from prove.commands import rca_score

app = typer.Typer(
    name="rca",
    help="Root causes: how often they are found on labelled incidents.",
    no_args_is_help=True,
)


@app.callback()
def group() -> None:
    """Root causes: how often they are found on labelled incidents."""


rca_score.register(app)
