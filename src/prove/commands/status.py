"""`provectl status`: what runs, whether it is ready, and what it takes."""

from typing import Annotated

import typer


def status(
    *, as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False
) -> None:
    """Show every process: state, pid, port, readiness, uptime, restarts, memory and CPU.

    Exit code 0 when all are ready, else 1. RSS and CPU are those of a process with its workers.
    """
    from prove.stack import report as stack_report
    from prove.stack import settings as stack_settings

    report = stack_report.report(stack_settings.load())
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        from rich.console import Console

        from prove.stack import render

        Console(highlight=False).print(render.status(report))
    if not report.ready:
        raise typer.Exit(1)
