"""What the figures of an incident say, in sentences that a reader who wasn't there understands.

They are about the system: nobody is named. What isn't known is said, rather than left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from itertools import accumulate

from prove import units
from prove.incident import sli, timeline
from prove.incident.impact import Budget, Citations, Impact, Purchases, Requests
from prove.incident.objectives import Objectives
from prove.incident.record import UNFINISHED, Detection, Incident
from prove.incident.timeline import Timeline
from prove.rca.model import Analysis
from prove.slo import burn
from prove.slo.windows import describe

CURRENCY = "GBP"
MISSED = 0.1
"""A greater share of failures without a span is told at the top."""
SEVERITIES = {"SEV1": 30, "SEV2": 6, "SEV3": 1}
"""From which burn rate on: 30 days' budget is gone within a day, within five, before its time."""


@dataclass(frozen=True)
class Found:
    """All that is known of an incident, for those who put it into words."""

    incident: Incident
    timeline: Timeline
    impact: Impact | None
    analysis: Analysis | None
    promised: Objectives | None
    kept: sli.Kept
    missing: Sequence[str]
    cite: Citations

    def record(self, what: str, field: str) -> str:
        """The mark of a field of `incident.json`."""
        return self.cite.add("record", what, f"incident.json: {field}")


@dataclass(frozen=True)
class Cards:
    """The four questions of a reader in a hurry."""

    broke: str
    when: str
    noticed: str
    cost: str


def cards(found: Found) -> Cards:
    """In a sentence each."""
    return Cards(broke=_broke(found), when=_when(found), noticed=_noticed(found), cost=_cost(found))


def severity(found: Found) -> tuple[str, str]:
    """By docs/incident-response.md: `SEV1` to `SEV3` or `none`, and why."""
    if differences := found.incident.figures.integrity_differences:
        return "SEV1", f"money or goods are wrong: {units.count(differences, 'difference')}"
    promised = found.promised
    if promised is None or found.impact is None:
        return "not known", "no SLI was kept"
    long_s = promised.pairs("page")[0].long_s
    rates = {
        slo.id: _worst_mean(found, slo.id, long_s) / slo.budget
        for slo in promised.slos
        if found.kept.points(slo.id)
    }
    if not rates:
        return "not known", "no SLI was kept"
    worst = max(rates, key=lambda name: rates[name])
    rate = rates[worst]
    told = (
        f"in its worst {lasted(long_s)} the budget of {worst} burned {rate:.1f} times as fast as"
        " it may"
    )
    for name, least in SEVERITIES.items():
        if rate >= least:
            return name, told
    return "none", told


def detection(found: Found) -> list[str]:
    """How it was noticed: each expected alert against theory, and why the difference."""
    told = [_detected(found, each) for each in found.incident.detections]
    expected = {each.alert for each in found.incident.detections}
    for row in found.timeline.rows:
        name = row.what.split()[1] if row.event == "page-received" else ""
        if name and name not in expected:
            told.append(
                f"The page {name} came as well,"
                f" {(row.at_unix_us - found.timeline.zero_unix_us) / 1e6:.1f} s after the"
                " injection; it need not have"
                f"{found.cite.add('record', 'a page', row.evidence.ref)}."
            )
            expected.add(name)
    if not told and found.impact is None:
        return ["Nothing was injected, so there was nothing to notice."]
    if not told:
        told.append(_unjudged(found) or "No alert was expected, and none came.")
    found_by_customers = _before_the_page(found)
    return [*told, *([found_by_customers] if found_by_customers else [])]


