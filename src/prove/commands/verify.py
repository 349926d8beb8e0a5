"""`provectl verify`: experiments that prove a promise or refute it."""

import dataclasses
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prove.errors import UserError

if TYPE_CHECKING:
    from prove.bench.measure import Run
    from prove.verify.experiment import Result
    from prove.verify.mutants import Mutant

app = typer.Typer(
    name="verify",
    help="Prove what the shop promises, on a shop of its own that is broken on purpose.",
    epilog="Start with: provectl verify orders",
    no_args_is_help=True,
)

RATE_PER_S = 30.0
"""What two cores carry while the shop on them is being killed."""
ROUND_ORDERS = 10_000
MUTANT_RUNS = 3
MUTANT_DRAIN_S = 15.0
"""A dead process's orders are taken up after 4 s; a bug may well keep one from ever ending."""

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Keep = Annotated[
    bool, typer.Option("--keep", help="Keep databases, logs and history, also if it holds.")
]
Report = Annotated[
    Path | None, typer.Option(file_okay=False, help="Write a page of evidence here.")
]


class Database(StrEnum):
    """Where the three services keep what they know."""

    sqlite = "sqlite"
    postgres = "postgres"


DatabaseOption = Annotated[Database, typer.Option(help="Of the three services.")]


@app.command("orders")
def verify_orders(
    orders: Annotated[int, typer.Option(min=1, help="Purchases.")] = 2_000,
    kills: Annotated[int, typer.Option(min=0, help="Processes to kill meanwhile.")] = 30,
    seed: Annotated[int, typer.Option(help="Decides the plan: what is bought, what fails.")] = 1,
    database: DatabaseOption = Database.sqlite,
    *,
    partitions: Annotated[
        bool, typer.Option("--partitions", help="Cut the links between the services, too.")
    ] = False,
    rate: Annotated[
        float, typer.Option(min=0.1, max=1000, help="Purchases that arrive in a second.")
    ] = RATE_PER_S,
    mutant: Annotated[
        str | None, typer.Option(help="Plant this bug (`verify mutants` lists them).")
    ] = None,
    keep: Keep = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help=f"Run in rounds of {ROUND_ORDERS:,} purchases in this directory; the same command "
            "goes on after the last that was finished.",
        ),
    ] = None,
    recovery_p99: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="What 99% of the orders may take to be finished after the last fault, e.g. 10s.",
        ),
    ] = None,
    report: Report = None,
    json_output: Json = False,
) -> None:
    """No order is lost or charged twice: buy, kill -9 and cut meanwhile, then audit the books.

    Customers arrive at a constant rate, whatever becomes of those before them, and ask again under
    the same key until they know. What they saw is checked against the databases of the services
    and the ledger of the acquirer. The same seed makes the same plan, not the same interleaving:
    which request meets which fault is up to the machine.

    2,000 orders take about two minutes. Exit code 1 when a promise is broken, or the run is less
    than its plan: history, databases and logs are kept then, and the story of the first violation
    is told.

    Examples:

        provectl verify orders

        provectl verify orders --orders 500 --kills 10 --partitions --database postgres --seed 7

        provectl verify orders --orders 100000 --kills 1000 --partitions --resume .prove/full
    """
    from prove import tools, units
    from prove.bench import measure
    from prove.verify import mutants, plan, shop
    from prove.verify.experiment import Experiment
    from prove.verify.report import Bar

    env = mutants.environment(mutant) if mutant else {}
    limit_s = units.duration_s(recovery_p99, "--recovery-p99") if recovery_p99 else None
    made = plan.make(orders, kills, seed, partitions=partitions, rate_per_s=rate)
    with _home(resume, f"orders-{database}-{seed}", keep=keep) as home:
        setup = shop.Setup(home.path, database.value, partitions=partitions, env=env)
        commit = measure.commit()
        with tools.ConsoleProgress() as building:
            shop.ensure_binaries(setup, building)
        with Bar(orders, kills) as bar:
            rounds = ROUND_ORDERS if resume else None
            result = Experiment(made, setup, bar, round_orders=rounds, commit=commit).run()
        result = dataclasses.replace(result, recovery_limit_s=limit_s)
        home.holds = result.holds
        _tell(result, database, report, json_output=json_output)
    if not result.holds:
        raise typer.Exit(1)


