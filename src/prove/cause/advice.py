"""What to do next, by kind of cause, or by the reason why none is named.

First what confirms the finding, then what stops the harm, then what to ask afterwards: a hypothesis
is confirmed before anything is changed for its sake.
"""

from collections.abc import Mapping

from prove.rca.model import Abstention, Analysis, Cause, Kind, Reason

_BY_KIND: Mapping[Kind, tuple[str, ...]] = {
    "cpu": (
        "Confirm: the CPU time of {who} rose while its callees are as fast as before.",
        "Mitigate: add instances or CPU, or take {service}'s newest release or job back.",
        "Ask: which operation computes more than before? A profile of one instance tells.",
    ),
    "latency": (
        "Confirm: in an example trace the time is inside {service}, not in what it asks.",
        "Mitigate: take {service}'s latest change back; shorten its callers' limits meanwhile.",
        "Ask: does it wait for a lock, a pool or a disk? Its logs and pool metrics come first.",
    ),
    "network": (
        "Confirm: callers wait longer for {service} than its own spans last; it is fast itself.",
        "Mitigate: route around the link, or restore it; restarting {service} does not help.",
        "Ask: what changed between them: routes, proxies, DNS, packet loss, a firewall?",
    ),
    "errors": (
        "Confirm: below failed spans of {service}, or calls to it, none failed; read its errors.",
        "Mitigate: take {service}'s latest change or configuration back, or stop asking it.",
        "Ask: do all requests fail, or those of some customers, goods or instances?",
    ),
    "omission": (
        "Confirm: compare an example trace with a healthy one: {service} leaves calls out.",
        "Mitigate: take {service}'s latest change back; check data that it should have written.",
        "Ask: which condition makes it answer early: an input, a flag, an empty answer?",
    ),
    "overload": (
        "Confirm: {service} is asked more often than before, and queues; who asks more?",
        "Mitigate: shed or limit the load at the edge, add instances; stop callers' retries.",
        "Ask: more customers, or the same ones asking again because answers fail?",
    ),
    "resource": (
        "Confirm: the metrics of {who} that are far off; is memory, disk or a pool near its limit?",
        "Mitigate: free or enlarge what is full; take {service}'s latest change back.",
        "Ask: since when? What grows slowly returns after each restart.",
    ),
    "unknown": (
        "Confirm: look at {service}'s own logs and latest changes; telemetry doesn't tell more.",
        "Mitigate: what changed last in {service} is the first thing to take back.",
        "Ask: which signal would have told? Add it before the next time.",
    ),
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


def steps(analysis: Analysis) -> list[str]:
    """Three sentences: what to do with this answer."""
    if analysis.abstained is not None or not analysis.causes:
        reason: Reason = analysis.abstained.reason if analysis.abstained else "no fault visible"
        return list(_BY_REASON[reason])
    return of(analysis.causes[0])


def of(cause: Cause) -> list[str]:
    """The same for one candidate."""
    who = cause.instance or cause.service
    return [each.format(service=cause.service, who=who) for each in _BY_KIND[cause.kind]]


def percent(share: float) -> str:
    """Never surer than is known: `>99%`, `<1%`."""
    if 0 < share < 0.01:
        return "<1%"
    return ">99%" if share > 0.99 else f"{share:.0%}"


def headline(analysis: Analysis) -> str:
    """The answer in a sentence."""
    if analysis.abstained is not None or not analysis.causes:
        told = analysis.abstained or Abstention("no fault visible", "Nothing stands out.")
        return f"No cause is named: {told.reason}. {told.sentence}"
    first = analysis.causes[0]
    where = f" (instance {first.instance})" if first.instance else ""
    return (
        f"{first.service}{where}: {MEANING[first.kind]} ({first.kind}),"
        f" confidence {percent(analysis.confidence)}"
    )


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
