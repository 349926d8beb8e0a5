"""`provectl rca score`: how often the true cause of labelled incidents is found."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from prove.rca.scoring import Case


def register(app: typer.Typer) -> None:
    """Make it a subcommand of `provectl rca`."""
    app.command("score")(score)


def score(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Bundles, anywhere below it.", exists=True)
    ],
    *,
    truth: Annotated[
        Path, typer.Option("--truth", metavar="DIR", help="Labels, anywhere below it.", exists=True)
    ],
    stability: Annotated[
        bool,
        typer.Option("--stability", help="Also change each constant by a quarter and by a half."),
    ] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the rankings: {id, ranking}, a line each."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the page of evidence, in Markdown.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Analyse labelled incidents, and say how often the true cause is among the first.

    AC@k is the share of incidents whose cause is among the first k services, with Wilson's 95%
    interval; MRR the mean of 1/place. Beside ours stand chance, simple methods, and figures that
    others published. Labels are read after the rankings are made.

    Examples:

        provectl rca score ../shared/rca/bundles --truth ../shared/rca/truth

        provectl rca score DIR --truth DIR --stability --report docs/evidence/rca.md
    """
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    from prove.cause.plan import DATASET
    from prove.rca import labels, scoring
    from prove.rca import report as told

    known = labels.read(truth)
    cases = scoring.cases(known, labels.bundles(directory), _counter(len(known)))
    if predictions is not None:
        _write(predictions, "".join(_line(case) for case in cases))
    single = scoring.single(cases)
    tables = {
        "Against the aims": (AIMS, told.aims(cases)),
        "Left out, one data set after another": (LEFT_OUT, told.left_out(single)),
        "By data set and method": (BY_METHOD, told.methods(single)),
        "By kind of fault": (BY_FAULT, told.faults(single)),
        "Service and kind": (KINDS, told.kinds(cases)),
        "Where nothing is broken": (QUIET, told.quiet(cases)),
        "What abstaining costs": (COST, told.cost(cases)),
        "Two faults at once": (DOUBLES, told.doubles(cases)),
        "Without each signal": (ABLATION, told.ablation(single)),
        "Misses": (MISSES, told.misses(single)),
        "Wrong where there is no fault, or two": (SURPRISES, told.surprises(cases)),
    }
    if stability:
        places = scoring.perturbed(single)
        tables["How stable that is"] = (STABILITY, told.stability(single, places))
    if report is not None:
        own = {case.label.dataset for case in cases} == {DATASET}
        _write(report, told.page(tables, OWN_HEAD if own else HEAD))
    if json_output:
        typer.echo(json.dumps(told.document(cases), indent=1))
        return
    console = Console(highlight=False)
    for title, (_, (heads, rows)) in tables.items():
        if not rows:
            continue
        table = RichTable(box=None, pad_edge=False, title=title, title_justify="left")
        for head in heads:
            table.add_column(Text(head), overflow="fold")
        for row in rows:
            table.add_row(*(Text(each) for each in row))
        console.print(table)
        console.print()


HEAD = """# Root causes: how often they are found

Written by `make bench-rca`; not to be edited. The incidents are public and were made by nobody
here; what they are, and the published figures, is told in the README that comes with them. The
model is told in [explanation/rca.md](../explanation/rca.md), and the misses there one by one.
"""
OWN_HEAD = """# Root causes of own incidents: how often they are found

Written by `make prove`; not to be edited. The incidents are those of `provectl rca collect`: faults
of all types at all services, links, processes and the acquirer, runs without a fault or with more
customers only, and runs with two faults. What is compared begins when the SLI of the first page
went bad, or, without a page, at a time that is only about right; never when a fault was set. The
confidence is learnt on the incidents of others ([rca.md](rca.md)). Which rules were made with some
of these in view, and the misses one by one, is told in
[explanation/rca.md](../explanation/rca.md#collected).
"""
AIMS = "Intervals are Wilson's, 95%, here and below."
KINDS = "The first of the ranking, also where it abstains. A fault passes under some kinds."
QUIET = (
    "Right is: no fault is visible, and with more customers, load only, too. That two candidates"
    " can't be told apart is wrong here."
)
COST = "Faults at which it abstains, and whether the first of its ranking would have been right."
DOUBLES = "Beside: that two candidates can't be told apart is a right answer here."
SURPRISES = "What abstained should have been, and pairs of which one is further down."
LEFT_OUT = (
    "The ranking has nothing that is learnt. The confidence is a logistic regression; on each data"
    " set it is the one fitted on the others. Brier: mean squared error of the told chance that"
    " the first is right, beside that of always telling the rate of the others; answered: told to"
    " be at least even."
)
BY_METHOD = "Service level; intervals are Wilson's, 95%. A method that ranks nothing misses."
BY_FAULT = "Ours."
ABLATION = "AC@1 and AC@3 when one signal is left out."
MISSES = "Place, and bits of evidence, of the true cause and of what is named first."
STABILITY = (
    "The bootstrap draws incidents again; then each constant is multiplied by a factor, alone."
)


def _line(case: "Case") -> str:
    from prove.rca.scoring import OURS

    return json.dumps({"id": case.label.id, "ranking": case.rankings[OURS]}) + "\n"


def _write(path: Path, text: str) -> None:
    from prove import files

    files.write(path, text)
    typer.echo(f"wrote {path}", err=True)


def _counter(total: int) -> "Callable[[str], None]":
    """Counts on stderr, where that is a terminal."""
    import sys

    done = 0

    def count(name: str) -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty():
            typer.echo(f"\r{done}/{total} {name:60}", err=True, nl=done == total)

    return count
