"""`provectl`: one Typer app, one module per subcommand in `prove.commands`."""

import signal
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from prove.commands import (
    alerts,
    bench,
    buy,
    chart,
    dashboards,
    data,
    demo,
    doctor,
    down,
    fault,
    grafana,
    incident,
    load,
    logs,
    mesh,
    orders,
    rca,
    review,
    silence,
    slo,
    status,
    tools,
    trace,
    traces,
    up,
    verify,
)
from prove.errors import UserError

app = typer.Typer(
    name="provectl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"provectl {version('prove')}")
        raise typer.Exit


@app.callback()
def options(
    *,
    _asked: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Run the shop, watch it, break it, and prove what it promises."""


app.command("demo")(demo.demo)
app.command("up")(up.up)
app.command("down")(down.down)
app.command("status")(status.status)
app.command("alerts")(alerts.alerts)
app.command("logs")(logs.logs)
app.command("trace")(trace.trace)
app.command("doctor")(doctor.doctor)
app.command("load")(load.load)
app.command("buy")(buy.buy)
app.command("review")(review.review)
app.command("bench")(bench.bench)
app.command("grafana")(grafana.grafana)
app.add_typer(chart.app, name="chart")
app.add_typer(dashboards.app, name="dashboards")
app.add_typer(data.app, name="data")
app.add_typer(fault.app, name="fault")
app.add_typer(incident.app, name="incident")
app.add_typer(mesh.app, name="mesh")
app.add_typer(orders.app, name="orders")
app.add_typer(rca.app, name="rca")
app.add_typer(silence.app, name="silence")
app.add_typer(slo.app, name="slo")
app.add_typer(tools.app, name="tools")
app.add_typer(traces.app, name="traces")
app.add_typer(verify.app, name="verify")


def main() -> None:
    """Entry point: exit 0 holds, 1 does not hold, 2 usage or environment."""
    _clean_up_when_ended()
    try:
        app()
    except UserError as error:
        typer.echo(f"provectl: {error}", err=True)
        sys.exit(2)


def _clean_up_when_ended() -> None:
    """SIGTERM and a closed terminal clean up as Ctrl-C does, also in a shell's background job."""
    # The default handler and no other is one that asyncio replaces by its own: an exception raised
    # in the middle of its machinery may get lost.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(_number: int, _frame: object) -> None:
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
        signal.signal(signal.SIGHUP, interrupt)
