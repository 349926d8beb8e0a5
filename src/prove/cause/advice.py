"""What to do next, by kind of cause, or by the reason why none is named.

First what confirms the finding, then what stops the harm, then what to ask afterwards: a hypothesis
is confirmed before anything is changed for its sake.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from prove.cause.asked import Source
from prove.errors import UserError
from prove.incident import objectives
from prove.rca.evidence import ms, number, percent, reached
from prove.rca.model import Abstention, Analysis, Cause, Evidence, Kind, Reason

__all__ = [
    "MEANING",
    "Step",
    "headline",
    "meaning",
    "of",
    "percent",
    "quantity",
    "sent_nothing",
    "steps",
]


@dataclass(frozen=True)
class Step:
    """What to do, and the commands that do it or show it."""

    text: str
    commands: tuple[str, ...] = ()

    @property
    def plain(self) -> str:
        """In one line."""
        return " ".join((self.text, *(f"`{each}`" for each in self.commands)))


_MITIGATE: Mapping[Kind, str] = {
    "cpu": "add instances or CPU for {service}; if it changed lately, take that back",
    "latency": "free what {who} waits for (a lock, a pool, a disk); if it changed lately, take that"
    " back",
    "network": "route around the link to {service} or restore it; a restart won't help",
    "errors": "if {service} or its configuration changed lately, take that back, or do without it",
    "omission": "if {service} changed lately, take that back; check what it should have written",
    "overload": "shed or limit the load at the edge, add instances; stop callers' retries",
    "resource": "free or enlarge what is full at {who}; if it changed lately, take that back",
    "unknown": "what changed last in {service} is the first thing to take back",
}
_MITIGATE_DARK = (
    "ask less of {service} or do without it (a fallback, a queue), and tell whoever runs {service}."
    " What {callers} asked without an answer may have been done all the same: look before it is"
    " asked again"
)
_MITIGATE_UNREACHED = (
    "see whether {who} runs (process, restarts, memory), answers (threads, connections) and can be"
    " reached (port, name, the way there); if not, start it again; if it changed lately, take that"
    " back"
)
_MITIGATE_REACHED = (
    "see what {who} answers: where it refuses (4xx), take back what changed lately in it or in its"
    " callers; where its answers are lost or late, restore the way between them"
)
_MITIGATE_HELD = (
    "see first what {who} waits for (a dump of its threads, its connections, its own log), for a"
    " restart loses that; then start it again; if it changed lately, take that back"
)
_ASK_HELD = "what did it wait for: a lock, a pool, a disk, somebody whom it asks?"
_ASK_UNREACHED = (
    "what ended or blocks it: a crash, a release, a lack of memory or of connections? Or what lies"
    " in between?"
)
_ASK_DARK = "is {service} down or slow for all, or for us alone? Its status page or operator tells."
_ASK: Mapping[Kind, str] = {
    "cpu": "which operation computes more than before? A profile of {who} tells.",
    "latency": "does {service} wait for a lock, a pool or a disk? Its logs and pool metrics tell.",
    "network": "what changed between them: routes, proxies, DNS, packet loss, a firewall?",
    "errors": "do all requests fail, or those of some customers, goods or instances?",
    "omission": "which condition makes it answer early: an input, a flag, an empty answer?",
    "overload": "more customers, or the same ones asking again because answers fail?",
    "resource": "since when? What grows slowly returns after each restart.",
    "unknown": "which signal would have told? Add it before the next time.",
}
_BY_REASON: Mapping[Reason, tuple[str, ...]] = {
    "no fault visible": (
        "Check that the window is right: was the trouble in it, and the time before it healthy?",
        "Look outside of what is traced: the edge, DNS, certificates, clients, dependencies.",
        "If customers are hurt all the same, their requests may never arrive: ask the edge's logs.",
    ),
    "load only": (
        "Nothing is broken: more is asked for. Watch saturation; add capacity if it goes on.",
        "Find out who asks: a campaign, a crawler, or clients that repeat what was refused.",
        "If an objective suffers, shed load at the edge rather than restarting anything.",
    ),
    "two candidates can't be told apart": (
        "Look at what sets the first two apart: follow an example trace of each of them.",
        "Look for something that they share: a host, a database, a release, a link.",
        "Take the cheaper of the two mitigations first, and watch whether the symptom goes.",
    ),
    "no data": (
        "See what is missing below; the loss of telemetry may itself be the incident.",
        "Check the Collector and the stores first, then look at the services directly.",
        "Widen the window, or name a healthy time that was recorded.",
    ),
}


def steps(analysis: Analysis, source: Source | None = None) -> list[Step]:
    """What to do with this answer; `source` is how telemetry is asked again, where it can be."""
    if analysis.abstained is not None or not analysis.causes:
        reason: Reason = analysis.abstained.reason if analysis.abstained else "no fault visible"
        return [Step(each) for each in _BY_REASON[reason]]
    return of(analysis.causes[0], analysis, source)


def of(cause: Cause, analysis: Analysis, source: Source | None = None) -> list[Step]:
    """The same for one candidate: confirm or refute it, stop the harm, ask further."""
    filled = {
        "service": cause.service,
        "who": cause.instance or cause.service,
        "callers": _names(cause.seen_by),
    }
    first = cause.evidence[0] if cause.evidence else None
    found = [Step(f"Confirm: {_confirmed(cause, first)}", _looks(cause, first, source))]
    metric = next((each for each in cause.evidence[1:] if each.signal == "metrics"), None)
    if metric is not None:
        told = f"Look also at `{metric.subject}` of {metric.instance or metric.service}:"
        told += f" {_numbers(metric)}."
        if cause.kind == "network":
            told += f" If {cause.service} is busy, it is that rather than the link: add capacity."
        found.append(Step(told, _numbers_of(metric, source)[:1]))
    stop = _mitigation(cause).format(**filled)
    state = source.state() if source is not None else ""
    when = {
        "goes on": "Mitigate, for it goes on" if state else "Mitigate, if it goes on still",
        "over": "It is over: mitigate if it comes back",
        "not known": "See whether it goes on; if so, mitigate",
    }[analysis.ending.state]
    found.append(Step(f"{when}: {stop}.{_runbook(analysis)}", (state,) if state else ()))
    found.append(Step(f"Ask: {_question(cause).format(**filled)}"))
    return found


def _mitigation(cause: Cause) -> str:
    if cause.seen_by:
        return _MITIGATE_DARK
    match _failing(cause):
        case None:
            return _MITIGATE[cause.kind]
        case "held":
            return _MITIGATE_HELD
        case "reached":
            return _MITIGATE_REACHED
        case "unreached":
            return _MITIGATE_UNREACHED


def _question(cause: Cause) -> str:
    if cause.seen_by:
        return _ASK_DARK
    return {"held": _ASK_HELD, "unreached": _ASK_UNREACHED}.get(
        _failing(cause) or "", _ASK[cause.kind]
    )


def _failing(cause: Cause) -> Literal["held", "reached", "unreached"] | None:
    """What becomes of failed calls to a cause; None: its failures aren't such.

    Silence has no example of a trace: nothing reaches it, or nothing comes from it.
    """
    first = cause.evidence[0] if cause.evidence else None
    if cause.kind != "errors" or first is None or first.signal != "errors":
        return None
    if any(each.held_ms is not None for each in cause.evidence):
        return "held"
    if not first.trace_ids:
        return "unreached"
    of = reached(first.answered)
    return None if of is None else "reached" if of else "unreached"


def _confirmed(cause: Cause, first: Evidence | None) -> str:
    """What the first evidence lets one see in a request, if it is so, and if not."""
    service = cause.service
    if first is None:
        return f"look at {service}'s own logs and latest changes; telemetry doesn't tell more."
    name = f"`{first.subject}` of {first.service}"
    if first.signal == "metrics":
        return (
            f"`{first.subject}` of {first.service} is still off: {_numbers(first)}. It isn't"
            f" {service} if what it asks is off as much, or if it was so at other times, too."
        )
    numbers = _numbers(first)
    other = f"It is {first.service} if its calls to others do so, too."
    if cause.seen_by and first.asks == service:
        does = "fails" if first.signal == "errors" else "lasts long"
        return (
            f"{name}, which calls {service}, {does} ({numbers}); the caller's log lines tell"
            f" whether {service} refuses, is late, or isn't reached. {other}"
        )
    if first.signal == "errors":
        if not first.trace_ids:
            return f"{service} pauses while others go on: is its process alive, and is it asked?"
        return (
            f"the failed {name} ({numbers}) is the deepest span that fails; its log lines may say"
            " why. Where a span below it fails, too, look there instead."
        )
    if first.signal == "time" and first.asks:
        other = f"It is {first.service} if its calls to others wait as long."
        if first.service == service:
            other = f"It is {first.asks} if others wait for it as long."
        return f"{name} lasts longer than the span of {first.asks} below it, by {numbers}. {other}"
    if first.signal == "time":
        return (
            f"{name} takes {numbers}, by itself. It isn't {service} if a span below it takes that"
            " time."
        )
    return (
        f"{name} does what is told of it ({numbers}). It isn't {service} if it is asked for"
        " something else than before."
    )


def _looks(cause: Cause, first: Evidence | None, source: Source | None) -> tuple[str, ...]:
    if first is None or source is None:
        return ()
    if not first.trace_ids:
        return _numbers_of(first, source)
    trace = first.trace_ids[0]
    lines = source.lines(trace) if cause.kind in ("errors", "omission") else ""
    return (source.trace(trace), *((lines,) if lines else ()))


def _numbers_of(each: Evidence, source: Source | None) -> tuple[str, ...]:
    return tuple(asked for _, asked in source.numbers(each)) if source is not None else ()


def _numbers(each: Evidence) -> str:
    return f"{quantity(each.incident, each.unit)} now, {quantity(each.baseline, each.unit)} before"


def quantity(value: float | None, unit: str = "") -> str:
    """As in the sentences: three digits; a share as a percentage."""
    if value is None:
        return "-"
    if unit.startswith("share"):
        return percent(value)
    return ms(value) if unit == "ms" else f"{number(value)} {unit}".strip()


def _runbook(analysis: Analysis) -> str:
    """That of the page, where the alert is one of the repository's SLOs."""
    if analysis.alert is None or not analysis.alert.metric:
        return ""
    try:
        slo = objectives.of_profile("standard").find(analysis.alert.metric)
    except UserError:
        return ""
    return f" The alert's runbook: docs/runbooks/{slo.page}.md." if slo and slo.page else ""