def facts(found: Found) -> list[str]:
    """What is known of the trigger and of what followed, without conclusions."""
    zero_us = found.timeline.zero_unix_us
    told = [
        f"At {timeline.moment(row.at_unix_us)} UTC this was done to the system: "
        f"{row.what.removeprefix('injection: ')}, by `{row.evidence.ask}`"
        f"{found.cite.add('record', 'an action of the run', row.evidence.ref)}."
        for row in found.timeline.rows
        if row.event == "injection"
    ]
    for event, text in (
        ("first-failure", "The first request failed"),
        ("first-slow", "The first request was slow"),
        ("first-unsettled", "The first order was taken but not confirmed"),
        ("first-error-log", "The first error was logged"),
    ):
        if (row := found.timeline.first(event)) is not None:
            mark = found.cite.add(
                "ledger" if "log" not in event else "bundle", text, row.evidence.ref
            )
            told.append(
                f"{text} {(row.at_unix_us - zero_us) / 1e6:.1f} s after it:"
                f" {row.what.partition(': ')[2] or row.what}{mark}."
            )
    if found.incident.rolled_back_unix_us is not None:
        after = _recovered(found)
        told.append(
            f"It was taken back at {timeline.moment(found.incident.rolled_back_unix_us)} UTC"
            f"{found.record('the last rollback', 'rolled_back_unix_us')}; {after}."
        )
    return told


def contributing(found: Found) -> list[str]:
    """What in the system made it larger, smaller or longer, as far as it was measured."""
    told: list[str] = []
    window = found.impact.window if found.impact else None
    if window is None:
        return told
    span = (window.start_unix_s, window.end_unix_s)

    def rose(name: str, label: str) -> dict[str, float]:
        line = found.kept.find(name)
        grown = {
            series.labels.get(label, ""): sli.increase(series.points, *span)
            for series in (line.series if line else ())
        }
        return {of: value for of, value in grown.items() if value >= 1}

    def cited(name: str, what: str) -> str:
        line = found.kept.find(name)
        return found.cite.add("query", what, line.query) if line else ""

    if retries := rose("peer-retries", "prove_peer"):
        each = ", ".join(f"{count:,.0f} to {peer}" for peer, count in sorted(retries.items()))
        told.append(
            f"The Order Service tried again: {each}{cited('peer-retries', 'retries')}. Retries hide"
            " short failures from customers and add load to what fails."
        )
    line = found.kept.find("peer-breaker")
    opened = sorted(
        series.labels.get("prove_peer", "")
        for series in (line.series if line else ())
        if any(value == 1 and span[0] <= at_s <= span[1] for at_s, value in series.points)
    )
    if opened:
        told.append(
            f"The circuit breaker to {' and '.join(opened)} opened"
            f"{cited('peer-breaker', 'state of breakers')}: from then on checkouts were refused at"
            " once instead of waiting, also some that might have gone well."
        )
    if shed := rose("checkouts-shed", "prove_reason"):
        each = ", ".join(f"{count:,.0f} ({reason})" for reason, count in sorted(shed.items()))
        told.append(
            f"The Order Service refused checkouts before anything was done: {each}"
            f"{cited('checkouts-shed', 'checkouts shed')}."
        )
    if (backlog := _peak(found, "orders-unfinished", span)) >= 1:
        told.append(
            f"Up to {backlog:,.0f} orders waited for their next step at once"
            f"{cited('orders-unfinished', 'unfinished orders')}."
        )
    if (restarts := _restarted(found, span)) and (mark := cited(sli.ANSWERS, "instances seen")):
        each = ", ".join(f"{count} of {service}" for service, count in restarts)
        told.append(f"New processes appeared in it: {each}{mark}.")
    return told


def well(found: Found) -> list[str]:
    """What the record shows to have worked."""
    if found.impact is None:
        return []
    figures, told = found.incident.figures, []
    in_time = [each for each in found.incident.detections if _in_time(each)]
    for each in in_time:
        told.append(
            f"{each.alert} paged in time, {each.paged_s:.1f} s after the injection"
            f"{found.record('detection', 'detections')}."
        )
    if not figures.wrong_pages:
        told.append(
            "Nothing paged that should not have"
            f"{found.record('wrong pages', 'figures.wrong_pages')}."
        )
    if _finished(found) and not figures.integrity_differences:
        told.append(
            "Orders, payments, the acquirer's ledger and stock agree: nobody was charged twice or"
            " for nothing"
            f"{found.record('data integrity', 'figures.integrity_differences')}."
        )
    if found.impact:
        of = found.impact.purchases
        if of.saved:
            told.append(
                f"{units.count(of.saved, 'purchase')} that failed at first ended well by being"
                f" asked again with the same key{of.cited['saved']}."
            )
        told += [
            f"{requests.kind.capitalize()}s went on as before{requests.cited}."
            for requests in found.impact.requests
            if requests.sent and not requests.hurt
        ]
    if figures.recovery_s is not None:
        told.append(
            f"{figures.recovery_s:.1f} s after the rollback every SLI met its objective, and no"
            " page was left"
            f"{found.record('recovery', 'figures.recovery_s')}."
        )
    return told


