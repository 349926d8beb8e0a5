"""`provectl up --on` and `down --on`: the shop on Kubernetes instead of this machine alone."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from prove.bars import PhaseBar
from prove.errors import UserError

if TYPE_CHECKING:
    from prove.cluster import Target

PLACES = ("kind", "context")


class Bar(PhaseBar):
    """What is waited for, on stderr."""

    def show(self, text: str, ready: int, of: int) -> None:
        """How far it is."""
        count = f"{ready} of {of} ready" if of else ""
        self._bars.update(
            self._task, description=escape(text), total=of or None, completed=ready, count=count
        )
        if text != self._told:
            self._told = text
            self._line(f"{text} {count}".rstrip())

    _told = ""


def up(
    place: str | None,
    context: str | None,
    *,
    namespace: str,
    values: list[Path],
    timeout_s: float,
    detach: bool,
) -> None:
    """Install into a cluster, wait, and show the ways in; raises UserError."""
    from prove import cluster, tools
    from prove.cluster import kind

    place = _checked(place, context)
    if missing := [str(file) for file in values if not file.is_file()]:
        raise UserError(f"there is no file {missing[0]}")
    settings: list[str] = []
    if place == "kind":
        kind.create(typer.echo)
        settings.append(f"image.tag={kind.load(typer.echo)}")
        values = [tools.repository_root() / kind.VALUES, *values]
    target = _target(place, context, namespace)
    with Bar() as bar:
        cluster.install(target, values, bar.show, settings=settings, timeout_s=timeout_s)
    typer.echo(f"The shop is up in namespace {namespace} of {target.context}.")
    _show_ways(target, f"down --on {place}" + (f" {context}" if context else ""), detach=detach)


def down(place: str | None, context: str | None, *, namespace: str) -> None:
    """Remove what `up` made there and nothing else; raises UserError."""
    from prove import cluster
    from prove.cluster import kind

    place = _checked(place, context)
    if place == "kind":
        gone = [f"cluster {kind.name()}"] if kind.delete() else []
    else:
        gone = cluster.remove(_target(place, context, namespace))
    typer.echo(f"Removed: {', '.join(gone)}." if gone else "There was nothing to remove.")


def _checked(place: str | None, context: str | None) -> str:
    if place is None:
        raise UserError(f"{context!r} is the name of a context only with --on context")
    if place not in PLACES:
        raise UserError(f"--on is kind or context, not {place!r}: --on kind, --on context NAME")
    if place == "context" and context is None:
        raise UserError("--on context needs a name: `kubectl config get-contexts` lists them")
    if place == "kind" and context is not None:
        raise UserError(f"--on kind takes no name ({context!r}): k8s/kind.yaml has it")
    return place


def _target(place: str, context: str | None, namespace: str) -> "Target":
    from prove.cluster import Target, kind

    return Target(context or f"kind-{kind.name()}", namespace)


def _show_ways(target: "Target", remove: str, *, detach: bool) -> None:
    from prove.cluster import forward
    from prove.cluster.programs import run_json
    from prove.stack import settings as stack_settings
    from prove.stack.hints import command

    offset = stack_settings.load().port_offset
    listed = run_json(target.kubectl("get", "services", "-o", "json"))
    there = {item["metadata"]["name"] for item in listed["items"]}
    services = [name for name in forward.PORTS if name in there]
    remove_it = f"remove it: {command(remove)}"
    if detach:
        begin = f"kubectl --context {target.context} -n {target.namespace} port-forward"
        for name in services:
            port = forward.PORTS[name]
            typer.echo(f"  {begin} service/{name} {port + offset}:{port}")
        typer.echo(remove_it)
        return
    with forward.Forwards(target, services, offset) as ways:
        for way in ways.ways:
            typer.echo(f"  {way.service:<13} {way.url}")
        typer.echo(f"Ctrl-C closes these ways in; the shop stays. To {remove_it}")
        try:
            ways.watch()
        except KeyboardInterrupt:
            typer.echo("\nClosed; the shop runs on.")
