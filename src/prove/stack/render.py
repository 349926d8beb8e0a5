"""Rich renderings of the stack: its table, its logs."""

import contextlib
import time
from collections.abc import Mapping

from rich.console import Group
from rich.table import Table
from rich.text import Text

from prove.clients.logs import SHORT_ID
from prove.stack.logview import Record
from prove.stack.report import ProcessReport, Report
from prove.stack.state import ProcessState, StackState

PHASE_STYLE = {
    "waiting": "dim",
    "starting": "yellow",
    "ready": "green",
    "backoff": "red",
    "held": "magenta",
    "stopping": "yellow",
    "stopped": "dim",
}
# What a line is read for comes first, so that a narrow terminal cuts something else.
FIRST = ("status", "route", "method", "duration_ms", "order_id", "payment_id", "sku")
# Told last and by its beginning, by which `logs --trace` finds it; the other ids are in `--json`.
TRACE = "trace_id"
NOT_TOLD = frozenset({TRACE, "span_id", "request_id"})
LEVEL_SHORT = {"warning": "warn", "critical": "fatal"}
LEVEL_STYLE = {"debug": "dim", "warning": "yellow", "error": "red", "critical": "bold red"}


def progress(state: StackState) -> Table:
    """The processes on their way up or down."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("process", "state", "port", "seconds"):
        table.add_column(heading, justify="right" if heading == "seconds" else "left")
    for process in state.processes.values():
        table.add_row(
            process.name,
            Text(process.phase, PHASE_STYLE[process.phase]),
            str(process.ports[0]) if process.ports else "",
            seconds_to_ready(process),
        )
    return table


def status(report: Report) -> Group:
    """The report as a table with totals."""
    style = "green" if report.ready else "red"
    head = Text(f"{report.phase}", style).append(f": {report.detail}", "default")
    home = Text(str(report.home), "dim")
    if not report.processes:
        return Group(head, home)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("process", "state"):
        table.add_column(heading)
    for heading in ("pid", "port", "uptime", "restarts", "RSS MiB", "CPU %"):
        table.add_column(heading, justify="right")
    for row in report.processes:
        table.add_row(
            row.name,
            _state(row),
            str(row.pid or ""),
            str(row.ports[0]) if row.ports else "",
            _uptime(row.uptime_s),
            str(row.restarts or ""),
            _mebibytes(row.rss_bytes),
            f"{row.cpu_percent:.1f}",
        )
    table.add_section()
    for group, total in report.totals.items():
        cells = (_mebibytes(total.rss_bytes), f"{total.cpu_percent:.1f}")
        table.add_row(f"all {group}", *[""] * 5, *cells, style="bold")
    return Group(head, home, table)


def _state(row: ProcessReport) -> Text:
    if row.phase == "ready" and not row.ready:
        return Text("unready", "red")  # it was, but does not say so now
    return Text(row.phase, PHASE_STYLE[row.phase])


def _uptime(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f}"


def seconds_to_ready(process: ProcessState) -> str:
    """From its start to its readiness, or until now."""
    if process.started_at is None:
        return ""
    return f"{(process.ready_at or time.time()) - process.started_at:.1f}"


def record(entry: Record, *, with_trace: bool = True) -> Text:
    """One log line: time, level, process, event, fields, the beginning of the trace's id."""
    style = LEVEL_STYLE.get(entry.level, "")
    line = Text(entry.time[11:23] or " " * 12, "dim")
    line.append(f" {LEVEL_SHORT.get(entry.level, entry.level):<5.5} ", style)
    line.append(f"{entry.process:<10} ", "cyan")
    line.append(entry.event, style or "bold")
    for key, value in told(entry).items():
        line.append(f" {key}=", "dim")
        line.append(value)
    if with_trace and TRACE in entry.fields:
        line.append(f" {TRACE}={str(entry.fields[TRACE])[:SHORT_ID]}…", "dim")
    return line


def told(entry: Record) -> dict[str, str]:
    """What of its fields is shown, shortened, and in which order."""
    fields = {key: entry.fields[key] for key in FIRST if key in entry.fields}
    fields |= {key: value for key, value in entry.fields.items() if key not in NOT_TOLD}
    return {key: _short(key, value) for key, value in fields.items()}


def _short(key: str, value: object) -> str:
    if key.endswith("_ms"):  # the log store has numbers as text
        with contextlib.suppress(TypeError, ValueError):
            return f"{round(float(str(value)), 1):.15g}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping | list):
        return str(value).replace("\n", " ")
    return str(value)
