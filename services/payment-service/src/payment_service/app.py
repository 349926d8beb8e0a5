"""Wiring and commands of the Payment Service."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version

from aiohttp import TraceRequestStartParams
from fastapi import FastAPI
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.trace import Span
from service_kit import asgi, lifecycle, logs, settings, telemetry
from service_kit.burden import Burdens
from service_kit.database import Database, check_migrated, explained, migrate
from service_kit.faults import LeaseStore
from service_kit.health import Health
from service_kit.shed import AsgiShed, Gate
from starlette.middleware import Middleware

from payment_service import incidents, routes
from payment_service.acquirer import Acquirer, route
from payment_service.config import SERVICE, Settings
from payment_service.metrics import Metrics
from payment_service.repository import Repository
from payment_service.service import PaymentService
from payment_service.worker import Worker

_PACKAGE = "payment_service"
_VERSION = version("prove-payment-service")
_POOL_SIZE = 8  # database connections, and threads to use them
_MOST_AT_ONCE = 64  # requests of one process that want those: a fifth of a second's work
# Together asgi.RESERVE_S: for asks still running when the last request is answered, and telemetry.
_SETTLE_S = _FLUSH_S = asgi.RESERVE_S / 2


def create_app(config: Settings, database: Database) -> FastAPI:
    """Put the service together; nothing is opened before its lifespan begins."""
    leases = LeaseStore(config.faults_path(SERVICE))
    acquirer = Acquirer(str(config.acquirer_url), config.acquirer_timeout_s)
    repository = Repository(database)
    metrics = Metrics()
    worker = Worker(
        repository,
        acquirer,
        metrics,
        lease_s=config.worker_lease_s,
        poll_s=config.worker_poll_s,
    )

    health = Health(
        {"database": database.ping, "migrations": lambda: check_migrated(database, _PACKAGE)},
        {"acquirer": acquirer.check},
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # SQLite has one writer: a queue in front of it costs less than threads that fight for it.
        threads = 1 if database.is_sqlite else _POOL_SIZE
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(threads, "database"))
        acquirer.open()
        worker.start()
        burdens = Burdens(leases, database)
        burdens.start()
        health.started = True
        yield
        burdens.stop()
        await worker.stop(_SETTLE_S)
        await acquirer.close()

    app = asgi.new_app(
        title="Payment Service",
        version=_VERSION,
        summary="Payments, settled exactly once.",
        lifespan=lifespan,
        health=health,
        leases=leases,
        translate=routes.translate,
        max_body_bytes=config.max_body_bytes,
    )
    gate = Gate(_MOST_AT_ONCE)
    app.user_middleware.append(Middleware(AsgiShed, gate=gate))  # innermost: its errors are logged
    # No caller is cut off by a deployment: even the longest wait ends within the grace period.
    drain_s = config.shutdown_grace_s - config.shutdown_delay_s - asgi.RESERVE_S
    longest_wait_s = min(routes.LONGEST_WAIT_S, max(0.0, drain_s - 1))
    service = PaymentService(repository, worker, gate, metrics)
    routes.add_routes(app, service, longest_wait_s)
    incidents.add_routes(app, leases, config.token)
    return app


def serve() -> None:
    """Serve until a signal ends it."""
    config = settings.load(Settings, SERVICE)
    logs.setup(SERVICE, config.log_level)
    with lifecycle.listen(config.host, config.port) as sock:
        database = Database(config.url)
        if config.migrate_on_start:
            migrate(database, _PACKAGE)
        with explained(database.url):
            database.ping()
        database.close()  # its connections would not survive the fork
        asgi.prefork(config.web_concurrency, lambda: _work(config, sock))


def _work(config: Settings, sock: socket.socket) -> None:
    """One process: everything that runs threads or holds connections begins here."""
    signals = telemetry.setup(SERVICE, _VERSION)
    database = Database(config.url, pool_size=_POOL_SIZE)
    signals.instrument(database.engine)
    if signals.enabled:
        AioHttpClientInstrumentor().instrument(
            meter_provider=signals.http_meters, request_hook=_name
        )
    asgi.serve(create_app(config, database), config, sock)
    database.close()
    signals.shutdown(_FLUSH_S)


def _name(span: Span, params: TraceRequestStartParams) -> None:
    span.update_name(f"{params.method} {route(params.url.path)}")
    span.set_attribute("peer.service", "acquirer")


def migrate_only() -> None:
    """Bring the database's schema up to date."""
    config = settings.load(Settings, SERVICE)
    logs.setup(SERVICE, config.log_level)
    migrate(Database(config.url), _PACKAGE)


def openapi() -> None:
    """Print the OpenAPI document."""
    config = settings.load(Settings, SERVICE)
    app = create_app(config, Database(config.url))
    json.dump(app.openapi(), sys.stdout, indent=2)
    sys.stdout.write("\n")


def main() -> None:
    """The console script."""
    lifecycle.run(SERVICE, {"serve": serve, "migrate": migrate_only, "openapi": openapi})
