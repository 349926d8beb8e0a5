"""One log pipeline: JSON lines on stdout, and the same records to OpenTelemetry.

structlog renders; the standard library's loggers (gunicorn, uvicorn, sqlalchemy, warnings) are fed
into the same pipeline, so every line has the same fields.
"""

import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import structlog
from opentelemetry import trace
from pydantic_core import PydanticSerializationError, to_json

REQUEST_ID_HEADER = "X-Request-Id"

Event = MutableMapping[str, Any]
Sink = Callable[[Event], None]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CARD = re.compile(
    r"\b(?:[2-6]\d{3}(?:\d{12}(?:\d{3})?|(?:(?:[ +-]|%20)\d{4}){3})"
    r"|3[47]\d{2}(?:\d{11}|(?:[ +-]|%20)\d{6}(?:[ +-]|%20)\d{5}))\b",
    re.ASCII,
)
"""As the Collector masks them (observability/collector); lines on stdout don't get there."""
_CARD_MIN = 15
_MASK = "****"
_sinks: list[Sink] = []


def accept_request_id(given: str | None) -> str:
    """The caller's request id when it is well-formed and no card number, else a fresh one."""
    if given and _REQUEST_ID.fullmatch(given) and not _CARD.search(given):
        return given
    return uuid.uuid4().hex


def trace_ids() -> tuple[str | None, str | None]:
    """Hex trace and span id of the current span, or None for each."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None, None
    return format(context.trace_id, "032x"), format(context.span_id, "016x")


def setup(service: str, level: str) -> None:
    """Configure structlog and the standard library's logging for this process."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _mask_cards,
            _context(service),
            _to_sinks,
            _to_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_Bridge()]
    # Libraries chat at INFO; what they warn about is worth a line.
    root.setLevel(max(number, logging.WARNING))
    logging.captureWarnings(True)


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """A structlog logger whose lines carry `logger: name`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(logger_name=name)
    return logger


def add_sink(sink: Sink) -> None:
    """Hand every record to `sink` too, before it is rendered."""
    _sinks.append(sink)


def remove_sink(sink: Sink) -> None:
    """Stop handing records to `sink`."""
    if sink in _sinks:
        _sinks.remove(sink)


def _context(service: str) -> structlog.typing.Processor:
    def add(_logger: object, _method: str, event: Event) -> Event:
        trace_id, span_id = trace_ids()
        ts = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="microseconds")
        return {
            "ts": ts[:-6] + "Z",
            "level": event.pop("level"),
            "event": event.pop("event"),
            "logger": event.pop("logger_name", service),
            "service": service,
            "trace_id": trace_id,
            "span_id": span_id,
            "request_id": request_id.get(),
            **event,
        }

    return add


def _mask_cards(_logger: object, _method: str, event: Event) -> Event:
    """No card number is logged on purpose; but callers choose ids, and errors quote what came."""
    for key, value in event.items():
        if isinstance(value, str) and len(value) >= _CARD_MIN:
            event[key] = _CARD.sub(_MASK, value)
        elif isinstance(value, dict | list | tuple):
            event[key] = _masked(value)
    return event


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return _CARD.sub(_MASK, value)
    if isinstance(value, dict):
        return {_masked(key): _masked(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(each) for each in value]
    return value


def _to_sinks(_logger: object, _method: str, event: Event) -> Event:
    for sink in _sinks:
        sink(event)
    return event


def _to_json(_logger: object, _method: str, event: Event) -> bytes:
    try:
        return to_json(event, fallback=str, inf_nan_mode="null")
    except PydanticSerializationError:  # a lone surrogate must not lose the line
        return json.dumps(event, default=str).encode()


class _Bridge(logging.Handler):
    """Feeds standard library records into the structlog pipeline."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            get_logger(record.name).log(
                record.levelno, record.getMessage(), exc_info=record.exc_info or None
            )
        except Exception:  # logging's contract: a handler never raises
            self.handleError(record)
