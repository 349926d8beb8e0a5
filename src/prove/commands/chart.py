"""`provectl chart`: the Helm chart and what is generated with it."""

from typing import Annotated

import typer

from prove.errors import UserError

app = typer.Typer(
    name="chart",
    help="The Helm chart charts/prove: generate and check what belongs to it.",
    epilog="Start with: provectl chart build",
    no_args_is_help=True,
)


@app.callback()
def _group() -> None:
    """So that `build` stays a command of its own while it is the only one."""


@app.command()
def build(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 if something differs.")
    ] = False,
) -> None:
    """Generate the chart's files, k8s/ and docs/reference/chart-values.md.

    The chart is given the sources of the laptop's stack: rules, dashboards, the Collector's
    pipeline. k8s/ is the chart rendered with its defaults. The first time this builds Helm from
    its pinned source, which takes some minutes.

    Examples:

        provectl chart build

        provectl chart build --check
    """
    from prove import tools
    from prove.charts import generate

    root = tools.repository_root()
    with tools.ConsoleProgress() as progress:
        helm = tools.ensure("helm", progress=progress)["helm"]
    if not check:
        made = generate.build(root, helm)
        typer.echo(f"{len(made)} files, below {', '.join(map(str, generate.PLACES))}")
        return
    wrong = generate.differences(root, helm)
    if wrong:
        raise UserError(f"{', '.join(wrong)}: not as `provectl chart build` makes it; run that")
    typer.echo("as generated")
