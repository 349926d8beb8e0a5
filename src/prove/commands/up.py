"""`provectl up`: the shop and its observability, started in order and watched."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prove.errors import UserError

if TYPE_CHECKING:
    from prove.kubernetes.context import Context
    from prove.stack.settings import StackSettings
    from prove.stack.state import StackState


Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="With --on context: its name.")]
On = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="PLACE", help="A cluster: `kind` makes one, `context` NAME is one you have."
    ),
]
Namespace = Annotated[str, typer.Option(help="With --on: the namespace there.")]


def context_of(on: str, name: str | None, namespace: str) -> "Context":
    """The context that `--on` and NAME mean; one of kind is made. Raises UserError."""
    from prove.kubernetes import context, kind
    from prove.tools import ConsoleProgress

    if on == "kind":
        name = kind.create(lambda text: typer.echo(text, err=True))
    with ConsoleProgress() as progress:
        return context.find(name or "", namespace, progress)


def check_place(on: str | None, name: str | None) -> None:
    """Whether `--on` and NAME go together; raises UserError."""
    if on is None and name is not None:
        raise UserError(f"{name!r} is the name of a context only with --on context")
    if on not in (None, "kind", "context"):
        raise UserError(f"--on {on}: write `--on context NAME` or `--on kind`")
    if on == "context" and name is None:
        raise UserError("--on context needs a NAME, as `kubectl config get-contexts` shows them")
    if on == "kind" and name is not None:
        raise UserError(f"--on kind takes no name ({name!r}): k8s/kind.yaml has it")


def up(
    name: Name = None,
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
    on: On = None,
    namespace: Namespace = "prove",
    registry: Annotated[
        str, typer.Option(help="With --on: where our images are pushed to, and pulled from.")
    ] = "",
    images: Annotated[
        bool, typer.Option(help="With --on: build our images and bring them there.")
    ] = True,
    images_only: Annotated[
        bool, typer.Option("--images-only", help="With --on: bring our images there and stop.")
    ] = False,
    values: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="With --on: more values for the chart."),
    ] = None,
    wait: Annotated[str, typer.Option(help="With --on: how long all may take to be ready.")] = "8m",
) -> None:
    """Start the shop and its observability; Ctrl-C stops them.

    Builds what is missing, checks ports and disk, ends what a killed stack left behind. Where a
    stack runs already, shows where. PROVE_HOME and PROVE_PORT_OFFSET make a second one beside it.

    With `--on context NAME` the chart is installed (or upgraded) on that cluster, and its Services
    are forwarded to the same ports here; Ctrl-C ends the forwards alone. `--on kind` does so on a
    cluster of three nodes in Docker, which it makes first.

    Examples:

        provectl up --detach

        provectl up --on kind

        provectl up --on context staging --registry registry.example.com/shop --values mine.yaml
    """
    from prove.stack import settings as stack_settings
    from prove.stack.hints import command

    check_place(on, name)
    settings = stack_settings.load()
    if drill:
        settings = settings.model_copy(update={"profile": "drill"})
    if mesh:
        settings = settings.model_copy(update={"mesh": True})
    if on:
        place = "kind" if on == "kind" else f"context {name}"
        context = context_of(on, name, namespace)
        if images_only:
            _publish(context, registry)
            return
        context = _install(context, registry, images, values or [], wait)
        forwarding = _forward(settings, context)
        _print_addresses(settings, down=f"down --on {place}")
        if detach:
            return
        typer.echo("Ctrl-C ends the forwards; the shop stays.")
        try:
            forwarding.wait()
        except KeyboardInterrupt:
            _stop(forwarding)
        return
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


def _publish(context: "Context", registry: str) -> None:
    from prove.kubernetes import release

    release.publish(context, registry, lambda text: typer.echo(text, err=True))


def _install(
    context: "Context", registry: str, images: bool, values: list[Path], wait: str
) -> "Context":
    """Images there, the chart installed and ready."""
    from rich.console import Console

    from prove import units
    from prove.kubernetes import release

    began = time.monotonic()
    seconds = round(units.duration_s(wait, "--wait"))
    with Console(stderr=True).status(f"on {context.name} …") as line:
        if images:
            registry = release.publish(context, registry, line.update)

        def show(pods: dict[str, bool]) -> None:
            waiting = [name for name, ready in pods.items() if not ready]
            text = f"{len(pods) - len(waiting)} of {len(pods)} pods are ready"
            line.update(text + (f"; waiting for {', '.join(waiting[:3])}" if waiting else ""))

        release.install(context, registry, values, seconds, show)
    typer.echo(
        f"The shop is up in namespace {context.namespace} of {context.name}, after "
        f"{time.monotonic() - began:.1f} s."
    )
    return context


def _forward(settings: "StackSettings", context: "Context") -> "subprocess.Popen[bytes]":
    """The Services of a cluster on the stack's ports, under a supervisor."""
    from prove.kubernetes import forwards
    from prove.stack import lifecycle, preflight
    from prove.stack.supervisor import Plan

    with lifecycle.lock(settings) as lock:
        lifecycle.clean_up(settings.home)
        preflight.require(settings)
        specs = forwards.specs(settings, context)
        forwards.keep_token(settings, context)
        supervisor = lifecycle.spawn(Plan(settings=settings, specs=specs), lock)
    try:
        with _progress() as show:
            lifecycle.wait_ready(supervisor, settings.home, show)
    except lifecycle.StartError as error:
        typer.echo(f"provectl: {error}", err=True)
        raise typer.Exit(1) from None
    return supervisor


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


def _print_addresses(settings: "StackSettings", down: str = "down") -> None:
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
stop it    {command(down)}
""")
