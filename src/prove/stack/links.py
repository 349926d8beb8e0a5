"""The links of a drill stack: who calls whom through a proxy that can disturb them."""

from typing import Literal, get_args

Link = Literal[
    "order-product",
    "order-payment",
    "payment-acquirer",
    "product-database",
    "order-database",
    "payment-database",
]
LINKS: tuple[Link, ...] = get_args(Link)
