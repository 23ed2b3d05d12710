"""Configuration: addresses are mapped to where records arrive, and wrong values are refused by name."""

from __future__ import annotations

import pytest

from lipservice.exceptions import ConfigurationError
from lipservice.export.config import DEFAULT_ENDPOINT, PostHogConfig, logs_url
from lipservice.export.handler import config_of

US, EU = "https://us.i.posthog.com/i/v1/logs", "https://eu.i.posthog.com/i/v1/logs"


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (DEFAULT_ENDPOINT, US),
        ("https://app.posthog.com/", US),
        ("https://us.posthog.com", US),
        ("https://us.i.posthog.com", US),
        ("https://US.I.PostHog.com", US),
        ("https://posthog.com", US),
        ("https://eu.posthog.com", EU),
        ("https://eu.i.posthog.com", EU),
        ("https://eu.posthog.com/i/v1/logs", EU),
        ("https://app.posthog.com/api/v1/otlp/v1/logs", US),
        ("https://posthog.example.com", "https://posthog.example.com/i/v1/logs"),
        ("http://localhost:8010", "http://localhost:8010/i/v1/logs"),
        ("http://collector:4318", "http://collector:4318/v1/logs"),
        ("http://collector:4318/v1/logs", "http://collector:4318/v1/logs"),
        ("https://eu.posthog.com.evil.test", "https://eu.posthog.com.evil.test/i/v1/logs"),
        ("https://[::1]:9/x", "https://[::1]:9/x"),
    ],
)
def test_endpoints(endpoint, url):
    assert logs_url(endpoint) == url


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "app.posthog.com",
        "ftp://x",
        "http://",
        "https://u:p@host",
        "https://h/?token=x",
        "https://h/#f",
        "http://app.posthog.com",
        "http://h:99999",
        "https://h:x",
        None,
        5,
    ],
)
def test_endpoints_that_are_refused(endpoint):
    with pytest.raises(ConfigurationError, match=r"^endpoint: "):
        PostHogConfig(api_key="phc_x", endpoint=endpoint)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_key", ""), ("api_key", "phx_personal"), ("api_key", "phc_ x"), ("api_key", "phc_\n"), ("api_key", "phc_é"), ("api_key", None),
        ("team_id", ""), ("team_id", True), ("team_id", "1\n2"), ("team_id", 1.5),
        ("batch_size", 0), ("batch_size", 1.5), ("batch_size", True), ("batch_size", "100"),
        ("flush_interval", 0), ("flush_interval", -1.0), ("flush_interval", float("nan")), ("flush_interval", float("inf")),
        ("max_retries", -1), ("timeout", 0), ("timeout", "10"), ("shutdown_timeout", -0.1),
        ("max_queue_size", 0), ("max_batch_bytes", 3 * 1024 * 1024), ("max_value_length", 1),
        ("spool_dir", 5), ("spool_max_bytes", 1), ("spool_max_age", 0),
        ("service_name", ""), ("service_name", 5), ("service_version", ""), ("environment", ""),
        ("resource_attributes", [("a", 1)]), ("headers", {"X-A": "b\r\nEvil: 1"}), ("headers", {"X A": "b"}), ("headers", "x"),
        ("attributes", "signature"), ("attributes", ["nonsense"]), ("pattern_facts_interval", -1),
        ("redact_keys", "password"), ("redact_patterns", "x"), ("redact_patterns", ["("]), ("redact_patterns", [5]),
        ("jwt", "abc"), ("jwt", 5), ("jwt", "a.b.c\n"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=rf"^{name}: "):
        PostHogConfig(**{"api_key": "phc_x", name: value})


def test_a_personal_key_is_refused_with_the_reason():
    with pytest.raises(ConfigurationError, match=r"personal API key .* project's token"):
        PostHogConfig(api_key="phx_abc")


def test_a_jwt_may_stand_in_for_the_key():
    assert PostHogConfig(jwt="aa.bb.cc").url == US
    assert PostHogConfig(jwt=lambda: "aa.bb.cc").url == US


def test_secrets_are_not_shown():
    shown = repr(PostHogConfig(api_key="phc_sesame", jwt="aa.bb.sesame", headers={"X": "sesame"}))

    assert "sesame" not in shown


def test_a_config_does_not_change():
    with pytest.raises(AttributeError):
        PostHogConfig(api_key="phc_x").api_key = "phc_y"


def test_adapters_take_a_config_a_mapping_or_parameters():
    config = PostHogConfig(api_key="phc_x")

    assert config_of(config, {}) is config
    assert config_of({"api_key": "phc_x"}, {}) == config
    assert config_of(None, {"api_key": "phc_x"}) == config
    assert config_of({"api_key": "phc_x"}, {"batch_size": 5}).batch_size == 5


@pytest.mark.parametrize(
    ("config", "given"),
    [
        (5, {}),
        (None, {"api_kee": "x"}),
        (PostHogConfig(api_key="phc_x"), {"batch_size": 5}),
        (None, {}),
    ],
)
def test_adapters_refuse_what_is_none(config, given):
    with pytest.raises(ConfigurationError):
        config_of(config, given)
