"""PostHogProcessor: structlog to the exporter. Translates and delegates."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, MutableMapping
from datetime import datetime
from typing import Any, Final, cast

from lipservice._worker import is_own_thread
from lipservice.exceptions import MissingExtraError
from lipservice.export import capture
from lipservice.export.capture import Entry
from lipservice.export.config import PostHogConfig
from lipservice.export.exporter import PostHogOTLPExporter
from lipservice.export.handler import config_of, is_own_logger
from lipservice.scope import defer
from lipservice.severity import OTEL_NUMBERS, severity_name

try:
    import structlog as _structlog  # noqa: F401 - its absence is told here, not at the first event
except ImportError:
    raise MissingExtraError("structlog", "structlog") from None

#: Keys of an event dict that are fields of the record, or structlog's own.
_FIELDS: Final = frozenset(
    {
        *("event", "level", "level_number", "logger", "logger_name", "timestamp"),
        *("exc_info", "exception", "stack_info", "stack", "positional_args"),
        *("pathname", "filename", "lineno", "func_name", "module"),
        *("_record", "_from_structlog", "_logger", "_name"),
    }
)


class PostHogProcessor:
    """
    Sends each event to PostHog in the background and passes it on unchanged.

    Put it behind `SamplingProcessor` (so that only kept events are sent, with their weights) and
    `merge_contextvars`, before the renderer. Not together with a PostHogHandler behind the same
    logger, which would send everything twice. Thread-safe; never waits, never raises.

    Args:
        config: Where to send to and how; or a mapping of PostHogConfig's parameters.
        exporter: An exporter to share; by default the processor has its own.
        **settings: PostHogConfig's parameters, instead of *config*.

    Raises:
        ConfigurationError: A parameter is wrong.
    """

    def __init__(
        self,
        config: PostHogConfig | Mapping[str, Any] | None = None,
        *,
        exporter: PostHogOTLPExporter | None = None,
        **settings: Any,
    ) -> None:
        #: The exporter behind this processor.
        self.exporter = exporter or PostHogOTLPExporter(config_of(config, settings))

    def __call__(
        self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """The event, unchanged."""
        if is_own_thread():
            return event_dict
        try:
            entry, places = _entry(logger, method_name, event_dict)
            if not is_own_logger(entry[3]) and not defer(
                lambda: self.exporter.submit(entry, places)
            ):
                self.exporter.submit(entry, places)
        except Exception:
            self.exporter.miss()
        return event_dict

    def close(self) -> None:
        """Send what is queued, within `shutdown_timeout`, and end the background thread."""
        self.exporter.stop()


def _entry(logger: Any, method_name: str, event: Mapping[str, Any]) -> tuple[Entry, int]:
    message, template = event.get("event", ""), None
    if type(message) is not str:
        message = capture.text_of(message)
    if event.get("positional_args"):
        template, message = message, capture.formatted(message, event["positional_args"])
    name = event.get("logger") or event.get("logger_name") or getattr(logger, "name", None) or ""
    attributes, size = capture.fields_of(event, _FIELDS)
    exception = _exception(event)
    entry = (
        _time(event.get("timestamp")),
        OTEL_NUMBERS[severity_name(event.get("level") or method_name)],
        "",
        name if type(name) is str else capture.text_of(name),
        message,
        None,
        template,
        attributes,
        *_code(event),
        capture.current_trace() if "opentelemetry.trace" in sys.modules else None,
        capture.current_context(),
        exception,
    )
    size += len(message) + (len(exception[2]) if exception else 0)
    return cast("Entry", entry), 1 + size // capture.SLOT_CHARS


def _exception(event: Mapping[str, Any]) -> tuple[str, str, str] | None:
    if event.get("exc_info"):
        return capture.exception_text(event["exc_info"])
    rendered = event.get("exception")  # where a processor has formatted it already
    return ("", "", capture.text_of(rendered)) if rendered else None


def _time(timestamp: object) -> float:
    """TimeStamper's time where it is unmistakable, else now."""
    if isinstance(timestamp, float):
        return timestamp
    if isinstance(timestamp, str) and timestamp.endswith(("Z", "+00:00")):
        try:
            return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()
        except ValueError:
            pass
    return time.time()


def _code(event: Mapping[str, Any]) -> tuple[str, int, str]:
    """What CallsiteParameterAdder found, where the chain has one before this processor."""
    path, line = event.get("pathname") or event.get("filename"), event.get("lineno")
    if not isinstance(path, str) or not isinstance(line, int):
        return "", 0, ""
    return path, line, str(event.get("func_name") or "")
