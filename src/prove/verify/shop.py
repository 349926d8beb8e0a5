"""A shop of its own to be mistreated: test builds, databases, and a proxy on every link.

It has a home and ports of its own and is run by the stack's own supervisor, so what is proven of
its restarts is proven of `provectl up` too. Telemetry is off.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, get_args

import httpx
import psutil
import psycopg
from service_kit import postgres
from service_kit.ports import claim

from prove import tools
from prove.errors import UserError
from prove.stack import lifecycle, processes, state, toxiproxy
from prove.stack.links import HOST, Route
from prove.stack.settings import StackSettings
from prove.stack.spec import ProcessSpec
from prove.stack.state import ProcessId
from prove.stack.supervisor import Plan
from prove.verify.plan import CURRENCY, Link, Product, Service

Database = Literal["sqlite", "postgres"]

SERVICES: tuple[Service, ...] = get_args(Service)
LINKS: tuple[Link, ...] = get_args(Link)
TAG = "prove_test"
"""The Go build tag of test builds."""
GRACE_S = 10
RESTART_DELAY_S = 0.1
RESTART_DELAY_MAX_S = 1.0
IMPORT_TIMEOUT_S = 120.0
READY_TIMEOUT_S = 60.0
POLL_S = 0.05
MAX_CONNECTIONS = 300
WORKERS = 2
"""Of the Product Service: so that one of them can be killed while the other goes on."""


@dataclass(frozen=True)
class Setup:
    """What shop to run. `env` is laid over the environment of single services."""

    home: Path
    database: Database = "sqlite"
    partitions: bool = False
    env: Mapping[Service, Mapping[str, str]] = field(default_factory=dict)

    @property
    def crash_dir(self) -> Path:
        """Where crash points are armed."""
        return self.home / "crash"

    @property
    def data_dir(self) -> Path:
        """All that has to be kept to go on with this shop later."""
        return self.home / "data"


@dataclass(frozen=True)
class Shop:
    """A running one. `databases` are the URLs of the three services and of the acquirer.

    `stop` ends its processes; its databases can be read until the end of the block that runs it.
    """

    setup: Setup
    settings: StackSettings
    databases: Mapping[Service, str]
    proxy_url: str | None
    stop: Callable[[], None]

    @property
    def orders_url(self) -> str:
        """The Order Service."""
        return self.settings.url(self.settings.order_port)

    @property
    def ledger_url(self) -> str:
        """The acquirer."""
        return self.settings.url(self.settings.acquirer_port)

    def process(self, name: str) -> ProcessId | None:
        """The leader of a service's processes; None from its end until it is ready again."""
        current = state.load(self.settings.home)
        known = current.processes[name] if current else None
        return known.id if known and known.phase == "ready" else None

    def workers(self, service: Service) -> list[int]:
        """Pids of the worker processes that a service has now."""
        leader = self.process(service)
        try:
            return [child.pid for child in psutil.Process(leader.pid).children()] if leader else []
        except psutil.NoSuchProcess:
            return []

    def restarts(self) -> dict[str, int]:
        """How often the supervisor started each process again."""
        current = state.load(self.settings.home)
        return {name: each.restarts for name, each in current.processes.items()} if current else {}

    async def until_ready(self) -> None:
        """Until every process is ready; raises UserError when one isn't in time."""
        deadline = asyncio.get_running_loop().time() + READY_TIMEOUT_S
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
            while missing := await self._not_ready(client):
                if asyncio.get_running_loop().time() > deadline:
                    raise UserError(
                        f"{', '.join(missing)} did not become ready again within "
                        f"{READY_TIMEOUT_S:g} s; see {self.settings.logs_dir}"
                    )
                await asyncio.sleep(POLL_S)

    async def _not_ready(self, client: httpx.AsyncClient) -> list[str]:
        current = state.load(self.settings.home)
        if current is None:
            return ["the shop"]
        missing = [name for name, each in current.processes.items() if each.phase != "ready"]
        for name, each in current.processes.items():
            try:
                if not (await client.get(each.ready_url)).is_success:
                    missing.append(name)
            except httpx.HTTPError:
                missing.append(name)
        return missing

    def import_products(self, products: Sequence[Product]) -> None:
        """Fill the catalogue through the bulk import; raises UserError."""
        items = [
            {
                "sku": product.sku,
                "name": product.name,
                "description": product.name,
                "category": "verify",
                "price_minor": product.price_minor,
                "currency": CURRENCY,
                "stock": product.stock,
            }
            for product in products
        ]
        token = self.settings.admin_token_file.read_text().strip()
        try:
            httpx.post(
                self.settings.url(self.settings.product_port) + "/api/v1/products/import",
                json={"items": items},
                headers={"Authorization": f"Bearer {token}"},
                timeout=IMPORT_TIMEOUT_S,
                trust_env=False,
            ).raise_for_status()
        except httpx.HTTPError as error:
            raise UserError(f"the catalogue could not be imported: {error}") from None


