"""What the exporter does with each answer, and when."""

from __future__ import annotations

import asyncio
import logging
import warnings
from datetime import datetime, timezone

import pytest

from lipservice._answers import HTTPAnswer, Problem
from lipservice.exceptions import ConfigurationError
from lipservice.export.config import LogContext, PostHogConfig
from lipservice.export.exporter import PostHogOTLPExporter, resource_of
from lipservice.export.handler import PostHogHandler
from lipservice.export.http import Action, judge, retry_after
from tests.support.export_bench import Bench

REFUSED = HTTPAnswer(problem=Problem("connection", "no connection: Connection refused"))


class TestBatches:
    def test_a_full_batch_goes_at_once_the_rest_waits_for_the_interval(self):
        bench = Bench(batch_size=10, flush_interval=5.0)
        bench.log(*map(str, range(25)))
        assert bench.worker.woken == 1

        wait = bench.turn()

        assert bench.network.sizes == [10, 10]
        assert wait == pytest.approx(5.0)
        bench.turn(5.0)
        assert bench.network.sizes == [10, 10, 5]
        assert bench.network.bodies() == [str(n) for n in range(25)]

    def test_a_batch_is_bounded_in_bytes(self):
        bench = Bench(batch_size=100, max_batch_bytes=10_000)
        bench.log(*["x" * 1000] * 30)
        bench.flush()

        assert bench.network.sizes == [9, 9, 9, 3]

    def test_the_most_severe_go_first(self):
        bench = Bench(batch_size=2)
        bench.log("i1", "i2")
        bench.log("e1", "e2", severity="ERROR")
        bench.flush()

        assert bench.network.bodies() == ["e1", "e2", "i1", "i2"]

    def test_headers_and_resource(self):
        bench = Bench(
            team_id=12,
            service_name="shop",
            service_version="1.2",
            environment="prod",
            headers={"X-A": "b"},
            resource_attributes={"region": "eu", "host.name": None},
        )
        bench.log("m")
        bench.flush()

        headers, resource = bench.network.headers[0], bench.network.acknowledged[0]["resource"]
        assert headers["Authorization"] == "Bearer phc_x"
        assert headers["Content-Type"] == "application/x-protobuf"
        assert headers["X-A"] == "b"
        assert resource.pop("process.pid")
        assert resource == {
            "service.name": "shop",
            "service.version": "1.2",
            "deployment.environment.name": "prod",
            "region": "eu",
            "team_id": "12",
        }

    def test_the_service_name_comes_from_the_environment_too(self, monkeypatch):
        config = PostHogConfig(api_key="phc_x")
        monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
        monkeypatch.delenv("LIPSERVICE_SERVICE_NAME", raising=False)
        assert resource_of(config)["service.name"] == "unknown_service:python"
        monkeypatch.setenv("LIPSERVICE_SERVICE_NAME", "a")
        assert resource_of(config)["service.name"] == "a"
        monkeypatch.setenv("OTEL_SERVICE_NAME", "b")
        assert resource_of(config)["service.name"] == "b"

    def test_identity_of_the_service_cannot_be_overwritten_by_the_way(self):
        config = PostHogConfig(
            api_key="phc_x",
            service_name="shop",
            team_id=1,
            resource_attributes={"service.name": "evil", "team_id": "2"},
        )

        assert resource_of(config)["service.name"] == "shop"
        assert resource_of(config)["team_id"] == "1"


