"""A bundle has the form that bundles of others have, and comes back from a journey as it was."""

import io
import json
import os
import tarfile
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from prove.cli import app
from prove.errors import UserError
from prove.incident import archive, bundle, evidence, objectives, record, views
from prove.incident.bundle import Stores
from prove.stack.hints import NAME
from prove.tools import repository_root
from tests.support import incidents

SHARED = Path(os.environ.get("PROVE_SHARED") or repository_root() / ".." / "shared")
BUNDLES = SHARED / "rca" / "bundles"


def _describe(path: Path) -> list[tuple[str, str]]:
    rows = duckdb.execute("DESCRIBE FROM read_parquet(?)", [str(path)]).fetchall()
    return [(str(name), str(kind)) for name, kind, *_ in rows]


def _codecs(path: Path) -> set[str]:
    ask = "SELECT DISTINCT compression FROM parquet_metadata(?)"
    return {str(codec) for (codec,) in duckdb.execute(ask, [str(path)]).fetchall()}


@pytest.mark.skipif(not BUNDLES.exists(), reason=f"no bundles of others in {BUNDLES}")
def test_the_form_is_that_of_others(kept: Path) -> None:
    (theirs,) = list(BUNDLES.glob("nezha-tt/*/bundle.json"))[:1]
    for name in bundle.COLUMNS:
        ours = kept / record.BUNDLE / f"{name}.parquet"
        described = [each for each in _describe(ours) if each[0] != "peer"]  # ours alone, optional
        assert described == _describe(theirs.parent / f"{name}.parquet")
        assert _codecs(ours) == {"ZSTD"}
    given = json.loads((kept / record.BUNDLE / bundle.BUNDLE_FILE).read_text())
    of_theirs = json.loads(theirs.read_text())
    common = set(of_theirs) - {"incident_window_note", "log_minutes_present"}
    assert common <= set(given)
    assert {key: type(given[key]) for key in ("baseline", "incident", "services")} == {
        key: type(of_theirs[key]) for key in ("baseline", "incident", "services")
    }


def test_each_file_has_what_its_window_had(kept: Path) -> None:
    found = bundle.read(kept)
    assert found is not None
    answers = views.tables(kept)
    checkouts = [
        entry
        for entry in incidents.entries()
        if entry.kind == "checkout" and entry.outcome != "no-answer"
    ]
    start_us = incidents.INJECTED_S * 1_000_000
    before = [entry for entry in checkouts if entry.at_unix_us < start_us]
    # Two spans each; those of the minute before are among the incident's own, too.
    assert answers.value("SELECT count(*) FROM baseline_spans") == 2 * len(before)
    assert answers.value("SELECT count(*) FROM spans") == 2 * len(checkouts)
    failed = sum(entry.outcome == "failed" for entry in checkouts)
    assert answers.value("SELECT count(*) FROM spans WHERE status = 'error'") == 2 * failed
    assert answers.value("SELECT count(*) FROM spans WHERE parent_span_id IS NULL") == len(
        checkouts
    )
    assert answers.value("SELECT count(*) FROM logs WHERE severity = 'ERROR'") == failed
    assert answers.value("SELECT count(*) FROM metrics WHERE isnan(value)") == 0
    # Requests that set a fault would give the cause away.
    assert answers.value("SELECT count(*) FROM spans WHERE contains(name, 'faults')") == 0
    assert answers.value("SELECT count(*) FROM logs WHERE contains(body, 'faults')") == 0
    assert found.alert == bundle.Alert(
        service="order-service", signal="errors", metric="checkout-errors"
    )
    assert found.services == ["order-service", "payment-service"]
    assert incidents.SCENARIO not in found.model_dump_json()


def test_it_was_when_its_page_has_it_until_it_was_ended(tmp_path: Path) -> None:
    kept = incidents.write(tmp_path)
    promised = objectives.of_profile("drill")
    of_run = incidents.incident().windows
    assert of_run is not None
    about = of_run.incident.model_copy(update={"end_unix_s": incidents.ROLLED_BACK_S})
    told = evidence.as_paged(kept, of_run, promised, about)
    assert (told.start_unix_s, told.end_unix_s) == (
        incidents.INJECTED_S + 2,  # its SLI's window reaches back, too
        incidents.ROLLED_BACK_S,
    )
    bundle.export(kept, incidents.incident(), promised, incidents.stores(tmp_path), told)
    found = bundle.read(kept)
    assert found is not None
    assert found.incident == told
    (kept / record.PAGES).write_text("")
    assert evidence.as_paged(kept, of_run, promised, about) == about


def test_what_a_store_does_not_give_is_missing(tmp_path: Path) -> None:
    kept = incidents.write(tmp_path, with_bundle=False)
    stores = Stores(incidents.Metrics(), None, None)
    missing = bundle.export(kept, incidents.incident(), objectives.of_profile("drill"), stores)
    found = bundle.read(kept)
    assert found is not None
    assert (found.quality, found.signals) == ("partial", ["metrics"])
    assert found.missing == missing
    assert any(each.startswith("spans: ") for each in missing)
    assert any(each.startswith("baseline's logs: ") for each in missing)
    assert not (kept / record.BUNDLE / "spans.parquet").exists()


