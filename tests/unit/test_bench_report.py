import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from prove.bench import report
from prove.bench.causes import Causes, Size
from prove.bench.checkout import Checkout, Probe
from prove.bench.durability import Durability
from prove.bench.durability import Window as Round
from prove.bench.faults import Faults
from prove.bench.growth import Growth
from prove.bench.load import Latency
from prove.bench.measure import Group, Memory, Run
from prove.bench.mesh import MeshCost
from prove.bench.mesh import Window as MeshWindow
from prove.bench.reads import Delivery, Reads, Window
from prove.bench.report import Evidence
from prove.bench.rules import Cost, Rules
from prove.bench.startup import Startup
from prove.errors import UserError

CLUSTER = {
    "machine": {"is": "3 cores"},
    "install": {"seconds_to_ready": 57.7, "seconds_to_first_order": 59.7},
    "footprint": {
        "parts": {
            "order": {"pods": 2, "used_mib": 90, "limit_mib": 384},
            "product": {"pods": 2, "used_mib": 1000, "limit_mib": 1024},
        }
    },
    "images": {"mb": {"order-service": 30}},
}
MEMORY = Group(
    shop={"product": Memory(rss=200, pss=150), "order": Memory(rss=50, pss=50)},
    observability={"collector": Memory(rss=60, pss=60)},
)


def a_run(**changed: Any) -> Run:
    fields = {
        "taken_at": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        "commit": "abc123",
        "cpu": "a CPU",
        "cores": 2,
        "memory_gib": 8.0,
        "os": "an OS",
        "versions": {"python": "3.11.7"},
        "busy_percent": 1.0,
    }
    return Run.model_validate(fields | changed)


def reads_of(shipped_us: float = 400) -> Reads:
    windows = {
        "off": [Window(per_second=1000, cpu_us=us) for us in (200, 210, 190)],
        "stock": [Window(per_second=500, cpu_us=us) for us in (600, 610, 590)],
        "shipped": [Window(per_second=700, cpu_us=us + shipped_us - 400) for us in (400, 410, 390)],
    }
    delivery = {
        "off": Delivery(requests=10),
        "stock": Delivery(requests=10, spans_expected=30, spans_accepted=20, dropped=10),
        "shipped": Delivery(requests=10, spans_expected=20, spans_accepted=20),
    }
    return Reads.model_validate({"windows": {"item": windows}, "delivery": delivery})


def checkout_of(**changed: Any) -> Checkout:
    fields = {
        "rate": 50,
        "seconds": 60,
        "latency": Latency(count=3000, failed=0, p50=10, p95=20, p99=30, max=40),
        "dropped": 0,
        "cpu_ms": {"product": 3.0, "order": 2.0, "collector": 1.5, "jaeger": 0.5},
        "shop": ["product", "order"],
        "generator_cpu_ms": 1.0,
        "memory": MEMORY,
        "search_s": 20,
        "probes": [
            Probe(rate=200, p95=100, failed=0, dropped=0, goodput=200),
            Probe(rate=225, p95=900, failed=0, dropped=12, goodput=210),
        ],
        "highest": 200,
        "overload": Probe(rate=630, p95=900, failed=9000, dropped=12, goodput=180),
        "restarts": 0,
    }
    return Checkout.model_validate(fields | changed)


STARTUP = Startup(
    seconds=[9.0, 4.0, 5.0], idle_s=30, idle=MEMORY, rate=50, load_s=60, loaded=MEMORY
)
GROWTH = Growth(
    rate=50,
    seconds=10,
    p95_ms={"list": {1000: [1, 2, 1], 1_000_000: [1.5, 3, 2.5]}},
)


DURABILITY = Durability(
    commit="abc1234",
    rate=50,
    seconds=20,
    windows={
        "before": [Round(p95_ms=20, cpu_ms=10), Round(p95_ms=40, cpu_ms=10)],
        "now": [Round(p95_ms=25, cpu_ms=12.5), Round(p95_ms=40, cpu_ms=12.5)],
    },
)


RULES = Rules(
    interval_s=1,
    groups=11,
    costs={1: Cost(series=219, cpu_s=0.09), 10: Cost(series=2163, cpu_s=0.15)},
)


