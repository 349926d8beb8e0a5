"""Wiring: settings in, a Flask app out; and the commands."""

import json
import sys
from collections.abc import Callable
from typing import Any

from flask import Flask
from flask_smorest import Api
from service_kit import lifecycle, logs, settings, wsgi
from service_kit.burden import Burdens
from service_kit.database import Database, check_migrated, explained
from service_kit.database import migrate as migrate_database
from service_kit.faults import LeaseStore
from service_kit.health import Health
from service_kit.problem import Problem
from service_kit.shed import WsgiShed
from service_kit.telemetry import Telemetry
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.routing import BaseConverter

from product_service import NAME, VERSION, openapi, routes
from product_service.config import Settings
from product_service.facts import RequestFacts
from product_service.housekeeping import Housekeeper
from product_service.metrics import Metrics
from product_service.model import RESERVED_SKUS
from product_service.service import Catalogue, Reservations

_PACKAGE = "product_service"


class _SkuConverter(BaseConverter):
    # So that /api/v1/products/import is the import and nothing else, whatever the method.
    regex = f"(?!(?:{'|'.join(RESERVED_SKUS)})$)[^/]+"


class ProductApp(Flask):
    """The Flask app and what its process must start and stop."""

    health: Health
    database: Database
    housekeeper: Housekeeper
    burdens: Burdens

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """No view here is async; Flask would ask each function, each time."""
        return func


def create_app(config: Settings, telemetry: Telemetry | None = None) -> ProductApp:
    """Everything wired, nothing started: call it after the process has forked."""
    telemetry = telemetry or Telemetry(enabled=False)
    database = Database(config.url, pool_size=config.threads + 2)
    telemetry.instrument(database.engine)
    metrics = Metrics(lambda: app.housekeeper.stock())
    catalogue = Catalogue(database)
    reservations = Reservations(database, metrics)
    leases = LeaseStore(config.faults_path(NAME))

    app = ProductApp(_PACKAGE, static_folder=None)
    app.database = database
    app.housekeeper = Housekeeper(database, reservations)
    app.burdens = Burdens(leases, database)
    app.health = Health(
        {"database": database.ping, "migrations": lambda: check_migrated(database, _PACKAGE)}
    )
    app.config.update(
        API_TITLE="Product Service",
        API_VERSION=VERSION,
        OPENAPI_VERSION="3.1.0",
        OPENAPI_URL_PREFIX="/",
        OPENAPI_JSON_PATH="openapi.json",
        MAX_CONTENT_LENGTH=config.max_body_bytes,
    )
    app.url_map.converters["sku"] = _SkuConverter
    api = Api(app)
    api.DEFAULT_ERROR_RESPONSE_NAME = None
    openapi.register(api)
    token = config.token
    api.register_blueprint(routes.products(catalogue, token, config.max_import_bytes))
    api.register_blueprint(routes.reservations(reservations))
    api.register_blueprint(routes.fault_leases(leases, token))
    wsgi.install(
        app,
        telemetry=telemetry,
        health=app.health,
        leases=leases,
        translate=_to_problem,
        facts=RequestFacts(database),
    )
    app.wsgi_app = WsgiShed(app.wsgi_app)  # type: ignore[method-assign]
    app.extensions["spec"] = api.spec
    return app


def _to_problem(error: Exception) -> Problem | None:
    """The one table from what libraries raise to problems."""
    if isinstance(error, OperationalError | PoolTimeoutError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    ):
        detail = "The database does not answer in time; try again."
        return Problem(503, "unavailable", detail, headers={"Retry-After": "1"})
    return None


def _load() -> Settings:
    config = settings.load(Settings, NAME)
    logs.setup(NAME, config.log_level)
    return config


def serve() -> None:
    """Listen, migrate, serve until a signal comes."""
    config = _load()
    # Not before the settings are known to be good: gunicorn reads WEB_CONCURRENCY at import.
    from product_service import server

    listener = lifecycle.listen(config.host, config.port)
    database = Database(config.url)
    if config.migrate_on_start:
        migrate_database(database, _PACKAGE)
    else:
        with explained(database.url):
            database.ping()
    database.close()  # before the fork: connections must not be shared by processes
    server.run(config, listener)


def migrate() -> None:
    """Bring the schema up to date and exit."""
    config = _load()
    database = Database(config.url)
    migrate_database(database, _PACKAGE)
    database.close()


def print_openapi() -> None:
    """Write the OpenAPI document to stdout."""
    document = create_app(_load()).extensions["spec"].to_dict()
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")


def main() -> None:
    """The console script."""
    lifecycle.run(NAME, {"serve": serve, "migrate": migrate, "openapi": print_openapi})
