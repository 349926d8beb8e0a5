"""The links of a drill stack: who calls whom through a proxy that can disturb them."""

from typing import Literal, NamedTuple, get_args

Link = Literal[
    "order-product",
    "order-payment",
    "payment-acquirer",
    "product-database",
    "order-database",
    "payment-database",
]
LINKS: tuple[Link, ...] = get_args(Link)
HOST = "127.0.0.1"


class Route(NamedTuple):
    """Where a link listens, on loopback, and where it leads: `host:port`."""

    port: int
    upstream: str

    @property
    def listen(self) -> str:
        """Its own address."""
        return f"{HOST}:{self.port}"
