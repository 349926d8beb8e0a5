"""`provectl doctor`: what this machine lacks, and what to do about it."""

import json
from dataclasses import asdict
from typing import Annotated

import typer


def doctor(
    *, as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False
) -> None:
    """Check what the stack needs here, each lack with its remedy; exit code 1 if one is wrong."""
    from prove.stack import preflight
    from prove.stack import settings as stack_settings

    checks = list(preflight.all_checks(stack_settings.load()))
    ok = all(check.ok for check in checks)
    if as_json:
        typer.echo(json.dumps({"ok": ok, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        for check in checks:
            typer.echo(f"{'ok   ' if check.ok else 'WRONG'} {check.name:<11} {check.detail}")
            if not check.ok:
                typer.echo(f"{'':18}→ {check.remedy}")
    if not ok:
        raise typer.Exit(1)
