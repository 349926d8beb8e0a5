"""Queries answer what the evidence says; commands have their times, and can be pasted."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from prove.cause import advice, asked, page, sources
from prove.cli import app
from prove.errors import UserError
from prove.incident import objectives
from prove.incident.tables import Tables
from prove.rca import bundle
from prove.rca.analysis import analyse
from prove.rca.bundle import BASELINE, INCIDENT, Alert, Bundle, Window
from prove.rca.model import Evidence
from prove.stack import settings as stack_settings
from tests.support import causes
from tests.support.rca import DURING, Shape, incident

WORK, WIRE = Shape().work, Shape().wire
SHAPES = {
    "by itself": Shape(work=WORK | {"pay": 60}),
    "on the way": Shape(wire=WIRE | {"bank": 80}),
    "fails": Shape(fails={"bank": 0.5}),
    "isn't reached": Shape(unreached={"bank": 0.5}),
    "answers early": Shape(skips={"pay": 0.6}),
    "asks again": Shape(tries=3),
}


def answer(found: Bundle, item: Evidence) -> dict[str, tuple[float, ...]]:
    """By part, the numbers of its query."""
    tables = Tables(Path(), {})
    asked.add(tables, found)
    tables.seal()
    _, rows = tables.table(item.query)
    return {part: tuple(numbers) for part, *numbers in rows}


@pytest.mark.parametrize("fault", SHAPES)
def test_a_query_gives_the_numbers_of_its_sentence(fault: str) -> None:
    found = incident(SHAPES[fault], count=60)

    items = [item for cause in analyse(found).causes for item in cause.evidence]

    assert items
    for item in items:
        told = answer(found, item)
        assert told["healthy"][-1] == pytest.approx(item.baseline), item
        assert told["incident"][-1] == pytest.approx(item.incident), item


def test_a_query_for_log_lines_gives_the_numbers_of_its_sentence() -> None:
    found = incident(Shape(), count=60)
    spans = found.spans.filter(pl.col("name") == "serve pay")

    def line(body: str, late: int, rows: pl.DataFrame) -> pl.DataFrame:
        return rows.select(
            (pl.col("start_unix_nano") + late).alias("time_unix_nano"),
            "service",
            "instance",
            pl.lit("ERROR" if "not" in body else "INFO").alias("severity"),
            pl.lit(body).alias("body"),
            "trace_id",
            "span_id",
            "window",
        )

    well = spans.filter(pl.col("window") == BASELINE)
    logs = [line("begun it's", 0, spans), line("paid", 1, well)]
    logs += [line("not paid", 1, spans.filter(pl.col("window") == INCIDENT))]
    found = replace(found, logs=pl.concat(logs))

    first = analyse(found).causes[0]

    assert first.service == "pay"
    assert {item.signal for item in first.evidence} == {"logs"}
    for item in first.evidence:
        told = answer(found, item)
        assert told["healthy"][-1] == pytest.approx(item.baseline), item
        assert told["incident"][-1] == pytest.approx(item.incident), item


def test_a_query_for_a_metric_gives_both_numbers() -> None:
    rows = [
        (at, "pay", "pay-1", "it's slow", (90.0 if at >= 2000 else 10.0) + at % 3)
        for at in (*range(1000, 1060), *range(2000, 2060))
    ]
    table = pl.DataFrame(rows, schema=bundle.METRICS, orient="row").with_columns(
        pl.when(pl.col("time_unix_s") < 2000).then(BASELINE).otherwise(INCIDENT).alias("window")
    )
    found = Bundle("x", DURING, Alert("pay", "", ""), metrics=table.cast({"window": pl.Int8}))

    (item,) = analyse(found).causes[0].evidence

    told = answer(found, item)
    assert told["healthy"][1] == pytest.approx(item.baseline)
    assert told["incident"][2] == pytest.approx(item.incident)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle in a directory with a space and a quote in its name."""
    monkeypatch.setenv("PROVE_HOME", str(tmp_path))
    directory = tmp_path / "a bundle's"
    directory.mkdir()
    window = {
        "start_unix_s": causes.INCIDENT.start_unix_s,
        "end_unix_s": causes.INCIDENT.end_unix_s,
    }
    local = {"start_unix_s": causes.HEALTHY.start_unix_s, "end_unix_s": causes.HEALTHY.end_unix_s}
    told = {"format": "incident-bundle/1", "id": "b", "incident": window, "baseline_local": local}
    (directory / "bundle.json").write_text(json.dumps(told))
    spans = causes.bundle().spans.select(list(bundle.SPANS))
    spans.write_parquet(directory / "spans.parquet")
    return directory


