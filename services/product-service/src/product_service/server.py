"""gunicorn as a library: worker processes with threads, stopped gracefully, speaking our JSON."""

import json
import math
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from gunicorn import glogging, util
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.http import errors
from gunicorn.workers.gthread import ThreadWorker
from service_kit import problem, shed, telemetry

from product_service import NAME, VERSION
from product_service.app import ProductApp, create_app
from product_service.config import Settings

_FLUSH_S = 3.0


def run(config: Settings, listener: socket.socket) -> None:
    """Serve on a listening socket until a signal comes; does not return."""
    _Server(config, listener).run()


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, config: Settings, listener: socket.socket) -> None:
        self._config = config
        self._listener = listener
        self._telemetry = telemetry.Telemetry(enabled=False)
        self.app: ProductApp | None = None
        super().__init__()

    def load_config(self) -> None:
        memory = Path("/dev/shm")  # noqa: S108 - a heartbeat file must not wait for a disk
        options: dict[str, Any] = {
            "bind": f"fd://{self._listener.fileno()}",
            "proc_name": NAME,
            "workers": self._config.web_concurrency,
            "threads": self._config.threads,
            "worker_class": _Worker,
            "worker_tmp_dir": str(memory) if memory.is_dir() else None,
            "logger_class": _Logger,
            "loglevel": self._config.log_level,
            "graceful_timeout": math.ceil(self._config.shutdown_grace_s),
            "keepalive": 75,
            "limit_request_line": 8190,
            "limit_request_fields": 100,
            "limit_request_field_size": 8190,
            "control_socket_disable": True,
            "post_fork": self._post_fork,
            "post_worker_init": self._post_worker_init,
            "worker_exit": self._worker_exit,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> ProductApp:
        """Called in the worker process, once it listens to signals."""
        self._telemetry = telemetry.setup(NAME, VERSION)
        self.app = create_app(self._config, self._telemetry)
        return self.app

    def run(self) -> None:
        _Arbiter(self).run()

    def _post_fork(self, _arbiter: Arbiter, worker: "_Worker") -> None:
        # The arbiter kills at the end of the grace period; be gone before that.
        grace = self._config.shutdown_grace_s - self._config.shutdown_delay_s - _FLUSH_S
        worker.cfg.set("graceful_timeout", max(1, math.floor(grace)))
        worker.delay_s = self._config.shutdown_delay_s

    def _post_worker_init(self, worker: "_Worker") -> None:
        assert self.app is not None  # noqa: S101
        worker.health = self.app.health
        self.app.housekeeper.start()
        self.app.burdens.start()
        self.app.health.started = True

    def _worker_exit(self, _arbiter: Arbiter, _worker: "_Worker") -> None:
        if self.app is not None:
            self.app.housekeeper.stop()
            self.app.burdens.stop()
        self._telemetry.shutdown(_FLUSH_S)


class _Arbiter(Arbiter):  # type: ignore[misc]
    """Stops gracefully on SIGINT, too; a second signal ends everything at once."""

    _stopping = False

    def signal(self, sig: int, frame: object) -> None:
        if sig in (signal.SIGTERM, signal.SIGINT):
            if self._stopping:
                for pid in list(self.WORKERS):
                    os.kill(pid, signal.SIGKILL)
                os._exit(1)
            self._stopping = True
        super().signal(sig, frame)

    def handle_int(self) -> None:
        self.handle_term()

    def spawn_worker(self) -> int:
        # Until the new process has handlers of its own, ours would swallow a SIGTERM meant for it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            return int(super().spawn_worker())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _Worker(ThreadWorker):  # type: ignore[misc]
    """Turns readiness off first, and goes on accepting while load balancers notice."""

    health: Any = None
    delay_s = 0.0
    _exit_at: float | None = None

    def init_signals(self) -> None:
        super().init_signals()
        # Ctrl-C reaches the whole process group: the arbiter decides what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])

    def handle_exit(self, sig: int, frame: object) -> None:
        if self._exit_at is None:
            self._exit_at = time.monotonic() + self.delay_s
        if self.health is not None:
            self.health.draining = True
        if not self.delay_s:
            super().handle_exit(sig, frame)

    def notify(self) -> None:
        """Called by the main loop at least once a second."""
        super().notify()
        if self._exit_at is not None and time.monotonic() >= self._exit_at:
            self.alive = False

    def enqueue_req(self, conn: Any) -> None:
        conn.queued_at = time.monotonic()
        super().enqueue_req(conn)

    def handle(self, conn: Any) -> Any:
        shed.queued_since(conn.queued_at)
        return super().handle(conn)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """What gunicorn refuses before Flask sees it, as a problem."""
        refused = _refusal(exc)
        if refused.status == 500:
            self.log.exception("Error handling request")
        else:
            self.log.warning("Invalid request: %s", exc)
        body = json.dumps(refused.as_dict("")).encode()
        head = (
            f"HTTP/1.1 {refused.status} {refused.title}\r\nConnection: close\r\n"
            f"Content-Type: {problem.CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            util.write_nonblock(client, head.encode("latin-1") + body)
        except OSError:
            self.log.debug("The client of a refused request is gone.")


def _refusal(error: Exception) -> problem.Problem:
    if isinstance(error, errors.LimitRequestHeaders):
        return problem.from_status(431, "The header fields are too large or too many.")
    if isinstance(error, errors.LimitRequestLine):
        return problem.from_status(414, "The request line is over 8190 bytes.")
    if isinstance(error, errors.UnsupportedTransferCoding):
        return problem.from_status(501, "This transfer coding is not supported.")
    if isinstance(error, errors.ExpectationFailed):
        return problem.from_status(417, "This expectation is not supported.")
    if isinstance(error, errors.ParseException):
        return problem.from_status(400, "The request is not valid HTTP.")
    return problem.from_status(500, "The service failed; its log says how.")


class _Logger(glogging.Logger):  # type: ignore[misc]
    """Hands gunicorn's own lines to the root logger; our access log is written by the app."""

    def setup(self, cfg: Any) -> None:
        self.loglevel = self.LOG_LEVELS.get(cfg.loglevel.lower(), 20)
        self.error_log.setLevel(self.loglevel)
        self.error_log.propagate = True
        self.access_log.propagate = False