FAULTS = Faults(
    seconds=10,
    cpu_us={
        "item": {
            "with 1": [800, 810, 900],
            "without 1": [796, 800, 700],
            "with 2": [804, 810, 900],
            "without 2": [804, 800, 700],
        }
    },
)


MESH = MeshCost(
    rate=50,
    seconds=20,
    windows={
        "off": [MeshWindow(p50_ms=8, p95_ms=20, cpu_ms=10, proxies_ms=0)] * 2,
        "on": [
            MeshWindow(p50_ms=10, p95_ms=24, cpu_ms=12, proxies_ms=2),
            MeshWindow(p50_ms=10, p95_ms=26, cpu_ms=13, proxies_ms=3),
        ],
    },
    rss_mib=200,
)


def evidence_of(run: Run | None = None, **figures: Any) -> Evidence:
    return Evidence.model_validate(
        {name: {"run": run or a_run(), "result": result} for name, result in figures.items()}
    )


CAUSES = Causes(
    sizes={
        50_000: Size(seconds=[0.9, 0.2, 0.21], peak_mib=80),
        1_000_000: Size(seconds=[6.0, 5.0], peak_mib=1200),
    }
)


def everything() -> Evidence:
    return evidence_of(
        reads=reads_of(),
        checkout=checkout_of(),
        durability=DURABILITY,
        startup=STARTUP,
        growth=GROWTH,
        rules=RULES,
        faults=FAULTS,
        mesh=MESH,
        causes=CAUSES,
    )


def test_what_telemetry_adds_is_a_median_of_differences_and_of_ratios() -> None:
    assert reads_of().added_us("item", "stock") == 400
    assert reads_of().ratio("item") == 0.5
    assert [target.reached for target in reads_of().targets()] == [True] * 3
    assert [target.reached for target in reads_of(shipped_us=410).targets()] == [False, True, True]


def test_a_lost_span_misses_the_target_however_cheap_it_was() -> None:
    result = reads_of()
    result.delivery["shipped"].dropped = 1

    assert [target.reached for target in result.targets()] == [True, True, False]


def test_telemetry_is_not_made_cheap_by_leaving_spans_out() -> None:
    result = reads_of()
    result.delivery["shipped"].spans_expected = 10

    assert [target.reached for target in result.targets()] == [True, False, True]


def test_cpu_of_an_order_is_told_apart_by_who_spends_it() -> None:
    result = checkout_of()

    assert result.shop_cpu_ms == 5.0
    assert result.observability_cpu_ms == 2.0
    assert all(target.reached for target in result.targets())


@pytest.mark.parametrize(
    "changed",
    [
        {"dropped": 1},
        {"latency": Latency(count=3000, failed=1, p50=1, p95=1, p99=1, max=1)},
        {"latency": Latency(count=0, failed=0, p50=0, p95=0, p99=0, max=0)},
        {"cpu_ms": {"product": 10.1, "order": 2.0}},
        {"highest": 175},
        {"overload": Probe(rate=630, p95=900, failed=9000, dropped=12, goodput=160)},
    ],
)
def test_each_target_of_the_checkout_can_be_missed(changed: dict[str, Any]) -> None:
    assert [target.reached for target in checkout_of(**changed).targets()].count(False) == 1


def test_what_durability_costs_is_a_median_of_ratios() -> None:
    assert (DURABILITY.ratio("p95_ms"), DURABILITY.ratio("cpu_ms")) == (1.125, 1.25)
    assert [target.reached for target in DURABILITY.targets()] == [True, True]
    dear = [Round(p95_ms=30, cpu_ms=13.1)] * 2
    windows = {"before": DURABILITY.windows["before"], "now": dear}
    missed = DURABILITY.model_copy(update={"windows": windows})
    assert [target.reached for target in missed.targets()] == [True, False]


def test_rules_that_take_too_much_of_a_core_miss_the_target() -> None:
    assert [target.reached for target in RULES.targets()] == [True]
    dear = RULES.model_copy(update={"costs": {10: Cost(series=2163, cpu_s=0.6)}})
    assert [target.reached for target in dear.targets()] == [False]


def test_what_faults_add_is_a_median_of_ratios_between_means() -> None:
    assert round(FAULTS.percent("item"), 2) == 1.25
    assert [target.reached for target in FAULTS.targets()] == [True]
    assert round(FAULTS.noise_percent("item"), 2) == 0.0
    dear = FAULTS.model_copy(
        update={"cpu_us": {"item": {**FAULTS.cpu_us["item"], "with 1": [900] * 3}}}
    )
    assert [target.reached for target in dear.targets()] == [False]


