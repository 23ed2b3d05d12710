"""From parameters and the environment to a sampler."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import fields
from pathlib import Path

import pytest

import lipservice
from lipservice import _settings
from lipservice._settings import (
    ENVIRONMENT,
    Settings,
    build_sampler,
    default_sampler,
    default_sampler_quietly,
    forget_samplers,
    read_settings,
    sampler_for,
    set_default_sampler,
)
from lipservice.exceptions import ConfigurationError
from lipservice.sampler import AdaptiveSampler
from tests.support.policy_server import wait_for

ROOT = Path(__file__).parents[1]

#: Setting -> text of its variable, and what is read from it.
READABLE = {
    "service_name": ("shop", "shop"),
    "lipservice_url": ("http://127.0.0.1:9", "http://127.0.0.1:9"),
    "api_key": ("a-secret-key", "a-secret-key"),
    "cost_target": ("0.25", 0.25),
    "policy_file": ("/etc/policy.json", "/etc/policy.json"),
    "policy_cache": ("/var/cache/lipservice", "/var/cache/lipservice"),
    "policy_refresh_interval": ("12.5", 12.5),
    "pattern_report_interval": ("60", 60.0),
    "max_pattern_cache_size": ("500", 500),
    "max_logs_per_minute": ("1000", 1000),
    "keep_first": ("0", 0),
    "protect": ("payment, order ,,refund", ("payment", "order", "refund")),
    "shadow": ("yes", True),
    "notices": ("Off", False),
    "call_sites": ("no", False),
}
#: Setting -> texts that are refused.
UNREADABLE = {
    "lipservice_url": ["no url", "ftp://host", "http://", "http://user:pass@host"],
    "cost_target": ["10%", "0", "-1", "1.5", "nan", "inf"],
    "policy_file": ["/there/is/no/such.json", "/"],
    "policy_cache": ["/tmp"],
    "policy_refresh_interval": ["0", "-5", "nan", "soon", "inf"],
    "pattern_report_interval": ["0", "-5", "nan", "soon", "inf"],
    "max_pattern_cache_size": ["0", "-1", "1.5", "many"],
    "max_logs_per_minute": ["-1", "1.5", "many"],
    "keep_first": ["-1", "1.5", "many"],
    "shadow": ["maybe", "2"],
    "notices": ["maybe", "2"],
    "call_sites": ["maybe", "2"],
}
WRONG_TYPES = [
    (name, value)
    for name in (each.name for each in fields(Settings))
    for value in (["a"], {"a": 1}, object(), b"bytes")
    if (name, value) != ("protect", ["a"])
]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for variable, _ in ENVIRONMENT.values():
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def environ(monkeypatch):
    """Sets environment variables by the setting's name."""
    return lambda name, text: monkeypatch.setenv(ENVIRONMENT[name][0], text)


def log(sampler, times, message="it goes round", severity="INFO"):
    return sum(sampler.should_sample(message, severity) for _ in range(times))


class TestEnvironment:
    def test_each_setting_has_a_variable(self):
        assert set(ENVIRONMENT) == {each.name for each in fields(Settings)} == set(READABLE)
        for name, (variable, _) in ENVIRONMENT.items():
            expected = (
                "LIPSERVICE_URL" if name == "lipservice_url" else f"LIPSERVICE_{name.upper()}"
            )
            assert variable == expected

    @pytest.mark.parametrize("name", READABLE)
    def test_it_is_read(self, name):
        text, value = READABLE[name]

        assert read_settings({}, {ENVIRONMENT[name][0]: f" {text} "}) == Settings(**{name: value})

    @pytest.mark.parametrize("name", READABLE)
    def test_an_empty_one_is_none(self, name):
        assert read_settings({}, {ENVIRONMENT[name][0]: " "}) == Settings()

    @pytest.mark.parametrize("name", READABLE)
    def test_a_parameter_wins(self, name):
        text, value = READABLE[name]
        other = "0.5" if name == "cost_target" else "no" if value is True else "77"

        settings = read_settings({name: value}, {ENVIRONMENT[name][0]: other})

        assert settings == read_settings({}, {ENVIRONMENT[name][0]: text})

    @pytest.mark.parametrize(
        ("name", "text"), [(name, text) for name, texts in UNREADABLE.items() for text in texts]
    )
    def test_a_wrong_one_is_refused_by_name(self, name, text, environ):
        environ(name, text)

        with pytest.raises(ConfigurationError) as refused:
            default_sampler()

        assert name in str(refused.value) or ENVIRONMENT[name][0] in str(refused.value)

    def test_a_wrong_key_is_refused_without_showing_it(self, environ):
        environ("lipservice_url", "http://127.0.0.1:9")
        environ("api_key", "my secret\x01key")

        with pytest.raises(ConfigurationError, match="api_key") as refused:
            default_sampler()

        assert "secret" not in str(refused.value)

    def test_the_documentation_names_each_of_them(self):
        text = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")

        for name, (variable, _) in ENVIRONMENT.items():
            assert f"| `{name}` | `{variable}`" in text


