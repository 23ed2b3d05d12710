"""
SamplingLogRecordProcessor: for those whose logs go through OpenTelemetry's SDK already.

Works with the SDK from 1.27 on; what was `emit` there is called `on_emit` since 1.35.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from lipservice._settings import default_sampler_quietly, sampler_for
from lipservice._worker import is_own_thread
from lipservice.call_sites import CallSite, site_at
from lipservice.decision import Decision, Dropped
from lipservice.exceptions import MissingExtraError
from lipservice.export.capture import text_of
from lipservice.export.handler import is_own_logger
from lipservice.export.otlp import POLICY, RATE, RULE, SIGNATURE, WEIGHT
from lipservice.integrations._deciding import decide_watched, stamps_of
from lipservice.integrations._frozen import frozen
from lipservice.sampler import AdaptiveSampler
from lipservice.scope import WATCHED, current_scope

try:
    from opentelemetry.sdk._logs import LogRecordProcessor
except ImportError:
    raise MissingExtraError("opentelemetry-sdk", "posthog") from None

_BANDS: Final = ((21, "CRITICAL"), (17, "ERROR"), (13, "WARNING"), (9, "INFO"), (5, "DEBUG"))


class SamplingLogRecordProcessor(LogRecordProcessor):
    """
    Passes on to another processor what the sampler keeps.

    `provider.add_log_record_processor(SamplingLogRecordProcessor(BatchLogRecordProcessor(...)))`.
    It wraps the next processor because the SDK gives each record to every processor that is
    registered with it. Kept records get the attributes `lip_sig`, `lip_rate`, `lip_weight`,
    `lip_rule` and `lip_policy`. Within a request (`lipservice.request`) records share its fate, and
    are held and released. Thread-safe; never raises; in doubt it keeps.

    Args:
        next_processor: What gets the kept records.
        sampler: What decides; default: made from *settings*, else the default sampler.
        settings: As of `configure_adaptive_logging`.

    Raises:
        ConfigurationError: A setting is wrong.
    """

    def __init__(
        self, next_processor: Any, sampler: AdaptiveSampler | None = None, **settings: Any
    ) -> None:
        self._next = next_processor
        self._pass_on = getattr(next_processor, "on_emit", None) or next_processor.emit
        self._bound = sampler_for(sampler, settings)

    @property
    def sampler(self) -> AdaptiveSampler:
        """What decides."""
        return self._bound or default_sampler_quietly()

    def on_emit(self, log_record: Any) -> None:
        """Pass *log_record* on if it is kept."""
        record = log_record.log_record
        scope = getattr(log_record, "instrumentation_scope", None)
        name = getattr(scope, "name", None) or ""
        if is_own_thread() or is_own_logger(name):
            return  # the export of logs must not make logs
        body = record.body if type(record.body) is str else text_of(record.body)
        severity, sampler = _severity(record.severity_number), self.sampler
        request = current_scope() if WATCHED else None
        outcome: Decision | Dropped | None
        if request is not None or sampler.boosted_loggers:
            outcome = decide_watched(
                sampler, name, request, body, severity, _site_of, record, is_format=False
            )
        else:
            outcome = sampler.decide_at(body, severity, _site_of, record)
        if outcome is None:
            return
        if type(outcome) is Dropped and not outcome.scope.failed:
            self._hold(log_record, outcome)
            return
        _stamp(record, stamps_of(outcome, request))
        if type(outcome) is Dropped:
            outcome.scope.pass_on(outcome.row)
        elif request is not None and outcome.rule == "error":
            request.keep()  # what led to the error goes before it
        self._pass_on(log_record)

    def _hold(self, log_record: Any, dropped: Dropped) -> None:
        if not dropped.scope.holds:
            dropped.scope.refuse()
            return
        record = log_record.log_record
        try:
            body, size = frozen(record.body)
            size += frozen(dict(record.attributes or {}))[1]  # the SDK has copied these
        except Exception:  # a container in itself, say
            dropped.scope.refuse()
            return
        if body is not record.body:
            log_record, record = copy.copy(log_record), copy.copy(record)
            log_record.log_record, record.body = record, body

        def write() -> None:
            _stamp(record, stamps_of(dropped))
            self._pass_on(log_record)

        dropped.scope.hold(write, _HELD_BYTES + size, dropped.row)

    def emit(self, log_data: Any) -> None:
        """`on_emit` as the SDK called it before 1.35."""
        self.on_emit(log_data)

    def shutdown(self) -> None:
        """Shut the next processor down."""
        self._next.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the next processor, within *timeout_millis*."""
        return bool(self._next.force_flush(timeout_millis))


def _severity(number: Any) -> str:
    value = getattr(number, "value", number) or 9  # unspecified: as INFO
    return next((name for least, name in _BANDS if value >= least), "TRACE")


def _site_of(record: Any) -> CallSite | None:
    """Where the record was logged, if its attributes say so (OpenTelemetry's code attributes)."""
    attributes = record.attributes or {}
    path = attributes.get("code.file.path") or attributes.get("code.filepath")
    line = attributes.get("code.line.number") or attributes.get("code.lineno")
    return site_at(path, line) if type(path) is str and type(line) is int else None


def _stamp(record: Any, stamps: Mapping[str, Any]) -> None:
    named = {_NAMES.get(key, key): value for key, value in stamps.items() if value is not None}
    if named.get(WEIGHT) == 1.0:
        del named[WEIGHT], named[RATE]  # as it would be without us
    try:
        for key, value in named.items():
            record.attributes[key] = value
    except TypeError:  # none yet, or immutable in older SDKs
        record.attributes = {**(record.attributes or {}), **named}


_NAMES: Final = {
    "lipservice_signature": SIGNATURE,
    "lipservice_rate": RATE,
    "lipservice_weight": WEIGHT,
    "lipservice_rule": RULE,
    "lipservice_policy": POLICY,
}
# What a held record takes beside its body and attributes, about.
_HELD_BYTES: Final = 1000
