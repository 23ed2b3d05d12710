"""The names, parameters and defaults that users were promised; an import that starts nothing."""

import inspect
import logging
import subprocess
import sys

import pytest

import lipservice
from lipservice import performance

NAMES = {
    "AdaptiveSampler", "ConfigurationError", "Decision", "Explanation", "LedgerEntry", "LipServiceClient",
    "LipServiceError", "boost", "explain", "ledger",
    "LogContext", "LoguruFilter", "MissingExtraError", "PatternStats", "PolicyError",
    "PostHogConfig", "PostHogHandler", "PostHogOTLPExporter", "PostHogProcessor", "PostHogSink",
    "RecorderLimits", "SamplingFilter", "SamplingHandler", "SamplingLogger",
    "SamplingLogRecordProcessor", "SamplingPolicy", "SamplingProcessor", "SamplingSink", "Totals",
    "__version__", "configure_adaptive_logging", "default_sampler", "get_logger", "keep_request",
    "recorder_totals", "request", "sampling_bound_logger", "sampling_logger_class", "shutdown",
}  # fmt: skip

#: The API document: callable -> parameters with their defaults, in order.
PROMISED = {
    lipservice.configure_adaptive_logging: {
        "service_name": inspect.Parameter.empty,
        "lipservice_url": ...,  # required there; None works without a server
        "api_key": None,
        "policy_refresh_interval": 300,
        "pattern_report_interval": 600,
        "downstream_handler": None,
        "use_structlog": True,
        "posthog_api_key": None,
        "posthog_team_id": None,
        "posthog_endpoint": "https://app.posthog.com",
    },
    lipservice.get_logger: {"name": inspect.Parameter.empty},
    lipservice.AdaptiveSampler: {
        "client": ...,
        "policy_refresh_interval": 300,
        "pattern_report_interval": 600,
        "max_pattern_cache_size": 10000,
    },
    lipservice.AdaptiveSampler.should_sample: {
        "self": inspect.Parameter.empty,
        "message": inspect.Parameter.empty,
        "severity": inspect.Parameter.empty,
    },
    lipservice.PostHogOTLPExporter: {"config": inspect.Parameter.empty},
    lipservice.PostHogHandler: {"config": ..., "level": logging.NOTSET},
    performance.LRUSignatureCache: {"max_size": 10000, "max_memory_mb": 50},
    performance.OptimizedSignatureComputer: {"cache_size": 10000},
}


def test_the_public_names_are_these():
    assert set(lipservice.__all__) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_is_there_and_documented(name):
    assert name in dir(lipservice)
    assert inspect.getdoc(getattr(lipservice, name))


@pytest.mark.parametrize("promised", PROMISED, ids=lambda each: each.__qualname__)
def test_parameters_and_defaults_are_those_of_the_api_document(promised):
    parameters = list(inspect.signature(promised).parameters.values())

    for parameter, (name, default) in zip(parameters, PROMISED[promised].items(), strict=False):
        assert parameter.name == name
        if default is not ...:
            assert parameter.default == default


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        lipservice.no_such_name  # noqa: B018


def test_importing_starts_nothing_and_brings_no_third_party_package():
    code = """
import sys, threading, logging
known = set(sys.modules)
handlers = list(logging.root.handlers)
import lipservice
new = {name.partition(".")[0] for name in set(sys.modules) - known}
assert threading.active_count() == 1
assert logging.root.handlers == handlers
print(sorted(new - set(sys.stdlib_module_names) - {"lipservice"}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_making_a_sampler_starts_no_thread():
    code = """
import threading, lipservice
sampler = lipservice.AdaptiveSampler(cost_target=0.1)
assert threading.active_count() == 1, threading.enumerate()
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
