"""`provectl grafana`: the dashboards in this machine's Grafana, or how to open them elsewhere."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prove.errors import UserError

if TYPE_CHECKING:
    from prove.stack.settings import StackSettings

OLDEST = 11
"""The Grafana whose dashboards we write; older ones can't read them."""
HOST = "127.0.0.1"
_ASK_TIMEOUT_S = 30


def grafana(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="3000, moved as the stack is.")
    ] = None,
) -> None:
    """Open the dashboards: starts a Grafana (11.0 or newer) that is on PATH, until Ctrl-C.

    It listens on loopback alone, asks for no login, tells nobody about its use, and keeps its data
    in the stack's home. Without a Grafana, what to give to one elsewhere is shown; exit code 2.

    Examples:

        provectl grafana

        provectl grafana --port 3001
    """
    from prove.stack import settings as stack_settings
    from prove.stack import state
    from prove.stack.hints import command

    settings = stack_settings.load()
    environment = _sources(settings)
    binary = shutil.which("grafana") or shutil.which("grafana-server")
    if binary is None:
        _tell(environment)
        raise UserError("there is no `grafana` on PATH to show the dashboards here")
    _check_version(binary)
    listen = port or settings.grafana_port
    _check_port(listen)
    home = _home(binary)
    environment |= _settings(settings, listen)
    if state.load(settings.home) is None:
        typer.echo(f"The shop is not up, so panels stay empty until {command('up')}.")
    typer.echo(f"Grafana: http://{HOST}:{listen}/dashboards (Ctrl-C ends it)")
    words = ["server"] if Path(binary).name == "grafana" else []
    # In place of this process: signals reach it, and nothing is left behind.
    os.execve(binary, [binary, *words, "--homepath", str(home)], os.environ | environment)  # noqa: S606 no shell


def _sources(settings: "StackSettings") -> dict[str, str]:
    """What the provisioning files are filled in with; the dashboards are written on the way."""
    from prove import dashboards
    from prove.commands.dashboards import write

    logs = settings.url(settings.victorialogs_port)
    directory = settings.home / "grafana" / "dashboards"
    write(directory, dashboards.build(logs_url=logs))
    return {
        "PROMETHEUS_URL": settings.url(settings.prometheus_port),
        "JAEGER_URL": settings.url(settings.jaeger_port),
        "LOGS_URL": logs,
        "PROVE_DASHBOARDS": str(directory),
        "GF_PATHS_PROVISIONING": str(_provisioning()),
    }


def _provisioning() -> Path:
    from prove.tools import repository_root

    return repository_root() / "observability" / "grafana" / "provisioning"


def _settings(settings: "StackSettings", port: int) -> dict[str, str]:
    """Grafana's own settings: for one machine, for whoever may use its loopback address."""
    files = settings.home / "grafana"
    return {
        "GF_PATHS_DATA": str(files / "data"),
        "GF_PATHS_LOGS": str(files / "logs"),
        "GF_PATHS_PLUGINS": str(files / "plugins"),
        "GF_SERVER_HTTP_ADDR": HOST,
        "GF_SERVER_HTTP_PORT": str(port),
        # An editor may explore, which opening a trace is; there is no administrator to guess.
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Editor",
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_NEWS_NEWS_FEED_ENABLED": "false",
        "GF_LOG_LEVEL": "warn",
    }


def _check_version(binary: str) -> None:
    try:
        done = subprocess.run(
            [binary, "-v"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ASK_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{binary} can't be run: {error}") from None
    found = re.search(r"(\d+)\.\d+\.\d+", done.stdout)
    if found is None:
        raise UserError(f"{binary} -v names no version; put a Grafana {OLDEST} or newer on PATH")
    if int(found[1]) < OLDEST:
        raise UserError(
            f"{binary} is Grafana {found[0]}; the dashboards need {OLDEST} or newer on PATH"
        )


def _check_port(port: int) -> None:
    from service_kit.ports import is_free

    if not is_free(port):
        raise UserError(f"port {port} is in use; choose another with --port")


def _home(binary: str) -> Path:
    """Where Grafana's own files are: its default settings, its pages."""
    for place in _homes(Path(binary).resolve()):
        if (place / "conf" / "defaults.ini").is_file():
            return place
    raise UserError(
        f"the files that belong to {binary} (conf/defaults.ini) are not found; "
        "set GF_PATHS_HOME to their directory"
    )


def _homes(binary: Path) -> Iterator[Path]:
    if told := os.environ.get("GF_PATHS_HOME"):
        yield Path(told)
    prefix = binary.parent.parent
    yield from (prefix, prefix / "share" / "grafana", Path("/usr/share/grafana"))


def _tell(environment: dict[str, str]) -> None:
    sources = "\n".join(
        f"  {name}={value}" for name, value in environment.items() if name.endswith("_URL")
    )
    typer.echo(
        f"""\
To open the dashboards in a Grafana {OLDEST}.0 or newer that can reach this machine, either import
the files (Dashboards, New, Import), with a Prometheus data source of the first address:
  {environment["PROVE_DASHBOARDS"]}/*.json
or let it read them by itself, with data sources, links to traces and all:
  GF_PATHS_PROVISIONING={environment["GF_PATHS_PROVISIONING"]}
  PROVE_DASHBOARDS={environment["PROVE_DASHBOARDS"]}
{sources}
"""
    )
