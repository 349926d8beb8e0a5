"""`provectl up`: the shop and its observability, started in order and watched."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from prove.errors import UserError

if TYPE_CHECKING:
    from prove.stack.settings import StackSettings
    from prove.stack.state import StackState


def up(
    *,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Leave it running and return once it is ready.")
    ] = False,
    drill: Annotated[
        bool,
        typer.Option(
            "--drill", help="Alerts 60 times as fast, and an injector (PROVE_PROFILE=drill)."
        ),
    ] = False,
    mesh: Annotated[
        bool,
        typer.Option(
            "--mesh", help="Envoy at the edge and before each service, mTLS (PROVE_MESH=true)."
        ),
    ] = False,
) -> None:
    """Start the shop and its observability; Ctrl-C stops them.

    Builds what is missing, checks ports and disk, ends what a killed stack left behind. Where a
    stack runs already, shows where. PROVE_HOME and PROVE_PORT_OFFSET make a second one beside it.
    """
    from prove.stack import settings as stack_settings
    from prove.stack.hints import command

    settings = stack_settings.load()
    if drill:
        settings = settings.model_copy(update={"profile": "drill"})
    if mesh:
        settings = settings.model_copy(update={"mesh": True})
    supervisor = ensure_running(settings)
    try:
        _print_addresses(settings)
        if detach or supervisor is None:
            return
        typer.echo(f"Its log follows; Ctrl-C stops it (or {command('down')} elsewhere).\n")
        _stream(settings, supervisor)
    except KeyboardInterrupt:
        if supervisor is None:
            raise
        _stop(supervisor)
    _tell_end(supervisor)


def ensure_running(settings: "StackSettings") -> "subprocess.Popen[bytes] | None":
    """Wait until the stack is ready, started now (its supervisor) or running already (None).

    Exits with 1 when it isn't to be had, and when Ctrl-C ended the start.
    """
    from prove.stack import lifecycle, state
    from prove.stack.hints import command

    running = state.load(settings.home)
    if running and running.alive and running.phase == "ready":
        if running.profile != settings.profile:
            raise UserError(
                f"the stack in {settings.home} runs with the {running.profile} profile, not the "
                f"{settings.profile} one; stop it first: {command('down')}"
            )
        if settings.mesh and not running.meshed:
            raise UserError(
                f"the stack in {settings.home} runs without the mesh; stop it first: "
                f"{command('down')}"
            )
        _tell_running(settings)
        return None
    started = time.monotonic()
    try:
        supervisor = _start(settings)
        try:
            with _progress() as show:
                lifecycle.wait_ready(supervisor, settings.home, show)
        except KeyboardInterrupt:
            _stop(supervisor)
            _tell_end(supervisor)
            raise typer.Exit(1) from None
    except lifecycle.StartError as error:
        typer.echo(f"provectl: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"\nThe shop is up, after {time.monotonic() - started:.1f} s.")
    return supervisor


def _tell_running(settings: "StackSettings") -> None:
    from prove.stack import report as stack_report

    report = stack_report.report(settings)
    typer.echo(f"The stack in {settings.home} is up already; {report.detail}.")
    if not report.ready:
        raise typer.Exit(1)


def _tell_end(supervisor: "subprocess.Popen[bytes]") -> None:
    from prove.stack.hints import command

    if supervisor.returncode < 0:
        raise UserError(f"the supervisor was killed; {command('down')} ends what it left running")
    typer.echo("The stack was stopped; nothing of it is left running.")


def _start(settings: "StackSettings") -> "subprocess.Popen[bytes]":
    from prove.stack import lifecycle, preflight, processes
    from prove.stack.supervisor import Plan
    from prove.tools import ConsoleProgress

    with lifecycle.lock(settings) as lock:
        for left in lifecycle.clean_up(settings.home):
            typer.echo(f"ended {left}, left by a stack whose supervisor was killed")
        preflight.require(settings)
        with ConsoleProgress() as progress:
            binaries = processes.ensure_binaries(progress)
        processes.prepare(settings, binaries)
        plan = Plan(settings=settings, specs=processes.specs(settings, binaries))
        return lifecycle.spawn(plan, lock)


def _stop(supervisor: "subprocess.Popen[bytes]") -> None:
    """A second Ctrl-C doesn't wait for requests in flight."""
    typer.echo("\nStopping; Ctrl-C again to stop at once.")
    supervisor.terminate()
    while True:
        try:
            supervisor.wait()
        except KeyboardInterrupt:
            supervisor.terminate()
        else:
            return


def _stream(settings: "StackSettings", supervisor: "subprocess.Popen[bytes]") -> None:
    """The shop's log, and what the observability servers warn of, until the supervisor ends."""
    from rich.console import Console

    from prove.stack import logfiles, logview, render, state
    from prove.stack.lifecycle import SUPERVISOR

    console = Console(soft_wrap=True, highlight=False)
    running = state.require(settings.home)
    shop = {process.name for process in running.processes.values() if process.group == "shop"}
    files = {process.name: process.log for process in running.processes.values()}
    files[SUPERVISOR] = logfiles.path(settings, SUPERVISOR)
    quiet = {process: process not in shop and process != SUPERVISOR for process in files}
    for batch in logview.follow(files):
        for record in batch:
            if not quiet.get(record.process, False) or record.rank > 1:
                console.print(render.record(record))
        if supervisor.poll() is not None:
            return


@contextmanager
def _progress() -> Iterator[Callable[["StackState"], None]]:
    """A live table on a terminal; elsewhere a line whenever a process becomes ready."""
    from prove.stack import render

    if sys.stdout.isatty():
        from rich.live import Live

        with Live(transient=False, refresh_per_second=10) as live:
            yield lambda state: live.update(render.progress(state))
        return
    told: set[str] = set()

    def tell(state: "StackState") -> None:
        for process in state.processes.values():
            if process.phase == "ready" and process.name not in told:
                told.add(process.name)
                typer.echo(f"ready: {process.name} after {render.seconds_to_ready(process)} s")

    yield tell


def _print_addresses(settings: "StackSettings") -> None:
    from prove.stack.hints import command

    drill = settings.profile == "drill"
    url = settings.url
    injector = f"\n  faults    {url(settings.injector_port)}/faults"
    edge = f"\n  edge      {url(settings.edge_port)}/api/v1/products"
    typer.echo(f"""
  products  {url(settings.product_port)}/api/v1/products
            {url(settings.product_port)}/openapi.json
  orders    {url(settings.order_port)}/openapi.json
  payments  {url(settings.payment_port)}/openapi.json{edge if settings.mesh else ""}
  metrics   {url(settings.prometheus_port)}/api/v1/query?query=prove_orders_total
  alerts    {url(settings.alertmanager_port)}
  traces    {url(settings.jaeger_port)}/api/services
  logs      {url(settings.victorialogs_port)}/select/vmui{injector if drill else ""}
  files     {settings.home}   (data, logs, admin-token)

fill it    {command("data import")}
use it     {command("buy")}, {command("load")}
watch it   {command("status")}, {command("logs -f")}, {command("alerts")}
stop it    {command("down")}
""")