class TestExportLog:
    def test_all_that_can_be_said(self):
        bench = Bench()
        when = datetime(2026, 11, 23, 12, 0, 0, 250_000, tzinfo=timezone.utc)
        try:
            raise ValueError("bad")
        except ValueError as error:
            bench.exporter.export_log(
                "paid",
                "warn",
                when,
                LogContext(distinct_id="bob"),
                logger="shop",
                n=5,
                exc_info=error,
            )
        bench.flush()

        (got,) = bench.network.acknowledged
        assert (got["body"], got["severity_number"], got["scope"]) == ("paid", 13, "shop")
        assert got["time_unix_nano"] == int(when.timestamp() * 1000) * 1_000_000
        assert got["attributes"]["posthogDistinctId"] == "bob"
        assert got["attributes"]["n"] == 5
        assert got["attributes"]["exception.type"] == "ValueError"

    @pytest.mark.parametrize(
        ("severity", "number"),
        [
            ("INFO", 9),
            ("error", 17),
            ("Fatal", 21),
            (logging.WARNING, 13),
            ("nonsense", 9),
            (None, 9),
            (True, 9),
        ],
    )
    def test_severities(self, severity, number):
        bench = Bench()
        bench.exporter.export_log("m", severity)
        bench.flush()

        assert bench.network.acknowledged[0]["severity_number"] == number

    @pytest.mark.parametrize("timestamp", [None, "yesterday", object(), datetime.max, float("nan")])
    def test_a_timestamp_that_is_none_is_now_or_unknown(self, timestamp):
        bench = Bench()
        bench.exporter.export_log("m", "INFO", timestamp)
        bench.flush()

        assert bench.network.acknowledged[0]["time_unix_nano"] >= 0

    def test_the_current_context_completes_the_given_one(self):
        bench = Bench()
        with LogContext(distinct_id="a", attributes={"x": 1, "y": 1}).use():
            bench.exporter.export_log("m", context=LogContext(session_id="s", attributes={"y": 2}))
        bench.flush()

        assert bench.network.acknowledged[0]["attributes"] == {
            "posthogDistinctId": "a",
            "sessionId": "s",
            "x": 1,
            "y": 2,
        }

    def test_start_stop_and_export_log_can_be_awaited_and_need_not_be(self):
        bench = Bench()

        async def use():
            await bench.exporter.start()
            await bench.exporter.export_log("a")
            await bench.exporter.stop()

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            asyncio.run(use())
            bench.exporter.start()
            bench.exporter.export_log("b")
            bench.exporter.stop()

        assert bench.network.bodies() == ["a", "b"]

    def test_the_config_must_be_one(self):
        with pytest.raises(ConfigurationError, match=r"^config: "):
            PostHogOTLPExporter({"api_key": "phc_x"})


class TestRetries:
    @pytest.mark.parametrize("answer", [408, 425, 429, 500, 502, 503, 504, REFUSED], ids=str)
    def test_trouble_that_may_pass_is_tried_again(self, answer):
        bench = Bench()
        bench.network.answers = [answer, answer]
        bench.log("m")
        for _ in range(3):
            bench.flush()
            bench.clock.now += 31

        assert bench.network.bodies() == ["m"]
        assert bench.health()["retries"] == 2
        assert bench.said == []

    def test_pauses_grow_with_jitter_up_to_half_a_minute(self):
        bench = Bench(max_retries=20)
        bench.network.default = REFUSED
        bench.log("m")
        waits = []
        for _ in range(12):
            waits.append(bench.flush())
            bench.clock.now += waits[-1]

        for attempt, wait in enumerate(waits):
            most = min(30.0, 0.5 * 2**attempt)
            assert most / 2 <= wait <= most
        assert len(set(waits)) == len(waits)

    def test_after_max_retries_the_batch_is_dropped_and_that_is_said_once(self):
        bench = Bench(max_retries=3)
        bench.network.default = REFUSED
        bench.log("a", "b")
        for _ in range(4):
            bench.flush()
            bench.clock.now += 31
        bench.log("c")
        for _ in range(4):
            bench.flush()
            bench.clock.now += 31

        assert bench.health()["dropped"] == {"gave_up": 3}
        assert len(bench.network.sizes) == 8
        assert len(bench.said) == 1
        assert "Connection refused" in bench.said[0]
        assert bench.balance() == (3, 3)

    def test_the_end_of_the_trouble_is_said_too(self):
        bench = Bench(max_retries=0)
        bench.network.answers = [REFUSED]
        bench.log("a")
        bench.flush()
        bench.log("b")
        bench.turn(31)
        bench.flush()

        assert bench.network.bodies() == ["b"]
        assert "back" in bench.said[-1]

    def test_retry_after_is_honoured_while_records_are_still_taken(self):
        bench = Bench()
        bench.network.answers = [HTTPAnswer(429, {"retry-after": "900"})]
        bench.log("a")
        wait = bench.flush()
        bench.log("b")
        bench.turn(800)

        assert 900 <= wait <= 990
        assert bench.network.sizes == [1]
        bench.turn(200)
        bench.flush()
        assert sorted(bench.network.bodies()) == ["a", "b"]

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("0", 0),
            ("120", 120),
            (" 7 ", 7),
            ("1e9", 3600),
            ("Thu, 01 Jan 1970 00:20:00 GMT", 200),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("", None),
            ("soon", None),
            ("-5", None),
            ("nan", None),
            ("99999999999999999999999", 3600),
        ],
    )
    def test_both_forms_of_retry_after_are_read_and_bounded(self, value, seconds):
        assert retry_after(value, 1000.0) == seconds