class TestParameters:
    def test_an_unknown_one_is_refused_with_those_that_exist(self):
        with pytest.raises(ConfigurationError, match=r"'cost_traget'.*cost_target"):
            read_settings({"cost_traget": 0.1}, {})

    @pytest.mark.parametrize(
        ("name", "value"), WRONG_TYPES, ids=[f"{n} {type(v).__name__}" for n, v in WRONG_TYPES]
    )
    def test_one_of_the_wrong_type_is_refused_by_name(self, name, value):
        other = {"lipservice_url": "http://127.0.0.1:9"} if name == "api_key" else {}

        with pytest.raises(ConfigurationError, match=name):
            sampler_for(None, {name: value, **other})

    @pytest.mark.parametrize("name", ["shadow", "notices"])
    @pytest.mark.parametrize("value", ["false", "no", 0, 1])
    def test_a_text_or_number_is_no_truth_value(self, name, value):
        """`shadow: "false"` of a JSON file would be true."""
        with pytest.raises(ConfigurationError, match=name):
            read_settings({name: value}, {})

    @pytest.mark.parametrize("value", ["payment", [""], [" "], [1], [None], 5])
    def test_protect_is_a_list_of_words(self, value):
        with pytest.raises(ConfigurationError, match="protect"):
            sampler_for(None, {"protect": value})

    def test_lists_of_json_are_taken(self):
        settings = read_settings(json.loads('{"protect": ["payment"], "cost_target": 0.1}'), {})

        assert settings.protect == ("payment",)

    def test_none_is_as_if_it_was_not_given(self):
        assert read_settings(dict.fromkeys(READABLE), {}) == Settings()

    def test_a_key_is_not_shown(self):
        assert "secret" not in repr(Settings(api_key="secret"))


class TestEffect:
    """No setting is decorative."""

    def build(self, **given):
        sampler = build_sampler(read_settings(given, {}))
        self.made.append(sampler)
        return sampler

    @pytest.fixture(autouse=True)
    def _shut_down(self):
        self.made = []
        yield
        for sampler in self.made:
            assert sampler.shutdown(10.0)

    def test_none_at_all_keeps_everything(self):
        sampler = self.build()

        assert log(sampler, 100) == 100
        assert sampler.get_policy() is None

    def test_a_limit_alone_is_a_policy(self):
        sampler = self.build(max_logs_per_minute=20, keep_first=3, protect=["payment"])

        assert log(sampler, 500) <= 20
        assert log(sampler, 500, "payment") == 500

    def test_a_limit_of_zero_keeps_first_records_only(self):
        sampler = self.build(max_logs_per_minute=0, keep_first=3)

        assert log(sampler, 500) == 3

    def test_shadow_with_a_limit_drops_nothing(self):
        sampler = self.build(max_logs_per_minute=20, shadow=True)

        assert log(sampler, 500) == 500
        assert sampler.totals().shadowed >= 480

    def test_a_policy_file_is_read(self, tmp_path):
        file = tmp_path / "policy.json"
        file.write_text('{"sampling_rate": 0.0, "keep_first": 1}')

        assert log(self.build(policy_file=str(file)), 50) == 1
        assert log(self.build(policy_file=file), 50) == 1  # a Path will do

    def test_the_size_of_the_table(self):
        sampler = self.build(max_pattern_cache_size=2)
        for word in ("one", "other", "third"):
            log(sampler, 1, word)

        assert sampler.health()["patterns"] == sampler.health()["max_patterns"] == 2

    def test_what_planned_policies_are_like(self):
        sampler = self.build(
            cost_target=0.1, protect=["payment"], keep_first=4, max_logs_per_minute=99, shadow=True
        )
        log(sampler, 500)

        assert wait_for(lambda: sampler.get_policy() is not None)
        policy = sampler.get_policy()
        assert policy.patterns == ("payment",)
        assert (policy.keep_first, policy.max_logs_per_minute) == (4, 99)
        assert policy.mode == "shadow"

    def test_server_name_and_key_are_the_clients(self):
        sampler = self.build(
            lipservice_url="http://127.0.0.1:9/base/", api_key="key", service_name="shop"
        )
        client = sampler._refresher._client

        assert client.base_url == "http://127.0.0.1:9/base"
        assert client.service_name == "shop"
        assert client._key == "key"

    def test_a_cache_needs_a_server(self, tmp_path):
        with pytest.raises(ConfigurationError, match="policy_cache"):
            self.build(policy_cache=str(tmp_path))
        self.build(policy_cache=str(tmp_path), lipservice_url="http://127.0.0.1:9")

    def test_intervals_and_notices(self):
        sampler = self.build(
            policy_refresh_interval=7.0, pattern_report_interval=8.0, cost_target=0.5, notices=False
        )
        tasks = sampler._worker._tasks

        assert tasks["plan"].interval == 7.0
        assert sampler._report_interval == 8.0
        assert "summary" not in tasks
        assert self.build(pattern_report_interval=9.0)._worker._tasks["summary"].interval == 9.0


