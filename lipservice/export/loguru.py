"""PostHogSink: loguru to the exporter. Translates and delegates."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from lipservice._worker import is_own_thread
from lipservice.exceptions import MissingExtraError
from lipservice.export import capture
from lipservice.export.capture import Entry
from lipservice.export.config import PostHogConfig
from lipservice.export.exporter import PostHogOTLPExporter
from lipservice.export.handler import config_of, is_own_logger

if importlib.util.find_spec("loguru") is None:
    raise MissingExtraError("loguru", "loguru")

if TYPE_CHECKING:
    from loguru import Message, Record

_LEVEL_NAMES: Final = frozenset({"TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})


class PostHogSink:
    """
    A sink for loguru's `logger.add`, which sends records to PostHog in the background.

    `logger.add(PostHogSink(api_key="phc_..."), filter=LoguruFilter(cost_target=0.1))` sends what
    the sampler keeps; "{message}" as `format=` spares loguru's longer default. Bound values are
    attributes. Thread-safe; never waits, never raises.

    Args:
        config: Where to send to and how; or a mapping of PostHogConfig's parameters.
        exporter: An exporter to share; by default the sink has its own.
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
        self._owned = exporter is None
        #: The exporter behind this sink.
        self.exporter = exporter or PostHogOTLPExporter(config_of(config, settings))

    def write(self, message: Message) -> None:
        """Queue the record of *message*; loguru calls this."""
        record = message.record
        if is_own_thread() or is_own_logger(record["name"] or ""):
            return
        try:
            self.exporter.submit(*_entry(record))
        except Exception:
            self.exporter.miss()

    def stop(self) -> None:
        """Send what is queued, within `shutdown_timeout`; loguru calls this from `remove`."""
        if self._owned:
            self.exporter.stop()


def _entry(record: Record) -> tuple[Entry, int]:
    level, text = record["level"], record["message"]
    attributes, size = capture.fields_of(record["extra"])
    exception = record["exception"]
    error = capture.exception_text(exception.value) if exception is not None else None
    entry = (
        record["time"].timestamp(),
        capture.otel_number(level.no),
        "" if level.name in _LEVEL_NAMES else level.name,
        record["name"] or "",
        text,
        None,
        None,
        attributes,
        record["file"].path,
        record["line"],
        record["function"],
        capture.current_trace() if "opentelemetry.trace" in sys.modules else None,
        capture.current_context(),
        error,
    )
    size += len(text) + (len(error[2]) if error else 0)
    return cast("Entry", entry), 1 + size // capture.SLOT_CHARS
