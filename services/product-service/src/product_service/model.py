"""What the service speaks: products, reservations, and the requests that change them.

Money is in minor units, times are Unix milliseconds inside and RFC 3339 outside.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from service_kit.types import WholeNumber, rfc3339

SKU_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$"
ORDER_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
RESERVED_SKUS = frozenset({"import"})
MAX_IMPORT = 10_000
MAX_LINES = 500

# Control characters help nobody, and PostgreSQL refuses NUL in text.
_TEXT = r"^[^\x00-\x1f\x7f]*$"
_PROSE = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"


def _not_reserved(sku: str) -> str:
    if sku in RESERVED_SKUS:
        raise ValueError("is the name of an endpoint")
    return sku


Sku = Annotated[str, StringConstraints(pattern=SKU_PATTERN), AfterValidator(_not_reserved)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_TEXT)]
Description = Annotated[str, StringConstraints(max_length=2000, pattern=_PROSE)]
Category = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=_TEXT)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
PriceMinor = Annotated[int, Field(ge=1, le=1_000_000_000), WholeNumber]
Stock = Annotated[int, Field(ge=0, le=1_000_000_000), WholeNumber]
Quantity = Annotated[int, Field(ge=1, le=10_000), WholeNumber]
TtlS = Annotated[int, Field(ge=1, le=3600), WholeNumber]
Sort = Literal["name", "-name", "price", "-price", "sku", "-sku"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ProductCreate(_Request):
    """A new product."""

    sku: Sku
    name: Name
    description: Description = ""
    category: Category
    price_minor: PriceMinor
    currency: Currency
    stock: Stock


class ProductReplace(_Request):
    """All of a product; `sku` may be left out, the path has it."""

    sku: Sku | None = None
    name: Name
    description: Description = ""
    category: Category
    price_minor: PriceMinor
    currency: Currency
    stock: Stock


class ProductPatch(_Request):
    """The fields of a product to change; only those that are sent count, and none may be null."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    name: Name = Field(default_factory=str)
    description: Description = Field(default_factory=str)
    category: Category = Field(default_factory=str)
    price_minor: PriceMinor = Field(default_factory=int)
    currency: Currency = Field(default_factory=str)
    stock: Stock = Field(default_factory=int)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("Send at least one field")
        return self


class ImportItem(_Request):
    """A product to create or update; without `stock` an existing product keeps its own."""

    sku: Sku
    name: Name
    description: Description = ""
    category: Category
    price_minor: PriceMinor
    currency: Currency
    stock: Stock | None = None


class ImportRequest(_Request):
    """Products to import in one transaction."""

    items: list[ImportItem] = Field(max_length=MAX_IMPORT)


class Line(_Request):
    """So many of one product."""

    sku: Sku
    quantity: Quantity


class ReservationRequest(_Request):
    """Goods to hold for an order for `ttl_s` seconds; lines of the same sku are added up."""

    order_id: Annotated[str, StringConstraints(pattern=ORDER_ID_PATTERN)]
    lines: list[Line] = Field(min_length=1, max_length=MAX_LINES)
    ttl_s: TtlS = 300


class ExtendRequest(_Request):
    """Hold a reservation for `ttl_s` seconds from now, if that is longer than it is held."""

    ttl_s: TtlS = 300


def _digits(value: str) -> int:
    """Digits only: int() would also take " 1 ", "+1" and "1_0"."""
    if not (value.isascii() and value.isdigit() and len(value) <= 10):
        raise ValueError("Input should be a whole number")
    return int(value)


_Digits = BeforeValidator(_digits)


class ProductQuery(BaseModel):
    """The query of the product list; without `sort`, by sku, and a search in catalogue order."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    limit: Annotated[int, Field(ge=1, le=100), _Digits] = 20
    cursor: str | None = Field(default=None, max_length=1000)
    q: str | None = Field(default=None, max_length=200)
    category: str | None = Field(default=None, max_length=64, pattern=_TEXT)
    min_price: Annotated[int, Field(ge=0, le=1_000_000_000), _Digits] | None = None
    max_price: Annotated[int, Field(ge=0, le=1_000_000_000), _Digits] | None = None
    sort: Sort | None = None


class StockLevel(NamedTuple):
    """What a category has: items that are free, and products of which none is."""

    free: int
    out: int


class Product(NamedTuple):
    """A product as stored; `version` grows with every change of it, stock included."""

    sku: str
    name: str
    description: str
    category: str
    price_minor: int
    currency: str
    stock: int
    version: int
    id: int

    def as_dict(self) -> dict[str, Any]:
        """The JSON answer."""
        return {
            "sku": self.sku,
            "name": self.name,
            "description": self.description,
            "category": self.category,
            "price_minor": self.price_minor,
            "currency": self.currency,
            "stock": self.stock,
        }

    @property
    def etag(self) -> str:
        """A strong validator (RFC 9110 section 8.8.3), unquoted."""
        return f"{self.id:x}-{self.version:x}"


@dataclass(frozen=True)
class Reservation:
    """Goods held for one order; the goods are out of stock while it is held or committed."""

    id: str
    status: Literal["held", "committed", "released", "expired"]
    expires_at_ms: int
    currency: str
    total_minor: int
    lines: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """The JSON answer."""
        return {
            "id": self.id,
            "order_id": self.id,
            "status": self.status,
            "expires_at": rfc3339(self.expires_at_ms),
            "currency": self.currency,
            "total_minor": self.total_minor,
            "lines": self.lines,
        }