@app.command("mutants")
def verify_mutants(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Default: all of them.")
    ] = None,
    database: DatabaseOption = Database.sqlite,
    *,
    keep: Keep = False,
    report: Report = None,
    json_output: Json = False,
) -> None:
    """The proof itself is proven: plant known bugs in the services, one by one, and catch each.

    Each bug lives in the real code of a service, in its test build only, and gets a small run that
    is arranged so that it has its effect: up to three, for on a busy machine a process may come too
    late for it. Takes some ten seconds a bug. Exit code 1 when one is not caught.

    Examples:

        provectl verify mutants

        provectl verify mutants lost-refund --json | jq .figures
    """
    from rich.console import Console

    from prove import tools
    from prove.bench import measure
    from prove.verify import mutants, shop
    from prove.verify import report as reports

    commit = measure.commit()
    for name in names or ():
        mutants.environment(name)
    wanted = [mutants.MUTANTS[name] for name in names or mutants.MUTANTS]
    caught: dict[str, list[str]] = {}
    status = Console(stderr=True).status("")
    with _home(None, f"mutants-{database}", keep=keep) as home, status:
        with tools.ConsoleProgress() as building:
            shop.ensure_binaries(shop.Setup(home.path), building)
        for number, mutant in enumerate(wanted, start=1):
            status.update(f"{mutant.name} ({number} of {len(wanted)})")
            caught[mutant.name] = _caught_by(mutant, home.path, database)
        home.holds = all(caught.values())
    page = None
    if report:
        page = reports.write_mutants(
            report, f"verify-mutants-{database}", caught, *_evidence(commit)
        )
    if json_output:
        typer.echo(json.dumps(reports.mutants_document(caught, page)))
    else:
        reports.show_mutants(caught, Console())
    if page:
        typer.echo(f"wrote {page}", err=True)
    if not home.holds:
        raise typer.Exit(1)


@app.command("slos")
def verify_slos(
    cells: Annotated[
        list[str] | None,
        typer.Option(
            "--cell",
            metavar="NAME",
            help="Break this; may be repeated. Default: one of errors, latency, probes, freshness.",
        ),
    ] = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="Break all cells: about 100 minutes.")
    ] = False,
    soak: Annotated[
        str,
        typer.Option(help="Healthy traffic alone before the first cell, so long at least."),
    ] = "3m",
    keep: Keep = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Keep what is done in this directory; the same command goes on from there.",
        ),
    ] = None,
    report: Report = None,
    json_output: Json = False,
) -> None:
    """Each SLO pages when theory says: break it on purpose and wait for the pager.

    A stack of its own, with the windows of the drill (a sixtieth of the real ones), has a constant
    arrival of customers and a webhook as its pager. After six minutes of healthy traffic a fault by
    count turns a known share of one SLI's events bad, until the page comes; it must come within two
    evaluation intervals of its predicted moment, and no other page may. Cells that cannot touch
    each other are broken at once.

    The default takes about nine minutes. Exit code 1 when a page is missed, early, late, false or
    does not end: the stack's home with its logs is kept then.

    Examples:

        provectl verify slos

        provectl verify slos --cell checkout-errors-20 --cell product-reads-latency-80

        provectl verify slos --all --soak 1h --resume .prove/slos --report docs/evidence
    """
    from rich.console import Console

    from prove import tools, units
    from prove.stack import processes
    from prove.verify import cells as catalogue
    from prove.verify import slos, slos_report

    if cells and every:
        raise UserError("give either --all or --cell, not both")
    chosen = catalogue.choose(
        list(catalogue.CATALOGUE) if every else cells or catalogue.ONE_OF_EACH_KIND
    )
    soak_s = units.duration_s(soak, "--soak")
    objectives = slos.objectives()
    with _home(resume, "slos", keep=keep) as home:
        with tools.ConsoleProgress() as building:
            processes.ensure_binaries(building)
        with slos_report.Bar() as bar:
            kept = slos.Drill(home.path, chosen, soak_s, objectives, bar).run()
        home.holds = not kept.violations
        tolerated_s = objectives.tolerated_s
        page = None
        if report:
            page = slos_report.write(report, kept, tolerated_s, *_evidence())
        if json_output:
            typer.echo(json.dumps(slos_report.document(kept, tolerated_s, page)))
        else:
            slos_report.show(kept, tolerated_s, Console())
        if page:
            typer.echo(f"wrote {page}", err=True)
    if kept.violations:
        raise typer.Exit(1)


