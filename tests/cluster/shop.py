"""The shop as the chart installs it, customers in a pod, and its books read from outside."""

import base64
import json
import re
import secrets
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from prove import images
from prove.mesh import kubernetes
from prove.tools import repository_root
from prove.verify import audit
from prove.verify.books import Books, Sources, read
from tests.cluster import toys
from tests.cluster.lab import Kubectl
from tests.cluster.lab.cluster import BUYER
from tests.cluster.lab.kubectl import Object, eventually

RELEASE = "prove"
NAMESPACE = "prove-test"
CLIENTS = "prove-test-clients"
SERVICES = ("product", "order", "payment")
PORTS = {"product": 8001, "order": 8002, "payment": 8003, "acquirer": 8004}
CHART = repository_root() / "charts" / "prove"
INBOX = "inbox"
"""A Service of the clients: where alerts are delivered to."""
GOODS = 20
ERRORS = 0.01
"""The share of requests that the objectives allow to fail (observability/slos)."""


class HelmError(Exception):
    """What Helm said when it failed."""


@dataclass
class Shop:
    """One release in a namespace of its own, and a namespace of clients that may reach it."""

    kubectl: Kubectl
    helm_binary: Path
    values: dict[str, Any]
    namespace: str = NAMESPACE
    clients: str = CLIENTS
    meshed: bool = False
    """Whether Envoys are before the services, and an edge before all."""

    def helm(self, *arguments: str, stdin: str = "", timeout: float = 900) -> str:
        """Helm in the shop's namespace; raises HelmError."""
        config = self.kubectl.kubeconfig
        done = subprocess.run(
            [str(self.helm_binary), "-n", self.namespace, *arguments]
            + (["--kubeconfig", str(config)] if config else []),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise HelmError(done.stderr.strip())
        return done.stdout

    def deploy(self, *more: str, seconds: int = 480, **changes: Any) -> str:
        """`helm upgrade --install`, waiting for all to be ready; `changes` are further values."""
        return self.helm(
            *("upgrade", "--install", RELEASE, str(CHART)),
            *("-f", str(CHART / "values-kind.yaml"), "-f", "-"),
            *("--wait", f"--timeout={seconds}s", *more),
            stdin=yaml.safe_dump(merged(self.values, changes)),
            timeout=seconds + 120,
        )

    def make_namespaces(self) -> None:
        """Both namespaces, as a careful operator makes them: restricted pods only."""
        for name in (self.namespace, self.clients):
            self.kubectl.make_namespace(toys.namespace(name))

    def remove_namespaces(self) -> None:
        """Both, with all that is in them."""
        for name in (self.namespace, self.clients):
            self.kubectl("delete", "namespace", name, "--ignore-not-found", "--timeout=180s")

    def behind(self, service: str) -> tuple[str, int]:
        """Where `forward` finds a service itself, past its proxy if it has one."""
        port = PORTS[service]
        if self.meshed:
            return f"deployment/{service}", kubernetes.BEHIND + port
        return f"service/{service}", port

    def secret(self, key: str) -> str:
        """A password or token of the release."""
        data = self.kubectl.get("secret", "prove", self.namespace)["data"]
        return base64.b64decode(data[key]).decode()

    def stock(self) -> None:
        """Goods that don't run out."""
        lines = [
            {
                "sku": f"LAB-{number:03}",
                "name": f"Article {number}",
                "description": "",
                "category": "lab",
                "price_minor": 1000 + number,
                "currency": "EUR",
                "stock": 1_000_000,
            }
            for number in range(GOODS)
        ]
        token = self.secret("admin-token")
        with self.forward(*self.behind("product")) as port:
            httpx.post(
                f"http://127.0.0.1:{port}/api/v1/products/import",
                json={"items": lines},
                headers={"Authorization": f"Bearer {token}"},
                timeout=30,
            ).raise_for_status()

    def order(self, sku: str) -> str:
        """One order at the customers' door; the id of its trace."""
        trace = secrets.token_hex(16)
        with self.forward(*self.door("order")) as port:
            answer = httpx.post(
                f"http://127.0.0.1:{port}/api/v1/orders",
                json={
                    "customer_id": "traced",
                    "lines": [{"sku": sku, "quantity": 1}],
                    "payment_method": "tok_approve",
                },
                headers={
                    "Idempotency-Key": secrets.token_hex(16),
                    "traceparent": f"00-{trace}-{secrets.token_hex(8)}-01",
                },
                timeout=30,
            )
        assert answer.status_code == 201, answer.text
        return trace

    def door(self, service: str) -> tuple[str, int]:
        """Where customers find a service, as `forward` takes it: at the edge, if there is one."""
        if self.meshed:
            return "service/edge", kubernetes.EDGE_PORT
        return f"service/{service}", PORTS[service]

    def start_customers(self, rate: int) -> None:
        """The pod that buys, `rate` orders a second."""
        environment = {"RATE": str(rate)}
        for name, service in (("ORDERS", "order"), ("PRODUCTS", "product")):
            target, port = self.door(service)
            host = f"{target.removeprefix('service/')}.{self.namespace}.svc.cluster.local"
            environment[name] = f"http://{host}:{port}"
        env = [{"name": name, "value": value} for name, value in environment.items()]
        self.kubectl.apply(toys.pod("buyer", image=BUYER, env=env), namespace=self.clients)
        self.kubectl(
            "wait", "-n", self.clients, "--for=condition=Ready", "pod/buyer", "--timeout=60s"
        )

        def is_buying() -> bool:
            return bool(self.bought()["requests"])

        eventually("customers are buying", is_buying)

    def customers(self, *words: str) -> str:
        """What the customers' pod says to `buyer WORDS…`."""
        return self.kubectl.exec(self.clients, "buyer", "/buyer", *words)

    def bought(self) -> Any:
        """What the customers have asked for so far, and what came of it."""
        return json.loads(self.customers("stats"))

    @contextmanager
    def watched(self, figures: dict[str, Any]) -> Iterator[None]:
        """Customers buy meanwhile; `figures` gets how many requests there were and how many failed.

        Raises AssertionError with what failed.
        """
        before = self.bought()
        self.customers("forget")
        yield
        # Those that are under way belong to it.
        asked = self.bought()
        asked_for = asked["requests"] + asked["waiting"]
        eventually("all are answered", lambda: self.bought()["requests"] >= asked_for, seconds=60)
        after = self.bought()
        figures["requests"] = after["requests"] - before["requests"]
        figures["failed"] = after["failed"] - before["failed"]
        figures["p95_ms"] = round(after["p95_ms"])
        assert figures["requests"] > 0
        assert figures["failed"] == 0, after["failures"]

    @contextmanager
    def forward(self, target: str, port: int) -> Iterator[int]:
        """A local port to a pod of `target`, as in `service/order`."""
        process = subprocess.Popen(
            [*self.kubectl.command, "-n", self.namespace, "port-forward", target, f":{port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            match = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert match, line + process.stderr.read()
            yield int(match[1])
        finally:
            process.kill()
            process.communicate()

    def books(self) -> Books:
        """What the databases and the acquirer's ledger say."""
        with (
            tempfile.TemporaryDirectory() as directory,
            self.forward("service/postgresql", 5432) as database,
            self.forward("service/acquirer", PORTS["acquirer"]) as acquirer,
        ):
            ledger = Path(directory) / "ledger.db"
            _write_ledger(ledger, f"http://127.0.0.1:{acquirer}")
            urls = {
                name: f"postgresql://{name}:{self.secret(f'{name}-password')}"
                f"@127.0.0.1:{database}/{name}"
                for name in SERVICES
            }
            return read(Sources(**urls, acquirer=f"sqlite:///{ledger}"))

    def assert_no_order_lost(self) -> int:
        """Every order that a customer was told of is in the books, which agree; how many they are.

        What is unfinished is waited for.
        """
        confirmed = set(self.customers("orders").split())

        def agreed() -> bool:
            books = self.books()
            known = {order.id: order for order in books.orders}
            missing = sorted(confirmed - set(known))
            assert not missing, f"told to customers, not in the books: {missing[:5]}"
            differences = audit.audit(books, 30)
            assert not differences, differences[:5]
            return True

        eventually("the books agree", agreed)
        return len(confirmed)

    def ready_pods(self, name: str) -> list[Object]:
        """Pods of one part that aren't on their way out."""
        return self.kubectl.pods(self.namespace, f"app.kubernetes.io/name={name}")


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Values with changes, part by part."""
    result = dict(values)
    for key, value in changes.items():
        known = result.get(key)
        both = isinstance(value, dict) and isinstance(known, dict)
        result[key] = merged(known, value) if both and known is not None else value
    return result


def lab_values(registry: str) -> dict[str, Any]:
    """What differs here from values-kind.yaml: our images, two of each service, quick alerts."""
    two = {"autoscaling": {"min": 2, "max": 4, "scaleDownAfterSeconds": 15}}
    return merged(
        images.chart_values(registry),
        {
            **dict.fromkeys(SERVICES, two),
            # Two cores can't carry the customers for whom the chart's own request would be too low.
            "product": {**two, "resources": {"requests": {"cpu": "120m"}}},
            "environment": "lab",
            "alerts": {"profile": "drill"},
            "grafana": {"enabled": False},  # its image can't be built
            "podSecurity": {"require": True},
            "alertmanager": {"webhookUrl": f"http://{INBOX}.{CLIENTS}.svc.cluster.local/inbox"},
            # Of the toy that is the inbox; with a policy it is the pod's port that counts.
            "networkPolicy": {"clients": peers(CLIENTS), "alertPorts": [8080]},
        },
    )


def peers(namespace: str) -> list[Any]:
    """All pods of a namespace, as a network policy names them."""
    return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}]


def _write_ledger(path: Path, url: str) -> None:
    """The acquirer's ledger, read by HTTP, in the form of its database."""
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE entries (seq, kind, key, charge_key, status, amount_minor, currency, "
            "reference, created_at)"
        )
        after: int | None = 0
        while after is not None:
            answer = httpx.get(
                f"{url}/v1/ledger", params={"after": after, "limit": 1000}, timeout=30
            )
            page = answer.raise_for_status().json()
            for entry in page["entries"]:
                created = datetime.fromisoformat(entry["created_at"])
                connection.execute(
                    "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(entry[key] for key in ("seq", "kind", "key")),
                        entry.get("charge_key", ""),
                        *(entry[key] for key in ("status", "amount_minor", "currency")),
                        entry.get("reference", ""),
                        int(created.timestamp() * 1_000_000),
                    ),
                )
            after = page.get("next")
    connection.close()
