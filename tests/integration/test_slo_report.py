"""`provectl slo report` of a past that is known, written into a real Prometheus."""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from service_kit.ports import claim
from service_kit.testing import wait_until

from prove.tools import ensure
from tests.support.stack import PROVECTL

SPEC = """\
version: prometheus/v1
service: shop
slos:
  - name: errors
    objective: 99
    sli:
      events:
        error_query: sum(rate(bad_total[{{.window}}]))
        total_query: sum(rate(all_total[{{.window}}]))
    alerting: {name: ShopErrors}
"""
HOURS = 6
INTERVAL_S = 30
WINDOW_S = 300
BAD_FROM_S, BAD_FOR_S, BAD_SHARE = 2 * 3600, 3600, 0.2
PAGED_AFTER_S = 43 * 60


def past(start_s: int) -> str:
    """One event a second, of which a fifth fail in the third hour, as the rules record it."""
    total, bad, alert = [], [], []
    for after_s in range(0, HOURS * 3600 + 1, INTERVAL_S):
        at_s = start_s + after_s
        begin = max(BAD_FROM_S, after_s - WINDOW_S)
        failing_s = max(0, min(after_s, BAD_FROM_S + BAD_FOR_S) - begin)
        total.append(f'slo:sli_total:events5m{{sloth_id="shop-errors"}} {WINDOW_S} {at_s}')
        bad.append(
            f'slo:sli_error:events5m{{sloth_id="shop-errors"}} {failing_s * BAD_SHARE} {at_s}'
        )
        if PAGED_AFTER_S <= after_s - BAD_FROM_S <= BAD_FOR_S:
            labels = 'alertname="ShopErrors",sloth_id="shop-errors",sloth_severity="page"'
            fired_s = start_s + BAD_FROM_S + PAGED_AFTER_S
            alert.append(f"ALERTS_FOR_STATE{{{labels}}} {fired_s} {at_s}")
    return "\n".join([*total, *bad, *alert, "# EOF\n"])


@contextlib.contextmanager
def prometheus(data: Path) -> Iterator[str]:
    (port,) = claim(1)
    config = data.parent / "prometheus.yml"
    config.write_text("{}")
    argv = [
        str(ensure("prometheus")["prometheus"]),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/-/ready", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    with subprocess.Popen(argv) as process:
        try:
            wait_until(ready, what="Prometheus")
            yield url
        finally:
            process.terminate()


def report(*arguments: object) -> str:
    argv = [str(PROVECTL), "slo", "report", *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Prometheus that knows `past`, which ended a moment ago."""
    directory = tmp_path_factory.mktemp("known")
    text = directory / "past.txt"
    start_s = int(time.time()) // INTERVAL_S * INTERVAL_S - HOURS * 3600
    text.write_text(past(start_s))
    promtool = ensure("prometheus")["promtool"]
    subprocess.run(
        [promtool, "tsdb", "create-blocks-from", "openmetrics", text, directory / "data"],
        check=True,
        capture_output=True,
    )
    with prometheus(directory / "data") as url:
        yield url


def test_the_report_tells_the_incident_and_what_it_burned(known: str, tmp_path: Path) -> None:
    spec, page = tmp_path / "shop.yaml", tmp_path / "pages" / "report.html"
    spec.write_text(SPEC)
    (slo,) = json.loads(report(spec, "--url", known, "--json", "--html", page))["slos"]

    # A bin more or less at either end; bad events may be seen an evaluation late, none are lost.
    assert slo["total"] == pytest.approx(HOURS * 3600, abs=WINDOW_S)
    assert slo["bad"] == pytest.approx(BAD_FOR_S * BAD_SHARE, rel=0.02)
    assert slo["met"] is False
    assert slo["budget_burned"] == pytest.approx(720 / 216, rel=0.03)
    (incident,) = slo["incidents"]
    assert incident["budget_burned"] == pytest.approx(slo["budget_burned"])
    assert incident["peak_burn_rate"] == pytest.approx(20, rel=0.01)
    assert [alert["severity"] for alert in incident["alerts"]] == ["page"]
    assert "<svg" in page.read_text()

    shown = report(spec, "--url", known)
    assert all(len(line) <= 100 for line in shown.splitlines())
    assert "shop-errors" in shown
    assert "20.0x" in shown


def test_a_shorter_period_leaves_out_what_was_before(known: str, tmp_path: Path) -> None:
    spec = tmp_path / "shop.yaml"
    spec.write_text(SPEC)
    (slo,) = json.loads(report(spec, "--url", known, "--period", "2h", "--json"))["slos"]
    assert (slo["met"], slo["bad"], slo["incidents"]) == (True, 0, [])
