"""The product service with crash points and mutants: `python testbuild.py serve`, for tests only.

What it runs is the service's own code; its rules and repository are wrapped, before it forks.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import local

sys.path.insert(0, str(Path(__file__).parents[2]))

from product_service import app, repository, service
from product_service.model import Line, Reservation
from product_service.service import Reservations
from service_kit.problem import Problem
from sqlalchemy import Connection, text

from services.testbuild import crash


def _release_gives_twice() -> None:
    """A repeated release gives the goods back once more."""
    release = Reservations.release

    def again(self: Reservations, reservation_id: str) -> Reservation:
        was = ""
        with suppress(Problem):
            was = self.get(reservation_id).status
        released = release(self, reservation_id)
        if was == "released":
            goods = {line["sku"]: line["quantity"] for line in released.lines}
            with self._database.write() as connection:
                repository.give(connection, goods)
        return released

    Reservations.release = again  # type: ignore[method-assign]


def _lost_update() -> None:
    """Stock is read, and only then, in another transaction, written less what was taken."""
    reserve, take = Reservations.reserve, repository.take
    seen = local()

    def look_first(
        self: Reservations, order_id: str, lines: Sequence[Line], ttl_s: int
    ) -> tuple[Reservation, bool]:
        with self._database.read() as connection:
            found = {line.sku: repository.product(connection, line.sku) for line in lines}
        seen.stock = {sku: product.stock for sku, product in found.items() if product is not None}
        try:
            return reserve(self, order_id, lines, ttl_s)
        finally:
            seen.stock = {}

    def write_less(
        connection: Connection, quantities: Mapping[str, int]
    ) -> dict[str, repository.Taken]:
        taken = take(connection, quantities)
        for sku, stock in getattr(seen, "stock", {}).items():
            if sku in taken and stock >= quantities[sku]:
                connection.execute(
                    text("UPDATE products SET stock = :stock WHERE sku = :sku"),
                    {"sku": sku, "stock": stock - quantities[sku]},
                )
        return taken

    Reservations.reserve = look_first  # type: ignore[method-assign]
    repository.take = write_less


def _expired_counts() -> None:
    """Committing an expired reservation does not take its goods again."""
    retake = service._retake

    def as_if_held(connection: Connection, old: Reservation, new: Reservation) -> Reservation:
        if (old.status, new.status) != ("expired", "committed"):
            return retake(connection, old, new)
        repository.move(connection, old, new)
        return new

    service._retake = as_if_held


def main() -> None:
    """Wrap, then be the service."""
    crash.mutate(
        {
            "release-gives-twice": _release_gives_twice,
            "lost-update": _lost_update,
            "expired-counts": _expired_counts,
        }
    )
    for step in ("reserve", "commit", "release", "extend"):
        crash.wrap(Reservations, step, "product", f"{step}.before", f"{step}.after")
    app.main()


if __name__ == "__main__":
    main()
