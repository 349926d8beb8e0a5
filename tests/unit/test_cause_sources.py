"""What `provectl rca` can be pointed at, and what it says where it can't look."""

import json
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from prove.cause import foreign, live, recorded, sources, truth
from prove.cli import app
from prove.clients.prometheus import Prometheus, Series
from prove.errors import UserError
from prove.incident import objectives, record, report, review
from prove.rca.bundle import BASELINE, INCIDENT, Window
from prove.spanrows import peer
from tests.support import causes, incidents

FROM = foreign.stamp(causes.BEGIN_S)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROVE_HOME", str(tmp_path))
    return tmp_path


def refused(*arguments: str) -> str:
    """The sentence that it ends with."""
    done = CliRunner().invoke(app, ["rca", *arguments])
    assert isinstance(done.exception, UserError), done.output
    return str(done.exception)


def test_files_of_otlp_and_of_jaeger_are_the_same_bundle(tmp_path: Path) -> None:
    otlp = causes.write(tmp_path, "spans.jsonl", causes.otlp_lines())
    jaeger = causes.write(tmp_path, "jaeger.json", causes.jaeger())
    one, other = (sources.at(path, start_s=causes.BEGIN_S) for path in (otlp, jaeger))
    order = ["trace_id", "span_id"]
    assert one.spans.sort(order).equals(other.spans.sort(order))
    assert one.spans.height == len(causes.rows())
    assert one.services == ("order-service", "payment-service")
    counted = dict(one.spans.group_by("window").agg(pl.col("trace_id").n_unique()).iter_rows())
    assert counted == {BASELINE: 10 * 58, INCIDENT: 10 * 40}


def test_with_an_alert_alone_the_time_before_it_is_of_neither(tmp_path: Path) -> None:
    path = causes.write(tmp_path, "jaeger.json", causes.jaeger())
    at_s = causes.BEGIN_S + 20
    found = sources.at(path, alert_s=at_s)
    assert found.incident.start_unix_s == at_s
    assert found.baseline is None  # there are 58 s before, and onset may be two minutes earlier
    assert found.spans["window"].unique().to_list() == [INCIDENT]


