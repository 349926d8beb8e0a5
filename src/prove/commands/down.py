"""`provectl down`: stop the stack in order, and whatever a killed one left."""

import time

import typer

from prove.commands.up import Name, Namespace, On, check_place, context_of


def down(name: Name = None, *, on: On = None, namespace: Namespace = "prove") -> None:
    """Stop the stack; also ends what a killed supervisor left behind.

    Requests in flight finish and telemetry is flushed first. Safe to repeat. With `--on context
    NAME`, what `up` made on that cluster is taken away, its data too, and nothing else; with
    `--on kind` the whole cluster.

    Examples:

        provectl down

        provectl down --on kind

        provectl down --on context staging
    """
    from prove.stack import lifecycle
    from prove.stack import settings as stack_settings

    check_place(on, name)
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
    elif not left and not on:
        typer.echo(f"No stack is running in {settings.home}.")
    if on == "kind":
        from prove.kubernetes import kind

        gone = kind.delete()
        typer.echo(f"removed the cluster {kind.name()}" if gone else "there was no cluster of kind")
    elif on:
        from prove.kubernetes import release

        context = context_of(on, name, namespace)
        for what in release.uninstall(context) or ["nothing: there was none"]:
            typer.echo(f"removed from {context.name}: {what}")
