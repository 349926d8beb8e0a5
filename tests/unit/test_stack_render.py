"""The status table, within the columns of a plain terminal."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from prove.stack import render
from prove.stack.report import ProcessReport, Report, Totals

DAYS_S = 100 * 3600.0


def shown(*, ready: bool) -> list[str]:
    row = ProcessReport(
        name="victorialogs",
        group="observability",
        phase="ready",
        pid=4_194_304,
        ports=(65535,),
        ready=ready,
        uptime_s=DAYS_S,
        restarts=1234,
        last_exit=None,
        rss_bytes=99_999 * 2**20,
        cpu_percent=199.9,
    )
    report = Report(
        home=Path("/home"),
        phase="ready",
        detail="x",
        ready=ready,
        processes=[row],
        totals={"observability": Totals(rss_bytes=row.rss_bytes, cpu_percent=199.9)},
    )
    out = io.StringIO()
    Console(file=out, width=80).print(render.status(report))
    return out.getvalue().splitlines()


@pytest.mark.parametrize(("ready", "state"), [(True, "ready"), (False, "unready")])
def test_no_cell_of_the_status_is_broken_in_eighty_columns(ready: bool, state: str) -> None:
    _, _, _, process, total = shown(ready=ready)
    name, rest = process.split(maxsplit=1)
    assert name == "victorialogs"
    assert rest.removeprefix(state).split() == [
        "4194304",
        "65535",
        "100:00:00",
        "1234",
        "99999",
        "199.9",
    ]
    assert total.split() == ["all", "observability", "99999", "199.9"]
