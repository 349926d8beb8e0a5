"""`provectl rca collect`: labelled bundles of own incidents, to measure the analysis on."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from prove.cause.plan import Case

FAULTS, QUIET, DOUBLE = 10, 5, 3


def register(app: typer.Typer) -> None:
    """Make it a subcommand of `provectl rca`."""
    app.command("collect")(collect)


def collect(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", file_okay=False, help="Where they go.")
    ],
    *,
    seed: Annotated[int, typer.Option(help="Another one, other incidents.")] = 1,
    faults: Annotated[int, typer.Option(min=0, help="Runs with one fault.")] = FAULTS,
    quiet: Annotated[
        int, typer.Option(min=0, help="Runs without one; every second with more load.")
    ] = QUIET,
    double: Annotated[int, typer.Option(min=0, help="Runs with two faults at once.")] = DOUBLE,
    hold: Annotated[str, typer.Option(help="How long each lasts, 5s to 3m.")] = "45s",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Run so many of those that are left, and stop.")
    ] = None,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Show what would be run; nothing is.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Run incidents with a known cause on a drill, and keep their bundles, the truth apart.

    Faults of all types at all services, links, processes and the acquirer; loads and severities go
    round; some runs have no fault, some only more customers, some two faults. That takes about
    three minutes a run. Stopped, the same command goes on where it was. It runs on the drill that
    is up (`provectl up --drill`), else on one of its own.

    A seed's faults come after those of the seed before; after four there have been all. Several
    seeds may be collected into the same DIR, also at once, each with another PROVE_HOME.

    DIR then has bundles/own and truth/own, in the form of docs/reference/incident-bundle.md:

        provectl rca score DIR/bundles --truth DIR/truth

    Examples:

        provectl rca collect -o .prove/rca-own --plan

        provectl rca collect -o .prove/rca-own --seed 1

        provectl rca collect -o /tmp/few --faults 2 --quiet 1 --double 0 --hold 30s
    """
    from prove import units
    from prove.cause import collect as collecting
    from prove.cause import plan as planning
    from prove.commands.incident import carry_out
    from prove.errors import UserError
    from prove.incident import target
    from prove.stack import settings as stack_settings

    hold_s = units.duration_s(hold, "--hold")
    if not 5 <= hold_s <= 180:
        raise UserError(f"--hold must be 5s to 3m (got {hold!r})")
    cases = planning.plan(seed, faults, quiet, double, hold_s)
    left = collecting.left(cases, out)
    if only_plan:
        _show(cases, left, json_output)
        return
    out.mkdir(parents=True, exist_ok=True)
    try:
        carry_out(
            [[planning.entry(case)] for case in left[:limit]],
            out.absolute(),
            target.running(stack_settings.load()),
            seed=seed,
            export=collecting.keeper(cases, out),
        )
    except KeyboardInterrupt:
        typer.echo("Stopped; what was set is taken back. The same command goes on.", err=True)
        raise typer.Exit(130) from None
    known = collecting.done(out)
    told = {
        "planned": len(cases),
        "kept": sum(bool(known.get(case.name)) for case in cases),
        "left": len(collecting.left(cases, out)),
        "bundles": str(out / collecting.BUNDLES),
        "truth": str(out / collecting.TRUTHS),
        "analysed": collecting.tally(cases, out),
    }
    if json_output:
        typer.echo(json.dumps(told, indent=2))
    else:
        typer.echo(
            f"{told['kept']} of {told['planned']} bundles are in {told['bundles']}, "
            f"{told['left']} runs are left"
        )
        for sort, of in collecting.tally(cases, out).items():
            typer.echo(
                f"  {sort:<11}{of['runs']:4} runs: {of['right']} right, {of['right_kind']} with "
                f"their kind, {of['abstained']} abstained"
            )


def _show(cases: "list[Case]", left: "list[Case]", json_output: bool) -> None:
    waiting = {case.name for case in left}
    if json_output:
        rows = [
            {
                "case": case.name,
                "what": case.kind,
                "severity": case.severity,
                "reads_per_s": case.reads_per_s,
                "checkouts_per_s": case.checkouts_per_s,
                "done": case.name not in waiting,
            }
            for case in cases
        ]
        typer.echo(json.dumps({"cases": rows}, indent=2))
        return
    for case in cases:
        mark = " " if case.name in waiting else "x"
        typer.echo(
            f"[{mark}] {case.name}  {case.severity:<6} {case.checkouts_per_s:4.0f} checkouts/s  "
            f"{case.kind}"
        )
    typer.echo(f"{len(left)} of {len(cases)} are left, about {3 * len(left)} minutes")
