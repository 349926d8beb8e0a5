"""Taking single processes of a running stack down and up, for experiments."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prove.errors import UserError
from prove.stack import state

HOLD_TIMEOUT_S = 60.0
POLL_S = 0.05


def send(home: Path, name: str, number: signal.Signals) -> None:
    """Send a signal to the process called `name`; raises UserError when it doesn't run."""
    process = state.require(home).process(name)
    if process.id is None or not process.id.find():
        raise UserError(f"{name} is not running (it is {process.phase})")
    os.kill(process.id.pid, number)


@contextmanager
def held(home: Path, name: str, number: signal.Signals = signal.SIGKILL) -> Iterator[None]:
    """End the process `name` by a signal and keep the supervisor from starting it again.

    Raises UserError when it doesn't end within a minute.
    """
    file = state.hold_file(home, name)
    file.parent.mkdir(exist_ok=True)
    file.touch()
    try:
        with suppress(UserError):  # between two starts: held as soon as the next is due
            send(home, name, number)
        deadline = time.monotonic() + HOLD_TIMEOUT_S
        while state.require(home).process(name).phase != "held":
            if time.monotonic() > deadline:
                raise UserError(f"{name} did not end within {HOLD_TIMEOUT_S:g} s")
            time.sleep(POLL_S)
        yield
    finally:
        file.unlink(missing_ok=True)
