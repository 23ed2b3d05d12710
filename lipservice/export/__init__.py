"""
Export of kept log records to PostHog Logs, or to any other receiver of OTLP over HTTP.

    config.py     PostHogConfig, LogContext: what the user says, checked
    capture.py    what a logging call pays: an immutable entry, nothing else
    lanes.py      the bounded queue between callers and the worker
    otlp.py       pure: entry -> protobuf bytes
    redaction.py  pure: what must not leave the process
    http.py       one POST with a deadline, and what its answer means
    spool.py      what could not be sent, on disk
    losses.py     whose records were lost, and why
    exporter.py   PostHogOTLPExporter: batches, retries, accounts
    handler.py, structlog.py, loguru.py, opentelemetry.py   adapters: translate and delegate

Rule: nothing of it is imported before it is used, and each framework only in its own adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lipservice._lazy import attribute_of

if TYPE_CHECKING:
    from lipservice.export.config import LogContext as LogContext
    from lipservice.export.config import PostHogConfig as PostHogConfig
    from lipservice.export.exporter import PostHogOTLPExporter as PostHogOTLPExporter
    from lipservice.export.handler import PostHogHandler as PostHogHandler
    from lipservice.export.loguru import PostHogSink as PostHogSink
    from lipservice.export.opentelemetry import (
        SamplingLogRecordProcessor as SamplingLogRecordProcessor,
    )
    from lipservice.export.structlog import PostHogProcessor as PostHogProcessor

_HOMES = {
    "LogContext": "lipservice.export.config",
    "PostHogConfig": "lipservice.export.config",
    "PostHogHandler": "lipservice.export.handler",
    "PostHogOTLPExporter": "lipservice.export.exporter",
    "PostHogProcessor": "lipservice.export.structlog",
    "PostHogSink": "lipservice.export.loguru",
    "SamplingLogRecordProcessor": "lipservice.export.opentelemetry",
}

__all__ = [*_HOMES]  # noqa: PLE0604 - the table above is the one list


def __getattr__(name: str) -> object:
    return attribute_of(__name__, _HOMES, name)
