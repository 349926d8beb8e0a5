"""What the services' models share."""

from datetime import UTC, datetime

from pydantic import BeforeValidator


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = BeforeValidator(_whole)
"""Makes a strict int JSON Schema's integer: 2 and 2.0, but neither "2" nor true.

It goes last, `Annotated[int, Field(strict=True, ge=1), WholeNumber]`: constraints that come after
it would not get into the schema.
"""


def rfc3339(unix_ms: int) -> str:
    """UTC with milliseconds and a Z."""
    when = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
