"""`provectl bench`: measures what this project promises of its speed and size."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from prove.bench.measure import Effort
    from prove.bench.progress import Progress
    from prove.bench.report import Evidence


class Figure(StrEnum):
    """What to measure."""

    reads = "reads"
    checkout = "checkout"
    durability = "durability"
    startup = "startup"
    growth = "growth"
    rules = "rules"
    faults = "faults"
    causes = "causes"
    all = "all"


def bench(
    figure: Annotated[Figure, typer.Argument(help="What to measure.")] = Figure.all,
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few minutes to see that it works; writes nothing.")
    ] = False,
    page_only: Annotated[
        bool,
        typer.Option("--page-only", help="Measure nothing: write the page again, its notes new."),
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Measure, on stacks of its own, and write docs/benchmarks.md. Leave the machine alone.

    **reads**: product reads with telemetry off, stock and as shipped. **checkout**: latency, CPU
    and the highest rate of the whole shop, and three times that. **durability**: the checkout
    beside the one that a crash lost orders of. **startup**: seconds to ready, and memory.
    **growth**: reads and reservations at a thousand to a million products. **rules**: evaluation
    of the SLOs' rules at ten times the series. **faults**: product reads with the fault middleware
    and without it, while no fault is set. **causes**: time and memory of an analysis of root
    causes, up to a million spans.

    All of it takes about 35 minutes; a figure measured by itself replaces its section of the page.
    Exit code 1 when a target is missed (not with --quick, whose figures mean nothing).

    Examples:

        provectl bench

        provectl bench checkout

        provectl bench --quick --json | jq .checkout.result.latency
    """
    from rich.console import Console

    from prove import tools
    from prove.bench import report
    from prove.bench.measure import FULL, QUICK
    from prove.bench.progress import Progress
    from prove.stack import processes

    if page_only:
        report.write(report.Evidence())
        return
    with tools.ConsoleProgress() as building:
        processes.ensure_binaries(building)
        tools.ensure("k6", progress=building)
    wanted = list(report.Evidence.model_fields) if figure is Figure.all else [figure.value]
    evidence = report.Evidence()
    with Progress() as progress:
        try:
            for one in wanted:
                measured = _measure(one, QUICK if quick else FULL, progress)
                evidence = measured.merged(evidence)
                if not quick:
                    report.write(measured)
        except KeyboardInterrupt:
            typer.echo(
                "Stopped; nothing is left running, figures that were done are kept.", err=True
            )
            raise typer.Exit(130) from None
    if json_output:
        typer.echo(evidence.model_dump_json())
    else:
        report.show(evidence, Console())
    if not quick:
        typer.echo(f"wrote {report.PAGE} and {report.EVIDENCE}", err=True)
        if not evidence.reached:
            raise typer.Exit(1)


def _measure(figure: str, effort: "Effort", progress: "Progress") -> "Evidence":
    from prove.bench import (
        causes,
        checkout,
        durability,
        faults,
        growth,
        reads,
        report,
        rules,
        startup,
    )
    from prove.bench.measure import this_run

    measures = {
        "reads": reads.measure_reads,
        "checkout": checkout.measure_checkout,
        "durability": durability.measure_durability,
        "startup": startup.measure_startup,
        "growth": growth.measure_growth,
        "rules": rules.measure_rules,
        "faults": faults.measure_faults,
        "causes": causes.measure_causes,
    }
    progress.figure(figure)
    with progress.step("is the machine idle?"):
        run = this_run()
    result = measures[figure](effort, progress)
    return report.Evidence.model_validate({figure: {"run": run, "result": result}})