def run(command: str) -> str:
    """What a command prints, as a shell would call it."""
    words = shlex.split(command)
    assert words[0].endswith("provectl")
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, (command, done.exception, done.output)
    return done.stdout


def test_commands_of_a_page_can_be_pasted(kept: Path) -> None:
    found = sources.at(kept)
    analysis = sources.explained(found)
    source = asked.Kept(str(kept))
    first = analysis.causes[0].evidence[0]

    ((_, numbers),) = source.numbers(first)
    assert "incident" in run(numbers)
    tree = run(source.trace(first.trace_ids[0]))
    assert first.trace_ids[0] in tree
    assert "POST /api/v1/payments" in tree
    run(source.lines(first.trace_ids[0]))
    with pytest.raises(UserError, match="give the whole id of one that is there"):
        CliRunner().invoke(app, ["trace", "ffff", "--in", str(kept)], catch_exceptions=False)


def test_the_same_bundle_gives_the_same_bytes(kept: Path, tmp_path: Path) -> None:
    pages = [tmp_path / "one.html", tmp_path / "other.html"]
    for each in pages:
        done = CliRunner().invoke(app, ["rca", str(kept), "--html", str(each)])
        assert done.exit_code == 0, done.output
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_stores_are_asked_for_the_times_of_both_windows() -> None:
    stores = asked.Stores(
        stack_settings.load(),
        objectives.of_profile("drill"),
        Window(1000.5, 1040.0),
        Window(900.0, 980.0),
    )

    def told(signal: str, subject: str, **more: str) -> list[str]:
        item = Evidence(signal, "", subject, 0, 1, "", 1, service="pay", **more)  # type: ignore[arg-type]
        return [command for _, command in stores.numbers(item)]

    now, before = told("metrics", "threads", instance="pay-1")
    wanted = 'process_thread_count{service_name="pay", service_instance_id="pay-1"}'
    assert wanted in now
    assert "[40s:1s] @ 1040.000)" in now
    assert "quantile_over_time(0.5, " in before
    assert "[80s:1s] @ 980.000)" in before
    assert told("metrics", "unheard-of") == []

    now, before = told("logs", "POST /x", template="payment refused by * code=*")
    assert "_time:[1970-01-01T00:16:40.500000000Z, 1970-01-01T00:17:20.000000000Z]" in now
    assert '"service.name":="pay" _msg:"payment refused by" | sort by (_time)' in now
    assert "_time:[1970-01-01T00:15:00.000000000Z, 1970-01-01T00:16:20.000000000Z]" in before

    steps = advice.steps(causes.analysis(), stores)
    assert [step.text for step in steps if step.text.startswith("Mitigate, for it goes on: ")]

    now, before = told("time", "POST /x")
    assert "start=1000500000 -d end=1040000000" in now
    assert "operation=POST /x" in now
    assert "start=900000000 -d end=980000000" in before
    assert stores.trace("ab").endswith("trace ab")


def test_a_page_of_a_file_has_no_commands_that_would_fail() -> None:
    html = page.html(causes.analysis(), causes.bundle())
    assert "provectl incident query" not in html
    assert "provectl trace" not in html
