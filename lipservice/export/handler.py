"""PostHogHandler: `logging` to the exporter. Translates and delegates."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from threading import get_ident
from typing import Any

from lipservice._worker import OWN_THREADS
from lipservice.exceptions import ConfigurationError
from lipservice.export.capture import entry_of_record
from lipservice.export.config import PostHogConfig
from lipservice.export.exporter import PostHogOTLPExporter


def config_of(config: object, settings: Mapping[str, Any]) -> PostHogConfig:
    """
    The PostHogConfig that an adapter's arguments mean: one made, a mapping of its parameters
    (as `logging.config.dictConfig` gives it), or the parameters themselves.

    Raises:
        ConfigurationError: A parameter is wrong or unknown.
    """
    if isinstance(config, PostHogConfig):
        if settings:
            raise ConfigurationError(f"config: is complete; {sorted(settings)} cannot be added")
        return config
    if config is not None and not isinstance(config, Mapping):
        raise ConfigurationError("config: must be a PostHogConfig or a mapping of its parameters")
    try:
        return PostHogConfig(**{**(config or {}), **settings})
    except TypeError as error:
        raise ConfigurationError(f"config: {error}") from None


def is_own_logger(name: str) -> bool:
    """Whether *name* is one of LipService's own loggers, which never feed the export."""
    return name[:10] == "lipservice" and name[10:11] in {"", "."}


class PostHogHandler(logging.Handler):
    """
    Sends records to PostHog in the background. Thread-safe; `emit` never waits and never raises.

    Put it behind a `lipservice.SamplingFilter` to send only what the sampler keeps; records then
    carry their signature and weight. Records of the logger `lipservice` and of LipService's own
    threads are not sent, so that the export never feeds itself.

    Args:
        config: Where to send to and how; or a mapping of PostHogConfig's parameters.
        level: Least severe level to send.
        exporter: An exporter to share; by default the handler has its own.
        **settings: PostHogConfig's parameters, instead of *config*.

    Raises:
        ConfigurationError: A parameter is wrong.
    """

    def __init__(
        self,
        config: PostHogConfig | Mapping[str, Any] | None = None,
        level: int | str = logging.NOTSET,
        *,
        exporter: PostHogOTLPExporter | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(level)
        self._owned = exporter is None
        #: The exporter behind this handler.
        self.exporter = exporter or PostHogOTLPExporter(config_of(config, settings))
        self._submit = self.exporter.submit

    def handle(self, record: logging.LogRecord) -> bool | logging.LogRecord:  # type: ignore[override]
        """As `logging.Handler.handle`, but without its lock: `emit` needs none."""
        passed: bool | logging.LogRecord = True
        if self.filters:
            passed = self.filter(record)
            if isinstance(passed, logging.LogRecord):  # since Python 3.12 a filter may replace it
                record = passed
        if passed:
            self.emit(record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Queue *record*."""
        # A record may come from another process (QueueListener), whose thread has the same ident.
        if record.thread in OWN_THREADS and get_ident() in OWN_THREADS:
            return
        name = record.name
        if name[:10] == "lipservice" and is_own_logger(name):
            return
        try:
            entry, places = entry_of_record(record)
        except Exception:
            self._emit_incomplete(record)
        else:
            self._submit(entry, places)

    def _emit_incomplete(self, record: logging.LogRecord) -> None:
        """A record that lacks what every one has, since somebody took it out."""
        try:
            self._submit(*entry_of_record(logging.makeLogRecord(record.__dict__)))
        except Exception:  # not `handleError`, which prints
            self.exporter.miss()

    def flush(self) -> None:
        """
        Nothing: records are sent within `flush_interval`.

        `logging.shutdown` and others call this where waiting would hurt; `close` and
        `exporter.flush` wait.
        """

    def close(self) -> None:
        """Send what is queued, within `shutdown_timeout`, and end the background thread."""
        if self._owned:
            self.exporter.stop()
        super().close()
