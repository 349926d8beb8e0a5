"""`provectl`: one Typer app, one module per subcommand in `prove.commands`."""

import signal
import sys

import typer

from prove.commands import bench, buy, data, demo, doctor, down, load, logs, status, tools, up
from prove.errors import UserError

app = typer.Typer(
    name="provectl",
    help="Run the shop, watch it, break it, and prove what it promises.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("demo")(demo.demo)
app.command("up")(up.up)
app.command("down")(down.down)
app.command("status")(status.status)
app.command("logs")(logs.logs)
app.command("doctor")(doctor.doctor)
app.command("load")(load.load)
app.command("buy")(buy.buy)
app.command("bench")(bench.bench)
app.add_typer(data.app, name="data")
app.add_typer(tools.app, name="tools")


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

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
        numbers.append(signal.SIGHUP)
    for number in numbers:
        signal.signal(number, interrupt)
