"""What the runner asks the installation's own telemetry: SLIs, alerts, and the pager's inbox."""

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from prove.clients.alertmanager import Alertmanager, Matcher
from prove.clients.prometheus import Prometheus
from prove.clients.server import Server
from prove.incident.record import AlertChange, Page
from prove.incident.target import Target
from prove.incident.theory import Objectives, Second
from prove.slo import durations

TIMEOUT_S = 3.0
"""An incident may well have taken the telemetry with it."""
PAGES = 'sloth_severity="page"'


class Telemetry:
    """Of one installation; every method raises UserError when the server in question is away."""

    def __init__(self, target: Target, objectives: Objectives) -> None:
        self._prometheus = Prometheus(target.urls["prometheus"], timeout_s=TIMEOUT_S)
        self._objectives = objectives
        window = durations.text(objectives.measures_s)
        self._ratio = f"slo:sli_error:ratio_rate{window}"
        self._events = f"slo:sli_total:events{window}"

    def bad(self) -> dict[str, float]:
        """Of each SLI, the share of bad events in the shortest window."""
        return {
            sample.labels["sloth_id"]: sample.value
            for sample in self._prometheus.query(self._ratio)
            if sample.value == sample.value  # NaN where there was no event
        }

    def over_budget(self) -> list[str]:
        """The SLIs that are worse than their objective just now, and those that have no data."""
        bad = self.bad()
        return [
            slo.id
            for slo in self._objectives.slos.values()
            if slo.id not in bad or bad[slo.id] > float(slo.budget)
        ]

    def paging(self) -> set[str]:
        """The SLOs that page now."""
        query = f'ALERTS{{alertstate="firing", {PAGES}}}'
        return {sample.labels.get("sloth_id", "") for sample in self._prometheus.query(query)}

    def past(self, slo_id: str, until_s: float) -> list[Second]:
        """The seconds before, as far back as a page's longest window looks.

        Less, where the SLI is younger than that.
        """
        step_s, back_s = self._objectives.measures_s, self._objectives.looks_back_s
        between = (until_s - back_s + step_s, until_s, step_s)
        shares = self._points(self._ratio, slo_id, *between)
        events = self._points(self._events, slo_id, *between)
        past: list[Second] = []
        for at_s in sorted({*shares, *events}):
            count = events.get(at_s, 0.0) / step_s if events else 1.0
            past += [Second(shares.get(at_s, 0.0), count)] * step_s
        return past

    def events(self, slo_id: str, start_s: float, end_s: float) -> list[float]:
        """How many there were in each second; nothing where the SLI counts none."""
        window_s = self._objectives.measures_s
        found = self._points(self._events, slo_id, start_s + window_s, end_s + window_s, window_s)
        return soonest([count for _, count in sorted(found.items())], window_s)

    def _points(
        self, series: str, slo_id: str, start_s: float, end_s: float, step_s: int
    ) -> dict[float, float]:
        found = self._prometheus.range(f'{series}{{sloth_id="{slo_id}"}}', start_s, end_s, step_s)
        return {at_s: value for each in found for at_s, value in each.points if value == value}

    def spent(self, since_s: float, until_s: float) -> dict[str, float]:
        """The share of each SLO's error budget that went between two Unix times."""
        elapsed_s = until_s - since_s
        if elapsed_s < 1:
            return {}
        query = f"avg_over_time({self._ratio}[{round(elapsed_s)}s])"
        return {
            slo_id: self._objectives.burned(slo_id, max(0.0, sample.value), elapsed_s)
            for sample in self._prometheus.query(query, until_s)
            if (slo_id := sample.labels["sloth_id"]) in self._objectives.slos
            and sample.value == sample.value
        }

    def total(self, query: str, at_s: float) -> float:
        """The sum of a query's answer; 0 when it is empty."""
        values = [sample.value for sample in self._prometheus.query(query, at_s)]
        return sum(value for value in values if value == value)

    def changes(self, start_s: float, end_s: float) -> list[AlertChange]:
        """Every change of every alert's state between two Unix times, to the second."""
        found = []
        step_s = self._objectives.windows.interval_s
        for series in self._prometheus.range("ALERTS", start_s, end_s, step_s):
            labels = series.labels
            told = {
                "alertname": labels.get("alertname", ""),
                "severity": labels.get("sloth_severity") or labels.get("severity", ""),
                "slo": labels.get("sloth_id", ""),
            }
            state = labels.get("alertstate", "firing")
            times = [at_s for at_s, _ in series.points]
            found += [
                AlertChange.model_validate({"at_unix_us": _us(at_s), "state": state, **told})
                for at_s in begins(times, step_s)
            ]
            if state == "firing":
                found += [
                    AlertChange.model_validate(
                        {"at_unix_us": _us(at_s + step_s), "state": "resolved", **told}
                    )
                    for at_s in _ends(times, step_s)
                    if at_s + step_s <= end_s
                ]
        return sorted(found, key=lambda change: (change.at_unix_us, change.alertname))


