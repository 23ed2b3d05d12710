"""
SamplingLogRecordProcessor: for those whose logs go through OpenTelemetry's SDK already.

Works with the SDK from 1.27 on; what was `emit` there is called `on_emit` since 1.35.
"""

from __future__ import annotations

from typing import Any, Final

from lipservice._settings import default_sampler_quietly, sampler_for
from lipservice._worker import is_own_thread
from lipservice.exceptions import MissingExtraError
from lipservice.export.capture import text_of
from lipservice.export.handler import is_own_logger
from lipservice.export.otlp import RATE, SIGNATURE, WEIGHT
from lipservice.sampler import AdaptiveSampler

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
    registered with it. Kept records get the attributes `lip_sig`, `lip_rate` and `lip_weight`.
    Thread-safe; never raises; in doubt it keeps.

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
        body = record.body
        decision = self.sampler.decide_message(
            body if type(body) is str else text_of(body), _severity(record.severity_number)
        )
        if decision is None:
            return
        _stamp(record, decision.signature, decision.rate, decision.weight)
        self._pass_on(log_record)

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


def _stamp(record: Any, signature: str, rate: float, weight: float) -> None:
    stamps: dict[str, Any] = {SIGNATURE: signature}
    if weight != 1.0:
        stamps.update({RATE: rate, WEIGHT: weight})
    try:
        for key, value in stamps.items():
            record.attributes[key] = value
    except TypeError:  # none yet, or immutable in older SDKs
        record.attributes = {**(record.attributes or {}), **stamps}