def badly(found: Found) -> list[str]:
    """What the record shows not to have."""
    figures, told = found.incident.figures, []
    for each in found.incident.detections:
        mark = found.record("detection", "detections")
        if each.paged_s is None:
            told.append(f"{each.alert} did not page{mark}.")
        elif not _in_time(each):
            told.append(
                f"{each.alert} paged {each.paged_s:.1f} s after the injection; at most"
                f" {each.within_s:.1f} s were expected{mark}."
            )
    if figures.wrong_pages:
        told.append(
            f"{units.count(figures.wrong_pages, 'page')} came that should not have"
            f"{found.record('wrong pages', 'figures.wrong_pages')}."
        )
    if figures.integrity_differences:
        told.append(
            "Orders, payments, the acquirer's ledger and stock do not agree:"
            f" {units.count(figures.integrity_differences, 'difference')}"
            f"{found.record('data integrity', 'figures.integrity_differences')}."
        )
    told += [
        f"Expected: {each.what}, {each.expected}; found: {each.found}"
        f"{found.record('expectations', 'expectations')}."
        for each in found.incident.expectations
        if not each.holds
    ]
    if found.impact:
        for seen in found.impact.seen:
            of = found.impact.of(seen.kind)
            if seen.unseen and of.bad:
                told.append(
                    f"{seen.unseen:,} of {of.bad:,} failed {seen.kind}s left no trace at the"
                    f" service they asked{seen.cited['unseen']}: its own SLIs cannot have counted"
                    " them."
                )
        lost = found.impact.purchases
        if lost.lost:
            told.append(
                f"{units.count(lost.lost, 'purchase')} came to nothing{lost.cited['lost']}."
            )
        if lost.turned_away:
            told.append(
                f"{units.count(lost.turned_away, 'purchase')} more than usual were refused"
                f"{lost.cited['refused']}{lost.cited['refused_before']}."
            )
    return told


def luckily(found: Found) -> list[str]:
    """What could have been worse for no merit of the system's."""
    if found.impact is None:
        return []
    told = [
        "What was wrong was known to whoever ran the drill, and was taken back by the run: the time"
        " to find a cause and to mend it is not in these figures."
    ]
    load = found.incident.load
    told.append(
        f"The load was {load.checkouts_per_s:g} checkouts and {load.reads_per_s:g} reads a second"
        f"{found.record('load', 'load')}; at a peak the same minutes would have met more customers."
    )
    if found.impact and found.impact.purchases.unsettled:
        of = found.impact.purchases
        told.append(
            f"{units.count(of.unsettled, 'order')} were still unsettled when the record ends"
            f"{of.cited['unsettled']}: how they end decides what this really cost."
        )
    return told


def unknown(found: Found) -> list[str]:
    """What the record does not say."""
    told = [f"Missing: {each}." for each in found.missing]
    if not _finished(found):
        why = f": {found.incident.why}" if found.incident.why else ""
        told.append(
            f"The run was not finished ({found.incident.verdict}{why}); what came after is not"
            " known."
        )
    if found.impact is None:
        return told
    if not any(each.sent for each in found.impact.requests):
        told.append("What customers saw: their ledger is empty.")
    elif found.impact.purchases.without_amount:
        of = found.impact.purchases
        told.append(
            f"The amount of {units.count(of.without_amount, 'lost purchase')}"
            f"{of.cited['without_amount']}; the money at risk is at least what is told."
        )
    if found.impact:
        told += [
            f"What the servers made of {each.kind}s: no count of their answers was kept."
            for each in found.impact.seen
            if each.answered is None
        ]
    if found.analysis is None:
        told.append("Where it began: there is no bundle to analyse.")
    elif found.analysis.abstained:
        told.append(f"Where it began: the analysis says {found.analysis.abstained.reason}.")
    told.append(
        "Why the cause could happen at all, and whether customers came back: no telemetry says so."
    )
    return told


