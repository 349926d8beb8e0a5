"""What is measured of a run and how it is told."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from prove.bench.measure import Run
from prove.errors import UserError
from prove.verify import figures, mutants, report
from prove.verify import plan as plans
from prove.verify.audit import Kind
from prove.verify.books import Books, Step
from prove.verify.checker import Violation
from prove.verify.experiment import Result
from prove.verify.figures import Spread
from prove.verify.history import Event, Type
from prove.verify.nemesis import Act

S = 1_000_000
PLAN = plans.make(3, 2, 1, rate_per_s=10)
RUN = Run(
    taken_at=datetime(2026, 11, 24, tzinfo=UTC),
    commit="0123456789ab",
    cpu="a CPU",
    cores=2,
    memory_gib=4,
    os="an OS",
    versions={"python": "3.11"},
    busy_percent=0,
)


def event(at_s: float, op: int, kind: Type, detail: str = "") -> Event:
    return Event(int(at_s * S), op, 1, "order", kind, f"key-{op}", "c", detail=detail)


EVENTS = [
    event(0, 0, "invoke"),
    event(1, 1, "invoke"),
    event(2, 0, "ok"),
    event(3, 1, "info", "TimeoutError"),
    event(3, 1, "invoke"),
    event(4, 2, "invoke"),
    event(5, 1, "fail", "declined"),
]


def steps(order_id: str, *states: tuple[float, str]) -> list[Step]:
    return [
        Step(order_id, seq, int(at_s * S), "", step, 0)
        for seq, (at_s, step) in enumerate(states, start=1)
    ]


BOOKS = Books(
    orders=(),
    steps=tuple(
        steps("a", (0, "reserve"), (2, ""))
        + steps("b", (1, "reserve"), (3, "charge"), (14, ""))
        # Finished at the heal, cancelled by its customer later.
        + steps("c", (1, "reserve"), (2, ""), (20, "cancel-payment"), (30, ""))
    ),
    payments=(),
    entries=(),
    reservations=(),
    stock=(),
    read_at_us=0,
)
ACTS = [
    Act(1 * S, "kill", "order"),
    Act(2 * S, "crash-point", "order.charge.after"),
    Act(3 * S, "kill-instead", "order.release.after"),
    Act(4 * S, "cut", "order-payment reset"),
    Act(10 * S, "heal", "everything", detail={"order": 3}),
]


def result(*violations: Violation) -> Result:
    measured = figures.measure(BOOKS, [EVENTS], ACTS, late=1)
    return Result(PLAN, measured, list(violations), "what happened" if violations else "")


VIOLATION = Violation(
    kind=Kind.DOUBLE_CHARGE,
    op=1,
    order_id="b",
    trace_id="",
    subject="b",
    at_unix_us=0,
    expected="at most one capture",
    found="2",
)


def test_figures_are_of_purchases_attempts_and_faults() -> None:
    measured = result().figures

    assert measured.purchases == {"confirmed": 1, "declined": 1, "open": 1}
    assert measured.attempts == {"ok": 1, "info": 1, "fail": 1, "unanswered": 1}
    assert measured.kills == {"kill": 1, "crash-point": 1, "kill-instead": 1}
    assert measured.crash_points == {"order.charge.after": 1}
    assert measured.cuts == {"order-payment reset": 1}
    assert measured.restarts == {"order": 3}
    assert (measured.sent, measured.killed, measured.late) == (3, 3, 1)
    assert (measured.duration_s, measured.goodput_per_s) == (5.0, 0.4)


def test_recovery_is_of_what_was_unfinished_at_the_heal() -> None:
    measured = result().figures

    assert (measured.recovery.count, measured.recovery.max_s) == (1, 4.0)
    assert (measured.settled.count, measured.settled.max_s) == (3, 13.0)


def test_a_spread_has_the_quantiles_of_its_values() -> None:
    spread = Spread.of(range(101))

    assert (spread.count, spread.p50_s, spread.p99_s, spread.max_s) == (101, 50, 99, 100)
    assert Spread.of([]).count == 0
    assert Spread.of([2.5]).p99_s == 2.5


@pytest.mark.parametrize("violations", [(), (VIOLATION,) * 12])
def test_the_table_is_no_wider_than_a_page(violations: tuple[Violation, ...]) -> None:
    out = io.StringIO()

    report.show(result(*violations), Console(file=out, width=200))

    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert ("does not hold" in out.getvalue()) is bool(violations)
    assert ("what happened" in lines) is bool(violations)


@pytest.mark.parametrize(("limit_s", "told"), [(4.0, "reached"), (3.9, "missed")])
def test_a_recovery_that_takes_too_long_does_not_hold(limit_s: float, told: str) -> None:
    of = replace(result(), recovery_limit_s=limit_s)
    out = io.StringIO()

    report.show(of, Console(file=out, width=200))

    reached = told == "reached"
    assert of.holds is reached
    row = f"{limit_s:g} s: {told}"
    assert row in out.getvalue()
    assert ("recovery takes too long" in out.getvalue()) is not reached
    assert f"| P99 of the recovery | {row} |" in report.markdown(of, RUN, "")
    figures = report.document(of, None)["figures"]
    assert (figures["recovery_p99_limit_s"], figures["recovery_p99_reached"]) == (limit_s, reached)
    assert report.document(of, None)["verdict"] == ("holds" if reached else "does not hold")


def test_what_is_planned_hides_no_figure() -> None:
    of = result()
    figures = report.document(of, None)["figures"]
    assert figures | of.figures.model_dump() == figures


def test_json_is_one_object_with_verdict_and_violations() -> None:
    document = json.loads(json.dumps(report.document(result(VIOLATION), Path("page.md"))))

    assert document["claim"] == report.CLAIM
    assert document["verdict"] == "does not hold"
    assert document["figures"]["purchases"]["confirmed"] == 1
    assert document["violations"][0]["kind"] == "double-charge"
    assert document["report"] == "page.md"


def test_the_page_is_stamped(tmp_path: Path) -> None:
    page = report.write(tmp_path / "evidence", "verify", result(), RUN, "provectl verify orders")

    text = page.read_text()
    for stamp in (
        "holds",
        "0123456789ab",
        "a CPU, 2 cores",
        "2026-11-24",
        "provectl verify",
        "3.11",
    ):
        assert stamp in text
    assert json.loads(page.with_suffix(".json").read_text())["run"]["commit"] == "0123456789ab"


def test_a_page_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UserError, match="cannot be written"):
        report.write(tmp_path / "file", "verify", result(), RUN, "")


def test_every_mutant_has_a_plan_that_buys_something() -> None:
    for name, mutant in mutants.MUTANTS.items():
        assert mutant.plan.purchases
        assert mutant.environment[mutant.service]["PROVE_MUTANT"] == name
    assert len(mutants.MUTANTS) >= 12


def test_an_unknown_mutant_is_told_with_those_there_are() -> None:
    with pytest.raises(UserError, match="lost-refund"):
        mutants.environment("lost")


def test_mutants_are_told_with_what_gave_them_away() -> None:
    out = io.StringIO()
    caught = {"lost-refund": ["unrefunded-charge"], "lost-update": []}

    report.show_mutants(caught, Console(file=out, width=200))

    assert max(map(len, out.getvalue().splitlines())) <= 100
    assert "unrefunded-charge" in out.getvalue()
    assert "not caught" in out.getvalue()
    assert report.mutants_document(caught, None)["verdict"] == "does not hold"


def test_mutants_have_a_page_of_evidence(tmp_path: Path) -> None:
    caught = {"lost-refund": ["unrefunded-charge", "sums-differ"], "lost-update": []}

    page = report.write_mutants(tmp_path, "verify-mutants-sqlite", caught, RUN, "provectl verify")

    text = page.read_text()
    for told in (
        "**Verdict: does not hold**, caught: 1 of 2.",
        "| lost-refund | order | a cancelled order's payment is left as it is |"
        " unrefunded-charge, sums-differ |",
        "**not caught**",
        "0123456789ab",
    ):
        assert told in text
    facts = json.loads(page.with_suffix(".json").read_text())
    assert (facts["report"], facts["violations"]) == (str(page), ["lost-update"])
