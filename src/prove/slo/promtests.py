"""Unit tests for promtool of the alerts generated for an SLO: it fires when theory says, or never.

Each test feeds the rules counters of events and bad events, and asks at moments theory
(`prove.slo.burn`) knows whether the alert fires. The SLO's own queries are replaced by these
counters, since no test can invent series for any query: thresholds, windows, floors, labels and
recordings are those of the generated rules; that the query measures what it should is seen live.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from prove.slo import durations, rules, yamltext
from prove.slo.burn import detection, threshold, time_to_resolve_s
from prove.slo.spec import SLO, Events, Raw
from prove.slo.windows import AlertWindows, Pair

BAD, TOTAL = "slo_test_bad_events_total", "slo_test_events_total"
MARGIN = Fraction(1, 100)
"""How far over and under a threshold is just over and just under it."""
STEPS_PER_SHORT_WINDOW = 5
"""Windows are evaluated as seldom as the rules' own interval allows, so that days take seconds."""
EVENTS_PER_STEP = 1_000_000
BUSIER = 100
"""How much more traffic there was before, to hide a fault from a slower condition."""
OFFSET = 10**9
"""Where counters begin: one that begins at 0 is extrapolated by less than the other."""


@dataclass(frozen=True)
class File:
    """A file to write beside its rules."""

    name: str
    text: str
    cases: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Segment:
    """`steps` samples with so many events more at each; reset: the counters start again from 0."""

    steps: int
    bad: int
    total: int = EVENTS_PER_STEP
    missing: bool = False
    reset: bool = False


@dataclass(frozen=True)
class _Check:
    at_step: int
    alert: str
    severity: str
    firing: bool


@dataclass(frozen=True)
class _Case:
    name: str
    step_s: int
    segments: tuple[_Segment, ...]
    checks: tuple[_Check, ...]


def suite(slo: SLO, windows: AlertWindows, only: str = "") -> list[File]:
    """The rules of `slo` over stand-in counters, then the test files that run them.

    `only`: what the names of the cases have to contain. Nothing, when there is no case.
    """
    cases = [case for case in _cases(slo, windows) if only in case.name]
    if not cases:
        return []
    rules_name = f"{slo.id}.rules.yaml"
    text = rules.build([_stand_in(slo)], windows, source="stand-in counters")
    files = [File(rules_name, text)]
    for step_s in sorted({case.step_s for case in cases}):
        same = [case for case in cases if case.step_s == step_s]
        content = {
            "rule_files": [rules_name],
            "evaluation_interval": durations.text(step_s),
            "tests": [_test(case) for case in same],
        }
        name = f"{slo.id}.{durations.text(step_s)}.test.yaml"
        files.append(File(name, yamltext.dump(content), tuple(case.name for case in same)))
    return files


def _stand_in(slo: SLO) -> SLO:
    bad, total = (f"sum(rate({name}[{{{{.window}}}}]))" for name in (BAD, TOTAL))
    if isinstance(slo.sli, Events):
        return replace(slo, sli=Events(error_query=bad, total_query=total))
    return replace(slo, sli=Raw(error_ratio_query=f"{bad} / {total}"))


def _cases(slo: SLO, windows: AlertWindows) -> Iterator[_Case]:
    for meta, pairs in ((slo.page, windows.pairs("page")), (slo.ticket, windows.pairs("ticket"))):
        if meta is None:
            continue
        watch = _Watch(slo, windows, meta.name, pairs)
        yield from watch.thresholds()
        yield watch.outage()
        yield watch.gap()
        yield watch.resets()
        if isinstance(slo.sli, Events):
            yield watch.low_traffic()
    if told := slo.ticket or slo.page:
        yield _no_data(told.name, windows)


