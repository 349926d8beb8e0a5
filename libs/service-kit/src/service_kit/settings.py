"""Typed settings from the environment; a bad one is named in one line."""

import sys
import tempfile
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

LogLevel = Literal["debug", "info", "warning", "error", "critical"]

# Values of these are never repeated, not even in an error message.
_SECRETS = frozenset({"admin_token", "database_url"})


class ServiceSettings(BaseSettings):
    """The variables every Python service reads; a service adds its own fields and defaults."""

    model_config = SettingsConfigDict(case_sensitive=False, env_ignore_empty=True, frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    database_url: str = "sqlite:///service.db"
    admin_token: SecretStr | None = None
    admin_token_file: Path | None = None
    faults_file: Path | None = None
    migrate_on_start: bool = True
    shutdown_grace_s: float = Field(default=20, ge=1, le=600)
    shutdown_delay_s: float = Field(default=0, ge=0, le=300)
    log_level: LogLevel = "info"
    max_body_bytes: int = Field(default=1_048_576, ge=1024)
    web_concurrency: int = Field(default=1, ge=1, le=64)

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        try:
            url = make_url(value)
        except ArgumentError:
            url = None
        backend = url.get_backend_name() if url is not None else ""
        if url is None or backend not in ("sqlite", "postgresql"):
            raise ValueError("use sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME")
        if backend == "sqlite" and url.database in (None, "", ":memory:"):
            raise ValueError("name a file: sqlite:///FILE (worker processes share it)")
        return value

    @field_validator("admin_token_file")
    @classmethod
    def _readable_token(cls, value: Path | None) -> Path | None:
        if value is not None:
            read_token(value)
        return value

    @model_validator(mode="after")
    def _delay_within_grace(self) -> Self:
        if self.shutdown_delay_s >= self.shutdown_grace_s:
            raise ValueError("SHUTDOWN_DELAY_S must be less than SHUTDOWN_GRACE_S")
        return self

    @property
    def url(self) -> URL:
        """The database URL with the driver we ship (psycopg 3 for PostgreSQL)."""
        url = make_url(self.database_url)
        if url.drivername == "postgresql":
            return url.set(drivername="postgresql+psycopg")
        return url

    @property
    def token(self) -> str | None:
        """The admin token, the file first; None hides the admin and fault endpoints."""
        if self.admin_token_file is not None:
            return read_token(self.admin_token_file)
        return self.admin_token.get_secret_value() if self.admin_token is not None else None

    def faults_path(self, service: str) -> Path:
        """Where the leases live: FAULTS_FILE, or beside the SQLite file, or in the temp dir."""
        if self.faults_file is not None:
            return self.faults_file
        name = f"faults-{service}.json"
        if self.url.get_backend_name() == "sqlite" and self.url.database:
            return Path(self.url.database).absolute().parent / name
        return Path(tempfile.gettempdir()) / name


def read_token(path: Path) -> str:
    """Read a bearer token from a file.

    Raises:
        ValueError: the file cannot be read or holds no token.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ValueError(f"cannot be read: {reason}") from None
    if not token:
        raise ValueError("is empty: write the token into it")
    return token


S = TypeVar("S", bound=ServiceSettings)


def load(cls: type[S], service: str) -> S:
    """Read `cls` from the environment; on bad values print a line for each and exit 2."""
    try:
        return cls()
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            name = str(problem["loc"][0]) if problem["loc"] else ""
            message = problem["msg"].removeprefix("Value error, ")
            variable = f"{name.upper()}: " if name else ""
            given = f" (got {str(problem['input'])!r})" if name and name not in _SECRETS else ""
            print(f"{service}: {variable}{message}{given}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