def test_a_span_that_was_sent_twice_is_kept_once(tmp_path: Path) -> None:
    kept = incidents.write(tmp_path, with_bundle=False)
    stores = incidents.stores(tmp_path)
    assert stores.span_file
    stores.span_file.write_text(stores.span_file.read_text() * 2 + '{"resourceSpans": [{"reso')
    bundle.export(kept, incidents.incident(), objectives.of_profile("drill"), stores)
    answers = views.tables(kept)
    assert answers.value("SELECT count(*) = count(DISTINCT (trace_id, span_id)) FROM spans")


@pytest.mark.parametrize("name", ["out", "out.tar", "out.tgz"])
def test_an_incident_comes_back_as_it_was(kept: Path, tmp_path: Path, name: str) -> None:
    names = archive.export(kept, tmp_path / name, blind=False)
    assert f"truth/{bundle.bundle_id(incidents.incident())}.json" in names
    target = archive.take_in(tmp_path / name, tmp_path / "elsewhere")
    assert target == tmp_path / "elsewhere" / record.DIRECTORY / incidents.ID

    def files(of: Path) -> dict[str, bytes]:
        return {
            str(path.relative_to(of)): path.read_bytes() for path in of.rglob("*") if path.is_file()
        }

    assert files(target) == files(kept)
    with pytest.raises(UserError, match="is there already"):
        archive.take_in(tmp_path / name, tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is there already"):
        archive.export(kept, tmp_path / name, blind=False)


def test_the_truth_is_a_label_as_those_of_others(kept: Path, tmp_path: Path) -> None:
    archive.export(kept, tmp_path / "out", blind=False)
    (label,) = (tmp_path / "out" / archive.TRUTHS).glob("*.json")
    told = json.loads(label.read_text())
    assert told["root_cause_service"] == "payment-service"
    assert told["fault_type"] == "error"
    assert told["injected_at_unix_s"] == incidents.INJECTED_S
    assert told["id"] == label.stem
    out = str(tmp_path / "out")
    done = CliRunner().invoke(app, ["rca", "score", out, "--truth", out, "--json"])
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["prove"]["prove.rca"]["ac"]["1"] == 1.0
    if (theirs := SHARED / "rca" / "truth").exists():
        known = json.loads(next(theirs.rglob("*.json")).read_text())
        assert set(known) - {"inject_timestamp_field_unix_s"} <= set(told)


def test_a_blind_export_does_not_give_the_cause_away(kept: Path, tmp_path: Path) -> None:
    archive.export(kept, tmp_path / "riddle.tar", blind=True)
    with tarfile.open(tmp_path / "riddle.tar") as tar:
        names = tar.getnames()
    assert not [name for name in names if incidents.SCENARIO in name or "truth" in name]
    target = archive.take_in(tmp_path / "riddle.tar", tmp_path / "elsewhere")
    assert not (target / record.INCIDENT).exists()
    assert views.tables(target).value("SELECT count(*) > 0 FROM spans")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "x/../../evil"])
def test_a_tar_cannot_write_elsewhere(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(UserError, match="which no export has"):
        archive.take_in(tmp_path / "bad.tar", tmp_path / "home")


def test_a_link_in_a_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(UserError, match="which no export has"):
        archive.take_in(tmp_path / "bad.tar", tmp_path / "home")


def test_what_is_no_export_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("no tar")
    with pytest.raises(UserError, match="it is no tar"):
        archive.take_in(tmp_path / "text.tar", tmp_path / "home")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="must hold one incident"):
        archive.take_in(tmp_path / "empty", tmp_path / "home")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "bundle.json").write_text('{"format": "incident-bundle/2"}')
    with pytest.raises(UserError, match="format"):
        archive.take_in(tmp_path / "other", tmp_path / "home")


def test_the_commands(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVE_HOME", str(tmp_path))
    runner = CliRunner()
    out = tmp_path / "out.tar"
    done = runner.invoke(app, ["incident", "export", incidents.SCENARIO, "-o", str(out)])
    assert done.exit_code == 0, done.output
    monkeypatch.setenv("PROVE_HOME", str(tmp_path / "elsewhere"))
    done = runner.invoke(app, ["incident", "import", str(out)])
    assert done.exit_code == 0, done.output
    assert f"{NAME} review {incidents.ID}" in done.output
    sql = "SELECT outcome, count(*) AS n FROM purchases GROUP BY 1 ORDER BY 1"
    done = runner.invoke(app, ["incident", "query", incidents.ID, sql, "--json"])
    assert json.loads(done.stdout)["rows"][0] == {"outcome": "failed", "n": 120}


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_csv('/etc/passwd')",
        "COPY ledger TO '/tmp/x'",
        "SET enable_external_access = true",
    ],
)
def test_a_question_reaches_the_record_alone(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    monkeypatch.setenv("PROVE_HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["incident", "query", incidents.ID, sql])
    assert isinstance(done.exception, UserError)


def test_an_answer_is_wrapped_where_it_is_long_and_never_cut(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVE_HOME", str(tmp_path))
    for columns in (4, 40):
        many = ", ".join(f"'order-service' AS s{each}" for each in range(columns - 1))
        sql = f"SELECT {many}, repeat('a word ', 60) AS body"
        done = CliRunner().invoke(app, ["incident", "query", incidents.ID, sql])
        assert done.exit_code == 0, done.output
        assert done.stdout.count("order-service") == columns - 1
        assert done.stdout.split().count("word") == 60
        assert columns > 4 or max(map(len, done.stdout.splitlines())) <= 100