class TestRefusals:
    def test_413_halves_the_batch_until_it_fits(self):
        bench = Bench(batch_size=16)
        bench.network.most_records = 3
        bench.log(*map(str, range(16)))
        bench.flush()

        assert bench.network.bodies() == [str(n) for n in range(16)]
        assert bench.network.sizes == [16, 8, 4, 2, 2, 4, 2, 2, 8, 4, 2, 2, 4, 2, 2]

    def test_400_halves_down_to_the_bad_record_drops_it_and_says_so(self):
        bench = Bench(batch_size=16)
        bench.network.poison = "bad"
        bench.log(*[f"{n}{'bad' if n == 5 else ''}" for n in range(16)])
        bench.flush()

        assert len(bench.network.acknowledged) == 15
        assert bench.health()["dropped"] == {"refused": 1}
        assert "400" in bench.said[0]
        assert bench.balance() == (16, 16)

    def test_one_record_that_is_too_large_is_dropped(self):
        bench = Bench()
        bench.network.default = 413
        bench.log("m")
        bench.flush()

        assert bench.health()["dropped"] == {"too_large": 1}

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refused_key_stops_the_export_and_is_said_once(self, status):
        bench = Bench()
        bench.network.default = status
        bench.log(*map(str, range(25)))
        bench.flush()
        bench.log("later")
        for _ in range(5):
            bench.turn(10)

        assert bench.network.sizes == [10]
        assert bench.health()["dropped"] == {"unauthorized": 26}
        assert len(bench.said) == 1
        assert "api_key" in bench.said[0]
        assert str(status) in bench.health()["refused"]
        assert "phc_x" not in bench.said[0]

    def test_start_after_stop_sends_again(self):
        bench = Bench()
        bench.exporter.stop()
        bench.log("lost")
        bench.exporter.start()
        bench.exporter._worker = bench.worker
        bench.worker.stopped = False
        bench.log("a")
        bench.flush()

        assert bench.network.bodies() == ["a"]
        assert bench.health()["dropped"] == {"stopped": 1}

    def test_a_redirect_is_not_followed_and_says_what_to_do(self):
        bench = Bench()
        bench.network.default = HTTPAnswer(301, {"location": "https://us.i.posthog.com/i/v1/logs"})
        bench.log("m")
        bench.flush()

        assert bench.health()["dropped"] == {"redirected": 1}
        assert "endpoint=" in bench.said[0]

    @pytest.mark.parametrize("status", [404, 405, 410, 501])
    def test_what_will_never_be_taken_is_dropped_at_once(self, status):
        bench = Bench()
        bench.network.default = status
        bench.log("m")
        bench.flush()

        assert bench.health()["dropped"] == {"rejected": 1}

    def test_partial_success_is_counted(self):
        bench = Bench()
        bench.network.answers = [HTTPAnswer(200, {}, b"\x0a\x08\x08\x02\x12\x04late")]
        bench.log("a", "b", "c")
        bench.flush()

        assert bench.health()["delivered"] == 1
        assert bench.health()["dropped"] == {"rejected": 2}
        assert "late" in bench.said[0]

    def test_the_answers_text_cannot_forge_log_lines(self):
        verdict = judge(HTTPAnswer(404, {}, b"x\r\nERROR all is lost\x1b[31m" + b"y" * 1000), 0.0)

        assert verdict.action is Action.DROP
        assert verdict.text.isprintable()
        assert len(verdict.text) < 300