class TestSharing:
    def test_equal_settings_share_a_sampler(self):
        first = sampler_for(None, {"cost_target": 0.1, "protect": ["a"]})
        second = sampler_for(None, {"protect": ("a",), "cost_target": 0.1})
        other = sampler_for(None, {"cost_target": 0.2})

        assert first is second is not other

    def test_the_environment_is_a_part_of_them(self, environ):
        first = sampler_for(None, {"keep_first": 3})
        environ("cost_target", "0.5")

        assert sampler_for(None, {"keep_first": 3}) is not first

    def test_a_sampler_of_ones_own_is_taken_as_it_is(self):
        sampler = AdaptiveSampler()

        assert sampler_for(sampler, {}) is sampler
        with pytest.raises(ConfigurationError, match="not both: cost_target"):
            sampler_for(sampler, {"cost_target": 0.1})

    def test_without_either_it_is_looked_up_later(self):
        assert sampler_for(None, {}) is None

    def test_after_a_shutdown_equal_settings_make_a_new_one(self):
        first = sampler_for(None, {"cost_target": 0.1})
        forget_samplers()

        assert sampler_for(None, {"cost_target": 0.1}) is not first

    def test_threads_that_ask_at_once_get_the_same(self):
        got = []
        start = threading.Barrier(8)

        def ask():
            start.wait()
            got.append((default_sampler_quietly(), sampler_for(None, {"cost_target": 0.3})))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(set(got)) == 1


class TestDefault:
    def test_it_is_made_from_the_environment_once(self, environ):
        environ("max_logs_per_minute", "0")
        environ("keep_first", "0")

        sampler = default_sampler()

        assert log(sampler, 10) == 0
        assert default_sampler() is default_sampler_quietly() is sampler
        assert lipservice.default_sampler() is sampler
        sampler.shutdown()

    def test_it_can_be_set_and_taken_back(self):
        mine = AdaptiveSampler()
        set_default_sampler(mine)
        assert default_sampler_quietly() is mine

        set_default_sampler(None)

        assert default_sampler_quietly() is not mine

    def test_in_a_log_call_a_wrong_environment_keeps_everything_and_says_so(self, environ, caplog):
        environ("cost_target", "ten percent")

        sampler = default_sampler_quietly()

        assert log(sampler, 100) == 100
        (record,) = [each for each in caplog.records if each.name == "lipservice"]
        assert record.levelno == logging.WARNING
        assert "LIPSERVICE_COST_TARGET" in record.getMessage()
        assert default_sampler_quietly() is sampler

    def test_a_record_that_is_born_while_it_is_made_is_kept_and_changes_nothing(self, monkeypatch):
        """requests warns at its import, say, and warnings are captured into logging."""
        inside = []
        real = _settings.build_sampler

        def noisy(settings):
            inside.append(default_sampler_quietly().should_sample("a warning", "WARNING"))
            return real(settings)

        monkeypatch.setattr(_settings, "build_sampler", noisy)

        sampler = default_sampler_quietly()

        assert inside == [True]
        assert default_sampler_quietly() is sampler
        assert sampler.totals().seen == 0

    def test_a_log_call_inside_the_making_of_another_sampler_does_not_hang(self, monkeypatch):
        inside = []
        real = _settings.build_sampler

        def noisy(settings):
            if settings.cost_target:
                inside.append(default_sampler_quietly().should_sample("hello", "INFO"))
            return real(settings)

        monkeypatch.setattr(_settings, "build_sampler", noisy)

        assert sampler_for(None, {"cost_target": 0.1}) is not None
        assert inside == [True]

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    def test_a_child_that_was_forked_while_one_was_made_does_not_hang(self):
        script = """
        import os, signal, threading
        from lipservice import _settings
        held, go_on = threading.Event(), threading.Event()
        real = _settings.build_sampler

        def slow(settings):
            held.set()
            go_on.wait()
            return real(settings)

        _settings.build_sampler = slow
        thread = threading.Thread(target=_settings.sampler_for, args=(None, {"cost_target": 0.1}))
        thread.start()
        held.wait()
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            _settings.build_sampler = real
            assert _settings.default_sampler_quietly().should_sample("hello", "INFO")
            assert _settings.sampler_for(None, {"cost_target": 0.1}) is not None
            _settings.forget_samplers()
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        go_on.set()
        thread.join()
        assert status == 0
        """
        done = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script)],
            capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
