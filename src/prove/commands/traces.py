"""`provectl traces`: which traces there are, and worked examples from the running shop."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from prove.errors import UserError

app = typer.Typer(
    name="traces",
    help="Find traces; record worked examples of them.",
    epilog="Start with: provectl traces find order --failed",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
SERVICES = ("product", "order", "payment")
WIDTH = 100
DIRECTORY = Path("observability") / "traces"


@app.command()
def find(
    service: Annotated[str, typer.Argument(help="product, order or payment.")],
    *,
    failed: Annotated[bool, typer.Option("--failed", help="With a failed span of it.")] = False,
    slower: Annotated[
        str | None, typer.Option(metavar="TIME", help="With a span of it of at least 500ms, 2s …")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=1000, help="At most.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """List the latest traces in which a service took part, as far as Jaeger remembers.

    Examples:

        provectl traces find order --failed

        provectl traces find payment --slower 500ms --json | jq -r '.traces[0].trace_id'
    """
    from dataclasses import asdict

    from prove import units
    from prove.clients.jaeger import Jaeger
    from prove.stack import settings as stack_settings

    name = service.removesuffix("-service")
    if name not in SERVICES:
        raise UserError(f"{service} makes no spans; choose of {', '.join(SERVICES)}")
    min_duration_ms = units.duration_s(slower, "--slower") * 1000 if slower else 0
    settings = stack_settings.load()
    found = Jaeger(settings.url(settings.jaeger_port)).search(
        f"{name}-service", {"error": "true"} if failed else {}, min_duration_ms, lines
    )
    if as_json:
        typer.echo(json.dumps({"traces": [asdict(trace) for trace in found]}))
        return
    if not found:
        typer.echo("none; Jaeger remembers the latest 1,500 traces, since its last start")
        return
    typer.echo(
        f"{'begun, UTC':<12}  {'trace':<32}  {'took':>10}  {'spans':>5}  {'failed':>6}  first span"
    )
    for trace in found:
        began = datetime.fromtimestamp(trace.start_us / 1_000_000, UTC)
        line = (
            f"{began:%H:%M:%S}.{began.microsecond // 1000:03}  {trace.trace_id}  "
            f"{trace.duration_us / 1000:>7.1f} ms  {trace.spans:>5}  {trace.failed:>6}  "
            f"{trace.name}"
        )
        typer.echo(line[:WIDTH])


@app.command()
def record(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Which; without it, all.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Instead of observability/traces."),
    ] = None,
) -> None:
    """Place orders that take a known course, and keep their traces as OTLP JSON.

    An order is placed again until its traces show what the example is about. For `retry` the
    Product Service has a fault lease meanwhile, which others who buy meet, too.

    Examples:

        provectl traces record

        provectl traces record retry -o /tmp && provectl trace /tmp/retry.json
    """
    from prove import examples
    from prove.stack import settings as stack_settings
    from prove.tools import repository_root

    unknown = [name for name in names or () if name not in examples.EXAMPLES]
    if unknown:
        raise UserError(
            f"there is no example {unknown[0]}; choose of {', '.join(examples.EXAMPLES)}"
        )
    directory = out or repository_root() / DIRECTORY
    settings = stack_settings.load()
    for name in names or examples.EXAMPLES:
        document = examples.record(settings, examples.EXAMPLES[name])
        file = directory / f"{name}.json"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{file} can't be written: {error.strerror}") from None
        typer.echo(file)
