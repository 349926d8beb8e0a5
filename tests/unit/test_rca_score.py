"""How the score is counted, and that it agrees with the judge that came with the incidents."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prove.cli import app
from prove.rca import analysis, baselines, confidence, labels, report, scoring
from prove.rca.bundle import Bundle
from prove.rca.labels import Label
from prove.rca.scoring import OURS, Case
from tests.support.rca import DURING, Shape, incident
from tests.support.shared import labelled

FEW = (
    "nezha-ob-20220823-134553",
    "nezha-ob-20220823-144740",
    "nezha-tt-20230129-094934",
    "nezha-tt-20230130-140819",
    "petshop-temporal_traffic1-test-03",
)
"""One of each sort: slow, ending early, told by logs, the network, metrics alone."""


def test_places_count_distinct_services() -> None:
    assert scoring.rank(["a", "a", "b"], "b") == 2
    assert scoring.rank(["a"], "b") is None
    scores = scoring.score([1, 2, None, 6])
    assert scores.ac == (0.25, 0.5, 0.5, 0.5, 0.5)
    assert scores.avg == pytest.approx(0.45)
    assert scores.mrr == pytest.approx((1 + 1 / 2 + 1 / 6) / 4)


def test_wilsons_interval() -> None:
    """Ten of ten: 0.722 to 1 (Wilson, 1927)."""
    low, high = scoring.score([1] * 10).interval(1)

    assert low == pytest.approx(0.722, abs=0.001)
    assert high == 1


def test_the_true_cause_has_no_part_in_the_ranking() -> None:
    found = analysis.find(incident(Shape(fails={"bank": 0.5})))

    right, wrong = (scoring.solve(Label("x", "d", name, "f"), found) for name in ("bank", "cart"))

    assert right.rankings == wrong.rankings
    assert right.rank(OURS) == 1
    assert wrong.rank(OURS) != 1


def test_a_confidence_is_fitted_on_other_data_sets_alone() -> None:
    """What one data set says of itself doesn't reach the weights it is judged by."""

    def case(dataset: str, place: int, bits: float) -> Case:
        order = ["a", "b"] if place == 1 else ["b", "a"]
        label = Label(f"{dataset}-{bits}-{place}", dataset, "a", "f")
        return Case(label, _nothing(), {OURS: order}, (bits, bits / 4), 2)

    others = [case("x", place, bits) for place, bits in ((1, 3.0), (1, 2.0), (2, 0.1), (2, 0.05))]
    one = scoring.leave_one_out([*others, case("y", 1, 2.5)])
    other = scoring.leave_one_out([*others, case("y", 2, 2.5)])

    assert [each.weights for each in one if each.dataset == "y"] == [
        each.weights for each in other if each.dataset == "y"
    ]
    assert one[1].weights.bits > 0


def test_nobody_is_surer_than_so_many_incidents_allow() -> None:
    """The rule of succession: of n, all right, (n + 1) / (n + 2)."""
    for incidents in (8, 80):
        weights = confidence.Weights(0.0, 0.2, 1.3, incidents)
        sure = confidence.chance((1e6, 1e-6), weights)
        assert sure == pytest.approx((incidents + 1) / (incidents + 2), abs=1e-3)
        assert confidence.chance((1e-6, 1e-6), weights) > 1 / (incidents + 3)
    even = confidence.Weights(0.0, 0.0, 0.0, 80)
    assert confidence.chance((3.0, 1.0), even) == pytest.approx(0.5)


def _nothing() -> analysis.Findings:
    return analysis.find(Bundle(id="nothing", incident=DURING))


def test_labels_that_are_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "bundles" / "a").mkdir(parents=True)
    (tmp_path / "truth").mkdir()

    answer = CliRunner().invoke(
        app, ["rca", "score", str(tmp_path / "bundles"), "--truth", str(tmp_path / "truth")]
    )

    assert answer.exit_code != 0
    assert "no label" in str(answer.exception)