@app.command("faults")
def verify_faults(
    kills: Annotated[int, typer.Option(min=0, help="Of the injector.")] = 30,
    seed: Annotated[int, typer.Option(help="Decides which faults are set, and for how long.")] = 1,
    database: DatabaseOption = Database.sqlite,
    *,
    only: Annotated[
        str, typer.Option(metavar="TEXT", help="Only faults with this in their name.")
    ] = "",
    keep: Keep = False,
    report: Report = None,
    json_output: Json = False,
) -> None:
    """Every fault is over by itself: set them all, and kill -9 the injector meanwhile.

    A drill stack of its own gets leases of all types, at the services, the acquirer and the
    injector, while the injector and the clients that set them are killed at random moments. Each
    fault must be gone 10 s after its time at the latest: not from a list, but from what it does.
    Before, each is set once with nobody killed, and must be seen. With PostgreSQL the links to it
    and the server itself are broken as well; full disks are part of the run with SQLite, as root.

    30 kills take about four minutes. Exit code 1 when a fault stayed, was never seen, or something
    is left in the end: the stack's home with its logs is kept then.

    Examples:

        provectl verify faults

        provectl verify faults --kills 200 --report docs/evidence

        provectl verify faults --database postgres --only database --kills 10
    """
    from rich.console import Console

    from prove import tools
    from prove.stack import processes
    from prove.verify import faults, faults_report

    with _home(None, f"faults-{database}-{seed}", keep=keep) as home:
        with tools.ConsoleProgress() as building:
            processes.ensure_binaries(building)
        with faults_report.Bar() as bar:
            result = faults.Siege(home.path, kills, seed, bar, database.value, only).run()
        home.holds = not result.violations
        page = faults_report.write(report, result, *_evidence()) if report else None
        if json_output:
            typer.echo(json.dumps(faults_report.document(result, page)))
        else:
            faults_report.show(result, Console())
        if page:
            typer.echo(f"wrote {page}", err=True)
    if result.violations:
        raise typer.Exit(1)


class _Home:
    """A directory of a run; it goes at the end when the run held and nobody wants it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holds = False


@contextmanager
def _home(given: Path | None, name: str, *, keep: bool) -> Iterator[_Home]:
    from prove.stack import settings

    path = given.expanduser().resolve() if given else None
    if path is None:
        name = f"{name}-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
        path = settings.load().home / "verify" / name
    home = _Home(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be made ({error.strerror}); set PROVE_HOME to another directory"
        ) from None
    try:
        yield home
    except KeyboardInterrupt:
        home.holds = True
        goes_on = "; the same command goes on" if given else ""
        typer.echo(f"Stopped, and nothing is left running{goes_on}.", err=True)
        raise typer.Exit(130) from None
    finally:
        nothing_ran = not any(path.rglob("*.log"))
        if given or keep or not (home.holds or nothing_ran):
            typer.echo(f"kept in {path}", err=True)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _caught_by(mutant: "Mutant", home: Path, database: Database) -> list[str]:
    """The violations that give a bug away, in the first of its runs in which any does."""
    from prove.verify import audit, shop
    from prove.verify.experiment import Experiment, Silent

    for run in range(1, MUTANT_RUNS + 1):
        setup = shop.Setup(home / f"{mutant.name}-{run}", database.value, env=mutant.environment)
        result = Experiment(mutant.plan, setup, Silent(), drain_s=MUTANT_DRAIN_S).run()
        kinds = (v.kind for v in result.violations if v.kind not in audit.OF_THE_RUN)
        if found := list(dict.fromkeys(map(str, kinds))):
            return found
    return []


def _tell(
    result: "Result", database: Database, directory: Path | None, *, json_output: bool
) -> None:
    from rich.console import Console

    from prove.verify import report

    page = None
    if directory:
        evidence = _evidence(result.commit)
        page = report.write(directory, f"verify-orders-{database}", result, *evidence)
    if json_output:
        typer.echo(json.dumps(report.document(result, page)))
    else:
        report.show(result, Console())
    if page:
        typer.echo(f"wrote {page}", err=True)


def _evidence(commit: str | None = None) -> "tuple[Run, str]":
    """Where and when this is, of `commit` (None: what is checked out now), by which command."""
    from prove.bench.measure import this_run

    run = this_run()
    if commit is not None:  # what is checked out may have changed since
        run = run.model_copy(update={"commit": commit})
    return run, shlex.join(["provectl", *sys.argv[1:]])
