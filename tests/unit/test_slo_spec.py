"""SLO files: what is taken, and how what isn't is told."""

import json
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import jsonschema_rs
import pytest

from prove.errors import UserError
from prove.slo import spec, yamltext
from prove.tools import repository_root

SLOS = repository_root() / "observability" / "slos"
SCHEMA = SLOS / "slo.schema.json"

GOOD = """\
version: prometheus/v1
service: shop
labels:
  team: a
slos:
  - name: errors
    objective: 99.9
    sli:
      events:
        error_query: sum(rate(bad_total[{{.window}}]))
        total_query: sum(rate(all_total[{{ .window }}]))
    alerting:
      name: ShopErrors
      labels: {route: all}
      page_alert:
        labels: {route: phone}
      ticket_alert:
        disable: true
"""


def test_an_slo_has_what_its_service_and_its_alerting_give_it() -> None:
    (slo,) = spec.parse(GOOD, "shop.yaml")

    assert slo.id == "shop-errors"
    assert slo.objective == Decimal("99.9")
    assert slo.budget == Fraction(1, 1000)
    assert slo.labels == {"team": "a"}
    assert slo.page == spec.AlertMeta("ShopErrors", {"route": "phone"}, {})
    assert slo.ticket is None


def test_a_file_may_hold_several_documents() -> None:
    found = spec.parse(f"---\n{GOOD}---\n{GOOD.replace('shop', 'till')}---\n", "both.yaml")

    assert [slo.id for slo in found] == ["shop-errors", "till-errors"]


def test_numbers_and_truth_values_are_texts_in_labels_as_sloth_has_it() -> None:
    (slo,) = spec.parse(GOOD.replace("team: a", "{tier: 2, le: 0.50, live: true}"), "f")

    assert slo.labels == {"tier": "2", "le": "0.50", "live": "true"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("prometheus/v1", "prometheus/v2", "f.yaml:1: version: Input should be 'prometheus/v1'"),
        ("service: shop\n", "", "f.yaml:1: service: is required"),
        ("service: shop", "service: -shop", "f.yaml:2: service: must be letters, digits"),
        ("  team: a", "  te-am: a", "f.yaml:4: labels.te-am.[key]: must be a Prometheus label"),
        ("99.9", "'99.9'", "f.yaml:7: slos[0].objective: must be a number such as 99.9"),
        ("99.9", "100", "f.yaml:7: slos[0].objective: must be above 0 and below 100"),
        ("99.9", "true", "f.yaml:7: slos[0].objective: must be a number"),
        ("99.9", ".nan", "f.yaml:7: slos[0].objective: must be above 0"),
        ("objective", "objectiv", "f.yaml:7: slos[0].objectiv: is not a field of this form"),
        ("[{{.window}}]", "[5m]", "f.yaml:10: slos[0].sli.events.error_query: must use the window"),
        ("rate(bad", "rate({{.x}}", "slos[0].sli.events.error_query: may use no template but"),
        ("name: ShopErrors", "labels: {}", "f.yaml:14: labels is given twice"),
        ("      name: ShopErrors\n", "", "f.yaml:12: slos[0].alerting: needs a name"),
        ("disable: true", "disable: 'yes'", "f.yaml:18: slos[0].alerting.ticket_alert.disable: "),
        ("service: shop", "service: [", "f.yaml:4: expected ',' or ']'"),
        ("service: shop", "service: *a", "f.yaml:2: found undefined alias"),
        ("service: shop", "service: {a: &a [*a]}", "f.yaml:2: service: Input should be a valid st"),
    ],
)
def test_a_complaint_names_file_line_and_field(old: str, new: str, told: str) -> None:
    assert old in GOOD
    with pytest.raises(UserError) as caught:
        spec.parse(GOOD.replace(old, new, 1), "f.yaml")

    assert told in str(caught.value)


def test_everything_wrong_is_told_at_once() -> None:
    bad = GOOD.replace("99.9", "0").replace("shop\n", "''\n").replace("disable", "disabled")

    with pytest.raises(UserError) as caught:
        spec.parse(bad, "f.yaml")

    assert len(str(caught.value).splitlines()) == 3


def test_sli_plugins_are_refused_by_name() -> None:
    plugin = re.sub(r"events:\n.*\n.*\n", "plugin: {id: their/sli/v1}\n", GOOD)

    with pytest.raises(UserError, match=r"f:8: slos\[0\].sli: the SLI plugin 'their/sli/v1'"):
        spec.parse(plugin, "f")


@pytest.mark.parametrize(
    ("where", "line"), [("slo_plugins", 3), ("slos:\n  - plugins", 6)], ids=["service", "slo"]
)
def test_slo_plugins_are_refused_by_name(where: str, line: int) -> None:
    chain = "{chain: [{id: a/v1}, {id: b/v1, config: {x: 1}}, {id: a/v1}]}"
    old = "labels:\n" if line == 3 else "slos:\n  - "
    own = f"{where}: {chain}\n" + ("labels:\n" if line == 3 else "    ")

    with pytest.raises(UserError, match="remove 'a/v1', 'b/v1'") as caught:
        spec.parse(GOOD.replace(old, own), "f")

    assert str(caught.value).startswith(f"f:{line}: ")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n---\n"])
def test_an_empty_file_is_told(text: str) -> None:
    with pytest.raises(UserError, match="f: holds no SLO"):
        spec.parse(text, "f")


@pytest.mark.parametrize(
    "text",
    ["5", "- a", "\x00", "a: !!python/name:os.system", "? [a]\n: 1", "2024-99-99: 1", "a: !!set 5"],
)
def test_other_yaml_and_what_is_none_is_told(text: str) -> None:
    with pytest.raises(UserError, match=r"^f:"):
        spec.parse(text, "f")


@pytest.mark.parametrize(
    ("version", "kind", "told"),
    [
        ("openslo/v1", "SLO", "is OpenSLO's form; `provectl slo import` makes it prometheus/v1"),
        ("openslo/v1alpha", "SLO", "is an older form of OpenSLO's; write it as openslo/v1, with"),
        ("sloth.slok.dev/v1", "PrometheusServiceLevel", "is Sloth's form for Kubernetes; make a"),
        ("sloth.slok.dev/v1", "AlertWindows", "holds no SLO but windows; give it with --windows"),
        ("pyrra.dev/v1alpha1", "ServiceLevelObjective", "is no form of SLOs that prove knows"),
    ],
)
def test_each_other_form_is_told_what_to_do_with_it(version: str, kind: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        spec.parse(f"apiVersion: {version}\nkind: {kind}\n", "f")

    assert str(caught.value).startswith(f"f:1: apiVersion: {kind} of {version} {told}")


def test_two_slos_of_one_identity_are_refused() -> None:
    with pytest.raises(UserError, match="two SLOs 'shop-errors'"):
        spec.check_distinct(spec.parse(f"{GOOD}---\n{GOOD}", "f"))


def test_the_committed_schema_is_the_generated_one() -> None:
    # `provectl slo schema > observability/slos/slo.schema.json`
    assert json.loads(SCHEMA.read_text()) == spec.json_schema()


@pytest.mark.parametrize("path", sorted(SLOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_our_specs_keep_to_the_schema(path: Path) -> None:
    validator = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))
    for document in yamltext.documents(path.read_text(), path.name):
        value = json.loads(json.dumps(document.value, default=float))
        validator.validate(value)
        value["slos"][0]["objective"] = 100
        assert not validator.is_valid(value)
