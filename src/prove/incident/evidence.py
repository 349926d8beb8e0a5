"""Evidence of an incident, kept while the stack that saw it still runs.

What a store doesn't give is not there afterwards, and is said to be missing: an incident may well
have taken a store with it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prove.clients.logs import LogStore
from prove.clients.prometheus import Prometheus
from prove.errors import UserError
from prove.incident import bundle, objectives, record, sli, timeline
from prove.incident.objectives import Objectives
from prove.incident.record import Incident, Window, Windows
from prove.incident.target import Target
from prove.stack import observability

MARGIN_S = 5.0
"""Of what is kept before the begin and after the end of a run."""
LEAST_S = 15.0
"""Of an incident that is looked at: with less, one waits."""
ARRIVAL_S = 3.0
"""Until the last span and log record are in their stores: batches, export, flush."""


@dataclass(frozen=True)
class Sources:
    """Where telemetry is: base URLs, and the Collector's span file; None: not within reach."""

    prometheus: str
    victorialogs: str | None
    span_file: Path | None
    profile: Literal["standard", "drill"]


Told = Callable[[Path, Incident, Objectives], Windows | None]
"""When an incident was, as somebody tells who sees its record; None: it wasn't."""


def keep(target: Target, incident: Incident, directory: Path, told: Told | None = None) -> None:
    """What `prove.incident.runner` calls once a run is over; `told`: see `collect`."""
    time.sleep(ARRIVAL_S)
    settings = target.settings
    collect(
        directory,
        Sources(
            prometheus=target.urls["prometheus"],
            victorialogs=target.urls.get("victorialogs"),
            span_file=observability.span_file(settings) if settings else None,
            profile=incident.profile,
        ),
        told,
    )
    _analyse(directory)


def as_paged(directory: Path, windows: Windows, promised: Objectives, about: Window) -> Window:
    """When an incident was, as somebody tells who sees the pages and SLIs of its record.

    Since the SLI of its first page went bad; without a page it was `about` then. Raises UserError.
    """
    begin_s, end_s = about.start_unix_s, about.end_unix_s
    paged = [
        page
        for page in record.lines(directory / record.PAGES, record.Page)
        if (page.status, page.severity) == ("firing", "page")
        and windows.baseline.start_unix_s <= page.received_at_unix_us / 1e6 <= end_s
    ]
    if paged:
        page = min(paged, key=lambda each: each.received_at_unix_us)
        points = sli.Kept.of(directory).points(page.slo)
        begin_s = sli.went_bad(points, promised, page.slo, page.received_at_unix_us / 1e6)
    return Window(start_unix_s=min(begin_s, end_s - LEAST_S), end_unix_s=end_s)


def _analyse(directory: Path) -> None:
    """What the bundle says of the cause, into the record; a run never fails for it."""
    from prove.cause import recorded

    try:
        recorded.keep(directory)
    except Exception as error:  # whatever it is: the record is what counts
        failed = record.Analysed(abstained=f"the analysis failed: {error!r}")
        incident = record.read(directory)
        record.write(directory / record.INCIDENT, incident.model_copy(update={"analysed": failed}))


def collect(directory: Path, sources: Sources, told: Told | None = None) -> list[str]:
    """Write objectives.json, sli.jsonl, bundle/ and timeline.json into an incident's directory.

    To be called when the run is over and its own files are written. The bundle has the windows that
    are `told`; else those of the run, but says that the incident was when its page has it, until it
    was ended: who looks for a cause doesn't wait until all is well again.

    Returns what is missing, a sentence each. Raises UserError when there is no record, or the
    directory can't be written to.
    """
    incident = record.read(directory)
    promised = objectives.of_profile(sources.profile)
    record.write(directory / objectives.OBJECTIVES, promised)
    missing: list[str] = []
    metrics = Prometheus(sources.prometheus)
    between = (
        incident.started_unix_us / 1e6 - MARGIN_S,
        incident.ended_unix_us / 1e6 + MARGIN_S,
    )
    try:
        record.write_lines(directory / sli.SLI, sli.capture(metrics, promised, between))
    except UserError as error:
        missing.append(f"what the servers measured: {error}")
    if (of_run := incident.windows) is not None:
        logs = LogStore(sources.victorialogs) if sources.victorialogs else None
        stores = bundle.Stores(metrics, logs, sources.span_file)
        if told and (windows := told(directory, incident, promised)):
            incident = incident.model_copy(update={"windows": windows})
            missing += bundle.export(directory, incident, promised, stores)
        else:
            until_s = (incident.rolled_back_unix_us or incident.ended_unix_us) / 1e6
            lasted = of_run.incident.model_copy(update={"end_unix_s": until_s})
            window = as_paged(directory, of_run, promised, lasted)
            missing += bundle.export(directory, incident, promised, stores, window)
    else:
        missing.append("the bundle: the run ended before its injection")
    timeline.write(directory)
    return missing
