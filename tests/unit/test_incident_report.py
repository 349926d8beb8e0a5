"""What is told of runs."""

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from prove.bench.measure import Run
from prove.errors import UserError
from prove.incident import report
from prove.incident.record import Detection, Expectation, Figures, Incident, Load, Verdict


def incident(verdict: Verdict = "holds", **more: object) -> Incident:
    known = {
        "id": "20261129T201500-order-down",
        "scenario": "order-down",
        "title": "Nobody can order",
        "seed": 1,
        "profile": "drill",
        "commit": "abc",
        "urls": {},
        "started_unix_us": 1,
        "ended_unix_us": 2,
        "load": Load(reads_per_s=10, checkouts_per_s=5),
        "verdict": verdict,
        "detections": [
            Detection(
                slo="checkout-availability",
                alert="CheckoutUnavailable",
                severity="page",
                bad=1.0,
                theory_s=8.64,
                earliest_s=4.0,
                within_s=14.9,
                paged_s=9.1,
            )
        ],
        "figures": Figures(time_to_detect_s=9.1, theory_s=8.64, recovery_s=31.2, budget_spent=0.02),
    }
    return Incident.model_validate(known | more)


def run() -> Run:
    return Run(
        taken_at=datetime(2026, 11, 29, 20, 15, tzinfo=UTC),
        commit="abc",
        cpu="a CPU",
        cores=2,
        memory_gib=4,
        os="an OS",
        versions={},
        busy_percent=3,
    )


MISSED = Expectation(what="page X", expected="it comes", found="it did not come", holds=False)


def shown(*incidents: Incident) -> str:
    out = io.StringIO()
    report.show(incidents, Console(file=out, width=100))
    return out.getvalue()


def test_a_run_is_told_in_three_lines() -> None:
    assert shown(incident()).splitlines() == [
        "order-down  holds",
        "  page CheckoutUnavailable after 9.1 s, theory 4 s, as errors were there before;"
        " else 8.6 s",
        "  recovery 31.2 s; 0 wrong pages; 0 differences in the books; 2.0% of an error budget",
    ]


def test_a_machine_that_was_too_busy_is_told() -> None:
    load = Load(reads_per_s=10, checkouts_per_s=5, sent=1000, late=10)
    assert "late" not in shown(incident(load=load))
    text = shown(incident(load=load.model_copy(update={"late": 11})))
    assert "11 of 1,000 requests were sent over 0.1 s late" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100


def test_what_did_not_hold_is_told_in_full() -> None:
    text = shown(incident("does not hold", expectations=[MISSED]))
    assert "page X: expected it comes" in text
    assert "found it did not come" in text


@pytest.mark.parametrize(
    ("verdicts", "holds"),
    [
        (["holds", "holds"], True),
        (["holds", "not possible"], True),
        (["holds", "does not hold"], False),
        (["aborted"], False),
    ],
)
def test_all_hold_or_not(verdicts: list[Verdict], holds: bool) -> None:
    assert report.holds([incident(verdict) for verdict in verdicts]) is holds


def test_the_document_counts() -> None:
    runs = [
        incident(),
        incident("not possible", detections=[]),
        incident("does not hold", figures=Figures(wrong_pages=2, integrity_differences=1)),
    ]
    document = report.document(runs, Path("/records"), None)
    assert document["verdict"] == "does not hold"
    assert document["figures"] == {
        "runs": 3,
        "hold": 1,
        "not_possible": 1,
        "pages_expected": 2,
        "pages_came": 2,
        "wrong_pages": 2,
        "integrity_differences": 1,
    }
    assert document["incidents"][0]["record"] == "/records/20261129T201500-order-down"


def test_a_page_of_evidence(tmp_path: Path) -> None:
    runs = [incident(), incident("does not hold", expectations=[MISSED])]
    path = report.write(tmp_path / "evidence", runs, 7, run(), "provectl incident run --all")
    text = path.read_text()

    assert path.name == "incidents-7.md"
    assert "Verdict: **does not hold**. Made by `provectl incident run --all`" in text
    assert "| expected pages that came | 2 of 2 |" in text
    assert "| page later than predicted: least, median, most | +5.1 s, +5.1 s, +5.1 s |" in text
    row = (
        "| order-down | holds | CheckoutUnavailable | 9.1 s | 8.6 s (4 s) | 31.2 s | 0 | 0 | 2.0% |"
    )
    assert row in text
    assert "- page X: expected it comes; found it did not come" in text

    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        report.write(tmp_path / "file" / "x", runs, 7, run(), "")
