"""structlog, loguru and OpenTelemetry reach the same exporter; sampled records carry their weight."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import warnings

import loguru
import pytest
import structlog
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs import export as otel_export
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor

import lipservice
import lipservice.export
from lipservice.export.config import LogContext
from lipservice.export.handler import PostHogHandler
from lipservice.export.loguru import PostHogSink
from lipservice.export.opentelemetry import SamplingLogRecordProcessor
from lipservice.export.structlog import PostHogProcessor
from lipservice.integrations.loguru import LoguruFilter
from lipservice.integrations.stdlib import SamplingFilter
from lipservice.integrations.structlog import SamplingProcessor
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from tests.support.export_bench import Bench


@pytest.fixture
def bench():
    return Bench(max_queue_size=100_000, batch_size=1000)


def sampler(rate=0.1):
    made = AdaptiveSampler()
    made.apply_policy(SamplingPolicy(sampling_rate=rate, keep_first=5))
    return made


def sent(bench):
    bench.flush()
    return bench.network.acknowledged


def check_weights(records, logged):
    """Kept records carry what makes true counts: their sum of weights has *logged* as its mean."""
    attributes = [record["attributes"] for record in records]
    weights = [a.get("lip_weight", 1.0) for a in attributes]

    assert len({a["lip_sig"] for a in attributes}) == 1
    assert len(records) < logged / 3
    assert weights[:5] == [1.0] * 5
    assert set(weights[5:]) == {10.0}
    # 5 sigma of a binomial with p = 0.1, in units of records.
    assert abs(sum(weights) - logged) < 5 * 10 * (logged * 0.09) ** 0.5
    assert attributes[0]["lip_template"] == "user <*> logged in"
    assert sum("lip_template" in a for a in attributes) == 1
    assert [a["lip_rate"] for a in attributes if "lip_rate" in a] == [0.1]


class TestLogging:
    def test_sampled_records_carry_their_weight(self, bench):
        handler = PostHogHandler(exporter=bench.exporter)
        handler.addFilter(SamplingFilter(sampler=sampler()))
        logger = logging.getLogger("adapters.sampled")
        logger.propagate = False
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            for n in range(2000):
                logger.info("user %d logged in", n)
        finally:
            logger.handlers.clear()

        check_weights(sent(bench), 2000)


class TestStructlog:
    def logger(self, *processors, **options):
        return structlog.wrap_logger(
            structlog.ReturnLogger(),
            processors=[*processors, structlog.processors.JSONRenderer()],
            **options,
        )

    def test_fields_become_attributes_and_the_event_goes_on(self, bench):
        logger = self.logger(
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            PostHogProcessor(exporter=bench.exporter),
        )
        with structlog.contextvars.bound_contextvars(request_id="r1"):
            line = logger.bind(user=5).warning("paid", amount=1.5, basket=["a"])
        (got,) = sent(bench)

        assert '"event": "paid"' in line
        assert '"amount": 1.5' in line
        assert (got["body"], got["severity_number"]) == ("paid", 13)
        assert got["attributes"] == {"request_id": "r1", "user": 5, "amount": 1.5, "basket": ["a"]}

    def test_the_level_is_that_of_the_method_where_no_processor_says_it(self, bench):
        self.logger(PostHogProcessor(exporter=bench.exporter)).error("x")

        assert sent(bench)[0]["severity_number"] == 17

    def test_exceptions_raw_and_rendered(self, bench):
        processor = PostHogProcessor(exporter=bench.exporter)
        for chain in ([processor], [structlog.processors.format_exc_info, processor]):
            logger = self.logger(*chain, structlog.processors.format_exc_info)
            try:
                raise ValueError("bad")
            except ValueError:
                logger.exception("failed", exc_info=True)
        raw, rendered = sent(bench)

        assert raw["attributes"]["exception.type"] == "ValueError"
        assert "Traceback" in raw["attributes"]["exception.stacktrace"]
        assert "Traceback" in rendered["attributes"]["exception.stacktrace"]

    def test_time_logger_and_call_site_are_taken_from_the_event(self, bench):
        logger = structlog.wrap_logger(
            logging.getLogger("adapters.shop"),
            processors=[
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.CallsiteParameterAdder(
                    {
                        structlog.processors.CallsiteParameter.PATHNAME,
                        structlog.processors.CallsiteParameter.LINENO,
                    }
                ),
                PostHogProcessor(exporter=bench.exporter),
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
        )
        logger.warning("x %s", 5)
        (got,) = sent(bench)

        assert got["scope"] == "adapters.shop"
        assert got["attributes"]["code.at"].startswith("tests/test_export_adapters.py:")
        assert got["time_unix_nano"] > 1.6e18

    def test_sampled_events_carry_their_weight(self, bench):
        logger = self.logger(
            SamplingProcessor(sampler()), PostHogProcessor(exporter=bench.exporter)
        )
        for n in range(2000):
            logger.info(f"user {n} logged in")

        check_weights(sent(bench), 2000)

    def test_async_methods(self, bench):
        logger = structlog.wrap_logger(
            logging.getLogger("adapters.async"),
            processors=[
                PostHogProcessor(exporter=bench.exporter),
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
        )
        asyncio.run(logger.ainfo("x"))

        assert sent(bench)[0]["body"] == "x"

    @pytest.mark.parametrize("event", [None, 5, b"x", object()])
    def test_any_event(self, bench, event):
        processor = PostHogProcessor(exporter=bench.exporter)
        processor(None, "info", {"event": event, "timestamp": object(), 5: 6})

        assert len(sent(bench)) == 1

    def test_an_event_dict_that_raises_passes_and_is_counted(self, bench):
        class Bad(dict):
            def get(self, *_args):
                raise RuntimeError

        event = Bad(event="x")

        assert PostHogProcessor(exporter=bench.exporter)(None, "info", event) is event
        assert bench.health()["dropped"] == {"internal": 1}


class TestLoguru:
    @pytest.fixture
    def logger(self):
        loguru.logger.remove()
        yield loguru.logger
        loguru.logger.remove()
        loguru.logger.add(sys.stderr)

    def test_bound_values_become_attributes(self, bench, logger):
        logger.add(PostHogSink(exporter=bench.exporter), format="{message}")
        logger.bind(user=5).patch(lambda r: r["extra"].update(ms=1.5)).warning("paid {}", 7)
        (got,) = sent(bench)

        assert (got["body"], got["severity_number"]) == ("paid 7", 13)
        assert got["scope"] == __name__
        assert got["attributes"].pop("code.at").startswith("tests/test_export_adapters.py:")
        assert got["attributes"] == {"user": 5, "ms": 1.5}

    @pytest.mark.parametrize("options", [{}, {"serialize": True}, {"enqueue": True}])
    def test_options_of_add(self, bench, logger, options):
        logger.add(PostHogSink(exporter=bench.exporter), **options)
        logger.success("done")
        logger.complete()
        (got,) = sent(bench)

        assert (got["body"], got["severity_text"], got["severity_number"]) == ("done", "SUCCESS", 9)

    def test_exceptions(self, bench, logger):
        logger.add(PostHogSink(exporter=bench.exporter))
        try:
            raise ValueError("bad")
        except ValueError:
            logger.exception("failed")

        (got,) = sent(bench)
        assert got["attributes"]["exception.type"] == "ValueError"
        assert got["body"] == "failed"

    def test_sampled_records_carry_their_weight(self, bench, logger):
        logger.add(
            PostHogSink(exporter=bench.exporter), filter=LoguruFilter(sampler()), format="{message}"
        )
        for n in range(2000):
            logger.info("user {} logged in", n)  # noqa: PLE1205 - loguru formats with braces

        check_weights(sent(bench), 2000)

    def test_remove_stops_what_the_sink_made(self, logger):
        sink = PostHogSink(api_key="phc_x", endpoint="http://127.0.0.1:1/")
        logger.remove(logger.add(sink))

        assert sink.exporter.health()["stopped"]


class TestOpenTelemetry:
    @pytest.fixture
    def out(self):
        # Renamed by OpenTelemetry along the versions that we work with.
        name = "InMemoryLogRecordExporter"
        return (getattr(otel_export, name, None) or otel_export.InMemoryLogExporter)()

    @pytest.fixture
    def logger(self, out):
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(
            SamplingLogRecordProcessor(SimpleLogRecordProcessor(out), sampler())
        )
        with warnings.catch_warnings():  # newer versions deprecate it
            warnings.simplefilter("ignore", DeprecationWarning)
            handler = LoggingHandler(logger_provider=provider)
        made = logging.getLogger("adapters.otel")
        made.propagate = False
        made.setLevel(logging.DEBUG)
        made.addHandler(handler)
        yield made
        made.handlers.clear()
        provider.shutdown()

    def attributes(self, out):
        return [dict(data.log_record.attributes) for data in out.get_finished_logs()]

    def test_kept_records_are_passed_on_with_their_weight(self, logger, out):
        for n in range(2000):
            logger.info("user %d logged in", n)
        got = self.attributes(out)
        weights = [a.get("lip_weight", 1.0) for a in got]

        assert len(got) < 600
        assert len({a["lip_sig"] for a in got}) == 1
        assert abs(sum(weights) - 2000) < 5 * 10 * (2000 * 0.09) ** 0.5

    def test_a_failed_request_keeps_its_story_with_the_weight_0(self, out):
        provider = LoggerProvider(shutdown_on_exit=False)
        made = AdaptiveSampler(policy=SamplingPolicy(sampling_rate=0.0, keep_first=0))
        provider.add_log_record_processor(
            SamplingLogRecordProcessor(SimpleLogRecordProcessor(out), made)
        )
        logger = provider.get_logger("shop")
        with lipservice.request():
            logger.emit(body="good")
        with lipservice.request():
            logger.emit(body="step")
            logger.emit(body="failed", severity_number=SeverityNumber.ERROR)
        provider.shutdown()
        made.shutdown()

        told = [data.log_record for data in out.get_finished_logs()]
        assert [record.body for record in told] == ["step", "failed"]
        assert told[0].attributes["lip_weight"] == 0.0
        assert [r.attributes["lip_rule"] for r in told] == ["released", "error"]

    def test_a_released_record_says_what_it_said_and_a_large_one_counts_for_the_bounds(self, out):
        provider = LoggerProvider(shutdown_on_exit=False)
        made = AdaptiveSampler(policy=SamplingPolicy(sampling_rate=0.0, keep_first=0))
        provider.add_log_record_processor(
            SamplingLogRecordProcessor(SimpleLogRecordProcessor(out), made)
        )
        logger = provider.get_logger("shop")
        body = {"items": ["tea"]}
        large = "a long text " * 1000
        with lipservice.request(limits=lipservice.RecorderLimits(max_bytes=5 * len(large))):
            for _ in range(20):
                logger.emit(body="large", attributes={"text": large})
            logger.emit(body=body)
            body["items"].append("milk")
            logger.emit(body="failed", severity_number=SeverityNumber.ERROR)
        provider.shutdown()
        made.shutdown()

        told = [data.log_record.body for data in out.get_finished_logs()]
        assert told == [*["large"] * 4, {"items": ["tea"]}, "failed"]

    def test_a_request_s_records_carry_opentelemetry_s_threshold(self, out):
        provider = LoggerProvider(shutdown_on_exit=False)
        made = AdaptiveSampler(policy=SamplingPolicy(sampling_rate=0.5, keep_first=0))
        provider.add_log_record_processor(
            SamplingLogRecordProcessor(SimpleLogRecordProcessor(out), made)
        )
        logger = provider.get_logger("shop")
        for n in range(40):
            with lipservice.request(trace_id=f"{random.Random(n).getrandbits(128):032x}"):
                logger.emit(body="step")
        provider.shutdown()
        made.shutdown()

        told = [data.log_record.attributes for data in out.get_finished_logs()]
        assert {a["sampling.threshold"] for a in told} == {"8"}
        assert all(int(a["sampling.randomness"], 16) >= 8 << 52 for a in told)

    def test_errors_are_kept(self, logger, out):
        for n in range(100):
            logger.error("broken %d", n)

        assert len(self.attributes(out)) == 100

    def test_an_sdk_from_before_emit_was_renamed(self):
        """1.27 to 1.34 call `emit` with a LogData."""
        passed = []

        class Old:
            def emit(self, data):
                passed.append(data)

            def shutdown(self):
                passed.append("shut")

            def force_flush(self, _millis):
                return True

        class Record:
            body, severity_number, attributes = "x", None, None

        class Data:
            log_record = Record()

        processor = SamplingLogRecordProcessor(Old(), sampler())
        processor.emit(Data)
        processor.force_flush()
        processor.shutdown()

        assert passed == [Data, "shut"]
        assert "lip_sig" in Data.log_record.attributes

    def test_the_exports_own_records_are_not_sampled_into_it(self, out):
        provider = LoggerProvider(shutdown_on_exit=False)
        provider.add_log_record_processor(
            SamplingLogRecordProcessor(SimpleLogRecordProcessor(out), sampler())
        )
        provider.get_logger("lipservice").emit(body="x")
        provider.get_logger("app").emit(body="x")
        provider.shutdown()

        assert len(out.get_finished_logs()) == 1

    def test_spans_reach_our_own_handler(self, bench):
        from opentelemetry.sdk.trace import TracerProvider

        handler = PostHogHandler(exporter=bench.exporter)
        with (
            TracerProvider(shutdown_on_exit=False)
            .get_tracer("t")
            .start_as_current_span("s") as span
        ):
            handler.handle(logging.LogRecord("app", 20, "p", 1, "m", (), None))
        context = span.get_span_context()
        (got,) = sent(bench)

        assert got["trace_id"] == f"{context.trace_id:032x}"
        assert got["span_id"] == f"{context.span_id:016x}"


def test_what_a_request_of_structlog_s_holds_is_exported_only_if_it_fails(bench):
    made = AdaptiveSampler(policy=SamplingPolicy(sampling_rate=0.0, keep_first=0))
    printed = []
    logger = structlog.wrap_logger(
        structlog.PrintLogger(),
        processors=[
            PostHogProcessor(exporter=bench.exporter),
            lambda _logger, _name, event: printed.append(event["event"]) or str(event["event"]),
        ],
        wrapper_class=lipservice.sampling_bound_logger(sampler=made),
    )
    with lipservice.request():
        logger.info("good")
    with lipservice.request():
        logger.info("step")
        logger.error("failed")
    made.shutdown()

    # Not in order: the exporter sends the most severe first, each with the time of its call.
    assert sorted(record["body"] for record in sent(bench)) == ["failed", "step"]
    assert printed == ["good", "step", "failed"]


def test_a_context_reaches_all_of_them(bench):
    loguru.logger.remove()
    number = loguru.logger.add(PostHogSink(exporter=bench.exporter))
    with LogContext(distinct_id="bob", session_id="s1").use():
        PostHogHandler(exporter=bench.exporter).handle(
            logging.LogRecord("a", 20, "p", 1, "m", (), None)
        )
        PostHogProcessor(exporter=bench.exporter)(None, "info", {"event": "m"})
        loguru.logger.info("m")
        bench.exporter.export_log("m")
    loguru.logger.remove(number)
    loguru.logger.add(sys.stderr)

    people = [
        (r["attributes"]["posthogDistinctId"], r["attributes"]["sessionId"]) for r in sent(bench)
    ]
    assert people == [("bob", "s1")] * 4


def test_public_names():
    assert {
        name: getattr(lipservice.export, name).__name__ for name in lipservice.export.__all__
    } == {name: name for name in lipservice.export.__all__}
    with pytest.raises(AttributeError):
        lipservice.export.Nonsense  # noqa: B018


@pytest.mark.parametrize("module", ["structlog", "loguru", "opentelemetry.sdk._logs"])
def test_without_the_framework_the_error_says_what_to_install(module, tmp_path):
    import subprocess

    name = module.partition(".")[0]
    program = f"""
import sys, importlib.util
sys.modules[{module!r}] = None
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {module!r} else find(name, *rest)
from lipservice.exceptions import MissingExtraError
import lipservice.export.exporter, lipservice.export.handler
try:
    import lipservice.export.{name}
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )

    assert "pip install 'lipservice[" in done.stdout, done


def test_the_export_needs_no_framework_and_no_requests():
    import subprocess

    program = (
        "import sys, lipservice.export.handler as h; h.PostHogHandler(api_key='phc_x');"
        "print([m for m in ('requests', 'urllib3', 'opentelemetry', 'structlog', 'loguru', 'posthog', 'google.protobuf') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stdout.strip() == "[]", done