def money_cited(of: Purchases) -> str:
    """The questions behind the money at risk."""
    names = ["lost_minor", "unsettled_minor"] + ["refused_minor"] * bool(of.turned_away)
    return "".join(of.cited[name] for name in names)


def sums(impact: Impact) -> str:
    """Money at risk: `123.45 GBP`."""
    return units.money(impact.purchases.at_risk_minor, CURRENCY)


def period(seconds: float) -> str:
    """`30 days`, `12 hours`."""
    days, hours = seconds / 86_400, seconds / 3600
    return units.count(round(days), "day") if days >= 1 else units.count(round(hours), "hour")


def lasted(seconds: float) -> str:
    """`2 min 7 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    return f"{whole // 60} min {whole % 60} s"


def day(unix_us: int) -> str:
    """`2026-11-29`, UTC."""
    return f"{datetime.fromtimestamp(unix_us / 1e6, UTC):%Y-%m-%d}"


def _broke(found: Found) -> str:
    if found.impact is None:
        why = f": {found.incident.why}" if found.incident.why else ""
        return f"Nothing: the run ended before its injection ({found.incident.verdict}{why})."
    told = [sentence for each in found.impact.requests if each.sent if (sentence := _felt(each))]
    if not told:
        return "Customers felt nothing: no more requests failed, were slow or refused than before."
    return "; ".join(told) + "."


def _felt(of: Requests) -> str:
    parts = []
    if "failed" in of.hurt:
        commonest = of.commonest
        commonest = f"with status {commonest}" if commonest.isdigit() else "without an answer"
        parts.append(
            f"{of.bad:,} of {of.sent:,} {of.kind}s failed ({of.bad_share:.1%}), mostly {commonest}"
        )
    if "slow" in of.hurt:
        count = f"{of.slow:,} of {of.sent:,} {of.kind}s" if not parts else f"{of.slow:,}"
        parts.append(f"{count} took over half a second ({of.slow_share:.1%})")
    if "unsettled" in of.hurt:
        count = f"{of.unsettled:,} of {of.sent:,} {of.kind}s" if not parts else f"{of.unsettled:,}"
        parts.append(f"{count} were taken but not confirmed ({of.unsettled_share:.1%})")
    if "refused" in of.hurt:
        count = f"{of.refused:,} of {of.sent:,} {of.kind}s" if not parts else f"{of.refused:,}"
        reason = f", mostly as `{of.reason}`" if of.reason else ""
        parts.append(f"{count} were refused ({of.refused_share:.1%}{reason})")
    told = ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else "".join(parts)
    return told + (of.cited if parts else "")


def _when(found: Found) -> str:
    zero_us = found.timeline.zero_unix_us
    began = f"{day(zero_us)}, {timeline.moment(zero_us)} UTC"
    if found.incident.injected_unix_us is None:
        return f"The run began on {began}; nothing was injected."
    ended_us = found.incident.rolled_back_unix_us
    in_for = f", and was in for {lasted((ended_us - zero_us) / 1e6)}" if ended_us else ""
    felt = ""
    if found.impact and (hit := found.impact.hit_s):
        felt = (
            f" In {units.count(len(hit), 'second')} more than a tenth of the reads or of the"
            f" checkouts went wrong{found.impact.cited_hit}."
        )
    recovery_s = found.incident.figures.recovery_s
    well = ""
    if ended_us and recovery_s is not None:
        at = timeline.moment(ended_us + round(recovery_s * 1e6))
        mark = found.record("recovery", "figures.recovery_s")
        well = f" From {at} on every SLI met its objective, and no page was left{mark}."
    return f"The fault was set on {began}{in_for}.{felt}{well}"


def _unjudged(found: Found) -> str:
    """Of a run that ended before what pages was judged; else ''."""
    incident = found.incident
    if incident.detections or incident.verdict not in UNFINISHED:
        return ""
    return f"Not known: the run was {incident.verdict} before that was judged."


def _noticed(found: Found) -> str:
    if found.impact is None:
        return "There was nothing to notice."
    pages = [row for row in found.timeline.rows if row.event == "page-received"]
    expected = [each for each in found.incident.detections if each.severity == "page"]
    if not pages:
        return _unjudged(found) or (
            "No page came, though one was expected." if expected else "No page came; none should."
        )
    first = pages[0]
    after_s = (first.at_unix_us - found.timeline.zero_unix_us) / 1e6
    name = first.what.split()[1]
    of = next((each for each in expected if each.alert == name), None)
    theory = f" (by theory {of.predicted})" if of and of.theory_s is not None else ""
    mark = found.cite.add("record", "the first page", first.evidence.ref)
    missed = "".join(
        f" Of {requests.bad:,} failed {seen.kind}s, {seen.unseen:,} left no trace at the service"
        f" they asked{seen.cited['unseen']}."
        for requests, seen in zip(found.impact.requests, found.impact.seen, strict=True)
        if seen.unseen and seen.unseen > MISSED * requests.bad
    )
    return f"The page {name} came {after_s:.1f} s after the fault was set{theory}{mark}.{missed}"


def _cost(found: Found) -> str:
    if found.impact is None:
        return "Nothing that this run did."
    of = found.impact.purchases
    parts = []
    if of.lost:
        parts.append(f"{units.count(of.lost, 'purchase')} lost{of.cited['lost']}")
    if of.turned_away:
        parts.append(
            f"{units.count(of.turned_away, 'purchase')} refused that usually are not"
            f"{of.cited['refused']}{of.cited['refused_before']}"
        )
    if of.delayed + of.unsettled:
        parts.append(
            f"{units.count(of.delayed + of.unsettled, 'order')} late{of.cited['delayed']}"
            f"{of.cited['unsettled']}"
        )
    if of.at_risk_minor:
        parts.append(f"{sums(found.impact)} at risk{money_cited(of)}")
    worst = max(
        (each for each in found.impact.budgets if each.burned is not None),
        key=lambda each: each.burned or 0,
        default=None,
    )
    if worst is not None and worst.burned and worst.burned >= 0.0005 and found.promised:
        parts.append(
            f"{worst.burned:.1%} of the {period(found.promised.period_s)}' error budget of"
            f" {worst.objective.id}{worst.cited}"
        )
    return (", ".join(parts) + ".") if parts else "Nothing that the record shows."


def _detected(found: Found, of: Detection) -> str:
    mark = found.record("detection", "detections")
    came = (
        f"{of.alert} paged {of.paged_s:.1f} s after the injection"
        if of.paged_s is not None
        else f"{of.alert} did not page"
    )
    if of.severity == "ticket":
        came = came.replace("paged", "fired").replace("did not page", "did not fire")
    theory = (
        f"; with a past without errors {of.theory_s:.1f} s are due, {of.within_s:.1f} s allowed"
        if of.theory_s is not None
        else f"; it had {of.within_s:.1f} s"
    )
    return f"{came}{mark}{theory}. {_why(found, of)}".rstrip()


def _why(found: Found, of: Detection) -> str:
    """By the share that was really bad until then."""
    promised = found.promised
    objective = promised.find(of.slo) if promised else None
    if promised is None or objective is None or found.impact is None:
        return "Why then is not known: the objectives were not kept."
    start_s = found.impact.window.start_unix_s
    until_s = start_s + (of.paged_s if of.paged_s is not None else of.within_s)
    points = [
        (at_s, value)
        for at_s, value in found.kept.points(objective.id)
        if start_s < at_s <= until_s + 2 * promised.interval_s
    ]
    # Before a whole window has passed its value is still that of before, in part.
    whole = [value for at_s, value in points if at_s >= start_s + promised.shortest_s]
    values = whole or [value for _, value in points[-1:]]
    if not values:
        return "Why then is not known: no value of its SLI was kept."
    share = sum(values) / len(values)
    pairs = promised.pairs(of.severity)
    mark = found.cite.add(
        "query",
        f"the mean of {of.slo} until then, from the first whole window on",
        f"avg_over_time({objective.recorded}[{max(1, round(of.paged_s or of.within_s))}s])",
    )
    due = burn.detection(
        pairs, Fraction(str(objective.budget)), Fraction(share).limit_denominator(10**6),
        promised.period_s,
    )  # fmt: skip
    if due is None:
        return (
            f"Its SLI had {share:.1%} bad on average until then{mark}, which is never enough for"
            f" {' or '.join(describe(pair) for pair in pairs)}."
        )
    off = ""
    if of.paged_s is not None:
        late_s = of.paged_s - float(due.fires_s)
        off = (
            f"; it came {late_s:.1f} s later: export, evaluation and delivery take their time"
            if late_s >= 0
            else f"; it came {-late_s:.1f} s earlier: windows held bad events already, or so few"
            " events that those bad ones were a large share"
        )
    return (
        f"Its SLI had {share:.1%} bad on average until then{mark}: at such a share"
        f" {describe(due.pair)} holds after {float(due.fires_s):.1f} s{off}."
    )


def _before_the_page(found: Found) -> str:
    page = found.timeline.first("page-received")
    first = next(
        (
            row
            for row in found.timeline.rows
            if row.event.startswith("first-") and row.evidence.kind == "ledger"
        ),
        None,
    )
    if page is None or first is None or page.at_unix_us <= first.at_unix_us:
        return ""
    return (
        f"The first customer was hit {(page.at_unix_us - first.at_unix_us) / 1e6:.1f} s before the"
        f" page{found.cite.add('ledger', 'the first bad request', first.evidence.ref)}."
    )


def _in_time(of: Detection) -> bool:
    return of.paged_s is not None and of.paged_s <= of.within_s


def _finished(found: Found) -> bool:
    return found.incident.verdict in ("holds", "does not hold")


def _recovered(found: Found) -> str:
    rows = [row for row in found.timeline.rows if row.event == "sli-recovered"]
    seen = {row.what.split()[1]: row for row in rows}
    rolled_back_us = found.incident.rolled_back_unix_us or 0
    if not seen:
        return "no SLI was seen to have been worse than promised"
    each = ", ".join(
        f"{name} {timeline.offset(row.at_unix_us, rolled_back_us)}"
        f"{found.cite.add('query', f'recovery of {name}', row.evidence.ask)}"
        for name, row in seen.items()
    )
    return f"by their SLIs, well again since then: {each}"


def _worst_mean(found: Found, slo: str, over_s: float) -> float:
    """The greatest mean of an SLI's bad share over so long a time, from the injection on."""
    since_s = found.timeline.zero_unix_us / 1e6
    line = found.kept.find(slo)
    if line is None:
        return 0.0
    size = max(1, round(over_s / line.step_s))
    values = [value for at_s, value in line.points if at_s >= since_s]
    sums = [0.0, *accumulate(values)]
    ends = range(1, len(sums))
    # What was before the injection, and isn't looked at, was well.
    return max((sums[end] - sums[max(0, end - size)]) / size for end in ends) if values else 0.0


