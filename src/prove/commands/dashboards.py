"""`provectl dashboards`: Grafana dashboards from code."""

from pathlib import Path
from typing import Annotated

import typer

from prove.errors import UserError

app = typer.Typer(
    name="dashboards",
    epilog="Open them with: provectl grafana",
    no_args_is_help=True,
)


@app.callback()
def dashboards() -> None:
    """Grafana dashboards, made from code."""


@app.command()
def build(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Where the JSON goes.")
    ] = Path("observability/dashboards"),
    logs: Annotated[
        str | None,
        typer.Option(metavar="URL", help="VictoriaLogs, where links to logs lead."),
    ] = None,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="With what only a kubelet measures: containers.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 where DIR isn't up to date.")
    ] = False,
) -> None:
    """Write every dashboard to DIR/UID.json, for Grafana 11.0 or newer.

    The same code gives the same bytes. Edit src/prove/dashboards, never the JSON.

    Examples:

        provectl dashboards build

        provectl dashboards build --check

        provectl dashboards build -o /tmp/dashboards --kubernetes --logs http://logs.example:9428
    """
    from prove import dashboards

    wanted = dashboards.build(logs_url=logs or dashboards.LOGS_URL, kubernetes=kubernetes)
    if check:
        _check(out, wanted)
        return
    write(out, wanted)
    for name in wanted:
        typer.echo(out / name)


def write(directory: Path, files: dict[str, str]) -> None:
    """Write `files` by their names; raises UserError where that can't be done."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{directory} can't be written to: {error.strerror}") from None


def _check(directory: Path, wanted: dict[str, str]) -> None:
    from prove.stack.hints import command

    there = {path.name: path.read_bytes() for path in sorted(directory.glob("*.json"))}
    problems = [
        f"{directory / name} {'is not what its code makes' if name in there else 'is missing'}"
        for name, text in wanted.items()
        if there.get(name) != text.encode()
    ]
    problems += [
        f"{directory / name} has no code any more; remove it" for name in there.keys() - wanted
    ]
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        typer.echo(f"{command('dashboards build')} writes them", err=True)
        raise typer.Exit(1)
