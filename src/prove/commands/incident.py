"""`provectl incident`: the catalogue of incidents, and their runs."""

import asyncio
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prove.commands import incident_records
from prove.errors import UserError

if TYPE_CHECKING:
    from prove.incident.catalogue import Entry
    from prove.incident.record import Incident
    from prove.incident.runner import Export
    from prove.incident.target import Database, Target

app = typer.Typer(
    name="incident",
    help="Incidents that state what must be seen: the catalogue, and running them.",
    epilog="Start with: provectl incident list",
    no_args_is_help=True,
)

ABORT_ON = 0.5

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command("list")
def list_scenarios(*, json_output: Json = False) -> None:
    """Show the catalogue: each scenario's family, how hard its cause is to find, what pages when.

    Times are those of a drill (`provectl up --drill`): a sixtieth of the real ones.
    """
    from prove import text
    from prove.incident import catalogue, judge, report

    entries = catalogue.load()
    objectives = catalogue.objectives("drill")
    dues = {name: judge.due(each.prove.expect.pages, objectives) for name, each in entries.items()}
    if not json_output:
        report.show_list(entries, dues, text.console())
        return
    scenarios = [
        {
            "name": name,
            "title": entry.scenario.title,
            "family": entry.prove.family,
            "difficulty": entry.prove.difficulty,
            "pages": [
                {
                    "slo": due.page.slo,
                    "alert": due.alert,
                    "theory_s": due.theory_s,
                    "within_s": round(due.within_s, 3),
                }
                for due in dues[name]
            ],
        }
        for name, entry in entries.items()
    ]
    typer.echo(json.dumps({"scenarios": scenarios}, indent=2))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A scenario, or its file.")],
    *,
    truth: Annotated[
        bool, typer.Option("--truth", help="Tell the cause, too, and what helps.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Show one scenario: what people notice, what is done, what has to be seen and when.

    The answer is told with --truth alone, so that one can look for it first. --json has all of it.
    """
    from prove import text
    from prove.incident import catalogue, judge, report

    entry = catalogue.find(name)
    dues = judge.due(entry.prove.expect.pages, catalogue.objectives("drill"))
    if json_output:
        typer.echo(entry.scenario.model_dump_json(by_alias=True, indent=2))
    else:
        report.show_scenario(entry, dues, text.console(), truth=truth)


@app.command()
def lint(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Default: the catalogue.")
    ] = None,
) -> None:
    """Check scenarios: their form, that all fits together, and what Chaos Toolkit says of them.

    Leases must be ones that the services and the injector take, each undone by a rollback, and
    last until the page is due; alerts must exist, and theory must have them fire. What is wrong is
    told with file, line and field. Exit code 1 when something is.
    """
    from prove.incident import catalogue
    from prove.incident import lint as checks
    from prove.units import count

    objectives = catalogue.objectives("drill")
    problems: list[str] = []
    entries: list[Entry] = []
    paths = files or catalogue.files()
    for path in paths:
        try:
            entry = catalogue.read(path)
        except UserError as error:
            problems += str(error).splitlines()
            continue
        entries.append(entry)
        problems += checks.check(entry, objectives)
    problems += checks.check_together(entries)
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{count(len(paths), 'scenario')}: nothing is wrong.")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a scenario, for editors and CI.

    Examples:

        provectl incident schema > incidents/scenario.schema.json
    """
    from prove.incident import schema as form

    typer.echo(json.dumps(form.json_schema(), indent=2))


@app.command()
def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Scenarios; `one+other` are run at once."),
    ] = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="The whole catalogue: about 50 minutes.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Decides what the customers buy.")] = 1,
    abort_on: Annotated[
        float,
        typer.Option(
            min=0.001, max=100, help="End it when this share of an SLO's error budget is gone."
        ),
    ] = ABORT_ON,
    load: Annotated[
        float,
        typer.Option(min=0.1, max=10, help="Times as many customers as the scenarios have."),
    ] = 1.0,
    on: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False, help="URLs of another installation to run it on."
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(file_okay=False, help="Write a page of evidence here.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Run incidents, and judge whether each was noticed, ended and cost what its scenario says.

    Customers arrive at a constant rate; once all is steady the fault is set, the page awaited, the
    fault taken back, recovery watched, and the books compared. That happens on the drill that runs
    (`provectl up --drill`), or else on one of its own, which is removed afterwards. Each run
    leaves a record in PROVE_HOME/incidents.

    Ctrl-C rolls back and exits with 130. Exit code 1 when an expectation does not hold or a run was
    aborted. What this installation can't have (a full disk without root) is told and no failure.

    Examples:

        provectl incident run payment-errors

        provectl incident run acquirer-slow+reads-rush

        provectl incident run --all --seed 1 --report docs/evidence
    """
    from prove import text
    from prove.bench.measure import this_run
    from prove.incident import catalogue, record
    from prove.incident import report as told
    from prove.incident import target as targets
    from prove.stack import settings as stack_settings

    if bool(names) == every:
        raise UserError("give either names of scenarios or --all")
    runs = catalogue.chosen(names or catalogue.in_order())
    home = stack_settings.load().home
    there = targets.by_file(on) if on else targets.running(stack_settings.load())
    about = this_run() if report else None
    try:
        found = carry_out(runs, home, there, seed=seed, abort_on=abort_on, load=load)
    except KeyboardInterrupt:
        left = "the drill runs on" if there else "nothing is left running"
        typer.echo(f"Stopped; what was set is taken back, and {left}.", err=True)
        raise typer.Exit(130) from None
    page = None
    if report and about:
        given = shlex.join(["provectl", *sys.argv[1:]])
        page = told.write(report, found, seed, about, given)
    records = home / record.DIRECTORY
    if json_output:
        typer.echo(json.dumps(told.document(found, records, page)))
    else:
        told.show(found, text.console())
        for incident in found:
            typer.echo(f"kept in {records / incident.id}", err=True)
    if page:
        typer.echo(f"wrote {page}", err=True)
    if not told.holds(found):
        raise typer.Exit(1)


def carry_out(
    runs: "Sequence[Sequence[Entry]]",
    home: Path,
    there: "Target | None",
    *,
    seed: int = 1,
    abort_on: float = ABORT_ON,
    load: float = 1.0,
    export: "Export | None" = None,
) -> "list[Incident]":
    """Run them `there`, else on drills of our own, one for each kind; tells how it goes.

    `export` keeps the evidence of each; without one it goes into the record.

    Raises UserError when there is nothing to run them on.
    """
    from prove import tools
    from prove.incident import catalogue, evidence, record, report
    from prove.incident.runner import Session
    from prove.stack import processes

    if there is None:
        with tools.ConsoleProgress() as building:
            processes.ensure_binaries(building)
    found: list[Incident] = []
    with report.Bar() as bar:
        for target, some in _targets(runs, home, there, found):
            session = Session(
                target,
                catalogue.objectives(target.profile),
                home / record.DIRECTORY,
                seed,
                abort_on,
                bar,
                export=export or evidence.keep,
                load=load,
            )
            found += asyncio.run(session.run(some))
    return found


def _targets(
    runs: "Sequence[Sequence[Entry]]",
    home: Path,
    there: "Target | None",
    found: "Sequence[Incident]",
) -> "Iterator[tuple[Target, Sequence[Sequence[Entry]]]]":
    """Where to run what."""
    if there is not None:
        yield there, runs
        return
    databases: tuple[Database, ...] = ("sqlite", "postgres")
    for mesh in (False, True):
        for database in databases:
            some = [each for each in runs if (_database(each), _mesh(each)) == (database, mesh)]
            if some:
                with _own(home, database, found, mesh=mesh) as own:
                    yield own, some


def _mesh(entries: "Sequence[Entry]") -> bool:
    """Whether they get a mesh: where there is no Envoy, the run says what they need."""
    from prove.stack import mesh

    return any(entry.prove.needs_mesh for entry in entries) and mesh.is_there()


def _database(entries: "Sequence[Entry]") -> "Database":
    needed = {entry.prove.needs_database for entry in entries}
    return "postgres" if "postgres" in needed else "sqlite"


@contextmanager
def _own(
    home: Path, database: "Database", found: "Sequence[Incident]", *, mesh: bool
) -> "Iterator[Target]":
    """It is removed unless something on it did not hold: then one will want to look at it."""
    from prove.incident import record, report, target

    name = f"drill-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
    path = home / record.DIRECTORY / name
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"{path} cannot be made ({error.strerror}); set PROVE_HOME to another directory"
        ) from None
    before = len(found)
    try:
        with target.own(path, database, mesh=mesh) as own:
            yield own
    finally:
        if report.holds(found[before:]):
            shutil.rmtree(path, ignore_errors=True)
        else:
            typer.echo(f"logs are kept in {path / 'logs'}", err=True)


incident_records.register(app)