@contextmanager
def running(setup: Setup) -> Iterator[Shop]:
    """Build what is missing, start the shop, and leave nothing of it running afterwards.

    Raises UserError when PostgreSQL is asked for and missing, or a process does not start.
    """
    binaries = ensure_binaries(setup)
    names = ("product", "order", "payment", "acquirer", *LINKS, "proxy", "database")
    ports = dict(zip(names, claim(len(names)), strict=True))
    settings = StackSettings(
        home=setup.home,
        product_port=ports["product"],
        order_port=ports["order"],
        payment_port=ports["payment"],
        acquirer_port=ports["acquirer"],
        restart_delay_min_s=RESTART_DELAY_S,
        restart_delay_max_s=RESTART_DELAY_MAX_S,
    )
    # What an interrupted round left armed would kill the processes of this one.
    shutil.rmtree(setup.crash_dir, ignore_errors=True)
    setup.crash_dir.mkdir(parents=True)
    setup.data_dir.mkdir(exist_ok=True)
    with (
        _databases(setup, ports["database"]) as databases,
        lifecycle.lock(settings) as held,
        ExitStack() as started,
    ):
        processes.ensure_admin_token(settings)
        specs = _specs(setup, settings, binaries, databases, ports)
        started.enter_context(supervised(settings, specs, held))
        proxy_url = settings.url(ports["proxy"]) if setup.partitions else None
        yield Shop(setup, settings, databases, proxy_url, stop=started.close)


@contextmanager
def supervised(
    settings: StackSettings, specs: list[ProcessSpec], held: IO[bytes]
) -> Iterator[None]:
    """Processes that are ready, under the lock of their home; none of them runs afterwards.

    Raises UserError when one does not start.
    """
    supervisor = lifecycle.spawn(Plan(settings=settings, specs=specs), held)
    try:
        lifecycle.wait_ready(supervisor, settings.home, lambda _: None)
        yield
    except lifecycle.StartError as error:
        raise UserError(str(error)) from None
    finally:
        supervisor.terminate()
        supervisor.wait()
        state.end(state.leftovers(settings.home))


def ensure_binaries(
    setup: Setup, progress: tools.Progress | None = None
) -> dict[str, tuple[str, ...]]:
    """What starts each process, building what is missing. Raises UserError."""
    services = tools.repository_root() / "services"
    binaries: dict[str, tuple[str, ...]] = {
        "order": (str(tools.ensure_service("order-service", progress, tags=(TAG,))),),
        "acquirer": (str(tools.ensure_service("acquirer", progress)),),
    }
    for name in ("product", "payment"):
        binaries[name] = (sys.executable, str(services / f"{name}-service" / "testbuild.py"))
    if setup.partitions:
        proxy = tools.ensure(toxiproxy.NAME, progress=progress)[toxiproxy.PROGRAM]
        binaries[toxiproxy.NAME] = (str(proxy),)
    return binaries


@contextmanager
def _databases(setup: Setup, port: int) -> Iterator[dict[Service, str]]:
    urls: dict[Service, str] = {name: f"sqlite:///{setup.data_dir / name}.db" for name in SERVICES}
    if setup.database == "sqlite":
        yield urls
        return
    try:
        with postgres.server(
            setup.data_dir / "postgres", fsync=True, max_connections=MAX_CONNECTIONS, port=port
        ) as url:
            base = url.rpartition("/")[0]
            with psycopg.connect(url, autocommit=True) as connection:
                there = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
                for name in ("product", "order", "payment"):
                    urls[name] = f"{base}/{name}"
                    if name not in there:
                        connection.execute(f'CREATE DATABASE "{name}"')
            yield urls
    except (postgres.MissingError, postgres.ServerError) as error:
        raise UserError(str(error)) from None


def _specs(
    setup: Setup,
    settings: StackSettings,
    binaries: Mapping[str, tuple[str, ...]],
    databases: Mapping[Service, str],
    ports: Mapping[str, int],
) -> list[ProcessSpec]:
    def peer(link: Link, service: Service) -> str:
        return settings.url(ports[link if setup.partitions else service])

    common = {
        "HOST": "127.0.0.1",
        "ADMIN_TOKEN_FILE": str(settings.admin_token_file),
        "LOG_LEVEL": "warning",
        "OTEL_SDK_DISABLED": "true",
        "SHUTDOWN_GRACE_S": str(GRACE_S),
        "PROVE_CRASH_DIR": str(setup.crash_dir),
        "PRODUCT_URL": peer("order-product", "product"),
        "PAYMENT_URL": peer("order-payment", "payment"),
        "ACQUIRER_URL": peer("payment-acquirer", "acquirer"),
        "NO_PROXY": processes.LOOPBACK,
        "no_proxy": processes.LOOPBACK,
    }
    needs: dict[Service, tuple[str, ...]] = {
        "payment": ("acquirer",),
        "order": ("product", "payment"),
    }

    def service(name: Service) -> ProcessSpec:
        health = "/healthz" if name == "acquirer" else "/readyz"
        return ProcessSpec(
            name=name,
            argv=(*binaries[name], "serve"),
            env={
                **common,
                "PORT": str(ports[name]),
                "DATABASE_URL": databases[name],
                "FAULTS_FILE": str(setup.home / f"faults-{name}.json"),
                **({"WEB_CONCURRENCY": str(WORKERS)} if name == "product" else {}),
                **setup.env.get(name, {}),
            },
            ready_url=settings.url(ports[name]) + health,
            ports=(ports[name],),
            group="shop",
            needs=(*needs.get(name, ()), *((toxiproxy.NAME,) if setup.partitions else ())),
            stop_timeout_s=GRACE_S + 5,
        )

    specs = [service(name) for name in SERVICES]
    if setup.partitions:
        links: dict[str, Route] = {
            link: Route(ports[link], f"{HOST}:{ports[link.partition('-')[2]]}") for link in LINKS
        }
        config = setup.home / "toxiproxy.json"
        toxiproxy.configure(config, links)
        specs.append(toxiproxy.process(binaries[toxiproxy.NAME], ports["proxy"], config, links))
    return specs


def kill(leader: ProcessId) -> bool:
    """SIGKILL to a process and its whole group; False when it was gone already."""
    if leader.find() is None:
        return False
    try:
        os.killpg(leader.pid, 9)
    except ProcessLookupError:
        return False
    return True
