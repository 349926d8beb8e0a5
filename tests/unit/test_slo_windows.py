"""Alert windows: the workbook's, the drill's, and those of a file."""

from fractions import Fraction

import pytest

from prove.errors import UserError
from prove.slo import durations, windows
from prove.tools import repository_root

DRILL = repository_root() / "observability" / "slos" / "windows" / "drill.yaml"


def test_the_defaults_are_the_workbooks_table() -> None:
    # https://sre.google/workbook/alerting-on-slos/, table 5-8
    table = [
        (pair.severity, pair.factor, pair.long_s, pair.short_s)
        for pair in windows.WORKBOOK.all_pairs
    ]

    assert table == [
        ("page", Fraction("14.4"), 3_600, 300),
        ("page", 6, 6 * 3_600, 1_800),
        ("ticket", 3, 86_400, 7_200),
        ("ticket", 1, 3 * 86_400, 6 * 3_600),
    ]


def test_the_drill_is_the_workbook_sixty_times_as_fast() -> None:
    drill = windows.parse(DRILL.read_text(), "drill.yaml")

    assert drill.period_s * 60 == windows.WORKBOOK.period_s
    for ours, theirs in zip(drill.all_pairs, windows.WORKBOOK.all_pairs, strict=True):
        assert ours.factor == theirs.factor
        assert (ours.long_s * 60, ours.short_s * 60) == (theirs.long_s, theirs.short_s)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("longWindow: 1m\n", "longWindow: 5s\n", "w:8: spec.page.quick: shortWindow must be short"),
        ("longWindow: 72m", "longWindow: 12h", "w:5: spec: every longWindow must be shorter than"),
        ("shortWindow: 5s", "shortWindow: 5", "w:10: spec.page.quick.shortWindow: must be a dur"),
        ("shortWindow: 5s", "shortWindow: 0s", "must be longer than 0"),
        ("errorBudgetPercent: 2", "errorBudgetPercent: 101", "w:9: spec.page.quick.errorBudgetP"),
        ("errorBudgetPercent: 2", "errorBudgetPercent: .nan", "must be above 0 and at most 100"),
        ("kind: AlertWindows", "kind: Windows", "w:4: kind: Input should be 'AlertWindows'"),
    ],
)
def test_a_complaint_names_file_line_and_field(old: str, new: str, told: str) -> None:
    text = DRILL.read_text()
    assert old in text
    with pytest.raises(UserError) as caught:
        windows.parse(text.replace(old, new, 1), "w")

    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "of_s", "printed"),
    [
        ("5m", 300, "5m"),
        ("90s", 90, "1m30s"),
        ("72m", 4_320, "1h12m"),
        ("24h", 86_400, "1d"),
        ("30d", 2_592_000, "30d"),
        ("28d", 2_419_200, "4w"),  # as Prometheus, and so Sloth, prints it
        ("1y", 31_536_000, "1y"),
        ("366d", 31_622_400, "366d"),
    ],
)
def test_durations_read_and_print_as_prometheus_has_them(
    text: str, of_s: int, printed: str
) -> None:
    assert durations.seconds(text) == of_s
    assert durations.text(of_s) == printed


@pytest.mark.parametrize(
    "text", ["", "5", "m", "5 m", "1m1h", "-5m", "0s", "99y", None, 5, "\u0665m"]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        durations.seconds(text)


@pytest.mark.parametrize(
    ("of_s", "shown"),
    [
        (Fraction("8.64"), "8.6s"),
        (Fraction("518.4"), "8m38s"),
        (Fraction(3_600), "1h"),
        (Fraction(12_960), "3h36m"),
        (Fraction(3_599), "59m59s"),
        (Fraction(90_000), "1d1h"),
    ],
)
def test_durations_are_rounded_for_people(of_s: Fraction, shown: str) -> None:
    assert durations.rounded(of_s) == shown
