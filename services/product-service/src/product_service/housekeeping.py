"""What one worker of many does on the side: expire reservations, report stock."""

import os
import socket
import threading
import time
from collections.abc import Mapping

from opentelemetry.instrumentation.utils import suppress_instrumentation
from service_kit import logs
from service_kit.database import Database

from product_service import repository
from product_service.model import StockLevel
from product_service.service import Reservations

_JOB = "housekeeping"
_TICK_S = 1.0
_LEAD_MS = 5_000
_STOCK_INTERVAL_S = 5.0
_STOCK_SHARE = 0.01  # of the time may go into adding up stock, however large the catalogue
_MAX_CATEGORIES = 100

_log = logs.get_logger("product_service.housekeeping")


class Housekeeper(threading.Thread):
    """A background thread in every worker; the one that leads does the work.

    The lead is a row with an end: it passes on a few seconds after its holder is gone. Two who
    lead at once would do no harm, every step is conditional.
    """

    def __init__(self, database: Database, reservations: Reservations) -> None:
        super().__init__(name="housekeeper", daemon=True)
        self._database = database
        self._reservations = reservations
        self._me = f"{socket.gethostname()}-{os.getpid()}"
        self._stopping = threading.Event()
        self._next_stock = 0.0
        self._stock: dict[str, StockLevel] = {}

    def stock(self) -> Mapping[str, StockLevel]:
        """What is free by category as of a few seconds ago; empty where another process leads."""
        return self._stock

    def stop(self) -> None:
        """End the thread at its next step."""
        self._stopping.set()

    def run(self) -> None:
        """Tick until stopped. Nobody asked for this work, so it makes no spans."""
        with suppress_instrumentation():
            while not self._stopping.wait(_TICK_S):
                try:
                    self.tick()
                except Exception as error:  # the next tick may find the database again
                    _log.warning("housekeeping failed", reason=str(error).partition("\n")[0])

    def tick(self) -> None:
        """One round."""
        if not self._leads():
            self._stock = {}
            return
        while self._reservations.sweep() and not self._stopping.is_set():
            pass
        started = time.monotonic()
        if started >= self._next_stock:
            with self._database.read() as connection:
                self._stock = repository.stock_by_category(connection, _MAX_CATEGORIES)
            took = time.monotonic() - started
            self._next_stock = started + max(_STOCK_INTERVAL_S, took / _STOCK_SHARE)

    def _leads(self) -> bool:
        now = time.time_ns() // 1_000_000
        with self._database.read() as connection:
            current = repository.leader(connection, _JOB)
        if current is not None:
            holder, until = current
            if holder == self._me and until - now > _LEAD_MS // 2:
                return True
            if holder != self._me and until > now:
                return False
        with self._database.write() as connection:
            return repository.lead(connection, _JOB, self._me, now, now + _LEAD_MS)
