"""OpenSLO v1 ratio SLOs, turned into the form of `prove.slo.spec`.

https://github.com/OpenSLO/OpenSLO (apiVersion openslo/v1). Metrics have to be PromQL.
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from prove.errors import UserError
from prove.slo import spec, yamltext
from prove.slo.durations import seconds
from prove.slo.yamltext import Document, Path, documents

API_VERSION = "openslo/v1"
_RANGE = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)|\[[^\]]*\]""")
"""A text, which may hold brackets of its own, or the range of a selector or subquery."""
_PLAIN = re.compile(r"\[\s*[0-9][0-9a-z]*\s*\]")


def convert(text: str, name: str) -> tuple[str, list[str]]:
    """The SLO documents of a file as a Sloth spec, and what got lost or changed, a line each.

    Other kinds are read as far as an SLO refers to them (SLI) and left out. Raises UserError
    naming file, line and field of what can't be said in the other form.
    """
    found = documents(text, name)
    for document in found:
        value = document.value
        if not isinstance(value, dict) or value.get("apiVersion") != API_VERSION:
            raise document.error(("apiVersion",), f"must be {API_VERSION}")
    indicators = {
        str(_at(each, ("metadata", "name"))): each
        for each in found
        if each.value.get("kind") == "SLI"
    }
    slos = [each for each in found if each.value.get("kind") == "SLO"]
    if not slos:
        raise UserError(f"{name}: holds no document of kind SLO")
    notes = [
        f"{each.value.get('kind')} {_name(each)}: left out; only SLO and SLI have a counterpart"
        for each in found
        if each.value.get("kind") not in ("SLO", "SLI")
    ]
    services: dict[str, list[dict[str, object]]] = {}
    for document in slos:
        service = str(_at(document, ("spec", "service")))
        services.setdefault(service, []).extend(_objectives(document, indicators, notes))
    specs = [
        {"version": spec.VERSION, "service": service, "slos": converted}
        for service, converted in services.items()
    ]
    converted_text = "---\n".join(yamltext.dump(each) for each in specs)
    spec.parse(converted_text, f"{name} (converted)")
    return converted_text, notes


def _objectives(
    document: Document, indicators: Mapping[Any, Document], notes: list[str]
) -> Iterable[dict[str, object]]:
    name = str(_at(document, ("metadata", "name")))
    _check_method(document)
    _note_window(document, name, notes)
    labels = _labels(document, name, notes)
    if document.value["spec"].get("alertPolicies"):
        notes.append(f"{name}: its alertPolicies are left out; a page and a ticket are made for it")
    sli = _indicator(document, indicators, name, notes)
    objectives = _at(document, ("spec", "objectives"))
    if not isinstance(objectives, list) or not objectives:
        raise document.error(("spec", "objectives"), "must be a list of at least one")
    for index, objective in enumerate(objectives):
        path: Path = ("spec", "objectives", index)
        if not isinstance(objective, dict):
            raise document.error(path, "must be a mapping")
        own = name if len(objectives) == 1 else f"{name}-{index}"
        yield {
            "name": own,
            "objective": _percent(document, path, objective),
            "description": str(document.value["spec"].get("description") or ""),
            **({"labels": labels} if labels else {}),
            "sli": sli,
            "alerting": {"name": _alert_name(str(document.value["spec"]["service"]), own)},
        }


def _percent(document: Document, path: Path, objective: dict[str, Any]) -> int | float:
    share, percent = objective.get("target"), objective.get("targetPercent")
    if (share is None) == (percent is None):
        raise document.error(path, "must have either target or targetPercent")
    given = percent if share is None else share
    if isinstance(given, bool) or not isinstance(given, int | Decimal):
        raise document.error(path, f"its target must be a number (got {given!r})")
    exact = Decimal(given) * (1 if share is None else 100)
    if not exact.is_finite():
        raise document.error(path, f"its target must be a number (got {given})")
    return int(exact) if exact == int(exact) else float(exact)


def _check_method(document: Document) -> None:
    method = document.value["spec"].get("budgetingMethod", "Occurrences")
    if method != "Occurrences":
        path = ("spec", "budgetingMethod")
        raise document.error(path, f"must be Occurrences; {method} has no counterpart")


