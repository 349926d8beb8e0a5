"""`provectl down`: stop the stack in order, and whatever a killed one left."""

import time

import typer

from prove.commands.up import Context, Namespace, Place


def down(context: Context = None, *, on: Place = None, namespace: Namespace = "prove") -> None:
    """Stop the stack; also ends what a killed supervisor left behind.

    Requests in flight finish and telemetry is flushed first. Safe to repeat. With --on: removes
    what `up --on` made, its volumes too: the whole cluster of kind, or on any other cluster the
    release, and the namespace unless it was there before.

    Examples:

        provectl down

        provectl down --on kind

        provectl down --on context staging
    """
    from prove.stack import lifecycle
    from prove.stack import settings as stack_settings

    if on is not None or context is not None:
        from prove.commands import on as cluster

        cluster.down(on, context, namespace=namespace)
        return
    settings = stack_settings.load()
    started = time.monotonic()
    stopped = lifecycle.stop(settings.home)
    left = []
    if settings.run_dir.is_dir():
        with lifecycle.lock(settings):
            left = lifecycle.clean_up(settings.home)
    for process in left:
        typer.echo(f"ended {process}, left by a stack whose supervisor was killed")
    if stopped:
        typer.echo(f"The stack is down, after {time.monotonic() - started:.1f} s.")
    elif not left:
        typer.echo(f"No stack is running in {settings.home}.")