class TestJWT:
    def test_a_function_is_asked_again_after_a_401(self):
        tokens = iter(["aa.bb.old", "aa.bb.new"])
        bench = Bench(jwt=lambda: next(tokens))
        bench.network.answers = [401, 200]
        bench.log("m")
        bench.flush()

        assert [h["Authorization"] for h in bench.network.headers] == [
            "Bearer aa.bb.old",
            "Bearer aa.bb.new",
        ]
        assert bench.network.bodies() == ["m"]

    def test_two_401_in_a_row_stop(self):
        bench = Bench(jwt=lambda: "aa.bb.cc")
        bench.network.default = 401
        bench.log("m")
        bench.flush()

        assert len(bench.network.sizes) == 2
        assert bench.health()["dropped"] == {"unauthorized": 1}

    def test_a_function_that_raises_is_trouble_that_may_pass(self):
        calls = []

        def token():
            calls.append(1)
            if len(calls) == 1:
                raise OSError("vault is away: key phc_secret")
            return "aa.bb.cc"

        bench = Bench(jwt=token)
        bench.log("m")
        bench.flush()
        bench.turn(31)

        assert bench.network.bodies() == ["m"]


class TestRecords:
    def test_a_record_that_cannot_be_encoded_harms_no_other(self):
        bench = Bench()
        bench.log("a", "b")
        bench.exporter.submit((0.0, 9, "", "", object(), None, None, 7, 8, 9, 10, 11, 12, 13))
        bench.log("c")
        bench.flush()

        assert sorted(bench.network.bodies()) == ["a", "b", "c"]
        assert bench.health()["dropped"] == {"internal": 1}
        assert bench.balance() == (4, 4)

    def test_a_record_that_lost_standard_attributes_is_sent_all_the_same(self):
        bench = Bench()
        record = logging.LogRecord("app", 20, "p", 1, "m", (), None)
        for name in ("exc_text", "levelno", "created", "lineno"):
            del record.__dict__[name]
        PostHogHandler(exporter=bench.exporter).emit(record)
        bench.flush()

        assert bench.network.bodies() == ["m"]

    def test_two_teams_have_two_resources(self):
        one, two = Bench(team_id=1), Bench(team_id=2)
        one.log("a")
        two.log("b")
        one.flush()
        two.flush()

        assert one.network.acknowledged[0]["resource"]["team_id"] == "1"
        assert two.network.acknowledged[0]["resource"]["team_id"] == "2"


class TestStop:
    def test_what_is_queued_is_sent(self):
        bench = Bench()
        bench.log(*map(str, range(25)))
        bench.exporter.stop()

        assert len(bench.network.bodies()) == 25
        assert bench.balance() == (25, 25)

    def test_a_receiver_that_is_away_is_tried_once(self):
        bench = Bench()
        bench.network.default = REFUSED
        bench.log(*map(str, range(25)))
        bench.exporter.stop()

        assert bench.network.sizes == [10]
        assert bench.health()["dropped"] == {"shutdown": 25}

    def test_a_slow_receiver_gets_the_time_there_is(self):
        bench = Bench(shutdown_timeout=2.0)
        bench.network.takes = 0.75
        bench.log(*map(str, range(100)))
        before = bench.clock.now
        bench.exporter.stop()

        assert bench.clock.now - before <= 2.0
        assert bench.network.seconds == [pytest.approx(s) for s in (2.0, 1.25, 0.5)]
        assert len(bench.network.bodies()) == 20
        assert bench.balance() == (100, 100)

    def test_one_that_asked_to_be_left_alone_is(self):
        bench = Bench()
        bench.network.answers = [HTTPAnswer(429, {"retry-after": "900"})]
        bench.log("a")
        bench.flush()
        bench.exporter.stop()

        assert len(bench.network.sizes) == 1
        assert bench.health()["dropped"] == {"shutdown": 1}

    def test_stopping_twice_is_harmless(self):
        bench = Bench()
        bench.exporter.stop()
        bench.exporter.stop()
        bench.log("m")

        assert bench.health()["dropped"] == {"stopped": 1}
