"""What is told of the figures: tables on the terminal, docs/benchmarks.md and its raw evidence.

A figure measured on another machine than the latest says so.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError
from rich.console import Console

from prove import files, tools
from prove.bench import cluster
from prove.bench.causes import Causes
from prove.bench.checkout import OVERLOAD, Checkout
from prove.bench.durability import BEFORE, Durability
from prove.bench.faults import USERS as FAULT_USERS
from prove.bench.faults import Faults
from prove.bench.growth import Growth
from prove.bench.measure import BUSY_PERCENT, Group, Memory, Run, Target
from prove.bench.mesh import MeshCost
from prove.bench.reads import CONFIGURATIONS, RATE, USERS, Reads
from prove.bench.rules import PAST_S, STEP_S, Rules
from prove.bench.startup import Startup
from prove.bench.tables import Table
from prove.errors import UserError

PAGE = Path("docs/benchmarks.md")
EVIDENCE = Path("docs/evidence/bench.json")
CLUSTER = EVIDENCE.with_name("cluster.json")
NOTES = Path(__file__).with_name("notes.md")

Result = TypeVar("Result", bound=BaseModel)


Figure = Reads | Checkout | Durability | Startup | Growth | Rules | Faults | MeshCost | Causes


class Measured(BaseModel, Generic[Result]):
    """A figure and the run that it is of."""

    run: Run
    result: Result


class Evidence(BaseModel):
    """All figures; None: not measured yet."""

    reads: Measured[Reads] | None = None
    checkout: Measured[Checkout] | None = None
    durability: Measured[Durability] | None = None
    startup: Measured[Startup] | None = None
    growth: Measured[Growth] | None = None
    rules: Measured[Rules] | None = None
    faults: Measured[Faults] | None = None
    mesh: Measured[MeshCost] | None = None
    causes: Measured[Causes] | None = None

    def figures(self) -> "dict[str, Measured[Figure]]":
        """Those that were measured, by name, in the order in which they are told."""
        return {name: figure for name in Evidence.model_fields if (figure := getattr(self, name))}

    @property
    def reached(self) -> bool:
        """Whether every target of every figure was."""
        figures = self.figures().values()
        return all(target.reached for figure in figures for target in figure.result.targets())

    def merged(self, earlier: "Evidence") -> "Evidence":
        """These figures, and the earlier ones that are not among them."""
        return Evidence.model_validate(
            {**earlier.figures(), **self.figures()}, from_attributes=True
        )


_TITLES = {
    "reads": "Product reads, and what telemetry costs them",
    "checkout": "Checkout",
    "durability": "What the durable checkout costs",
    "startup": "Time to ready, and memory",
    "growth": "Growth of the catalogue",
    "rules": "Evaluation of the SLO rules",
    "faults": "What faults cost when none is set",
    "mesh": "What the mesh costs",
    "causes": "Finding a root cause",
}
_METHODS = {
    "reads": f"""