def _peak(found: Found, name: str, span: tuple[float, float]) -> float:
    line = found.kept.find(name)
    by_time: dict[float, float] = {}
    for series in line.series if line else ():
        for at_s, value in series.points:
            if span[0] <= at_s <= span[1]:
                by_time[at_s] = by_time.get(at_s, 0) + value
    return max(by_time.values(), default=0)


def _restarted(found: Found, span: tuple[float, float]) -> list[tuple[str, int]]:
    """Instances that were first seen in that time, by service."""
    line = found.kept.find(sli.ANSWERS)
    first: dict[tuple[str, str], float] = {}
    for series in line.series if line else ():
        instance = (
            series.labels.get("service_name", ""),
            series.labels.get("service_instance_id", ""),
        )
        if series.points:
            first[instance] = min(series.points[0][0], first.get(instance, span[1]))
    counts: dict[str, int] = {}
    for (service, _), at_s in first.items():
        if span[0] < at_s < span[1]:
            counts[service] = counts.get(service, 0) + 1
    return sorted(counts.items())


def told_budget(of: Budget) -> tuple[str, str]:
    """What went of it by the servers' SLI, and by the clients' ledger."""
    servers = "not known" if of.burned is None else f"{of.burned:.2%}{of.cited}"
    clients = "-" if of.by_clients is None else f"{of.by_clients:.2%}{of.cited_clients}"
    return servers, clients