def test_what_the_mesh_costs_is_a_median_of_rounds() -> None:
    assert (MESH.added_ms("p95_ms"), MESH.cpu_ratio) == (5, 1.25)
    assert [target.reached for target in MESH.targets()] == [True, True]
    dear = [MeshWindow(p50_ms=10, p95_ms=31, cpu_ms=16, proxies_ms=6)] * 2
    missed = MESH.model_copy(update={"windows": {"off": MESH.windows["off"], "on": dear}})
    assert [target.reached for target in missed.targets()] == [False, False]


def test_the_start_is_judged_by_the_median_and_memory_by_its_sum() -> None:
    assert [target.reached for target in STARTUP.targets()] == [True, True, True]
    heavy = MEMORY.model_copy(update={"observability": {"collector": Memory(rss=900, pss=None)}})
    slow = STARTUP.model_copy(update={"seconds": [9.0, 10.0, 11.0], "loaded": heavy})
    assert [target.reached for target in slow.targets()] == [False, True, False]


def test_growth_is_a_ratio_within_each_round() -> None:
    assert GROWTH.p95("list", 1_000_000) == 2.5
    assert GROWTH.ratio("list", 1_000_000) == 1.5
    assert GROWTH.ratio("list", 1_000) == 1
    assert GROWTH.targets()[0].reached


def test_growth_beyond_twofold_misses_the_target() -> None:
    steep = GROWTH.model_copy(update={"p95_ms": {"list": {1000: [1.0], 100_000: [2.1]}}})

    assert not steep.targets()[0].reached


def test_the_page_has_machine_command_target_and_what_was_said_by_hand() -> None:
    page = report.page(everything(), {"reads": "The **interpreter** is.", "growth": ""}, CLUSTER)

    assert page.startswith("# Benchmarks\n\nGenerated by `make bench`")
    assert "| hardware | a CPU, 2 cores, 8 GiB |" in page
    assert "`provectl bench checkout`, 2026-01-02 03:04 UTC, commit `abc123`." in page
    assert "| item: CPU added as shipped ÷ by stock ≤ 0.5 | 0.50 | reached |" in page
    assert "| item, stock | 500 | 600 | +400 |" in page
    assert "| stock | 10 | 3.0 | 20 of 30 | 0 of 0 | 0 | 10 |" in page
    assert "| the shop together | 5.00 |" in page
    assert "| 225 | 210.0 | 900.0 | 0 | 12 | no |" in page
    assert "| P95 at 50/s | 20.0 ms | 28 ms |" in page
    assert "| all | 310 | 260 | 310 | 260 |" in page
    assert "| list | 2.50 | " not in page  # columns by size, the smallest first
    assert "| list | 1.00 | 2.50 | 1.50 |" in page
    assert page.count("**What is in the way.**") == 1
    assert "**What is in the way.** The **interpreter** is." in page


def test_the_cluster_stands_beside_what_others_publish() -> None:
    page = report.page(everything(), {}, CLUSTER)

    told = page.partition("## The shop on Kubernetes")[2]
    assert "3 cores" in told
    assert "| `helm install` to all ready; to the first order | 58 s; 60 s |" in told
    assert "| all | 4 | 1,090 | 1,408 MiB |" in told
    assert "| Online Boutique |  |  | 2.5 GiB |" in told
    assert "| order-service | 30 |" in told
    assert "autoscaler" not in told  # not measured
    assert "Not measured yet: `make test-cluster`" in report.page(everything(), {}, {})


def test_figures_of_the_cluster_that_are_broken_are_told(checkout_root: Path) -> None:
    (checkout_root / report.CLUSTER).parent.mkdir(parents=True)
    (checkout_root / report.CLUSTER).write_text("{")
    with pytest.raises(UserError, match=r"cluster\.json is no JSON: restore it"):
        report.write(everything())


def test_a_missed_target_stays_on_the_page() -> None:
    page = report.page(evidence_of(checkout=checkout_of(highest=150)), {}, {})

    assert "≥ 200/s | 150/s | **missed** |" in page
    assert not evidence_of(checkout=checkout_of(highest=150)).reached
    assert evidence_of(checkout=checkout_of()).reached


