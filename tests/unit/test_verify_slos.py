"""What `verify slos` breaks and how it judges what comes of it; the run itself is an e2e test."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError
from rich.console import Console
from service_kit.faultmodel import Choice, any_fault
from typer.testing import CliRunner

from prove.bench.measure import Run
from prove.cli import app
from prove.errors import UserError
from prove.serving import serving
from prove.slo import burn, rules
from prove.slo.spec import Raw
from prove.slo.windows import Pair
from prove.verify import cells, pager, slos, slos_report
from prove.verify.cells import CATALOGUE, Cell, Lease, Outcome, Page, judge
from prove.verify.pager import Pager
from prove.verify.slos import Drill, Kept, Stage
from prove.verify.traffic import Arrivals

OBJECTIVES = slos.objectives()
TOLERATED_S = 2.0


def outcome(name: str = "checkout-errors-100", off_s: float | None = 0.5, **others: Any) -> Outcome:
    cell = CATALOGUE[name]
    due_s = float(OBJECTIVES.due(cell).fires_s)
    values = {
        "cell": name,
        "slo": cell.slo,
        "share": float(cell.share),
        "due_s": due_s,
        "paged_s": None if off_s is None else due_s + off_s,
        "resolves_s": 4.3,
        "resolved_s": None if off_s is None else 4.9,
        "began_s": 360.0,
        "ended_s": 380.0,
    }
    return Outcome.model_validate(values | others)


def kinds(outcomes: list[Outcome], pages: list[Page] | None = None) -> list[str]:
    return [each.kind for each in judge(outcomes, pages or [], TOLERATED_S)]


# -- the catalogue


@pytest.mark.parametrize("cell", CATALOGUE.values(), ids=lambda cell: cell.name)
def test_every_cell_pages_by_theory(cell: Cell) -> None:
    due = OBJECTIVES.due(cell)

    assert 0 < due.fires_s <= OBJECTIVES.healthy_s


def test_there_are_cells_of_every_slo_and_share() -> None:
    shares: dict[str, set[int]] = {}
    for cell in CATALOGUE.values():
        shares.setdefault(cell.slo, set()).add(cell.percent)

    assert shares.keys() == OBJECTIVES.slos.keys()
    for slo, percents in shares.items():
        of_kind = {"errors": {100, 50, 20}, "latency": {100, 80, 50}}
        assert percents == of_kind.get(slo.rpartition("-")[2], {100}), slo


@pytest.mark.parametrize("cell", CATALOGUE.values(), ids=lambda cell: cell.name)
def test_leases_keep_to_the_contract_and_pick_by_count(cell: Cell) -> None:
    if not isinstance(cell.fault, Lease):
        return
    fault = any_fault.validate_python(cell.fault.body(900))
    assert isinstance(fault.params, Choice)

    assert fault.params.select == "count"
    assert fault.params.rate == cell.percent / 100


def test_a_stuck_order_is_as_old_as_the_slo_allows() -> None:
    sli = OBJECTIVES.slos["checkout-freshness"].sli

    assert isinstance(sli, Raw)
    assert re.findall(r"> bool (\d+)", sli.error_ratio_query) == [str(cells.FRESH_S)]


def test_an_alert_ends_with_the_last_condition_that_fired() -> None:
    cell = CATALOGUE["checkout-freshness-100"]
    lasts = {8: 0, 9: (1 - 0.144) * 5, 21: (1 - 0.144) * 5, 22: (1 - 0.06) * 30}

    assert {each: OBJECTIVES.resolves_s(cell, each) for each in lasts} == pytest.approx(lasts)


def test_a_slo_that_is_missing_is_named() -> None:
    without = replace(OBJECTIVES, slos={})

    with pytest.raises(UserError, match="checkout-errors-20 needs the SLO checkout-errors"):
        without.due(CATALOGUE["checkout-errors-20"])


def test_a_share_that_never_pages_is_refused() -> None:
    cell = replace(CATALOGUE["checkout-errors-20"], share=Fraction(1, 100))

    with pytest.raises(UserError, match="there is never a page"):
        OBJECTIVES.due(cell)


@pytest.mark.parametrize("name", ["payment-latency-80", "x"])
def test_an_unknown_cell_is_answered_with_the_nearest(name: str) -> None:
    with pytest.raises(UserError, match=rf"no cell '{name}'; there are .*s-latency-80"):
        cells.choose([name])


# -- stages


def test_one_of_each_kind_is_one_stage() -> None:
    chosen = cells.choose(cells.ONE_OF_EACH_KIND)

    assert cells.stages(chosen) == [chosen]


def test_every_cell_has_its_stage_and_none_disturbs_another() -> None:
    planned = cells.stages(CATALOGUE.values())

    assert sorted(c.name for stage in planned for c in stage) == sorted(CATALOGUE)
    for stage in planned:
        for one, other in combinations(stage, 2):
            assert one.slo != other.slo
            assert one.slo not in other.touches
            assert other.slo not in one.touches
        assert len({cell.traffic for cell in stage} - {None}) < 2


def test_what_disturbs_another_waits() -> None:
    names = ["checkout-errors-100", "checkout-latency-100", "checkout-freshness-100"]
    planned = cells.stages(cells.choose(names))

    assert [[cell.name for cell in stage] for stage in planned] == [names[:1], names[1:]]


# -- the judgement


@pytest.mark.parametrize(
    ("off_s", "expected"),
    [
        (0.0, []),
        (2.0, []),
        (-2.0, []),
        (2.001, ["late"]),
        (-2.001, ["early"]),
        (None, ["missed"]),
    ],
)
def test_a_page_may_be_two_intervals_off(off_s: float | None, expected: list[str]) -> None:
    assert kinds([outcome(off_s=off_s)]) == expected


def test_a_page_that_goes_on_is_told() -> None:
    assert kinds([outcome(resolved_s=None)]) == ["unresolved"]


@pytest.mark.parametrize(
    ("slo", "at_s", "expected"),
    [
        ("checkout-errors", 369.0, []),
        ("checkout-availability", 369.0, []),  # the canary is a customer, too
        ("checkout-errors", 359.9, ["false-page"]),
        ("checkout-errors", 380.1, ["false-page"]),
        ("payments-errors", 369.0, ["false-page"]),
    ],
)
def test_only_what_is_broken_may_page(slo: str, at_s: float, expected: list[str]) -> None:
    assert kinds([outcome()], [Page(slo=slo, alert="Some", at_s=at_s)]) == expected


def test_in_a_soak_every_page_is_false() -> None:
    assert kinds([], [Page(slo="checkout-errors", alert="CheckoutErrors", at_s=5)]) == [
        "false-page"
    ]


@pytest.mark.parametrize("name", ["checkout-errors-100", "checkout-errors-20"])
@pytest.mark.parametrize("factor", [Fraction(2, 3), Fraction(4, 3)])
def test_a_wrong_threshold_in_the_rules_is_found_out(name: str, factor: Fraction) -> None:
    """Pages as the rules with the wrong threshold would send them; promtool's part of this:
    tests/integration/test_slo_promtool.py."""
    cell = CATALOGUE[name]
    slo, windows = OBJECTIVES.slos[cell.slo], OBJECTIVES.windows
    quick, _ = windows.pairs("page")
    right = rules.decimal(burn.threshold(quick, slo.budget))
    wrong = rules.decimal(burn.threshold(quick, slo.budget) * factor)
    built = rules.build([slo], windows, source="a test")
    assert f"> {right}" in built

    def judged(text: str) -> list[str]:
        paged_s = _pages_after_s(text, cell, quick)
        off_s = None if paged_s is None else float(paged_s - OBJECTIVES.due(cell).fires_s)
        return kinds([outcome(name, off_s)])

    assert judged(built) == []
    broken = judged(built.replace(f"> {right}", f"> {wrong}"))
    assert broken == ["early" if factor < 1 else "late"]


def _pages_after_s(built: str, cell: Cell, quick: Pair) -> Fraction | None:
    """When the quick page condition that is written in the rules holds."""
    expression = built.partition("sloth_severity: page")[0].rpartition("- alert:")[2]
    (threshold,) = map(Fraction, re.findall(r"ratio_rate1m.*? > ([\d.]+)", expression))
    return threshold * quick.long_s / cell.share if cell.share > threshold else None


# -- the pager


def message(*alerts: dict[str, Any]) -> bytes:
    return json.dumps({"version": "4", "alerts": alerts}).encode()


def alert(slo: str = "checkout-errors", **changes: Any) -> dict[str, Any]:
    labels = {"alertname": "CheckoutErrors", "sloth_id": slo, "sloth_severity": "page"}
    labels |= changes.pop("labels", {})
    told = {"status": "firing", "fingerprint": slo, "startsAt": "2026-01-01T00:00:00Z"}
    return {"labels": labels, **told, **changes}


def pages_of(*bodies: bytes) -> list[tuple[str, str]]:
    async def take() -> Pager:
        ours = Pager()
        for body in bodies:
            await ours.take(body)
        return ours

    return [(each.slo, each.status) for each in asyncio.run(take()).notices]


def test_a_page_is_noted_once_however_often_it_is_told() -> None:
    other = alert("payments-errors")

    assert pages_of(message(alert()), message(alert(), other), message(other)) == [
        ("checkout-errors", "firing"),
        ("payments-errors", "firing"),
    ]


def test_the_end_of_a_page_and_its_return_are_news() -> None:
    over = alert(status="resolved")
    again = alert(startsAt="2026-01-01T00:05:00Z")

    assert [status for _, status in pages_of(*map(message, (alert(), over, again)))] == [
        "firing",
        "resolved",
        "firing",
    ]


def test_tickets_wake_nobody() -> None:
    assert pages_of(message(alert(labels={"sloth_severity": "ticket"}))) == []


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(ValidationError):
        pages_of(b'{"alerts": [{"status": "maybe"}]}')


def test_who_waits_is_woken_by_its_page_alone() -> None:
    async def scenario() -> tuple[float | None, float | None]:
        ours = Pager()
        began = time.monotonic()
        waiting = asyncio.create_task(ours.wait("checkout-errors", "firing", began, began + 60))
        await ours.take(message(alert("payments-errors")))
        await asyncio.sleep(0)
        assert not waiting.done()
        await ours.take(message(alert()))
        came = await waiting
        # It is over for who asks about what came later.
        now = time.monotonic()
        return came, await ours.wait("checkout-errors", "firing", now, now)

    came, none = asyncio.run(scenario())

    assert came is not None
    assert none is None


# -- the traffic


@pytest.mark.parametrize("sales", ["checkouts", "payments"])
def test_every_sale_has_a_key_of_its_own(sales: cells.Traffic) -> None:
    asked: list[tuple[str, str, str]] = []

    async def scenario() -> Arrivals:
        done = asyncio.Event()

        async def handle(request: web.Request) -> web.Response:
            asked.append((request.method, request.path, request.headers.get("Idempotency-Key", "")))
            if sum(method == "POST" for method, *_ in asked) >= 3:
                done.set()
            return web.Response(status=500 if request.method == "POST" else 200)

        server = web.Application()
        server.router.add_route("*", "/{path:.*}", handle)
        async with serving(server) as port:
            url = pager.url(port).rstrip("/")
            urls = dict.fromkeys(("product", "order", "payment"), url)
            arrivals = Arrivals(urls, ["A", "B"], sales)
            task = asyncio.create_task(arrivals.run())
            await asyncio.wait_for(done.wait(), 60)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return arrivals

    arrivals = asyncio.run(scenario())

    posts = [each for each in asked if each[0] == "POST"]
    path = {"checkouts": "/api/v1/orders", "payments": "/api/v1/payments"}[sales]
    assert {each[1] for each in posts} == {path}
    assert len({each[2] for each in posts}) == len(posts)
    assert {each[1] for each in asked if each[0] == "GET"} <= {
        "/api/v1/products/A",
        "/api/v1/products/B",
    }
    assert arrivals.sent >= len(asked)


# -- resuming


class Silent:
    def phase(self, text: str, lasts_s: float) -> None:
        raise AssertionError(f"nothing was to be done, but: {text}")

    def pages(self, count: int) -> None:
        raise AssertionError("no stack was to run")


def stage(*outcomes: Outcome) -> Stage:
    return Stage(
        quiet_s=360,
        sent=100,
        late=1,
        answers={"201": 99, "500": 1},
        outcomes=list(outcomes),
        violations=judge(outcomes, [], TOLERATED_S),
    )


def kept(*stages: Stage, soaked_s: float = 360) -> Kept:
    mark = slos.fingerprint(OBJECTIVES)
    return Kept(fingerprint=mark, soaked_s=soaked_s, stages=list(stages))


def drill(home: Path, *names: str, soak_s: float = 180) -> Drill:
    return Drill(home, cells.choose(names), soak_s, OBJECTIVES, Silent())


def write(home: Path, content: str) -> None:
    (home / slos.PROGRESS).write_text(content)


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    before = kept(stage(outcome("checkout-errors-20")), stage(outcome("payments-errors-20")))
    write(tmp_path, before.model_dump_json())

    assert drill(tmp_path, "checkout-errors-20", "payments-errors-20").run() == before


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "cannot be read"),
        (Kept(fingerprint="others").model_dump_json(), "a run of other SLOs or windows"),
    ],
)
def test_a_home_that_cannot_be_gone_on_with(tmp_path: Path, content: str, complaint: str) -> None:
    write(tmp_path, content)

    with pytest.raises(UserError, match=complaint):
        drill(tmp_path, "checkout-errors-20").run()


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()

    with pytest.raises(UserError, match="is not empty and holds no run to resume"):
        drill(tmp_path, "checkout-errors-20").run()


def test_other_rules_are_another_run() -> None:
    errors = OBJECTIVES.slos["checkout-errors"]
    stricter = {**OBJECTIVES.slos, errors.id: replace(errors, objective=Decimal("99.5"))}
    others = replace(OBJECTIVES, slos=stricter)

    assert slos.fingerprint(others) != slos.fingerprint(OBJECTIVES)
    assert slos.fingerprint(slos.objectives()) == slos.fingerprint(OBJECTIVES)


# -- the report

FINE = kept(
    stage(outcome("checkout-errors-20", 0.4), outcome("product-reads-latency-80", 1.2)),
    stage(outcome("checkout-availability-100", -0.2)),
)
FALSE_PAGE = Page(slo="a-b", alert="Some", at_s=3)
FALSE = kept(
    stage(outcome(off_s=None)),
    stage().model_copy(update={"violations": judge([], [FALSE_PAGE], TOLERATED_S)}),
)


def shown(tell: Callable[[Console], None]) -> str:
    out = StringIO()
    tell(Console(file=out, width=100))
    return out.getvalue()


def test_the_document_has_the_figure_of_each_cell() -> None:
    document = slos_report.document(FINE, TOLERATED_S, Path("a.md"))

    assert document["verdict"] == "holds"
    assert document["violations"] == []
    assert document["report"] == "a.md"
    figures = document["figures"]
    assert [each["off_s"] for each in figures["cells"]] == [0.4, 1.2, -0.2]
    assert figures["off"] == {
        "count": 3,
        "p50_s": 0.4,
        "p95_s": 1.12,
        "least_s": -0.2,
        "most_s": 1.2,
    }
    assert figures["healthy_s"] == 720
    assert figures["answers"] == {"201": 198, "500": 2}
    json.dumps(document)


def test_what_does_not_hold_is_told() -> None:
    document = slos_report.document(FALSE, TOLERATED_S, None)

    assert document["verdict"] == "does not hold"
    assert [each["kind"] for each in document["violations"]] == ["missed", "false-page"]
    assert document["figures"]["false_pages"] == 1
    assert document["figures"]["off"] is None
    text = shown(lambda console: slos_report.show(FALSE, TOLERATED_S, console))
    assert "missed: checkout-errors-100: expected a page after 8.6 s, ± 2 s, found none" in text
    assert "false-page: a-b" in text


def test_the_table_fits_a_terminal() -> None:
    text = shown(lambda console: slos_report.show(FINE, TOLERATED_S, console))

    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert re.search(r"checkout-errors-20 +20% +43\.2 s +43\.6 s +\+0\.4 s +4\.9 s, 4\.3 s", text)
    assert text.splitlines()[-1].startswith("holds: ")


def test_the_page_of_evidence_says_what_was_run(tmp_path: Path) -> None:
    run = Run.model_validate(
        {
            "taken_at": "2026-01-02T03:04:00Z",
            "commit": "abc",
            "cpu": "some",
            "cores": 2,
            "memory_gib": 8,
            "os": "Debian",
            "versions": {"flask": "3"},
            "busy_percent": 1,
        }
    )
    page = slos_report.write(tmp_path, FINE, TOLERATED_S, run, "provectl verify slos")

    text = page.read_text()
    assert "| command | `provectl verify slos` |" in text
    assert "| checkout-availability-100 | 100% | 8.6 s | 8.4 s | -0.2 s | 4.9 s, 4.3 s |" in text
    facts = json.loads(page.with_suffix(".json").read_text())
    assert facts["run"]["commit"] == "abc"
    assert facts["verdict"] == "holds"


# -- the command


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--cell", "nothing"], "there is no cell 'nothing'"),
        (["--all", "--cell", "checkout-errors-20"], "either --all or --cell"),
        (["--soak", "long"], "--soak wants a duration"),
    ],
)
def test_mistakes_are_told_before_anything_starts(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(app, ["verify", "slos", *arguments])

    assert isinstance(result.exception, UserError)
    assert complaint in str(result.exception)