def test_the_cause_in_a_file_is_named(tmp_path: Path) -> None:
    path = causes.write(tmp_path, "spans.jsonl", causes.otlp_lines())
    page = tmp_path / "cause.html"
    done = CliRunner().invoke(
        app, ["rca", str(path), "--from", FROM, "--json", "--html", str(page)]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["ranking"][0] == "payment-service"
    assert told["causes"][0]["kind"] == "errors"
    assert told["html"] == str(page)
    assert "<html" in page.read_text()


def test_without_a_fault_it_abstains_and_the_exit_code_says_so(tmp_path: Path) -> None:
    text = causes.otlp_lines().replace('{"code": 2}', "{}")
    path = causes.write(tmp_path, "spans.jsonl", text)
    done = CliRunner().invoke(app, ["rca", str(path), "--from", FROM])
    assert done.exit_code == 3, done.output
    assert "No cause is named: no fault visible" in done.stdout


def test_what_it_is_pointed_at_must_be_one_thing() -> None:
    assert refused("--json") == "give one of: a BUNDLE, --live, --incident ID"
    assert refused("some/", "--live") == "give one of: a BUNDLE, --live, --incident ID"
    assert refused("--live", "--incident", "x").startswith("give one of")
    assert "for files of spans" in refused("--live", "--from", FROM)
    assert "either --from or --alert" in refused("x.json", "--from", FROM, "--alert", FROM)


def test_what_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    assert "there is no bundle nowhere: name its directory" in refused("nowhere")
    assert "there is no incident 'unheard-of'" in refused("--incident", "unheard-of")
    assert "no stack is running" in refused("--live")
    assert "name the directory of a bundle" in refused(str(tmp_path))
    assert "--since wants a duration" in refused("--live", "--since", "long")


def test_files_that_are_nothing_of_the_kind(tmp_path: Path) -> None:
    for name, text in (("a.json", "{"), ("b.json", "{}"), ("c.json", '{"data": [1]}')):
        path = causes.write(tmp_path, name, text)
        assert "holds no spans in a form that is known" in refused(str(path), "--from", FROM)
    empty = causes.write(tmp_path, "d.json", '{"data": []}')
    assert refused(str(empty), "--from", FROM).endswith("holds no spans")
    spans = causes.write(tmp_path, "e.json", causes.jaeger())
    assert f"of {foreign.stamp(causes.BEGIN_S - 58)} to" in refused(str(spans))
    assert "no span of" in refused(
        str(spans), "--from", "2020-01-01T00:00:00Z", "--to", "1577836900"
    )
    assert "--from wants a time such as" in refused(str(spans), "--from", "yesterday")


def test_damaged_parquet_is_told_by_its_name(kept: Path) -> None:
    path = kept / record.BUNDLE / "spans.parquet"
    path.write_bytes(path.read_bytes()[:200])
    assert "spans.parquet is no parquet file" in refused(str(kept / record.BUNDLE))
    assert "are for files of spans" in refused(str(kept), "--from", FROM)


def test_an_incident_that_was_run_is_named_and_judged(kept: Path) -> None:
    done = CliRunner().invoke(app, ["rca", "--incident", incidents.SCENARIO, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["ranking"][0] == "payment-service"
    found = recorded.keep(kept)
    assert found is not None
    assert (found.service, found.kind, found.right, found.right_kind) == (
        "payment-service",
        "errors",
        True,
        True,
    )
    incident = record.read(kept)
    assert incident.analysed == found
    assert json.loads((kept / recorded.ANALYSIS).read_text())["ranking"][0] == found.service
    (told,) = report.document([incident], kept.parent, None)["incidents"]
    assert told["analysed"]["service"] == "payment-service"
    # The review says it as a hypothesis, and without the truth.
    (kept / record.TRUTH).unlink()
    made = review.make(kept)
    assert any("payment-service" in each for each in made.traces_say)
    page = review.html(made)
    answer = review.plain(made.traces_say[0])[:40]
    assert f"(a hypothesis): {answer}" in page
    assert page.index("hypotheses of the analysis") < page.rindex(answer)


def test_without_a_bundle_there_is_no_analysis(tmp_path: Path) -> None:
    kept = incidents.write(tmp_path, with_bundle=False)
    assert recorded.keep(kept) is None
    assert record.read(kept).analysed is None
    assert "has no bundle" in refused("--incident", incidents.SCENARIO)
    assert review.make(kept).traces_say == []


def test_right_and_wrong_are_told_apart() -> None:
    def cause(service: str, kind: str, callee: str = "") -> record.Cause:
        return record.Cause(service=service, kind=kind, component="x", callee=callee)

    def judged(*of: record.Cause, abstains: bool = False) -> tuple[bool | None, bool | None]:
        analysis = causes.abstaining() if abstains else causes.analysis()
        found = truth.judged(analysis, of)
        return found.right, found.right_kind

    assert judged() == (None, None)
    assert judged(cause("payment-service", "error")) == (True, True)
    assert judged(cause("payment-service", "cpu")) == (True, False)
    assert judged(cause("network", "reset", "payment-service")) == (True, True)
    assert judged(cause("product-service", "error")) == (False, None)
    assert judged(cause("acquirer", "slow"), cause("payment-service", "error")) == (True, True)
    assert judged(cause("customers", "load")) == (False, None)
    assert judged(cause("customers", "load"), abstains=True) == (True, None)
    assert judged(cause("payment-service", "error"), abstains=True) == (False, None)
    assert judged(cause("prometheus", "down"), abstains=True) == (True, None)


@pytest.mark.parametrize(
    ("attributes", "is_client", "told"),
    [
        ({"peer.service": "acquirer"}, True, "acquirer"),
        ({"db.system": "postgresql"}, True, "postgresql"),
        ({"db.system": "sqlite"}, True, None),
        ({"server.address": "127.0.0.1"}, True, None),
        ({"peer.service": "acquirer"}, False, None),
    ],
)
def test_who_sends_no_spans_is_known_by_name(
    attributes: Mapping[str, str], is_client: bool, told: str | None
) -> None:
    assert peer(attributes, is_client=is_client) == told


class _Pages(Prometheus):
    """Of a page whose SLI was bad from 300 s on, and fired at 320 s; and of an older one."""

    def __init__(self, *, firing: bool) -> None:
        self._until_s = 400 if firing else 350

    def range(self, promql: str, start_s: float, end_s: float, step_s: float) -> list[Series]:
        def points(*stretches: tuple[int, int], value: float = 1.0) -> list[tuple[float, float]]:
            return [(float(at), value) for begin, end in stretches for at in range(begin, end)]

        if "ALERTS" in promql:
            mine = points((100, 120), (320, self._until_s))
            labels = {"alertname": "CheckoutErrors", "sloth_id": "checkout-errors"}
            return [Series(labels, mine)]
        assert "checkout-errors" in promql
        shares = points((90, 110), value=0.5) + points((110, 300), value=0.001)
        return [Series({}, [*shares, *points((300, 320), value=0.6)])]


@pytest.mark.parametrize("firing", [True, False])
def test_when_it_began_comes_from_the_page_and_its_sli(firing: bool) -> None:
    store, promised = _Pages(firing=firing), objectives.of_profile("drill")
    asked = Window(50, 399)
    page = live.latest_page(store, promised, asked)
    assert page is not None
    assert page.fired_s == 320
    assert (page.ended_s is None) == firing
    assert live.onset(store, promised, page, asked) == 300


def test_too_short_a_look_back_says_how_far_is_enough() -> None:
    promised = objectives.of_profile("standard")  # rules every 30 s: 60 s lie between the two

    def healthy(since_s: float, begun_s: float, *, paged: bool) -> Window:
        return live.healthy_before(begun_s, Window(-since_s, 0), promised, paged=paged)

    def quiet(since_s: float) -> Window:
        return healthy(since_s, -since_s * live.QUIET_SHARE, paged=False)

    with pytest.raises(UserError, match=r"where nothing pages.* rca --live --since 2m`"):
        quiet(60)
    assert quiet(120) == Window(-120, -90)
    assert quiet(600).seconds == live.HEALTHY_S  # what is looked at by default
    with pytest.raises(UserError, match=r"it began 500 s ago.* rca --live --since 15m`"):
        healthy(540, -500, paged=True)
    assert healthy(900, -500, paged=True).seconds == live.HEALTHY_S
