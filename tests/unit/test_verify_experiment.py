"""What a run in rounds does before its shop is started, and how long it waits at its end."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prove.errors import UserError
from prove.verify import plan, shop
from prove.verify.experiment import Experiment, Silent, drained
from prove.verify.shop import Setup


class Stopped(Silent):
    """Is stopped by its user at once."""

    def phase(self, text: str) -> None:
        raise KeyboardInterrupt


def begin(home: Path, commit: str) -> None:
    planned = plan.make(2, 0, 1)
    Experiment(planned, Setup(home), Stopped(), round_orders=1, commit=commit).run()


def test_a_run_is_of_one_commit(tmp_path: Path) -> None:
    home = tmp_path / "full"
    with pytest.raises(KeyboardInterrupt):
        begin(home, "0123456789ab")

    for other in ("ba9876543210", "0123456789ab-dirty"):
        with pytest.raises(UserError, match=f"of commit 0123456789ab, and this is {other}"):
            begin(home, other)

    with pytest.raises(KeyboardInterrupt):
        begin(home, "0123456789ab")


def test_crash_points_of_an_interrupted_round_are_disarmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(tmp_path)
    setup.crash_dir.mkdir()
    (setup.crash_dir / "order.charge.after").touch()
    seen: list[list[Path]] = []

    @contextmanager
    def databases(of: Setup, _port: int) -> Iterator[dict[str, str]]:
        seen.append(list(of.crash_dir.iterdir()))
        raise UserError("enough")
        yield {}

    monkeypatch.setattr(shop, "ensure_binaries", lambda _: {})
    monkeypatch.setattr(shop, "_databases", databases)
    with pytest.raises(UserError, match="enough"), shop.running(setup):
        pass

    assert seen == [[]]


@pytest.mark.parametrize(
    ("counts", "ends"),
    [
        ([(0, 0)], True),
        ([(5, 9), (4, 9), (3, 9), (2, 9), (1, 9), (0, 9), (0, 0)], True),  # longer than patience
        ([(5, 1), (4, 9), (4, 9), (3, 9), (3, 0), (0, 0)], True),  # orders of purchases tried again
        ([(5, 5), (5, 4), (5, 3), (5, 2), (5, 1), (0, 0)], True),
        ([(5, 5), (5, 5), (5, 5), (5, 5), (0, 0)], False),
        ([(5, 5), (5, 4), (5, 5), (5, 4), (5, 5), (0, 0)], False),  # comes and goes
    ],
)
def test_a_drain_goes_on_as_long_as_ever_fewer_are_left(
    counts: list[tuple[int, int]], ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter(counts)

    async def left() -> tuple[int, int]:
        return next(asked)

    monkeypatch.setattr("prove.verify.experiment.WATCH_S", 0)

    assert asyncio.run(drained(left, patience=2)) is ends
