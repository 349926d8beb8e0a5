"""What the launchers of the test builds share: named crash points and the choice of a mutant.

No package and in no wheel: a service as shipped knows none of this. PROVE_CRASH_DIR is a directory
in which the file `<service>.<point>` arms a point for one process, once: the first to pass it
renames the file to `….fired.<pid>` and kills itself as `kill -9` would.
"""

import functools
import inspect
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def passing(service: str, point: str) -> None:
    """Die here if this point is armed; the renaming decides who does."""
    directory = os.environ.get("PROVE_CRASH_DIR")
    if not directory:
        return
    armed = Path(directory) / f"{service}.{point}"
    try:
        armed.rename(f"{armed}.fired.{os.getpid()}")
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def wrap(
    owner: type, method: str, service: str, before: str | None = None, after: str | None = None
) -> None:
    """Put crash points around a method, plain or async; `after` is passed if it returns."""
    original = getattr(owner, method)

    @functools.wraps(original)
    def plain(*args: Any, **kwargs: Any) -> Any:
        if before:
            passing(service, before)
        result = original(*args, **kwargs)
        if after:
            passing(service, after)
        return result

    @functools.wraps(original)
    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        if before:
            passing(service, before)
        result = await original(*args, **kwargs)
        if after:
            passing(service, after)
        return result

    setattr(owner, method, coroutine if inspect.iscoroutinefunction(original) else plain)


def mutate(mutants: Mapping[str, Callable[[], None]]) -> None:
    """Apply the mutant that PROVE_MUTANT names, if any; an unknown name ends the process (2)."""
    name = os.environ.get("PROVE_MUTANT")
    if not name:
        return
    if name not in mutants:
        known = ", ".join(sorted(mutants))
        print(f"PROVE_MUTANT: no mutant {name!r} here; there are {known}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    mutants[name]()
