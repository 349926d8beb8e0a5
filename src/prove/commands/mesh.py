"""`provectl mesh`: who may call whom, and until when the certificates hold."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from prove.errors import UserError

app = typer.Typer(
    name="mesh",
    help="The mesh: who may call whom, and until when its certificates hold.",
    epilog="Start with: provectl mesh edges",
    no_args_is_help=True,
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command("edges")
def show_edges(*, json_output: Json = False) -> None:
    """Show who may ask what of whom; all else is refused.

    Envoy's configuration and Istio's objects are made of this table, src/prove/mesh/edges.yaml.

    Examples:

        provectl mesh edges
    """
    from rich.console import Console
    from rich.table import Table

    from prove.mesh import edges

    mesh = edges.load()
    if json_output:
        typer.echo(mesh.model_dump_json(indent=2))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("caller", "called", "within", "methods", "paths"):
        table.add_column(heading)
    for edge in mesh.edges:
        for index, allowed in enumerate(edge.allow):
            ends = (edge.caller, edge.called, f"{edge.timeout_s:g} s") if not index else ("",) * 3
            methods = "any" if len(allowed.methods) > 7 else " ".join(allowed.methods)
            table.add_row(*ends, methods, " ".join(allowed.paths))
    Console().print(table)


@app.command("certificates")
def show_certificates(*, json_output: Json = False) -> None:
    """Show until when the certificate of each identity of the local mesh holds, as it is on disk.

    Exit code 1 when one has expired or isn't there.
    """
    from rich.console import Console
    from rich.table import Table

    from prove.mesh import certificates, edges
    from prove.stack import mesh
    from prove.stack import settings as stack_settings
    from prove.stack.hints import command

    directory = mesh.certificates_dir(stack_settings.load())
    if not directory.is_dir():
        raise UserError(f"there is no mesh in {directory}; start one with {command('up --mesh')}")
    now = datetime.now(UTC)
    found = {name: certificates.expiry(directory / name) for name in mesh.identities()}
    if json_output:
        told = {
            name: {"identity": edges.identity(name), "expires_at": until and until.isoformat()}
            for name, until in found.items()
        }
        typer.echo(json.dumps({"certificates": told}, indent=2))
    else:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for heading in ("identity", "holds until", "for"):
            table.add_column(heading)
        for name, until in found.items():
            left = f"{(until - now).total_seconds() / 3600:.1f} h" if until else ""
            at = until.isoformat(sep=" ", timespec="seconds") if until else "not there"
            table.add_row(edges.identity(name), at, left)
        Console().print(table)
    if any(until is None or until <= now for until in found.values()):
        raise typer.Exit(1)


@app.command("secrets")
def print_secrets(
    *,
    namespace: Annotated[str, typer.Option(help="Where the shop is.")] = "prove",
    trust_domain: Annotated[str, typer.Option(help="As `mesh.trustDomain`.")] = "cluster.local",
    lifetime: Annotated[str, typer.Option("--for", help="Until they expire.")] = "24h",
    authority: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="Where the authority is kept. Default: PROVE_HOME/data/mesh/ca."
        ),
    ] = None,
) -> None:
    """Print the Secrets that the chart's proxies read (`mesh.mode=envoy`), without cert-manager.

    They hold private keys. Applied again before they expire, proxies go on with the new ones.

    Examples:

        provectl mesh secrets | kubectl apply -f -

        provectl mesh secrets --namespace shop --for 12h | kubectl apply -f -
    """
    from prove import units
    from prove.mesh import kubernetes
    from prove.mesh.certificates import Authority
    from prove.stack import mesh
    from prove.stack import settings as stack_settings

    until = datetime.now(UTC) + timedelta(seconds=units.duration_s(lifetime, "--for"))
    where = authority or mesh.certificates_dir(stack_settings.load()) / "ca"
    try:
        issuer = Authority.at(where)
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: no authority can be read or made there: {error}") from None
    typer.echo(kubernetes.secrets(issuer, namespace, trust_domain, until), nl=False)
