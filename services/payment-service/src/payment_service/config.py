"""The settings of the Payment Service, from the environment."""

from typing import Self

from pydantic import AnyHttpUrl, Field, model_validator
from service_kit.settings import ServiceSettings

SERVICE = "payment-service"


class Settings(ServiceSettings):
    """Beyond what every service reads: the acquirer, and how the worker goes about it."""

    port: int = Field(default=8003, ge=1, le=65535)
    database_url: str = "sqlite:///payment.db"
    web_concurrency: int = Field(default=1, ge=1, le=64)
    acquirer_url: AnyHttpUrl = AnyHttpUrl("http://127.0.0.1:8004")
    acquirer_timeout_s: float = Field(default=3, gt=0, le=60)
    """How long one ask of the acquirer may take; after it the outcome is unknown."""
    worker_lease_s: float = Field(default=5, gt=0, le=600)
    """How long a payment belongs to the process that asks for it."""
    worker_poll_s: float = Field(default=1, gt=0, le=60)
    """How often a process looks for payments whose lease has run out."""

    @model_validator(mode="after")
    def _lease_outlasts_ask(self) -> Self:
        if self.worker_lease_s <= self.acquirer_timeout_s:
            raise ValueError("WORKER_LEASE_S must be more than ACQUIRER_TIMEOUT_S")
        return self
