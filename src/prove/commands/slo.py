"""`provectl slo`: objectives become rules; when those alert is predicted, and tested."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prove.errors import UserError

if TYPE_CHECKING:
    from fractions import Fraction

    from prove.slo.burn import Detection
    from prove.slo.report import Alert, Report
    from prove.slo.spec import SLO
    from prove.slo.windows import AlertWindows

app = typer.Typer(
    name="slo",
    help="Service level objectives: rules from specs, when they alert, and tests of that.",
    epilog="Start with: provectl slo explain observability/slos/*.yaml",
    no_args_is_help=True,
)

Specs = Annotated[list[Path], typer.Argument(metavar="SPEC", help="Sloth prometheus/v1 files.")]
Windows = Annotated[
    Path | None,
    typer.Option(
        "--windows", metavar="FILE", help="AlertWindows; the SRE workbook's if not given."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
SUFFIX = ".rules.yaml"
SHARES = ("100%", "50%", "20%", "10%", "5%", "2%")
TEST_TIMEOUT_S = 600


@app.command()
def build(
    specs: Specs,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where rules go.")],
    windows: Windows = None,
    runbooks: Annotated[
        str | None,
        typer.Option(
            envvar="PROVE_RUNBOOKS_URL",
            metavar="URL",
            help="runbook_url; {alert} is the alert's name.",
        ),
    ] = None,
    dashboard: Annotated[
        str | None,
        typer.Option(
            envvar="PROVE_DASHBOARD_URL", metavar="URL", help="dashboard_url; {id} is the SLO's."
        ),
    ] = None,
    live: Annotated[
        str | None, typer.Option(metavar="URL", help="A Prometheus whose histograms to look at.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 where DIR isn't up to date.")
    ] = False,
) -> None:
    """Write the Prometheus rules of each SPEC to DIR/SPEC.rules.yaml.

    For every SLO: its bad share over each window, its objective, budget and what is left; a page
    and a ticket that burn rates set off; an alert for missing data. Names and labels are Sloth's.
    The same input gives the same bytes. Conditions that can never hold are told on stderr.

    --live asks whether the histograms an SLO uses have a bucket that ends at its objective, and
    fails where they don't: such an SLO would measure nothing.

    Examples:

        provectl slo build observability/slos/*.yaml -o observability/alerts

        provectl slo build observability/slos/*.yaml -o observability/alerts --check

        provectl slo build my.yaml -o /tmp/rules --windows observability/slos/windows/drill.yaml
    """
    from prove.slo import rules

    looked_at, windows_name = _windows(windows)
    links = rules.Links(
        **{k: v for k, v in (("runbook", runbooks), ("dashboard", dashboard)) if v is not None}
    )
    by_file = _read(specs)
    wanted = {}
    for path, slos in by_file.items():
        name = path.stem + SUFFIX
        if name in wanted:
            raise UserError(f"two specs would both become {name}; rename one of them")
        wanted[name] = rules.build(
            slos, looked_at, source=path.name, windows_source=windows_name, links=links
        )
    every = [slo for slos in by_file.values() for slo in slos]
    for slo in every:
        for warning in rules.warnings(slo, looked_at):
            typer.echo(f"warning: {warning}", err=True)
    if live:
        _check_buckets(every, live)
    if check:
        _check_files(out, wanted)
        return
    _write(out, wanted)
    for name in wanted:
        typer.echo(out / name)


@app.command()
def explain(
    specs: Specs,
    bad: Annotated[
        list[str] | None, typer.Option(metavar="SHARE", help="Share of bad events; repeatable.")
    ] = None,
    windows: Windows = None,
    json_output: Json = False,
) -> None:
    """Show when each SLO pages and makes a ticket, and how much budget has burned by then.

    By theory: constant traffic, nothing bad before, then SHARE of all events bad. The time is
    factor x budget x long window / SHARE, and never where SHARE isn't over factor x budget (SRE
    workbook, chapter 5). Evaluation and delivery add up to two evaluations. "clear" is how long
    an alert stays on after a fault that was mended as soon as it fired.

    Examples:

        provectl slo explain observability/slos/checkout.yaml

        provectl slo explain observability/slos/*.yaml --bad 20% --json | jq '.slos[].cells'
    """
    from fractions import Fraction

    from prove import units
    from prove.slo import rules

    looked_at, _ = _windows(windows)
    shares = []
    for text in bad or SHARES:
        units.share(text, "--bad")
        shares.append(Fraction(text.removesuffix("%")) / 100)
    every = [slo for slos in _read(specs).values() for slo in slos]
    if json_output:
        typer.echo(
            json.dumps({"slos": [_explained(slo, looked_at, shares) for slo in every]}, indent=2)
        )
        return
    for slo in every:
        _print_explained(slo, looked_at, shares)
        for warning in rules.warnings(slo, looked_at):
            typer.echo(f"warning: {warning}")
        typer.echo()


@app.command("test")
def run_tests(
    specs: Specs,
    windows: Windows = None,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Leave rules and tests there.")
    ] = None,
    only: Annotated[
        str, typer.Option(metavar="TEXT", help="Only cases whose name has it: 'just over 6x'.")
    ] = "",
    json_output: Json = False,
) -> None:
    """Write promtool unit tests for every alert of SPEC, and run them.

    Just under a threshold an alert never fires; just over it, and in a total outage, it fires when
    theory says, within one evaluation, and resolves; lost telemetry, counter resets and a single
    failure in little traffic set nothing off; missing data is told. Stand-in counters replace the
    SLO's queries. Exit code 1 when one doesn't hold.

    Examples:

        provectl slo test observability/slos/*.yaml

        provectl slo test my.yaml --windows observability/slos/windows/drill.yaml --keep /tmp/tests
    """
    from prove import tools, units
    from prove.bars import StepBars
    from prove.slo import promtests

    looked_at, _ = _windows(windows)
    every = [slo for slos in _read(specs).values() for slo in slos]
    suites = {slo.id: files for slo in every if (files := promtests.suite(slo, looked_at, only))}
    if not suites:
        raise UserError(
            f"no case's name has {only!r} in it; without --only all are run"
            if only
            else "there is nothing to test: each alert is disabled"
        )
    with tools.ConsoleProgress() as progress:
        promtool = tools.ensure("prometheus", progress=progress)["promtool"]
    tried = []
    with tempfile.TemporaryDirectory(prefix="prove-slo-") as scratch, StepBars() as bars:
        directory = keep or Path(scratch)
        for name, files in suites.items():
            _write(directory, {file.name: file.text for file in files})
            tests = [file for file in files if file.cases]
            with bars.step(f"testing {name}"):
                failure = _promtool(promtool, directory, [file.name for file in tests])
            tried.append((name, [case for file in tests for case in file.cases], failure))
    for name, cases, failure in tried:
        if not json_output:
            word = "does not hold" if failure else "holds"
            typer.echo(f"{name}: {word} ({units.count(len(cases), 'case')})")
        if failure:
            typer.echo(failure, err=True)
    holds = not any(failure for *_, failure in tried)
    if json_output:
        verdict = "holds" if holds else "does not hold"
        told = [
            {"slo": name, "holds": not failure, "cases": cases} for name, cases, failure in tried
        ]
        typer.echo(json.dumps({"verdict": verdict, "slos": told}, indent=2))
    if not holds:
        raise typer.Exit(1)


@app.command()
def report(
    specs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[SPEC]...", help="Without one: observability/slos/*.yaml."),
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="PROMETHEUS", help="Without it, that of the stack.")
    ] = None,
    period: Annotated[
        str | None, typer.Option(help="Back from now: 7d, 1h30m; without it, the SLO's period.")
    ] = None,
    windows: Windows = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page, with drawings.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Show how each SLO was kept, what is left of its error budget, and which incidents burned it.

    From what the rules of `slo build` have recorded in a Prometheus. --windows are those they were
    built with; without it, those of the stack's profile, else the workbook's. An incident is a time
    in which the budget burned faster than allowed, if an alert fired or 1% of the budget went. The
    budget is that of the time there is data of.

    Examples:

        provectl slo report

        provectl slo report observability/slos/checkout.yaml --period 1d --html /tmp/report.html
    """
    import time

    from prove.clients.prometheus import Prometheus
    from prove.slo import durations
    from prove.slo import report as slo_report
    from prove.stack import configs
    from prove.stack import settings as stack_settings
    from prove.tools import repository_root

    if url is None:
        settings = stack_settings.load()
        url = settings.url(settings.prometheus_port)
        if windows is None and settings.profile == "drill":
            windows = repository_root() / "observability" / configs.DRILL_WINDOWS
    looked_at, _ = _windows(windows)
    try:
        period_s = durations.seconds(period) if period else looked_at.period_s
    except ValueError as error:
        raise UserError(f"--period {error}") from None
    if not looked_at.lengths_s[0] <= period_s <= looked_at.period_s:
        shortest, longest = (
            durations.text(each) for each in (looked_at.lengths_s[0], looked_at.period_s)
        )
        raise UserError(
            f"--period must be between {shortest} and {longest}, as the rules record it"
        )
    files = specs or sorted((repository_root() / "observability" / "slos").glob("*.yaml"))
    every = [slo for slos in _read(files).values() for slo in slos]
    end_s = time.time()
    prometheus = Prometheus(url)
    found = [
        slo_report.report(slo, looked_at, prometheus, end_s - period_s, end_s) for slo in every
    ]
    if html:
        from prove.slo import reportpage

        title = f"Service levels, {slo_report.moment(end_s)}, the last {durations.text(period_s)}"
        _write(html.parent, {html.name: reportpage.html(found, title)})
    if json_output:
        typer.echo(json.dumps(slo_report.document(found), indent=2))
        return
    _print_report(found, f"the last {durations.text(period_s)}", url)
    if html:
        typer.echo(f"as a page: {html}")


@app.command("import")
def import_openslo(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="OpenSLO v1, ratio metrics.")],
) -> None:
    """Print OpenSLO v1 SLOs in the form the other commands take.

    Ratios of good, bad and total, and raw ratios, with PromQL queries. A fixed range in a query
    becomes the window of each rule. What has no counterpart is refused, or told on stderr.

    Example:

        provectl slo import openslo.yaml > my.yaml
    """
    from prove.slo import openslo

    converted, notes = openslo.convert(_text(source), str(source))
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(converted, nl=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a SPEC, for editors and CI.

    Example:

        provectl slo schema > observability/slos/slo.schema.json
    """
    from prove.slo.spec import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def _windows(path: Path | None) -> "tuple[AlertWindows, str]":
    from prove.slo import windows

    if path is None:
        return windows.WORKBOOK, "the SRE workbook's windows"
    return windows.parse(_text(path), str(path)), f"the windows of {path.name}"


def _read(specs: Sequence[Path]) -> "dict[Path, list[SLO]]":
    from prove.slo import spec

    found = {path: spec.parse(_text(path), str(path)) for path in specs}
    spec.check_distinct(slo for slos in found.values() for slo in slos)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8") from None


def _write(directory: Path, files: dict[str, str]) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{directory} can't be written to: {error.strerror}") from None


def _check_files(directory: Path, wanted: dict[str, str]) -> None:
    from prove.slo.rules import STAMP
    from prove.stack.hints import command

    problems = []
    for name, text in wanted.items():
        path = directory / name
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif _text(path) != text:
            problems.append(f"{path} is not what its spec makes")
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        if path.name not in wanted and _text(path).startswith(STAMP):
            problems.append(f"{path} has no spec any more; remove it")
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        typer.echo(f"{command('slo build')} writes them", err=True)
        raise typer.Exit(1)


def _check_buckets(slos: "Sequence[SLO]", url: str) -> None:
    from prove.clients.prometheus import Prometheus
    from prove.slo import buckets

    prometheus = Prometheus(url)
    problems = []
    for slo in slos:
        for wanted in buckets.wanted(slo):
            ends = {sample.labels.get("le", "") for sample in prometheus.query(wanted.question)}
            if not ends:
                typer.echo(f"note: {slo.id}: {wanted.series} has no live series yet", err=True)
            elif wanted.end not in ends:
                problems.append(
                    f"{slo.id}: {wanted.series} has no bucket that ends at {wanted.end};"
                    f" there are {', '.join(sorted(ends, key=float))}"
                )
    if problems:
        raise UserError("\n".join(problems))


def _promtool(promtool: Path, directory: Path, names: list[str]) -> str:
    """What promtool complains of; nothing if all holds."""
    try:
        done = subprocess.run(
            [promtool, "test", "rules", *names],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TEST_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"promtool was not done with {names[0]} in {TEST_TIMEOUT_S} s") from None
    return "" if done.returncode == 0 else f"{done.stdout}{done.stderr}".strip()


def _explained(
    slo: "SLO", windows: "AlertWindows", shares: "Sequence[Fraction]"
) -> dict[str, object]:
    from prove.slo import rules
    from prove.slo.windows import describe

    def told(found: "Detection | None") -> dict[str, object] | None:
        if found is None:
            return None
        return {
            "after_s": float(found.fires_s),
            "budget_burned": float(found.burned),
            "condition": describe(found.pair),
            "resolves_after_s": float(found.resolves_s),
            "resolves_after_s_at_most": float(found.resolves_late_s),
        }

    return {
        "id": slo.id,
        "objective_percent": float(slo.objective),
        "budget": float(slo.budget),
        "period_s": windows.period_s,
        "evaluation_interval_s": windows.interval_s,
        "warnings": rules.warnings(slo, windows),
        "cells": [
            {
                "bad": float(share),
                "page": told(_detection(slo, windows, "page", share)),
                "ticket": told(_detection(slo, windows, "ticket", share)),
            }
            for share in shares
        ],
    }


def _detection(
    slo: "SLO", windows: "AlertWindows", severity: str, share: "Fraction"
) -> "Detection | None":
    from prove.slo import burn

    if (slo.page if severity == "page" else slo.ticket) is None:
        return None
    pairs = windows.pairs("page" if severity == "page" else "ticket")
    return burn.detection(pairs, slo.budget, share, windows.period_s)


def _print_explained(slo: "SLO", windows: "AlertWindows", shares: "Sequence[Fraction]") -> None:
    from rich.console import Console
    from rich.table import Table

    from prove.slo import burn, durations, rules

    table = Table("bad", box=None, pad_edge=False, title_justify="left")
    of_each = ("burned", "clear")
    for heading in ("page after", *of_each, "ticket after", *of_each, "budget gone after"):
        table.add_column(heading, justify="right")
    for share in shares:
        page, ticket = (_detection(slo, windows, each, share) for each in ("page", "ticket"))
        gone = burn.time_to_exhaustion_s(share, slo.budget, windows.period_s)
        table.add_row(
            f"{rules.decimal(share * 100)}%",
            *_shown(page),
            *_shown(ticket),
            durations.rounded(gone) if gone else "never",
        )
    console = Console(highlight=False, soft_wrap=True)
    budget = rules.decimal(slo.budget * 100)
    period = durations.text(windows.period_s)
    console.print(f"{slo.id}: {slo.objective}% over {period}, an error budget of {budget}%")
    if slo.description:
        console.print(slo.description)
    console.print(table)


def _shown(found: "Detection | None") -> tuple[str, str, str]:
    from prove.slo import durations

    if found is None:
        return "never", "", ""
    fires, resolves = (durations.rounded(each) for each in (found.fires_s, found.resolves_s))
    return fires, f"{float(found.burned):.1%}", resolves


def _print_report(reports: "Sequence[Report]", period: str, url: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from prove.slo.report import lasted, percent

    console = Console(highlight=False, width=100)
    console.print(f"{period}, until {_clock(reports[0].end_s)} UTC")
    table = Table("SLO", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("promised", "kept", "budget left", "bad", "of", "incidents"):
        table.add_column(heading, justify="right")
    for each in reports:
        if each.compliance is None or each.burned is None:
            table.add_row(each.slo.id, f"{each.slo.objective}%", "no data", "", "", "", "")
            continue
        unit = "" if each.counts_events else " s"
        style = "" if each.met else "red"
        table.add_row(
            each.slo.id,
            f"{each.slo.objective}%",
            f"[{style}]{percent(each.compliance)}[/]" if style else percent(each.compliance),
            f"[{style}]{percent(1 - each.burned)}[/]" if style else percent(1 - each.burned),
            f"{each.bad:,.0f}{unit}",
            f"{each.total:,.0f}{unit}",
            f"{len(each.incidents)}",
        )
    console.print(table)
    if not any(each.total for each in reports):
        typer.echo(f"\nnothing is recorded at {url}: does it have the rules of `slo build`?")
    incidents = Table("incident", "began, UTC", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("lasted", "worst burn", "of budget"):
        incidents.add_column(heading, justify="right")
    incidents.add_column("alerts")
    for each in reports:
        for incident in each.incidents:
            incidents.add_row(
                each.slo.id,
                _clock(incident.began_s)[5:],
                lasted(incident.ended_s - incident.began_s),
                f"{incident.peak_burn_rate:.1f}x",
                f"{incident.burned:.1%}",
                ", ".join(map(_alert, incident.alerts)) or "none",
            )
    if incidents.row_count:
        console.print()
        console.print(incidents)


def _alert(alert: "Alert") -> str:
    return f"{alert.severity} {_clock(alert.fired_s)[-5:]}"


def _clock(unix_s: float) -> str:
    from prove.slo.report import moment

    return moment(unix_s)[:16].replace("T", " ")
