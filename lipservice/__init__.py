"""
LipService: samples an application's logs by pattern, inside the process.

Importing this package starts nothing and imports no third-party package: each public name is
loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lipservice._lazy import attribute_of
from lipservice._version import __version__

if TYPE_CHECKING:
    from lipservice._settings import boost as boost
    from lipservice._settings import default_sampler as default_sampler
    from lipservice._settings import explain as explain
    from lipservice._settings import ledger as ledger
    from lipservice.client import LipServiceClient as LipServiceClient
    from lipservice.configure import configure_adaptive_logging as configure_adaptive_logging
    from lipservice.configure import get_logger as get_logger
    from lipservice.configure import shutdown as shutdown
    from lipservice.decision import Decision as Decision
    from lipservice.decision import Explanation as Explanation
    from lipservice.decision import LedgerEntry as LedgerEntry
    from lipservice.decision import Totals as Totals
    from lipservice.exceptions import ConfigurationError as ConfigurationError
    from lipservice.exceptions import LipServiceError as LipServiceError
    from lipservice.exceptions import MissingExtraError as MissingExtraError
    from lipservice.exceptions import PolicyError as PolicyError
    from lipservice.export import LogContext as LogContext
    from lipservice.export import PostHogConfig as PostHogConfig
    from lipservice.export import PostHogHandler as PostHogHandler
    from lipservice.export import PostHogOTLPExporter as PostHogOTLPExporter
    from lipservice.export import PostHogProcessor as PostHogProcessor
    from lipservice.export import PostHogSink as PostHogSink
    from lipservice.export import SamplingLogRecordProcessor as SamplingLogRecordProcessor
    from lipservice.integrations.loguru import LoguruFilter as LoguruFilter
    from lipservice.integrations.loguru import SamplingSink as SamplingSink
    from lipservice.integrations.stdlib import SamplingFilter as SamplingFilter
    from lipservice.integrations.stdlib import SamplingHandler as SamplingHandler
    from lipservice.integrations.stdlib import SamplingLogger as SamplingLogger
    from lipservice.integrations.stdlib import sampling_logger_class as sampling_logger_class
    from lipservice.integrations.structlog import SamplingProcessor as SamplingProcessor
    from lipservice.integrations.structlog import sampling_bound_logger as sampling_bound_logger
    from lipservice.patterns import PatternStats as PatternStats
    from lipservice.policy import SamplingPolicy as SamplingPolicy
    from lipservice.sampler import AdaptiveSampler as AdaptiveSampler
    from lipservice.scope import RecorderLimits as RecorderLimits
    from lipservice.scope import keep_request as keep_request
    from lipservice.scope import recorder_totals as recorder_totals
    from lipservice.scope import request as request

#: Public name -> the module that holds it; tests/test_public_api.py pins it.
_HOMES = {
    "AdaptiveSampler": "lipservice.sampler",
    "ConfigurationError": "lipservice.exceptions",
    "Decision": "lipservice.decision",
    "Explanation": "lipservice.decision",
    "LedgerEntry": "lipservice.decision",
    "LipServiceClient": "lipservice.client",
    "LipServiceError": "lipservice.exceptions",
    "LogContext": "lipservice.export",
    "LoguruFilter": "lipservice.integrations.loguru",
    "MissingExtraError": "lipservice.exceptions",
    "PatternStats": "lipservice.patterns",
    "PolicyError": "lipservice.exceptions",
    "PostHogConfig": "lipservice.export",
    "PostHogHandler": "lipservice.export",
    "PostHogOTLPExporter": "lipservice.export",
    "PostHogProcessor": "lipservice.export",
    "PostHogSink": "lipservice.export",
    "SamplingLogRecordProcessor": "lipservice.export",
    "SamplingFilter": "lipservice.integrations.stdlib",
    "SamplingHandler": "lipservice.integrations.stdlib",
    "SamplingLogger": "lipservice.integrations.stdlib",
    "SamplingPolicy": "lipservice.policy",
    "SamplingProcessor": "lipservice.integrations.structlog",
    "SamplingSink": "lipservice.integrations.loguru",
    "Totals": "lipservice.decision",
    "boost": "lipservice._settings",
    "configure_adaptive_logging": "lipservice.configure",
    "default_sampler": "lipservice._settings",
    "explain": "lipservice._settings",
    "get_logger": "lipservice.configure",
    "sampling_bound_logger": "lipservice.integrations.structlog",
    "sampling_logger_class": "lipservice.integrations.stdlib",
    "RecorderLimits": "lipservice.scope",
    "keep_request": "lipservice.scope",
    "ledger": "lipservice._settings",
    "recorder_totals": "lipservice.scope",
    "request": "lipservice.scope",
    "shutdown": "lipservice.configure",
}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604 - the table above is the one list


def __getattr__(name: str) -> object:
    return attribute_of(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return sorted(__all__)
