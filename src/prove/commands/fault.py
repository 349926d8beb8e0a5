"""`provectl fault`: the leases of services and injector, listed, set and ended."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prove.errors import UserError

if TYPE_CHECKING:
    from prove.clients.faults import Lease
    from prove.stack.settings import StackSettings

app = typer.Typer(
    name="fault",
    help="Break something for a while: every fault is a lease, and ends by itself.",
    epilog="Start with: provectl fault list",
    no_args_is_help=True,
)

WIDTH = 100
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Place = Annotated[
    str,
    typer.Option(
        "--service",
        "-s",
        metavar="NAME",
        help="product, order, payment, acquirer; or injector, for faults outside them.",
    ),
]


@app.command("list")
def list_faults(*, as_json: Json = False) -> None:
    """Show every fault that is in force, and how long it still has.

    Exit code 1 when a service doesn't say: one that hangs may have some, too.

    Example:

        provectl fault list --json | jq -r '.faults[].name'
    """
    found, silent = _all()
    if as_json:
        faults = [_document(place, lease) for place, lease in found]
        typer.echo(json.dumps({"faults": faults, "silent": silent}))
    elif found:
        _show(found)
    elif not silent:
        typer.echo("Nothing is broken on purpose.")
    for place, why in silent.items():
        typer.echo(f"{place} does not say what it has: {why}", err=True)
    if silent:
        raise typer.Exit(1)


@app.command("set")
def set_fault(
    name: Annotated[str, typer.Argument(help="Yours to choose; one of that name is replaced.")],
    params: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Its parameters.")
    ] = None,
    *,
    service: Place,
    type_: Annotated[str, typer.Option("--type", "-t", help="docs/reference/http.md has all.")],
    match: Annotated[
        list[str] | None,
        typer.Option("--match", "-m", metavar="KEY=VALUE", help="Which requests; all without."),
    ] = None,
    duration: Annotated[str, typer.Option("--for", help="How long, 15m at most.")] = "1m",
    as_json: Json = False,
) -> None:
    """Break something, from now on and for as long as you say.

    What a type takes is in docs/reference/http.md and docs/how-to/inject-faults.md. Nothing is
    broken when something about it is wrong.

    Examples:

        provectl fault set slow -s payment -t latency distribution=constant delay_ms=300 --for 30s

        provectl fault set flaky -s product -t error rate=0.2 status=503 -m method=GET

        provectl fault set frozen -s injector -t pause process=payment --for 20s
    """
    from prove import units
    from prove.clients.faults import Faults

    ttl_s = units.duration_s(duration, "--for")
    fault: dict[str, Any] = {"type": type_, "params": _pairs(params), "ttl_s": round(ttl_s)}
    if match:
        fault["match"] = _pairs(match)
    lease = Faults(_settings(), _place(service)).put(name, fault)
    if as_json:
        typer.echo(json.dumps(_document(service, lease)))
        return
    typer.echo(f"{name} is in force for {lease.left_s:.0f} s; {_end(name, service)} ends it")


@app.command()
def clear(
    name: Annotated[str | None, typer.Argument(help="As `list` shows it.")] = None,
    *,
    service: Annotated[
        str | None,
        typer.Option("--service", "-s", metavar="NAME", help="Where; everywhere without."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every fault.")] = False,
    as_json: Json = False,
) -> None:
    """End faults now.

    Examples:

        provectl fault clear slow

        provectl fault clear --all
    """
    from prove.clients.faults import Faults

    if every == bool(name):
        raise UserError("name the fault to end, or give --all")
    where = _place(service) if service else None
    found, silent = _all(where)
    wanted = [(place, lease) for place, lease in found if every or lease.name == name]
    if not (wanted or silent or every):
        raise UserError(f"no fault that is in force is called {name}")
    for place, lease in wanted:
        Faults(_settings(), place).delete(lease.name)
    if as_json:
        ended = [{"service": place, "name": lease.name} for place, lease in wanted]
        typer.echo(json.dumps({"ended": ended, "silent": silent}))
    else:
        for place, lease in wanted:
            typer.echo(f"{lease.name} of {place} is over")
        if not (wanted or silent):
            typer.echo("Nothing is broken on purpose.")
    for place, why in silent.items():
        typer.echo(f"{place} could not be asked: {why}", err=True)
    if silent:
        raise typer.Exit(1)


def _all(only: str | None = None) -> "tuple[list[tuple[str, Lease]], dict[str, str]]":
    """The leases by place, and who doesn't answer, with the reason; raises UserError."""
    from prove.clients.faults import PLACES, Faults
    from prove.stack import state

    settings = _settings()
    there = state.require(settings.home).processes
    found: list[tuple[str, Lease]] = []
    silent: dict[str, str] = {}
    for place in PLACES:
        if place not in there or only not in (None, place):
            continue
        try:
            found += [(place, lease) for lease in Faults(settings, place).items()]
        except UserError as error:
            silent[place] = str(error)
    return found, silent


def _show(found: "list[tuple[str, Lease]]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    columns = ("service", "name", "type", "what", "requests", "left")
    table = Table(*columns, box=None, pad_edge=False, width=min(WIDTH, console.width))
    for place, lease in found:
        what, requests = _words(lease.params), _words(lease.match or {}) or "all"
        if place == "injector":
            requests = ""
        cells = (place, lease.name, lease.type, what, requests, f"{lease.left_s:.0f} s")
        table.add_row(*map(Text, cells))
    console.print(table)


def _document(place: str, lease: "Lease") -> dict[str, object]:
    return {"service": place, **lease.model_dump(mode="json"), "left_s": round(lease.left_s, 1)}


def _pairs(given: list[str] | None) -> dict[str, Any]:
    """Values are JSON where they can be, text elsewhere."""
    found: dict[str, Any] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UserError(f"{text!r} must be KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def _place(name: str) -> str:
    from prove.clients.faults import PLACES

    if name not in PLACES:
        raise UserError(f"--service: must be one of {', '.join(PLACES)} (got {name!r})")
    return name


def _end(name: str, service: str) -> str:
    from prove.stack.hints import command

    return command(f"fault clear {name} -s {service}")


def _words(values: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())


def _settings() -> "StackSettings":
    from prove.stack import settings as stack_settings

    return stack_settings.load()
