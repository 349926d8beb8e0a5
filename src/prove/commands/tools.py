"""`provectl tools`: the servers prove builds from pinned source."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from prove.errors import UserError
from prove.tools import (
    TOOLS,
    ConsoleProgress,
    Program,
    cache_dir,
    ensure,
    find,
    of_the_stack,
    verify,
)

app = typer.Typer(
    name="tools",
    help="The servers prove runs: list, build and verify them.",
    epilog="Start with: provectl tools list",
    no_args_is_help=True,
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command("list")
def list_tools(json_output: Json = False) -> None:
    """Show every tool: its version, where it comes from, its size.

    From the cache: it was built before. From PATH: a fitting version you already have is used.
    Not built: the first command that needs it builds it.

    Examples:

        provectl tools list

        provectl tools list --json | jq -r '.tools[] | select(.source == null) | .name'
    """
    rows = [_describe(tool) for tool in TOOLS.values()]
    if json_output:
        typer.echo(json.dumps({"cache": str(cache_dir()), "tools": rows}))
        return
    version = Column("version", overflow="fold")
    table = Table("tool", version, "from", "MB", "binaries", box=None, pad_edge=False)
    for row in rows:
        size = row["size_bytes"]
        table.add_row(
            str(row["name"]),
            str(row["version"] or "of ours"),
            str(row["source"] or "not built"),
            f"{size / 1e6:.0f}" if isinstance(size, int) and size else "",
            ", ".join(binary.name for binary in TOOLS[str(row["name"])].binaries),
        )
    console = Console()
    console.print(table)
    console.print(f"cache: {cache_dir()}", highlight=False, soft_wrap=True)


@app.command()
def build(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Default: what the stack runs.")
    ] = None,
) -> None:
    """Build what isn't there yet, from the source go.sum pins.

    The first time this takes some ten minutes on two cores; results are cached by version
    outside the checkout, so later checkouts find them there. Other commands build what they need
    by themselves: this is for doing it ahead of time.

    Examples:

        provectl tools build

        provectl tools build prometheus jaeger
    """
    with ConsoleProgress() as progress:
        ensure(*(names or [tool.name for tool in of_the_stack()]), progress=progress)


@app.command("verify")
def verify_tools() -> None:
    """Run every binary and check its version and its modules against go.sum.

    Takes about half a minute: Go reads all their sources. Exit code 1 when one doesn't hold.

    Example:

        provectl tools verify
    """
    failed = False
    for tool in TOOLS.values():
        if tool.on_demand and find(tool) is None:
            continue
        problems = verify.problems(tool)
        failed |= bool(problems)
        for line in problems or ["holds"]:
            typer.echo(f"{tool.name}: {line}")
    raise typer.Exit(code=int(failed))


@app.command()
def path(
    name: Annotated[str, typer.Argument(help="A binary, as `provectl tools list` shows them.")],
) -> None:
    """Print where a binary is, building it first if need be.

    Example:

        $(provectl tools path promtool) check config observability/prometheus/prometheus.yml
    """
    owner = next((tool for tool in TOOLS.values() if name in {b.name for b in tool.binaries}), None)
    if owner is None:
        known = ", ".join(binary.name for tool in TOOLS.values() for binary in tool.binaries)
        raise UserError(f"there is no binary {name!r}; there are {known}")
    with ConsoleProgress() as progress:
        typer.echo(str(ensure(owner.name, progress=progress)[name]))


def _describe(tool: Program) -> dict[str, object]:
    found = find(tool)
    binaries: dict[str, Path] = dict(found.binaries) if found else {}
    return {
        "name": tool.name,
        "version": tool.version,
        "source": found.source if found else None,
        "size_bytes": sum(file.stat().st_size for file in binaries.values()),
        "binaries": {name: str(file) for name, file in binaries.items()},
    }
