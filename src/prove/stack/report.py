"""The stack as it is now: asked of its processes, not of the supervisor's memory of them."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import httpx
import psutil
from pydantic import BaseModel

from prove.stack import databases, state
from prove.stack.lifecycle import SUPERVISOR
from prove.stack.settings import StackSettings
from prove.stack.spec import Group
from prove.stack.state import ProcessId, ProcessPhase, ProcessState, StackState
from prove.units import count

CPU_SAMPLE_S = 0.25


class ProcessReport(BaseModel):
    """One process with its workers. `cpu_percent` is of one core, over the last quarter second."""

    name: str
    group: Group | Literal["supervisor"]
    phase: ProcessPhase
    pid: int | None
    ports: tuple[int, ...]
    ready: bool
    uptime_s: float | None
    restarts: int
    last_exit: str | None
    rss_bytes: int
    cpu_percent: float


class Totals(BaseModel):
    """Sums over one group."""

    rss_bytes: int
    cpu_percent: float


class Report(BaseModel):
    """The whole stack; `detail` says what is wrong when it isn't `ready`."""

    home: Path
    phase: state.Phase | Literal["down", "orphaned"]
    detail: str
    ready: bool
    processes: list[ProcessReport]
    totals: dict[str, Totals]


def report(settings: StackSettings) -> Report:
    """Asks every process for its readiness and its resources; takes about a quarter second."""
    current = state.load(settings.home)
    if current is None or not current.alive:
        return _down(settings, current)
    rows = _rows(current)
    not_ready = [row.name for row in rows if not row.ready]
    detail = f"not ready: {', '.join(not_ready)}" if not_ready else "every process is ready"
    return Report(
        home=settings.home,
        phase=current.phase,
        detail=detail
        + (" (drill profile)" if current.profile == "drill" else "")
        + (" (mesh)" if current.meshed else ""),
        ready=not not_ready and current.phase == "ready",
        processes=rows,
        totals={
            group: Totals(
                rss_bytes=sum(row.rss_bytes for row in rows if row.group == group),
                cpu_percent=sum(row.cpu_percent for row in rows if row.group == group),
            )
            for group in ("shop", "observability", "supervisor")
        },
    )


def _down(settings: StackSettings, current: StackState | None) -> Report:
    left = state.leftovers(settings.home)
    detail = "no stack is running"
    if left:
        detail = f"the supervisor was killed and left {count(len(left), 'process')} running"
    elif current and current.failure:
        detail = f"the last start failed: {current.failure}"
    return Report(
        home=settings.home,
        phase="orphaned" if left else "down",
        detail=detail,
        ready=False,
        processes=[],
        totals={},
    )


def _rows(current: StackState) -> list[ProcessReport]:
    supervisor = ProcessState(
        name=SUPERVISOR,
        group="observability",
        phase="ready",
        id=current.supervisor,
        ports=(),
        ready_url="",
        log=Path(),
        started_at=current.started_at,
    )
    processes = [*current.processes.values(), supervisor]
    families = [_family(process.id) for process in current.processes.values()]
    families.append([found] if (found := current.supervisor.find()) else [])
    for family in families:
        _cpu_percent(family)  # the first reading only starts the clock
    sampled_from = time.monotonic()
    with ThreadPoolExecutor(max_workers=len(processes)) as pool:
        ready = list(pool.map(_is_ready, processes))
    time.sleep(max(0.0, CPU_SAMPLE_S - (time.monotonic() - sampled_from)))
    return [
        ProcessReport(
            name=process.name,
            group="supervisor" if process is supervisor else process.group,
            phase=process.phase,
            pid=process.id.pid if process.id else None,
            ports=process.ports,
            ready=is_ready,
            uptime_s=time.time() - process.started_at
            if process.id and process.started_at
            else None,
            restarts=process.restarts,
            last_exit=process.last_exit,
            rss_bytes=_rss_bytes(family),
            cpu_percent=round(_cpu_percent(family), 1),
        )
        for process, family, is_ready in zip(processes, families, ready, strict=True)
    ]


def _is_ready(process: ProcessState) -> bool:
    if not process.ready_url:
        return True
    if process.ready_url.startswith(databases.SCHEME):
        return databases.answers(process.ready_url)
    try:
        return httpx.get(process.ready_url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _family(process_id: ProcessId | None) -> list[psutil.Process]:
    process = process_id.find() if process_id else None
    if process is None:
        return []
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _rss_bytes(family: list[psutil.Process]) -> int:
    total = 0
    for process in family:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def _cpu_percent(family: list[psutil.Process]) -> float:
    total = 0.0
    for process in family:
        try:
            total += process.cpu_percent()
        except psutil.NoSuchProcess:
            continue
    return total
