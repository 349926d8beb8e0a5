"""Bundles are read as they are: parts may lack, and what is no bundle is said in one sentence."""

import json
from pathlib import Path

import polars as pl
import pytest

from prove.errors import UserError
from prove.rca import bundle, logs, spans, structure, timing
from prove.rca.analysis import analyse
from prove.rca.bundle import BASELINE, INCIDENT, LOCAL
from tests.support.rca import BEFORE, DURING, Shape, incident

NANO = 1_000_000_000


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A bundle as the exporter lays it out."""
    made = incident(Shape(fails={"bank": 0.5}), count=60)
    (tmp_path / "before").mkdir()
    for window, directory in ((INCIDENT, tmp_path), (BASELINE, tmp_path / "before")):
        rows = made.spans.filter(pl.col("window") == window).drop("window")
        rows.write_parquet(directory / "spans.parquet", compression="zstd")
    told = {
        "format": "incident-bundle/1",
        "id": "x",
        "alert": {"service": "front", "signal": "errors", "metric": "m"},
        "baseline": {"start_unix_s": BEFORE.start_unix_s, "end_unix_s": BEFORE.end_unix_s},
        "baseline_dir": "before",
        "baseline_local": None,
        "incident": {"start_unix_s": DURING.start_unix_s, "end_unix_s": DURING.end_unix_s},
        "services": ["front"],
    }
    (tmp_path / "bundle.json").write_text(json.dumps(told))
    return tmp_path


def test_it_is_read_and_its_cause_found(written: Path) -> None:
    read = bundle.read(written)

    assert read.alert == bundle.Alert("front", "errors", "m")
    assert dict(read.spans.group_by("window").len().iter_rows()).keys() == {BASELINE, INCIDENT}
    assert analyse(read).causes[0].service == "bank"


@pytest.mark.parametrize("lost", ["spans.parquet", "before/spans.parquet"])
def test_any_file_may_be_missing(written: Path, lost: str) -> None:
    (written / lost).unlink()

    found = analyse(bundle.read(written))

    assert found.abstained is not None
    assert found.abstained.reason == "no data"


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"no parquet at all"])
def test_a_damaged_file_is_named(written: Path, damage: bytes) -> None:
    (written / "spans.parquet").write_bytes(damage)

    with pytest.raises(UserError, match=r"spans\.parquet is no parquet file"):
        bundle.read(written)


def test_a_file_that_is_cut_short_is_named(written: Path) -> None:
    path = written / "spans.parquet"
    path.write_bytes(path.read_bytes()[:-200])

    with pytest.raises(UserError, match=r"spans\.parquet is no parquet file"):
        bundle.read(written)


def test_a_column_of_another_type_is_named(written: Path) -> None:
    path = written / "spans.parquet"
    table = pl.read_parquet(path.read_bytes())
    table.with_columns(pl.lit("noon").alias("start_unix_nano")).write_parquet(path)

    with pytest.raises(UserError, match=r"spans\.parquet is no parquet file in the form"):
        bundle.read(written)


def test_a_baseline_without_a_row_is_none(written: Path) -> None:
    path = written / "before" / "spans.parquet"
    pl.read_parquet(path.read_bytes()).clear().write_parquet(path)

    found = analyse(bundle.read(written))

    assert found.abstained is not None
    assert found.abstained.reason == "no data"


def test_a_column_that_lacks_is_named(written: Path) -> None:
    path = written / "spans.parquet"
    pl.read_parquet(path.read_bytes()).drop("service").write_parquet(path)

    with pytest.raises(UserError, match="lacks the column `service`"):
        bundle.read(written)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": "other"}', '{"format": "incident-bundle/1"}']
)
def test_what_is_no_bundle_is_said_to_be_none(written: Path, text: str) -> None:
    (written / "bundle.json").write_text(text)

    with pytest.raises(UserError, match=r"bundle\.json"):
        bundle.read(written)


def test_what_lies_between_windows_is_left_out() -> None:
    rows = pl.DataFrame(
        [
            {"time_unix_s": at, "service": "a", "instance": None, "metric": "m", "value": 1.0}
            for at in (10.0, 20.0, 30.0)
        ],
        schema=bundle.METRICS,
    )
    none = pl.DataFrame(schema=bundle.METRICS)

    placed = bundle.place(
        rows, none, "time_unix_s", 1.0, bundle.Window(25, 35), bundle.Window(5, 15)
    )

    assert placed["window"].to_list() == [LOCAL, INCIDENT]


def trees(*rows: tuple[str, str | None, str, float, float]) -> spans.Trees:
    """Of spans: id, parent, service, start and end in ms."""
    table = pl.DataFrame(
        [
            {
                "trace_id": "t",
                "span_id": own,
                "parent_span_id": parent,
                "service": service,
                "instance": "1",
                "name": own,
                "start_unix_nano": int(NANO + start * 1e6),
                "end_unix_nano": int(NANO + end * 1e6),
            }
            for own, parent, service, start, end in rows
        ],
        schema=bundle.SPANS,
    )
    return spans.grow(table.with_columns(pl.lit(INCIDENT, dtype=pl.Int8).alias("window")))


def own_ms(of: spans.Trees) -> dict[str, float]:
    return {row["span_id"]: row["own_ms"] for row in of.spans.iter_rows(named=True)}


def test_children_at_the_same_time_count_once() -> None:
    of = trees(("a", None, "s", 0, 100), ("b", "a", "s", 10, 50), ("c", "a", "s", 30, 70))

    assert own_ms(of)["a"] == pytest.approx(40)


def test_what_a_child_does_later_is_not_its_parents_time() -> None:
    of = trees(("a", None, "s", 0, 100), ("b", "a", "s", 90, 300))

    assert own_ms(of)["a"] == pytest.approx(90)


def test_a_child_inside_another_adds_nothing() -> None:
    of = trees(("a", None, "s", 0, 100), ("b", "a", "s", 10, 90), ("c", "a", "s", 20, 30))

    assert own_ms(of)["a"] == pytest.approx(20)


def test_a_leaf_waits_for_the_sibling_that_started_after_it() -> None:
    of = trees(("a", None, "s", 0, 100), ("b", "a", "s", 0, 100), ("c", "a", "s", 5, 100))

    assert own_ms(of) == pytest.approx({"a": 0, "b": 5, "c": 95})


def test_a_client_span_knows_whom_it_asks() -> None:
    of = trees(
        ("a", None, "s", 0, 100), ("ask", "a", "s", 10, 90), ("serve", "ask", "other", 20, 80)
    )

    asked = {row["span_id"]: row["callee"] for row in of.spans.iter_rows(named=True)}
    assert asked == {"a": None, "ask": "other", "serve": None}
    assert own_ms(of)["ask"] == pytest.approx(20)


def test_parents_in_a_circle_come_to_an_end() -> None:
    of = trees(("a", "b", "s", 0, 100), ("b", "a", "other", 10, 90), ("c", "c", "s", 0, 1))

    assert of.spans.height == 3


def test_values_in_a_line_are_masked() -> None:
    lines = pl.DataFrame(
        {"body": ["user 17 asked [a, b, c] id=x9 size=large", "user 18 asked [d] id=y1 size=small"]}
    )

    first, second = logs.templates(lines)["template"]

    assert first == "user * asked [*] id=* size=*"
    assert second == "user * asked [d] id=* size=*"


def test_what_a_choice_among_requests_can_do_is_no_news() -> None:
    """A fifth of the calls are left: all of them of the sort that was a fifth before."""
    import numpy as np

    one = np.array([1.0])
    all_calls = structure.surprise(one * 100, one * 500, one * 100, one * 100)
    a_fifth = structure.surprise(one * 100, one * 500, one * 100, one * 100, 0.2)

    assert all_calls[0] > 1
    assert a_fifth[0] < 0.1


def test_no_shift_says_more_than_so_few_healthy_ones_can() -> None:
    import numpy as np

    bits = timing.divergence(np.array([1e9, 1e9]), np.array([3.0, 1023.0]), np.array([50.0, 50.0]))

    assert bits.tolist() == pytest.approx([2.0, 10.0])