One product service each with telemetry off, with stock auto-instrumentation, and as shipped (100%
of traces, metrics and logs), on catalogues of 1,000 products; a real Collector takes what they
send. They are asked in turn, round by round: at a constant {RATE} requests/s (CPU time of the
service's whole process tree ÷ requests), then by {USERS} connections in a closed loop
(requests/s). Figures are medians of the rounds.""",
    "checkout": """
The whole shop with every signal on and durable orders; orders of one to three lines over 1,000
products, at a constant rate (an order that cannot be started in time counts as dropped).
Acquirer, observability and load generator share the machine with the services.""",
    "durability": f"""
The whole shop as it is, and as it was before a checkout survived its process (commit `{BEFORE}`:
one write before and one after, no step recorded, no lease), both running, with every signal on.
They are asked in turn, round by round, at the same constant rate. CPU is that of services and
acquirer. The ratio is taken within each round; figures are medians of the rounds.""",
    "startup": """
`provectl up --detach` with built tools in a new, empty home each time, from the command to its
end. Memory is summed over processes, children included. RSS counts pages that processes share
(a forked worker's above all) once for each of them; PSS divides them, so that it adds up.""",
    "growth": """
Three product services with catalogues of different size run at once and are asked in turn, request
by request, at a low constant rate. List: the first two pages in every order there is. Search: a
term that ten products have, whatever the size. Reserve: one product; its release follows and is not
counted. The ratio is taken within each round; figures are medians of the rounds.""",
    "rules": f"""
Two Prometheus servers side by side with the rules of the drill, which are evaluated every second:
one knows the requests of the shop's instances, the other those of ten times as many, over the
{PAST_S // 60} minutes of the longest window, with a sample every {STEP_S} s; both know what rules
recorded every second of the period. CPU is that of the whole server.""",
    "faults": f"""
The product service as it is, and without what looks for fault leases (in each request, and in the
background), two processes of each, telemetry off. {FAULT_USERS} connections in a closed loop ask
all four in turn, request by request. CPU is that of the process tree; what two processes of the
same kind differ by is the noise of the reading. Figures are medians of the rounds.""",
    "mesh": """
The whole shop with the mesh (Envoy at the edge and before each service, mTLS between them, every
request traced) and without it, both running. They are asked in turn, round by round, at the same
constant rate. CPU is that of services, acquirer and proxies. Added and ratio are taken within each
round; figures are medians of the rounds.""",
    "causes": """
Made-up incidents of traces of ten spans over twelve services, half baseline and half incident, read
from parquet and analysed by `prove.rca`, each size in a process of its own. Time is the P95 of the
runs after the first; memory what the process's peak is above what it had before.""",
}
_PEER_TITLE = (
    "Beside a peer: the AWS Retail sample, in memory, OTLP on, load generator on the same two "
    "cores; measured earlier on this kind of machine, not in this run:"
)
_PEER_READS = (("list (10 items; its catalogue is in Go)", "540"), ("item", "285"))
_PEER = {
    "P95 at 50/s": "28 ms",
    "CPU an order": "17 ms",
    "highest rate": "125/s",
    "RSS of its services": "1,006 MiB",
}


def show(evidence: Evidence, console: Console) -> None:
    """Print the figures."""
    for name, figure in evidence.figures().items():
        console.print(f"[bold]{_TITLES[name]}[/bold]\n", highlight=False)
        if figure.run.busy:
            console.print(f"{_busy(figure.run)}\n", highlight=False)
        for table in [_targets(figure.result.targets()), *_tables(figure.result)]:
            table.show(console)


def write(measured: Evidence) -> None:
    """Bring page and evidence up to date with what was measured now, if anything was.

    Raises UserError when they cannot be written, or nothing was ever measured.
    """
    root = tools.repository_root()
    evidence = measured.merged(read(root / EVIDENCE))
    if not evidence.figures():
        raise UserError("nothing was measured yet; do it with `provectl bench`")
    told = page(evidence, notes(NOTES.read_text(encoding="utf-8")), _on_kubernetes(root / CLUSTER))
    files.write(root / EVIDENCE, evidence.model_dump_json(indent=1) + "\n")
    files.write(root / PAGE, told)


def read(path: Path) -> Evidence:
    """Figures measured earlier, but for those of another form than today's."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return Evidence()
    if not isinstance(found, dict):
        return Evidence()
    evidence = Evidence()
    for name, figure in found.items():
        with suppress(ValidationError):
            evidence = Evidence.model_validate({name: figure}).merged(evidence)
    return evidence


def _on_kubernetes(path: Path) -> cluster.Figures:
    """What the tests of the cluster measured, if anything."""
    try:
        found: cluster.Figures = json.loads(path.read_bytes())
    except OSError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is no JSON: restore it, or delete it ({error})") from error
    return found


def notes(text: str) -> dict[str, str]:
    """What is said by hand, by figure: the text under each `## figure`."""
    parts = re.split(r"^## (\w+)\n", text, flags=re.MULTILINE)
    return {name: said.strip() for name, said in zip(parts[1::2], parts[2::2], strict=True)}


def page(evidence: Evidence, said: Mapping[str, str], on_kubernetes: cluster.Figures) -> str:
    """docs/benchmarks.md; `on_kubernetes`, what the tests of the cluster measured."""
    figures = evidence.figures()
    latest = max((figure.run for figure in figures.values()), key=_taken_at)
    parts = [_head(latest)]
    for name, title in _TITLES.items():
        parts.append(f"## {title}")
        command = f"`provectl bench {name}`"
        if not (figure := figures.get(name)):
            parts.append(f"Not measured yet: {command} does it.")
            continue
        run = figure.run
        pace = f" Pace: {run.pace_ms:.0f} ms." if run.pace_ms else ""
        parts.append(f"{command}, {run.taken_at:%Y-%m-%d %H:%M} UTC, commit `{run.commit}`.{pace}")
        if run.machine != latest.machine:
            parts.append(f"> Of another machine: {_hardware(run)}; {run.os}.")
        if run.busy:
            parts.append(f"> {_busy(run)}")
        parts.append(_METHODS[name].strip())
        tables = [_targets(figure.result.targets()), *_tables(figure.result)]
        parts += [table.markdown() for table in tables]
        if words := said.get(name):
            parts.append(f"**What is in the way.** {words}")
    parts += ["## The shop on Kubernetes", *_told_of_the_cluster(on_kubernetes)]
    return "\n\n".join(parts) + "\n"


def _told_of_the_cluster(known: cluster.Figures) -> list[str]:
    if not known:
        return ["Not measured yet: `make test-cluster` does it."]
    method = (
        f"`make test-cluster`: {cluster.machine(known)}.\nA request fails when its answer isn't a "
        "success within 12 s, and nothing is asked for twice.\nWhat else these tests prove: "
        "[evidence/cluster.md](evidence/cluster.md)."
    )
    return [method, *(table.markdown() for table in cluster.costs(known))]


def _head(run: Run) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    machine = Table(
        "## Machine",
        ("", " "),
        [
            ("hardware", _hardware(run)),
            ("system", run.os),
            ("versions", versions),
        ],
    )
    return f"""\
# Benchmarks

Generated by `make bench` from [evidence/bench.json](evidence/bench.json), which holds every
reading; what is said by hand stands in `src/prove/bench/notes.md`.

**How to read it.** Everything runs on one machine, the one below where a section names no other:
the shop, its observability and the load generator share its cores. So compare figures within a
table, where they were taken side by side, rather than with another table's. A target is the limit
this project has set itself; one that is missed makes `make bench` exit with 1 and stays on this
page as missed. Pace is what Python took for a million additions just before: a machine that is a
guest among others is not worth the same at all times, so weigh times and rates by it.

{machine.markdown().replace(":-- | --:", ":-- | :--")}"""


def _hardware(run: Run) -> str:
    return f"{run.cpu}, {run.cores} cores, {run.memory_gib:g} GiB"


def _tables(result: BaseModel) -> list[Table]:
    match result:
        case Reads():
            return _reads(result)
        case Checkout():
            return _checkout(result)
        case Durability():
            return [_durability(result)]
        case Startup():
            return _startup(result)
        case Growth():
            return [_growth(result)]
        case Rules():
            return [_rules(result)]
        case Faults():
            return [_faults(result)]
        case MeshCost():
            return [_mesh(result)]
        case Causes():
            return [_causes(result)]
    raise TypeError(type(result))


def _targets(targets: Iterable[Target]) -> Table:
    rows = [(t.text, t.measured, "reached" if t.reached else "**missed**") for t in targets]
    return Table("Targets:", ("target", "measured", "verdict"), rows)


def _reads(result: Reads) -> list[Table]:
    rounds = len(next(iter(result.windows.values()))["off"])
    cost = []
    for kind, configurations in result.windows.items():
        for name, windows in configurations.items():
            cost.append(
                (
                    f"{kind}, {name}",
                    f"{median(window.per_second for window in windows):,.0f}",
                    f"{median(window.cpu_us for window in windows):,.0f}",
                    "" if name == "off" else f"{result.added_us(kind, name):+,.0f}",
                )
            )
    delivery = []
    for name in CONFIGURATIONS[1:]:
        told = result.delivery[name]
        delivery.append(
            (
                name,
                f"{told.requests:,}",
                f"{told.spans_per_request:.1f}",
                f"{told.spans_accepted:,} of {told.spans_expected:,}",
                f"{told.logs_accepted:,} of {told.logs_expected:,}",
                f"{told.refused:,}",
                f"{told.dropped:,}",
            )
        )
    return [
        Table(
            f"Cost of a read, medians of {rounds} rounds:",
            ("", "requests/s", "CPU µs/request", "added µs"),
            cost,
        ),
        Table(
            "What the Collector got (more than expected: the service's own background work):",
            ("", "requests", "spans each", "spans", "log records", "refused", "SDK drops"),
            delivery,
        ),
        Table(_PEER_TITLE, ("", "CPU µs/request"), _PEER_READS),
    ]


def _checkout(result: Checkout) -> list[Table]:
    told = result.latency
    cpu = [(name, f"{result.cpu_ms[name]:.2f}") for name in result.shop]
    cpu.append(("the shop together", f"{result.shop_cpu_ms:.2f}"))
    others = set(result.cpu_ms) - set(result.shop)
    cpu += [(name, f"{result.cpu_ms[name]:.2f}") for name in sorted(others)]
    cpu.append(("observability together", f"{result.observability_cpu_ms:.2f}"))
    cpu.append(("load generator (k6)", f"{result.generator_cpu_ms:.2f}"))
    ours = {
        f"P95 at {result.rate}/s": f"{told.p95:.1f} ms",
        "CPU an order": f"{result.shop_cpu_ms:.1f} ms",
        "highest rate": f"{result.highest}/s",
        "RSS of its services": f"{sum(m.rss for m in result.memory.shop.values()):,.0f} MiB",
    }
    return [
        Table(
            f"Constant {result.rate}/s for {result.seconds} s:",
            ("orders", "failed", "dropped", "P50 ms", "P95 ms", "P99 ms", "max ms", "restarts"),
            [
                (
                    *(f"{told.count:,}", str(told.failed), str(result.dropped)),
                    *(f"{ms:.1f}" for ms in (told.p50, told.p95, told.p99, told.max)),
                    str(result.restarts),
                )
            ],
        ),
        Table("CPU of an order, by process:", ("process", "ms/order"), cpu),
        _memory(f"Memory at {result.rate}/s:", {"at load": result.memory}),
        Table(
            f"Search for the highest rate, {result.search_s} s each, in the order tried; then "
            f"{OVERLOAD} times as many as were confirmed at most:",
            ("orders/s", "confirmed/s", "P95 ms", "failed", "dropped", "holds"),
            [
                (
                    *(str(probe.rate), f"{probe.goodput:.1f}", f"{probe.p95:,.1f}"),
                    *(str(probe.failed), str(probe.dropped), "yes" if probe.holds else "no"),
                )
                for probe in [*result.probes, result.overload]
            ],
        ),
        Table(
            _PEER_TITLE,
            ("", "prove", "AWS Retail sample"),
            [(name, ours[name], peer) for name, peer in _PEER.items()],
        ),
    ]


def _durability(result: Durability) -> Table:
    rows = [
        (
            name,
            f"{median(window.p95_ms for window in windows):.1f}",
            f"{median(window.cpu_ms for window in windows):.2f}",
            f"{median(window.per_cpu_s for window in windows):.0f}",
        )
        for name, windows in result.windows.items()
    ]
    ratios = (result.ratio("p95_ms"), result.ratio("cpu_ms"), 1 / result.ratio("cpu_ms"))
    return Table(
        f"Constant {result.rate}/s for {result.seconds} s, {len(result.windows['now'])} rounds:",
        ("", "P95 ms", "CPU ms/order", "orders/CPU s"),
        [*rows, ("now ÷ before", *(f"{ratio:.2f}" for ratio in ratios))],
    )


def _startup(result: Startup) -> list[Table]:
    runs = tuple(f"{seconds:.1f}" for seconds in result.seconds)
    return [
        Table(
            "Seconds to ready:",
            ("median", *(f"run {n}" for n in range(1, len(runs) + 1))),
            [(f"{median(result.seconds):.1f}", *runs)],
        ),
        _memory(
            f"Memory {result.idle_s} s after the start, and at {result.rate}/s after "
            f"{result.load_s} s:",
            {"idle": result.idle, f"{result.rate}/s": result.loaded},
        ),
    ]


def _memory(title: str, groups: Mapping[str, Group]) -> Table:
    header = [f"{kind} {when}" for when in groups for kind in ("RSS MiB", "PSS MiB")]
    rows = []
    for part in ("shop", "observability"):
        of_part = [getattr(group, part) for group in groups.values()]
        for name in of_part[0]:
            rows.append((name, *_amounts([[processes[name]] for processes in of_part])))
        together = _amounts([list(processes.values()) for processes in of_part])
        rows.append((f"{part} together", *together))
    everything = [
        [*group.shop.values(), *group.observability.values()] for group in groups.values()
    ]
    rows.append(("all", *_amounts(everything)))
    return Table(title, ("process", *header), rows)


def _amounts(columns: Iterable[Sequence[Memory]]) -> list[str]:
    texts = []
    for memories in columns:
        shares = [memory.pss for memory in memories]
        known = [share for share in shares if share is not None]
        texts.append(f"{sum(memory.rss for memory in memories):,.0f}")
        texts.append(f"{sum(known):,.0f}" if len(known) == len(shares) else "")
    return texts


def _growth(result: Growth) -> Table:
    sizes = sorted(next(iter(result.p95_ms.values())))
    header = [f"{size:,}" for size in sizes] + [f"ratio at {size:,}" for size in sizes[1:]]
    rows = [
        (
            operation,
            *(f"{result.p95(operation, size):.2f}" for size in sizes),
            *(f"{result.ratio(operation, size):.2f}" for size in sizes[1:]),
        )
        for operation in result.p95_ms
    ]
    return Table(
        f"P95 in ms by number of products, at {result.rate} requests/s to each for "
        f"{result.seconds} s, medians of {result.rounds} rounds:",
        ("", *header),
        rows,
    )


def _rules(result: Rules) -> Table:
    rows = [
        (f"{scale} times the shop's", f"{cost.series:,}", f"{cost.cpu_s * 1000:.0f}")
        for scale, cost in result.costs.items()
    ]
    return Table(
        f"One evaluation of all {result.groups} groups:",
        ("instances", "series read", "CPU ms"),
        rows,
    )


def _faults(result: Faults) -> Table:
    rows = [
        (
            read,
            *(f"{median(readings):,.0f}" for readings in processes.values()),
            f"{result.percent(read):+.2f}%",
            f"{result.noise_percent(read):.2f}%",
        )
        for read, processes in result.cpu_us.items()
    ]
    names = next(iter(result.cpu_us.values()))
    rounds = len(next(iter(names.values())))
    return Table(
        f"CPU µs of a read, {rounds} rounds of {result.seconds} s:",
        ("", *names, "added", "noise"),
        rows,
    )


def _mesh(result: MeshCost) -> Table:
    rows = [
        (
            f"mesh {name}",
            f"{median(window.p50_ms for window in windows):.1f}",
            f"{median(window.p95_ms for window in windows):.1f}",
            f"{median(window.cpu_ms for window in windows):.2f}",
            f"{median(window.proxies_ms for window in windows):.2f}",
        )
        for name, windows in result.windows.items()
    ]
    added = (f"{result.added_ms('p50_ms'):+.1f}", f"{result.added_ms('p95_ms'):+.1f}")
    return Table(
        f"Constant {result.rate}/s for {result.seconds} s, {len(result.windows['on'])} rounds; the "
        f"proxies take {result.rss_mib:,.0f} MiB:",
        ("", "P50 ms", "P95 ms", "CPU ms/order", "of it proxies"),
        [*rows, ("on less off; CPU: on ÷ off", *added, f"{result.cpu_ratio:.2f}", "")],
    )


def _causes(result: Causes) -> Table:
    least = min(result.sizes)
    rows = [
        (
            f"{spans:,}",
            f"{size.p95_s * 1000:,.0f}",
            f"{size.p95_s / result.sizes[least].p95_s:.1f}",
            f"{size.peak_mib:,.0f}",
            f"{size.peak_mib / result.sizes[least].peak_mib:.1f}",
            f"{spans / least:g}",
        )
        for spans, size in result.sizes.items()
    ]
    return Table(
        "From parquet files to the answer:",
        ("spans", "P95 ms", "ratio", "MiB more", "ratio", "ratio of spans"),
        rows,
    )


def _busy(run: Run) -> str:
    return (
        f"Other processes took {run.busy_percent:.0f}% of this machine just before (more than "
        f"{BUSY_PERCENT:g}%): measure again when it is idle."
    )


def _taken_at(run: Run) -> float:
    return run.taken_at.timestamp()