def test_it_agrees_with_the_judge_of_the_incidents(tmp_path: Path) -> None:
    shared = labelled()
    truth, predictions = tmp_path / "truth", tmp_path / "predictions.jsonl"
    truth.mkdir()
    for name in FEW:
        (path,) = shared.glob(f"truth/*/{name}.json")
        (truth / path.name).write_bytes(path.read_bytes())

    answer = CliRunner().invoke(
        app,
        [
            *("rca", "score", str(shared / "bundles"), "--truth", str(truth)),
            *("--predictions", str(predictions), "--report", str(tmp_path / "page.md"), "--json"),
        ],
    )
    assert answer.exit_code == 0, answer.exception or answer.output
    ours = json.loads(answer.stdout)
    judged = subprocess.run(
        [sys.executable, shared / "score.py", predictions, truth],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    for dataset, methods in ours.items():
        (line,) = [each for each in judged.splitlines() if each.startswith(f"dataset {dataset}")]
        told = dict(re.findall(r"(AC@\d|Avg@5|MRR) ([\d.]+)", line))
        mine = methods[OURS]
        for k in ("1", "3", "5"):
            assert float(told[f"AC@{k}"]) == pytest.approx(mine["ac"][k], abs=0.0006)
        assert float(told["Avg@5"]) == pytest.approx(mine["avg@5"], abs=0.0006)
        assert float(told["MRR"]) == pytest.approx(mine["mrr"], abs=0.0006)
        assert mine["ac"]["1"] == 1.0, f"{dataset}: these were found when this test was written"
    page = (tmp_path / "page.md").read_text()
    assert "## Left out, one data set after another" in page
    assert "chance" in page


def test_a_page_has_a_row_for_each_line_of_a_table() -> None:
    text = report.page({"T": ("Told.", (["a", "b"], [["1", "2"], ["3", "4"]]))}, "# Head\n")

    assert text == "# Head\n\n## T\n\nTold.\n\n| a | b |\n| :-- | :-- |\n| 1 | 2 |\n| 3 | 4 |\n"


def _case(label: Label, bits: float, kind: str = "errors", abstained: str | None = None) -> Case:
    """Ranks a, b and c, in that order."""
    return Case(
        label,
        _nothing(),
        {key: ["a", "b", "c"] for key in (OURS, *baselines.METHODS)},
        (bits, bits / 2, bits / 4),
        3,
        kind,  # type: ignore[arg-type]
        abstained,  # type: ignore[arg-type]
    )


def _row(table: report.Table, *begin: str) -> dict[str, str]:
    """The only row that begins so; of columns of the same name the last."""
    (row,) = [row for row in table[1] if row[: len(begin)] == list(begin)]
    return dict(zip(table[0], row, strict=True))


def test_where_nothing_is_broken_it_is_right_to_say_so() -> None:
    quiet, load = (Label(name, "own", None, name) for name in ("no fault", "load only"))
    two = "two candidates can't be told apart"
    of = [
        _case(quiet, 0.1, abstained="no fault visible"),
        _case(quiet, 0.5, abstained=two),
        _case(quiet, 0.5),
        _case(load, 0.5, abstained="load only"),
        _case(load, 0.1, abstained="no fault visible"),
        _case(quiet, 0.1, abstained="load only"),
    ]

    assert [case.abstains_rightly for case in of] == [True, False, False, True, True, False]
    every = _row(report.quiet(of), "own", "all")
    assert (every["n"], every["abstains"], every["rightly"]) == ("6", "0.833", "0.500")
    assert every["95%"] == "0.19 to 0.81"  # three of six
    assert (
        _row(report.quiet(of), "own", "load only")["verdicts"] == "load only 1, no fault visible 1"
    )
    row = _row(report.aims(of), "own", "abstains rightly")
    assert (row["measured"], row["verdict"]) == ("0.500", "**missed**")
    assert len(report.surprises(of)[1]) == 3
    assert report.methods(scoring.single(of))[1] == []


def test_a_service_is_right_with_its_kind_or_without_and_abstaining_has_a_cost() -> None:
    label = Label("x", "own", "a", "error", ("errors", "omission"))
    of = [
        _case(label, 3.0),
        _case(label, 3.0, "cpu"),
        _case(label, 0.1, "omission", "no fault visible"),
        _case(dataclasses.replace(label, service="b"), 3.0),
    ]

    row = _row(report.kinds(of), "own", "error")
    assert (row["service"], row["service and kind"]) == ("0.750", "0.500")
    assert row["kinds told"] == "cpu 1, errors 2, omission 1"
    row = _row(report.cost(of), "own")
    assert (row["answered"], row["right of these"]) == ("0.750", "2 of 3")
    assert (row["abstained"], row["right of those"]) == ("no fault visible 1", "1 of 1")


def test_of_two_faults_both_are_looked_for() -> None:
    def both(*services: str, abstained: str | None = None) -> Case:
        first, *others = services
        return _case(Label("x", "own", first, "f", (), tuple(others)), 1.0, abstained=abstained)

    of = [
        both("b", "a"),
        both("a", "c", abstained="two candidates can't be told apart"),
        both("c", "d", abstained="load only"),
    ]
    nothing_against = dataclasses.replace(both("a", "b"), bits=(1.0, 0.0, 0.0))
    assert not nothing_against.both_within(3)
    row = report.doubles(of)[1][0]

    assert row[:3] == ["own", "3", "0.667"]
    assert (row[4], row[6]) == ("0.333", "0.667")
    assert row[-2:] == ["1", "1"]
    assert [row[1] for row in report.surprises(of)[1]] == ["c and d"]


def test_labels_say_what_else_was_broken_or_that_nothing_was(tmp_path: Path) -> None:
    def write(name: str, **told: object) -> None:
        document = {"id": name, "dataset": "own", **told}
        (tmp_path / f"{name}.json").write_text(json.dumps(document))

    other = {"root_cause_service": "b", "fault_type": "pause"}
    write("none", fault_type="load only", others=[])
    write("two", root_cause_service="a", fault_type="error", kinds=["errors"], others=[other])
    (tmp_path / "elsewhat.json").write_text("{}")

    assert labels.read(tmp_path) == {
        "none": Label("none", "own", None, "load only"),
        "two": Label("two", "own", "a", "error", ("errors",), ("b",)),
    }


def test_labels_are_read_below_a_directory(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.json").write_text(
        json.dumps({"id": "x", "dataset": "d", "root_cause_service": "s", "fault_type": "f"})
    )

    assert labels.read(tmp_path) == {"x": Label("x", "d", "s", "f")}
