"""Own labelled incidents: the plan, what their bundles tell, and their truth apart from that."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prove.cause import collect, plan, recorded, sources, truth
from prove.cause.plan import Case
from prove.incident import evidence, objectives, record
from prove.incident.bundle import Alert
from tests.support import incidents

FAULTS, QUIET, DOUBLE = 10, 5, 3


def cases(seed: int = 1) -> list[Case]:
    """As `make prove` collects them."""
    return plan.plan(seed, FAULTS, QUIET, DOUBLE)


def of_payments() -> Case:
    """Whose fault is that of the incident that never was."""
    planned = plan.plan(1, 40, 0, 0)
    return next(
        case
        for case in planned
        if (case.faults[0].place, case.faults[0].cause.kind) == ("payment", "error")
    )


def test_a_seed_makes_a_plan_with_some_of_all() -> None:
    assert cases(7) == cases(7) != cases(8)
    singles = [case for case in cases() if len(case.faults) == 1]
    doubles = [case for case in cases() if len(case.faults) == 2]
    assert (len(singles), len(doubles)) == (FAULTS, DOUBLE)
    assert sum(bool(case.more_load) for case in cases()) == QUIET // 2
    assert {case.severity for case in singles} == set(plan.SEVERITIES)
    for case in doubles:
        assert len({truth.service(each.cause) for each in case.faults}) == 2
    for case in (singles[0], doubles[0], next(case for case in cases() if not case.faults)):
        made = plan.entry(case)
        assert made.prove.load.checkouts_per_s == case.checkouts_per_s
        assert made.scenario.method[0].pauses.before == case.healthy_s


def test_seeds_go_on_where_the_one_before_ended() -> None:
    done = [
        (each.place, each.cause.service, each.cause.component, each.cause.kind)
        for seed in (1, 2, 3, 4)
        for case in cases(seed)
        if len(case.faults) == 1
        for each in case.faults
    ]
    assert len(set(done)) == 40  # all that there are
    names = [case.name for seed in (1, 2, 3, 4) for case in cases(seed)]
    assert len(set(names)) == len(names)


def test_times_tell_nothing_of_what_was_done() -> None:
    """Windows of runs with a fault and of those without are drawn alike."""
    for name, (least, most) in (
        ("healthy_s", plan.HEALTHY_S),
        ("begins_after_s", plan.BEGINS_AFTER_S),
        ("ends_before_s", plan.ENDS_BEFORE_S),
    ):
        drawn = [getattr(case, name) for seed in range(1, 9) for case in cases(seed)]
        middle = (least + most) / 2
        assert all(least <= each <= most for each in drawn)
        for faulty in (True, False):
            some = [
                getattr(case, name)
                for seed in range(1, 9)
                for case in cases(seed)
                if bool(case.faults) == faulty
            ]
            assert sum(some) / len(some) == pytest.approx(middle, abs=(most - least) / 6)


def test_it_began_when_the_sli_of_its_page_went_bad(kept: Path) -> None:
    """Two seconds after the fault, by the SLI; the page came 18 s later."""
    case = of_payments()
    promised = objectives.of_profile("drill")
    told = collect.told_windows(case, kept, record.read(kept), promised)
    assert told is not None
    assert told.incident.start_unix_s == incidents.INJECTED_S + 2
    assert told.incident.end_unix_s == incidents.ROLLED_BACK_S - case.ends_before_s
    assert told.baseline.start_unix_s == incidents.START_S
    assert told.baseline.end_unix_s < told.incident.start_unix_s


def test_without_a_page_it_began_at_about_that_time(kept: Path) -> None:
    (kept / record.PAGES).write_text("")
    case = replace(of_payments(), begins_after_s=4.0)
    told = collect.told_windows(case, kept, record.read(kept), objectives.of_profile("drill"))
    assert told is not None
    about = told.incident.start_unix_s - incidents.INJECTED_S
    assert about == 4.0
    aborted = incidents.incident(windows=None)
    assert collect.told_windows(case, kept, aborted, objectives.of_profile("drill")) is None


def test_a_bundle_has_what_was_told_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = incidents.write(tmp_path, with_bundle=False)
    stores = incidents.stores(tmp_path)
    monkeypatch.setattr(evidence, "Prometheus", lambda _url: stores.metrics)
    monkeypatch.setattr(evidence, "LogStore", lambda _url: stores.logs)
    case = of_payments()
    where = evidence.Sources("-", "-", stores.span_file, "drill")
    evidence.collect(kept, where, lambda *of: collect.told_windows(case, *of))
    told = json.loads((kept / record.BUNDLE / "bundle.json").read_text())
    assert told["incident"] == {
        "start_unix_s": incidents.INJECTED_S + 2,
        "end_unix_s": incidents.ROLLED_BACK_S - case.ends_before_s,
    }
    assert told["baseline_local"] is None
    assert (
        told["alert"]
        == Alert(service="order-service", signal="errors", metric="checkout-errors").model_dump()
    )
    latest = sources.of_record(kept).spans["start_unix_nano"].max()
    assert isinstance(latest, int)
    assert latest / 1e9 <= incidents.ROLLED_BACK_S - case.ends_before_s


def test_a_truth_is_as_those_of_others_and_a_stopped_collection_goes_on(
    kept: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    case, *others = [of_payments(), *cases(2)]
    recorded.keep(kept)
    collect.label(case, kept, out)
    counted = {"runs": 1, "right": 1, "right_kind": 1, "abstained": 0}
    assert collect.tally([case, *others], out) == {"one fault": counted}
    (path,) = (out / collect.TRUTHS).rglob("*.json")
    told = json.loads(path.read_text())
    assert told["id"] == case.name
    assert told["root_cause_service"] == "payment-service"
    assert "errors" in told["kinds"]
    assert sources.at(out / collect.BUNDLES / plan.DATASET / case.name).id == case.name
    assert collect.left([case, *others], out) == others
    quiet = next(case for case in others if not case.faults and not case.more_load)
    assert "root_cause_service" not in collect.truth_of(
        quiet, incidents.incident(), "x", "complete"
    )
    lines = out / collect.CASES
    lines.write_text(lines.read_text() + '{"case": "torn')
    assert len(collect.done(out)) == 1