def _note_window(document: Document, name: str, notes: list[str]) -> None:
    given = document.value["spec"].get("timeWindow") or []
    if not isinstance(given, list):
        raise document.error(("spec", "timeWindow"), "must be a list")
    for index, window in enumerate(given):
        path = ("spec", "timeWindow", index)
        if not isinstance(window, dict):
            raise document.error(path, "must be a mapping")
        if not window.get("isRolling"):
            raise document.error(path, "must be rolling (isRolling: true); calendars are not known")
        try:
            length_s = seconds(str(window.get("duration")))
        except ValueError as error:
            raise document.error((*path, "duration"), str(error)) from None
        if length_s != 30 * 86_400:
            notes.append(
                f"{name}: its period of {window['duration']} is sloPeriod in a windows file here"
            )


def _labels(document: Document, name: str, notes: list[str]) -> dict[str, str]:
    """The SLO's labels, as far as Prometheus can have them; its annotations have no place."""
    metadata = document.value["metadata"]
    if metadata.get("annotations"):
        notes.append(f"{name}: its metadata.annotations are left out")
    given = metadata.get("labels") or {}
    if not isinstance(given, dict):
        raise document.error(("metadata", "labels"), "must be a mapping")
    labels = {}
    for key, value in given.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(key), re.ASCII):
            notes.append(f"{name}: its label {key} is left out; Prometheus has no such names")
        elif isinstance(value, list | dict) or value is None:
            notes.append(f"{name}: its label {key} is left out; Prometheus has one text for each")
        else:
            labels[str(key)] = str(value).lower() if isinstance(value, bool) else str(value)
    return labels


def _indicator(
    document: Document, indicators: Mapping[Any, Document], name: str, notes: list[str]
) -> dict[str, object]:
    content = document.value["spec"]
    path: Path
    if content.get("indicatorRef"):
        reference = str(content["indicatorRef"])
        if reference not in indicators:
            where = ("spec", "indicatorRef")
            raise document.error(where, f"there is no SLI {reference!r} in this file")
        document = indicators[reference]
        path = ("spec", "ratioMetric")
    else:
        path = ("spec", "indicator", "spec", "ratioMetric")
    ratio = _at(document, path)
    if not isinstance(ratio, dict):
        raise document.error(path, "must be a mapping")
    if "raw" in ratio:
        query = _query(document, (*path, "raw"), name, notes)
        bad = ratio.get("rawType") == "failure"
        return {"raw": {"error_ratio_query": query if bad else f"1 - ({query})"}}
    total = _query(document, (*path, "total"), name, notes)
    if "bad" in ratio:
        bad_query = _query(document, (*path, "bad"), name, notes)
    else:
        good = _query(document, (*path, "good"), name, notes)
        # Without a single good event there is no series of them: then all were bad.
        bad_query = f"({total})\n-\n(({good}) or 0 * ({total}))"
    return {"events": {"error_query": bad_query, "total_query": total}}


def _query(document: Document, path: Path, name: str, notes: list[str]) -> str:
    source = _at(document, (*path, "metricSource"))
    kind = source.get("type") if isinstance(source, dict) else None
    if kind is not None and str(kind).lower() != "prometheus":
        raise document.error((*path, "metricSource", "type"), f"must be Prometheus (got {kind})")
    where = (*path, "metricSource", "spec", "query")
    query = str(_at(document, where)).strip()
    ranges = list(dict.fromkeys(found[0] for found in _RANGE.finditer(query) if not found[1]))
    if not ranges:
        raise document.error(where, "must look at a range: sum(rate(some_metric[{{.window}}]))")
    given = any(map(spec.WINDOW.search, ranges))
    known = spec.WINDOW.search if given else _PLAIN.fullmatch
    if fixed := [each for each in ranges if not known(each)]:
        raise document.error(
            where,
            f"the range {fixed[0]} would be the same in the rules of every window; write"
            " {{.window}} in its place, or this SLO in Sloth's form",
        )
    if given:
        return query
    notes.append(f"{name}: the range {', '.join(ranges)} became the window of each rule")
    return _RANGE.sub(lambda found: found[1] or "[{{.window}}]", query)


def _name(document: Document) -> str:
    metadata = document.value.get("metadata")
    return str(metadata.get("name")) if isinstance(metadata, dict) else "without a name"


def _at(document: Document, path: Path) -> Any:
    value = document.value
    for depth, key in enumerate(path):
        if not isinstance(value, dict) or value.get(str(key)) is None:
            raise document.error(path[: depth + 1], "is required")
        value = value[str(key)]
    return value


def _alert_name(*parts: str) -> str:
    words = re.split(r"[^A-Za-z0-9]+", " ".join(parts))
    return "".join(word[:1].upper() + word[1:] for word in words)