class Inbox:
    """The pager's news; where the installation has no injector, what Alertmanager tells."""

    def __init__(self, target: Target) -> None:
        self._known: dict[tuple[str, str], Page] = {}
        self._found: list[Page] = []
        self._server: Server | None = None
        if "injector" in target.urls:
            self._server = Server("injector", target.urls["injector"], TIMEOUT_S)
            self._headers = {"Authorization": f"Bearer {target.token}"}
        else:
            self._alertmanager = Alertmanager(target.urls["alertmanager"])

    def since(self, unix_us: int) -> list[Page]:
        """All news since a moment, in order of arrival; raises UserError."""
        if self._server is not None:
            return self._server.read(
                lambda body: [_page(item) for item in body["items"]],
                "GET",
                "/pages",
                params={"since_unix_us": str(unix_us)},
                headers=self._headers,
            )
        self._poll()
        return [page for page in self._found if page.received_at_unix_us >= unix_us]

    def _poll(self) -> None:
        """Received is what is seen for the first time, over what isn't seen any more."""
        now_us = time.time_ns() // 1000
        present = {}
        for alert in self._alertmanager.alerts([Matcher.parse("alertname=~.+")]):
            starts_at = alert.starts_at.isoformat()
            fingerprint = repr(sorted(alert.labels.items()))
            page = Page(
                received_at_unix_us=now_us,
                status="firing",
                labels=alert.labels,
                annotations=alert.annotations,
                starts_at=starts_at,
                fingerprint=fingerprint,
            )
            present[fingerprint, starts_at] = page
        for key, page in present.items():
            if key not in self._known:
                self._known[key] = page
                self._found.append(page)
        for key in [key for key in self._known if key not in present]:
            over = {"status": "resolved", "received_at_unix_us": now_us}
            self._found.append(self._known.pop(key).model_copy(update=over))


def _page(item: Mapping[str, Any]) -> Page:
    return Page(
        received_at_unix_us=item["received_at_unix_us"],
        status=item["status"],
        labels=item["labels"],
        annotations=item["annotations"],
        starts_at=item["startsAt"],
        fingerprint=item["fingerprint"],
    )


def soonest(counts: Sequence[float], window_s: int) -> list[float]:
    """Events a second out of those of one window after another, and last their mean.

    When in its window one came is not known: all are put into its first second, as clients do that
    repeat at once what fails. So no page can be sooner than by this.
    """
    if not counts:
        return []
    seconds = [each for count in counts for each in (count, *[0.0] * (window_s - 1))]
    return [*seconds, sum(counts) / len(seconds)]


def begins(times: Sequence[float], step_s: float) -> list[float]:
    """Of values that come every `step_s`, the first one and each first one after a gap."""
    return [*times[:1], *(b for a, b in pairwise(times) if b - a > 1.5 * step_s)]


def _ends(times: Sequence[float], step_s: float) -> list[float]:
    return [*(a for a, b in pairwise(times) if b - a > 1.5 * step_s), *times[-1:]]


def _us(at_s: float) -> int:
    return round(at_s * 1_000_000)
