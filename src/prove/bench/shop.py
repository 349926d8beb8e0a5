"""What is measured: stacks of their own on free ports in a temporary home, and goods to sell."""

import dataclasses
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

from prove.bench.load import Request
from prove.bench.progress import Progress
from prove.errors import UserError
from prove.stack import lifecycle, processes, state
from prove.stack import settings as stack_settings
from prove.stack.settings import StackSettings
from prove.stack.spec import ProcessSpec
from prove.stack.state import StackState
from prove.stack.supervisor import Plan

SEED = 20101201
STOCK = 1_000_000_000  # the most a product can have: none is ever short
BATCH = 5_000
IMPORT_TIMEOUT_S = 120.0
# Each code is in the names of this many products, however large the catalogue.
PER_CODE = 10

_ADJECTIVES = ("amber", "carved", "dotted", "folded", "gilded", "ivory", "jolly", "lilac")
_MATERIALS = ("bamboo", "ceramic", "cotton", "enamel", "glass", "pewter", "wicker", "wool")
_THINGS = ("basket", "bowl", "candle", "clock", "cushion", "jug", "lantern", "teapot")


@contextmanager
def home() -> Iterator[StackSettings]:
    """Settings of a stack beside the user's own: other ports, a directory that goes in the end.

    It lies in the user's PROVE_HOME, so that databases are on the disk they always are on.
    """
    own = stack_settings.load().home
    try:
        own.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(
            prefix="bench-", dir=own, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise UserError(
            f"{own} cannot be written ({error.strerror}); set PROVE_HOME to another directory"
        ) from None
    with temporary as directory:
        yield stack_settings.on_free_ports(Path(directory))


def environment(settings: StackSettings) -> dict[str, str]:
    """The variables that make `provectl` use these settings."""
    ports = {
        f"{stack_settings.PREFIX}{name.upper()}": str(getattr(settings, name))
        for name in stack_settings.port_fields()
    }
    return {f"{stack_settings.PREFIX}HOME": str(settings.home), **ports}


@contextmanager
def running(
    settings: StackSettings, specs: Sequence[ProcessSpec], progress: Progress
) -> Iterator[StackState]:
    """Run these processes under the stack's own supervisor; nothing of them is left afterwards.

    Raises UserError when one does not become ready.
    """
    names = [spec.name for spec in specs]
    # A part of a stack doesn't wait for what isn't in it.
    alone = [
        dataclasses.replace(spec, needs=tuple(need for need in spec.needs if need in names))
        for spec in specs
    ]
    with lifecycle.lock(settings) as held:
        processes.prepare(settings, processes.ensure_binaries())
        supervisor = lifecycle.spawn(Plan(settings=settings, specs=alone), held)
        try:
            with progress.step("starting " + ", ".join(names)):
                current = lifecycle.wait_ready(supervisor, settings.home, lambda _: None)
            yield current
        except lifecycle.StartError as error:
            raise UserError(str(error)) from None
        finally:
            with progress.step("stopping"):
                supervisor.terminate()
                supervisor.wait()
                state.end(state.leftovers(settings.home))


def current(stack: StackState) -> StackState:
    """The stack as it is now; raises UserError when its supervisor is gone."""
    return state.require(stack.home)


def spec(specs: Sequence[ProcessSpec], name: str) -> ProcessSpec:
    """The process called `name`."""
    return next(spec for spec in specs if spec.name == name)


def another(
    settings: StackSettings,
    product: ProcessSpec,
    name: str,
    port: int,
    *,
    argv: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> ProcessSpec:
    """One more product service, with a database of its own, beside the one it is made from."""
    return dataclasses.replace(
        product,
        name=name,
        argv=argv or product.argv,
        env={
            **product.env,
            "PORT": str(port),
            "DATABASE_URL": f"sqlite:///{settings.data_dir / name}.db",
            "FAULTS_FILE": str(settings.data_dir / f"faults-{name}.json"),
            **(env or {}),
        },
        ports=(port,),
        ready_url=f"{settings.url(port)}/readyz",
    )


def catalogue(size: int) -> Iterator[dict[str, Any]]:
    """Products with generated names, the same ones each time."""
    draw = random.Random(SEED)  # noqa: S311 - names, not secrets
    for n in range(size):
        adjective, material = draw.choice(_ADJECTIVES), draw.choice(_MATERIALS)
        thing = draw.choice(_THINGS)
        yield {
            "sku": sku(n),
            "name": f"{adjective.title()} {material} {thing} {code(n)}",
            "description": f"A {thing} of {material}, {adjective}; packed by hand.",
            "category": f"{material} {thing}",
            "price_minor": draw.randrange(50, 20_000),
            "currency": "GBP",
            "stock": STOCK,
        }


def sku(n: int) -> str:
    """Of the n-th product."""
    return f"B{n:07}"


def code(n: int) -> str:
    """A word in the name of the n-th product that is in few others: a selective search term."""
    return f"zx{n // PER_CODE:06}"


def import_catalogue(settings: StackSettings, port: int, size: int, progress: Progress) -> None:
    """Fill the product service at `port` through its bulk import; raises UserError."""
    token = settings.admin_token_file.read_text().strip()
    url = f"{settings.url(port)}/api/v1/products/import"
    with (
        httpx.Client(timeout=IMPORT_TIMEOUT_S, trust_env=False) as client,
        progress.step(f"importing {size:,} products", size) as done,
    ):
        products = catalogue(size)
        sent = 0
        while items := list(islice(products, BATCH)):
            try:
                answer = client.post(
                    url, json={"items": items}, headers={"Authorization": f"Bearer {token}"}
                )
                answer.raise_for_status()
            except httpx.HTTPError as error:
                raise UserError(f"the catalogue could not be imported: {error}") from None
            sent += len(items)
            done(sent)


def ask(url: str) -> httpx.Response:
    """The answer to a GET; raises UserError when there is none, or another status than 2xx."""
    try:
        return httpx.get(url, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        raise UserError(f"a measured process does not answer: {error}") from None


def orders(url: str, size: int, count: int = 1_000) -> list[Request]:
    """Orders of one to three lines over a catalogue of `size` products."""
    draw = random.Random(SEED)  # noqa: S311 - goods, not secrets
    return [
        Request(
            "POST",
            f"{url}/api/v1/orders",
            expect=201,
            headers={"Idempotency-Key": "$id"},
            body={
                "customer_id": f"c{draw.randrange(10_000)}",
                "lines": [
                    {"sku": sku(n), "quantity": draw.randint(1, 5)}
                    for n in draw.sample(range(size), draw.randint(1, 3))
                ],
                "payment_method": "tok_approve",
            },
        )
        for _ in range(count)
    ]