def sent_nothing(cause: Cause) -> str:
    """`, which sends no telemetry; seen through payment-service's calls to it`, or ''."""
    if not cause.seen_by:
        return ""
    return f", which sends no telemetry; seen through {_names(cause.seen_by)}'s calls to it"


def _names(services: tuple[str, ...]) -> str:
    return " and ".join(services[:3]) + (" and others" if len(services) > 3 else "")


def headline(analysis: Analysis) -> str:
    """The answer in a sentence."""
    if analysis.abstained is not None or not analysis.causes:
        told = analysis.abstained or Abstention("no fault visible", "Nothing stands out.")
        return f"No cause is named: {told.reason}. {told.sentence}"
    first = analysis.causes[0]
    where = f" (instance {first.instance})" if first.instance else ""
    return (
        f"{first.service}{where}: {meaning(first)} ({first.kind}),"
        f" confidence {percent(analysis.confidence)}"
    )


def meaning(cause: Cause) -> str:
    """Of its kind, in words; of what sends no telemetry, what calls to it show."""
    signals = [each.signal for each in cause.evidence]
    if cause.seen_by and signals:
        does = {"errors": "fail", "time": "take longer"}
        told = [does[each] for each in dict.fromkeys(signals) if each in does]
        return f"calls to it {' and '.join(told) or 'are others'}; it, or the way to it, is why"
    match _failing(cause):
        case None:
            return MEANING[cause.kind]
        case "held":
            return "it hangs: calls to it fail, and it is still at them when nobody waits any more"
        case "reached":
            return "calls to it fail, though it is reached"
        case "unreached":
            return "calls don't reach it, or it hangs or ends before it answers"


MEANING: Mapping[Kind, str] = {
    "cpu": "it computes, or waits for a processor",
    "latency": "it takes longer inside",
    "network": "the way to it and back is slow",
    "errors": "it fails",
    "omission": "it answers early, or leaves steps out",
    "overload": "more is asked of it than it carries",
    "resource": "its own metrics are far off: memory, disk, connections …",
    "unknown": "telemetry doesn't tell how",
}
