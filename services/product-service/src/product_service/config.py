"""Settings of the product service: the common ones and its own."""

from pydantic import Field
from service_kit.settings import ServiceSettings


class Settings(ServiceSettings):
    """Environment variables; see the table in the README."""

    port: int = Field(default=8001, ge=1, le=65535)
    database_url: str = "sqlite:///product.db"
    threads: int = Field(default=8, ge=1, le=128)
    max_import_bytes: int = Field(default=16_777_216, ge=1024)