def test_a_figure_that_is_not_there_says_how_to_get_it() -> None:
    page = report.page(evidence_of(startup=STARTUP), {}, {})

    assert "Not measured yet: `provectl bench growth` does it." in page


def test_a_busy_machine_is_told() -> None:
    page = report.page(evidence_of(a_run(busy_percent=60), startup=STARTUP), {}, {})

    assert "> Other processes took 60% of this machine just before" in page


def test_a_figure_measured_again_replaces_its_own_section_only() -> None:
    earlier = everything()
    again = evidence_of(a_run(commit="def456"), checkout=checkout_of(highest=250))

    both = again.merged(earlier)

    assert list(both.figures()) == list(Evidence.model_fields)
    assert both.checkout == again.checkout
    assert both.reads == earlier.reads


def test_a_figure_of_another_form_is_left_out_alone(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    document = everything().model_dump(mode="json")
    del document["checkout"]["result"]["overload"]
    file.write_text(json.dumps(document))

    assert report.read(file) == everything().model_copy(update={"checkout": None})


def test_figures_of_another_machine_say_so() -> None:
    again = evidence_of(
        a_run(cpu="another CPU", taken_at=datetime(2026, 2, 2, tzinfo=UTC)), checkout=checkout_of()
    )

    page = report.page(again.merged(everything()), {}, {})

    assert "| hardware | another CPU, 2 cores, 8 GiB |" in page
    said = "> Of another machine: a CPU, 2 cores, 8 GiB; an OS."
    assert page.count(said) == len(Evidence.model_fields) - 1
    assert said not in page.partition("## Checkout")[2].partition("\n## ")[0]
    assert "another machine:" not in report.page(everything(), {}, {})


def test_evidence_is_read_back_and_a_file_of_another_form_is_none(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    assert report.read(file) == Evidence()

    file.write_text(everything().model_dump_json())
    assert report.read(file) == everything()

    file.write_text('{"checkout": {"run": 1}}')
    assert report.read(file) == Evidence()


@pytest.fixture
def checkout_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("prove.bench.report.tools.repository_root", lambda: tmp_path)
    return tmp_path


def test_page_and_evidence_are_brought_up_to_date_together(checkout_root: Path) -> None:
    report.write(evidence_of(startup=STARTUP))
    report.write(evidence_of(a_run(commit="def456"), growth=GROWTH))

    page = (checkout_root / report.PAGE).read_text()
    assert "commit `abc123`" in page
    assert "commit `def456`" in page
    assert list(report.read(checkout_root / report.EVIDENCE).figures()) == ["startup", "growth"]

    (checkout_root / report.PAGE).write_text("edited by hand")
    report.write(Evidence())
    assert (checkout_root / report.PAGE).read_text() == page


def test_there_is_no_page_of_nothing(checkout_root: Path) -> None:
    with pytest.raises(UserError, match="nothing was measured yet"):
        report.write(Evidence())
    assert not (checkout_root / report.PAGE).exists()


def test_a_page_that_cannot_be_written_is_told(checkout_root: Path) -> None:
    (checkout_root / "docs").write_text("a file where a directory should be")

    with pytest.raises(UserError, match="cannot be written"):
        report.write(evidence_of(startup=STARTUP))


def test_notes_are_told_apart_by_figure() -> None:
    told = report.notes("Preface.\n\n## reads\n\nOne\ntwo.\n\n## growth\n")

    assert told == {"reads": "One\ntwo.", "growth": ""}


def test_the_terminal_shows_what_the_page_does() -> None:
    shown = io.StringIO()

    report.show(everything(), Console(file=shown, width=100))

    for text in ("Product reads", "item, stock", "225", "AWS Retail sample", "1,000,000"):
        assert text in shown.getvalue()
    assert max(map(len, shown.getvalue().splitlines())) <= 100


def test_an_analysis_has_limits_of_time_and_ratios_of_memory() -> None:
    assert [target.reached for target in CAUSES.targets()] == [True, True]
    assert "| 1,000,000 | 5,000 | 23.8 | 1,200 | 15.0 | 20 |" in report.page(everything(), {}, {})
    slow = Causes(sizes={50_000: Size(seconds=[0.1, 0.3], peak_mib=80)})
    assert [target.reached for target in slow.targets()] == [False]