class _Watch:
    """The cases of one alert."""

    def __init__(
        self, slo: SLO, windows: AlertWindows, alert: str, pairs: tuple[Pair, Pair]
    ) -> None:
        self._budget, self._windows, self._alert, self._pairs = slo.budget, windows, alert, pairs
        self._quick, self._slow = pairs
        self._severity = pairs[0].severity

    def thresholds(self) -> Iterator[_Case]:
        """Just under and just over the threshold of each condition."""
        for pair in self._pairs:
            needed = threshold(pair, self._budget)
            for word, bad in (("under", needed * (1 - MARGIN)), ("over", needed * (1 + MARGIN))):
                if bad <= 1:
                    yield self._fault(f"just {word} {rules.decimal(pair.factor)}x", pair, bad)

    def outage(self) -> _Case:
        """All events are bad."""
        expected = detection(self._pairs, self._budget, Fraction(1), self._windows.period_s)
        return self._fault("total outage", expected.pair if expected else self._quick, Fraction(1))

    def _fault(self, name: str, pair: Pair, bad: Fraction) -> _Case:
        """A fault after a healthy past, and its end.

        The slow condition is kept out of the quick one's cases, see `_history`: where both hold
        at once, as the workbook's tickets do, a wrong quick threshold would not be seen.
        """
        step_s = self._step_s(pair)
        step = _Step(step_s)
        history = self._history(step, pair)
        healthy = sum(segment.steps for segment in history)
        able = [pair] if pair is self._quick else self._pairs
        expected = detection(able, self._budget, bad, self._windows.period_s)
        if expected is None:
            lasts = step.after(Fraction(pair.long_s))
            quiet = [lasts * quarter // 4 for quarter in (1, 2, 3, 4)]
            checks = [self._check(healthy + at, False) for at in quiet]
            return self._case(name, step_s, [*history, _Segment(lasts, _bad(bad))], checks)
        before, fired = step.before(expected.fires_s), step.after(expected.fires_s)
        quiet = [before * quarter // 4 for quarter in (1, 2, 3, 4)]
        checks = [self._check(healthy + at, False) for at in dict.fromkeys(quiet)]
        checks.append(self._check(healthy + fired, True))
        ends = healthy + fired
        segments = [*history, _Segment(fired, _bad(bad))]
        resolves_s = self._resolves_s(able, bad, fired * step_s, step_s)
        if resolves_s is not None:
            still, over = step.before(resolves_s), step.after(resolves_s)
            checks += [self._check(ends + still, True)] if still > 0 else []
            checks += [self._check(ends + over, False), self._check(ends + 2 * over, False)]
            segments.append(_Segment(2 * over, 0))
        return self._case(name, step_s, segments, checks)

    def _resolves_s(
        self, able: Iterable[Pair], bad: Fraction, lasts_s: int, step_s: int
    ) -> Fraction | None:
        """None where it hangs on one evaluation whether another condition fires too."""
        resolves = []
        for pair in able:
            found = detection([pair], self._budget, bad, self._windows.period_s)
            if found is None or found.fires_s > lasts_s + 2 * step_s:
                continue
            if found.fires_s > lasts_s - step_s // 2:
                return None
            resolves.append(time_to_resolve_s(pair, self._budget, bad) or Fraction(0))
        return max(resolves)

    def gap(self) -> _Case:
        """Telemetry is lost for two short windows: in health nothing, in an outage only later."""
        pair = self._quick
        step_s = self._step_s(pair)
        step = _Step(step_s)
        history = self._history(step, pair)
        lost = step.after(Fraction(2 * pair.short_s))
        calm = [*history, _Segment(lost, 0, missing=True), _Segment(2 * lost, 0)]
        at = sum(segment.steps for segment in history)
        checks = [self._check(at + n * lost // 2, False) for n in range(1, 7)]
        outage_at = at + 3 * lost
        expected = detection([pair], self._budget, Fraction(1), self._windows.period_s)
        all_bad = EVENTS_PER_STEP
        seen = step.before(expected.fires_s / 3) if expected else lost
        segments = [
            *calm,
            _Segment(seen, all_bad),
            _Segment(lost, all_bad, missing=True),
            _Segment(max(lost, step.after(expected.fires_s) if expected else 0), all_bad),
        ]
        end = outage_at + sum(segment.steps for segment in segments[-3:])
        checks += [
            self._check(outage_at + seen + lost, False),
            self._check(end, expected is not None),
        ]
        return self._case("lost telemetry", step_s, segments, checks)

    def resets(self) -> _Case:
        """Processes restart, in health and in a fault: counters begin anew, nothing more."""
        pair = self._slow
        step_s = self._step_s(pair)
        step = _Step(step_s)
        lowest = min(threshold(pair, self._budget) for pair in self._pairs)
        below = _bad(min(lowest, Fraction(1)) / 2)
        history = self._history(step, pair)
        half = step.after(Fraction(pair.long_s, 2))
        calm = [_Segment(half, below, reset=True), _Segment(half, below, reset=True)]
        at = sum(segment.steps for segment in history)
        checks = [self._check(at + n, False) for n in (1, half, half + 1, 2 * half)]
        expected = detection([pair], self._budget, Fraction(1), self._windows.period_s)
        segments = [*history, *calm]
        if expected is not None:
            forgets = step.after(Fraction(pair.long_s))
            fault_at = at + 2 * half + forgets
            before, fired = step.before(expected.fires_s), step.after(expected.fires_s)
            # Only a condition no other precedes has a predicted moment.
            first = detection(self._pairs, self._budget, Fraction(1), self._windows.period_s)
            checks.append(self._check(fault_at + fired, True))
            if first is not None and first.pair is pair and before:
                checks.append(self._check(fault_at + before, False))
            segments += [
                _Segment(forgets, 0, reset=True),
                _Segment(before or 1, EVENTS_PER_STEP),
                _Segment(fired - (before or 1), EVENTS_PER_STEP, reset=True),
            ]
        return self._case("counter resets", step_s, segments, checks)

    def low_traffic(self) -> _Case:
        """Without other traffic, failures fewer than the floor are silent however bad the ratio."""
        step_s = self._step_s(self._quick)
        quiet = _Segment(_Step(step_s).after(Fraction(self._quick.short_s)), 0, total=0)
        segments = [quiet]
        checks = []
        at = quiet.steps
        able = any(threshold(pair, self._budget) < 1 for pair in self._pairs)
        for failures in range(1, rules.MIN_BAD_EVENTS + 1):
            segments.append(_Segment(1, 1, total=1))
            at += 1
            checks.append(self._check(at, able and failures == rules.MIN_BAD_EVENTS))
        return self._case("low traffic", step_s, segments, checks)

    def _history(self, step: "_Step", pair: Pair) -> list[_Segment]:
        """Health for as long as `pair` looks back.

        Before the quick one's there was one moment of so much traffic that the slow one, which
        still sees it, can't hold.
        """
        recent = _Segment(step.after(Fraction(pair.long_s)), 0)
        if pair is self._slow:
            return [recent]
        longest = step.after(Fraction(self._slow.long_s))
        return [_Segment(1, 0, total=BUSIER * longest * EVENTS_PER_STEP), recent]

    def _step_s(self, pair: Pair) -> int:
        return _step_s(pair, self._windows)

    def _check(self, at_step: int, firing: bool) -> _Check:
        return _Check(at_step, self._alert, self._severity, firing)

    def _case(
        self, name: str, step_s: int, segments: Sequence[_Segment], checks: Sequence[_Check]
    ) -> _Case:
        return _Case(f"{self._severity}: {name}", step_s, tuple(segments), tuple(checks))


@dataclass(frozen=True)
class _Step:
    """Evaluations around a moment: one before it at the least, and one after."""

    seconds: int

    def before(self, moment_s: Fraction) -> int:
        return max(0, int((moment_s - self.seconds) // self.seconds))

    def after(self, moment_s: Fraction) -> int:
        return int(-(-(moment_s + self.seconds) // self.seconds))


def _no_data(alert: str, windows: AlertWindows) -> _Case:
    """All series end: that is told once it has lasted, and not before."""
    step_s = windows.interval_s
    step = _Step(step_s)
    seen = step.after(Fraction(windows.lengths_s[0]))
    told_s = Fraction(rules.no_data_after_s(windows))
    # The shortest window still holds two samples for a while.
    latest = step.after(told_s + windows.lengths_s[0])
    segments = (_Segment(seen, 0), _Segment(latest, 0, missing=True))
    name = rules.no_data_name(alert)
    checks = (
        _Check(seen, name, "ticket", False),
        _Check(seen + step.before(told_s), name, "ticket", False),
        _Check(seen + latest, name, "ticket", True),
    )
    return _Case("ticket: no data", step_s, segments, checks)


def _step_s(pair: Pair, windows: AlertWindows) -> int:
    return max(windows.interval_s, pair.short_s // STEPS_PER_SHORT_WINDOW)


def _bad(share: Fraction) -> int:
    return round(share * EVENTS_PER_STEP)


def _test(case: _Case) -> dict[str, object]:
    return {
        "name": case.name,
        "interval": durations.text(case.step_s),
        "input_series": [
            {"series": BAD, "values": _values(case.segments, "bad")},
            {"series": TOTAL, "values": _values(case.segments, "total")},
        ],
        "promql_expr_test": [
            {
                # promtool's complaint shows the expression, and with it the case's name.
                "expr": f'count(ALERTS{{alertname="{check.alert}", alertstate="firing", '
                f'sloth_severity="{check.severity}"}}) or vector(0) # {case.name}',
                "eval_time": durations.text(check.at_step * case.step_s),
                "exp_samples": [{"labels": "{}", "value": int(check.firing)}],
            }
            for check in case.checks
        ],
    }


def _values(segments: Iterable[_Segment], counter: str) -> str:
    value = OFFSET
    parts = [str(value)]
    for segment in segments:
        if not segment.steps:
            continue
        more: int = getattr(segment, counter)
        if segment.reset:
            value = 0
        if segment.missing:
            parts.append(f"_x{segment.steps}")
        else:
            parts.append(f"{value + more}+{more}x{segment.steps - 1}")
        value += more * segment.steps
    return " ".join(parts)
