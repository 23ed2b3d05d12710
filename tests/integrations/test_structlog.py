"""structlog: the processor in any chain, and the bound logger that decides early."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import json
import logging
import pickle
import random
import sys
import threading
from collections import Counter

import pytest

structlog = pytest.importorskip("structlog")

from structlog.testing import CapturingLogger, ReturnLogger, capture_logs  # noqa: E402

from lipservice import (  # noqa: E402
    SamplingFilter,
    SamplingProcessor,
    sampling_bound_logger,
    sampling_logger_class,
)
from lipservice._settings import set_default_sampler  # noqa: E402
from lipservice._worker import own_thread  # noqa: E402
from lipservice.decision import Totals  # noqa: E402
from lipservice.exceptions import ConfigurationError  # noqa: E402
from lipservice.policy import SamplingPolicy  # noqa: E402
from lipservice.sampler import AdaptiveSampler  # noqa: E402
from lipservice.signature import compute_signature  # noqa: E402

FIRST_TWO = SamplingPolicy(sampling_rate=0.0, keep_first=2, policy_id="first two")
DROPPING = SamplingPolicy(sampling_rate=0.0, keep_first=0)
KEEPING = SamplingPolicy()
STAMPS = {
    "lipservice_signature",
    "lipservice_rate",
    "lipservice_weight",
    "lipservice_rule",
    "lipservice_policy",
}
VERSION = tuple(map(int, structlog.__version__.split(".")[:2]))
MODERN = pytest.mark.skipif(VERSION < (26, 1), reason="this structlog cannot do it by itself")
NAMES = ("debug", "info", "msg", "warning", "warn", "error", "critical", "fatal")


@pytest.fixture
def make_sampler():
    made = []

    def make(policy=FIRST_TWO):
        made.append(AdaptiveSampler(policy=policy, notices=False, rng=random.Random(1)))
        return made[-1]

    yield make
    for sampler in made:
        assert sampler.shutdown(10.0)


@pytest.fixture
def sampler(make_sampler):
    return make_sampler()


@pytest.fixture
def out():
    """Where the native loggers of a test write: `calls` holds what came."""
    return CapturingLogger()


def native(out, *processors, wrapper_class=None, **context):
    """A logger that writes its event dict to *out*."""
    return structlog.wrap_logger(
        out,
        processors=[*processors, _as_keywords],
        wrapper_class=wrapper_class or structlog.make_filtering_bound_logger(0),
        **context,
    )


def _as_keywords(_logger, _name, event_dict):
    return (), event_dict


def events(out):
    return [call.kwargs.get("event") for call in out.calls]


@pytest.fixture
def handler():
    """Keeps the records of the loggers below `application`."""

    class Keeping(logging.Handler):
        def __init__(self):
            super().__init__()
            self.records = []

        def emit(self, record):
            self.records.append(record)

    logger = logging.getLogger("application")
    logger.setLevel(logging.INFO)
    logger.parent = None
    logger.addHandler(Keeping())
    return logger.handlers[0]


def through_logging(*processors, wrapper_class=None):
    """A logger on top of the standard library's logger `application`."""
    return structlog.wrap_logger(
        logging.getLogger("application"),
        processors=[*processors, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=wrapper_class or structlog.stdlib.BoundLogger,
    )


# ---------------------------------------------------------------------- the processor


class TestProcessor:
    def test_it_drops_what_the_sampler_does_not_keep(self, sampler, out):
        logger = native(out, SamplingProcessor(sampler))

        for number in range(10):
            logger.info("job is done", number=number)
            logger.error("job failed", number=number)

        assert events(out).count("job is done") == 2
        assert events(out).count("job failed") == 10
        assert sampler.totals() == Totals(20, 12, 8)

    def test_a_kept_event_carries_the_decision(self, make_sampler, out):
        sampler = make_sampler(SamplingPolicy(sampling_rate=0.25, keep_first=0, version=9))
        logger = native(out, SamplingProcessor(sampler))
        for number in range(200):
            logger.info("job is done", number=number)

        event = out.calls[-1].kwargs
        assert event["lipservice_signature"] == compute_signature("job is done")
        assert (event["lipservice_rate"], event["lipservice_weight"]) == (0.25, 4.0)
        assert (event["lipservice_rule"], event["lipservice_policy"]) == ("rate", "9")

    def test_a_dropped_one_raises_drop_event(self, make_sampler):
        processor = SamplingProcessor(make_sampler(DROPPING))

        with pytest.raises(structlog.DropEvent):
            processor(None, "info", {"event": "hello"})

    @pytest.mark.parametrize("place", range(5))
    def test_it_may_stand_anywhere_in_the_chain(self, place, sampler, out):
        chain = [
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.StackInfoRenderer(),
        ]
        chain.insert(place, SamplingProcessor(sampler))
        logger = native(out, *chain, structlog.processors.format_exc_info)

        for _ in range(10):
            logger.info("hello")

        assert len(out.calls) == 2
        assert sampler.totals() == Totals(10, 2, 8)
        assert {*STAMPS, "event", "level", "timestamp"} == set(out.calls[0].kwargs)

    def test_what_it_adds_is_rendered(self, make_sampler):
        sampler = make_sampler(SamplingPolicy(sampling_rate=0.5, keep_first=0))
        logger = structlog.wrap_logger(
            ReturnLogger(),
            processors=[SamplingProcessor(sampler), structlog.processors.JSONRenderer()],
        )
        lines = list(filter(None, (logger.info("hello", user=7) for _ in range(50))))

        assert {json.loads(line)["lipservice_weight"] for line in lines} == {2.0}

    def test_bound_values_and_context_are_no_part_of_the_pattern(self, sampler, out):
        structlog.contextvars.bind_contextvars(request="r-1")
        logger = native(out, structlog.contextvars.merge_contextvars, SamplingProcessor(sampler))
        for user in "abcdef":
            logger.bind(user=user).info("hello", extra=user)

        (stats,) = sampler.get_pattern_stats().values()
        assert stats.count == 6
        assert out.calls[0].kwargs["request"] == "r-1"

    def test_an_event_that_was_decided_passes(self, make_sampler, out):
        sampler = make_sampler(DROPPING)
        logger = native(out, SamplingProcessor(sampler))

        logger.info("hello", lipservice_weight=7.0)

        assert out.calls[0].kwargs["lipservice_weight"] == 7.0
        assert sampler.totals().seen == 0

    def test_two_of_them_count_once(self, sampler, out):
        logger = native(out, SamplingProcessor(sampler), SamplingProcessor(sampler))
        for _ in range(10):
            logger.info("hello")

        assert sampler.totals().seen == 10
        assert len(out.calls) == 2

    @pytest.mark.parametrize("name", NAMES)
    def test_each_method_has_its_severity(self, name, make_sampler, out):
        if name == "fatal" and VERSION < (25, 1):
            pytest.skip("there it is structlog's error()")
        sampler = make_sampler(KEEPING)
        getattr(native(out, SamplingProcessor(sampler)), name)("hello")

        (stats,) = sampler.get_pattern_stats().values()
        expected = {"msg": "INFO", "warn": "WARNING", "fatal": "CRITICAL"}
        assert stats.severity_distribution == {expected.get(name, name.upper()): 1}

    def test_an_exception_is_an_error(self, make_sampler, out):
        sampler = make_sampler(DROPPING)
        logger = native(out, SamplingProcessor(sampler))
        try:
            raise ValueError("on purpose")
        except ValueError:
            for _ in range(5):
                logger.exception("it broke")

        assert events(out) == ["it broke"] * 5
        assert out.calls[0].kwargs["exc_info"] is True

    @pytest.mark.parametrize("event", [None, 5, b"bytes", {"a": 1}, ["list"], ValueError("x")])
    def test_any_object_may_be_the_event(self, event, sampler, out):
        logger = native(out, SamplingProcessor(sampler))
        for _ in range(5):
            logger.info(event)

        assert events(out) == [event] * 2

    def test_without_a_sampler_the_default_one_decides_also_if_set_later(self, sampler, out):
        processor = SamplingProcessor()
        set_default_sampler(sampler)
        native(out, processor).info("hello")

        assert processor.sampler is sampler
        assert sampler.totals().seen == 1

    def test_sampler_and_settings_are_not_both_taken(self, sampler):
        with pytest.raises(ConfigurationError, match="not both"):
            SamplingProcessor(sampler, cost_target=0.1)
        with pytest.raises(ConfigurationError, match="cost_traget"):
            SamplingProcessor(cost_traget=0.1)

    def test_neither_import_nor_use_configures_structlog(self, sampler, out):
        native(out, SamplingProcessor(sampler)).info("hello")
        sampling_bound_logger(sampler=sampler)

        assert not structlog.is_configured()
        assert logging.getLoggerClass() is logging.Logger


class TestProcessorThroughLogging:
    def test_the_record_carries_the_decision(self, sampler, handler):
        logger = through_logging(SamplingProcessor(sampler))
        for number in range(10):
            logger.info("job is done", number=number)

        assert [record.number for record in handler.records] == [0, 1]
        assert all(set(vars(record)) > STAMPS for record in handler.records)
        assert sampler.totals() == Totals(10, 2, 8)

    @pytest.mark.parametrize("place", ["before", "after"])
    def test_positional_arguments(self, place, sampler, handler):
        formatter = structlog.stdlib.PositionalArgumentsFormatter()
        processor = SamplingProcessor(sampler)
        chain = [processor, formatter] if place == "before" else [formatter, processor]
        logger = through_logging(*chain)
        for number in range(10):
            logger.info("job %d is done", number)

        assert [record.getMessage() for record in handler.records] == [
            "job 0 is done",
            "job 1 is done",
        ]
        (stats,) = sampler.get_pattern_stats().values()
        assert (stats.count, stats.signature) == (10, compute_signature("job 5 is done"))

    def test_a_handlers_filter_believes_it(self, sampler, handler):
        handler.addFilter(SamplingFilter(sampler=sampler))
        logger = through_logging(SamplingProcessor(sampler))
        for _ in range(10):
            logger.info("hello")

        assert len(handler.records) == 2
        assert sampler.totals().seen == 10

    def formatted(self, handler, *, chain=(), foreign=()):
        """structlog's usual set-up with a ProcessorFormatter on the handler."""
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=list(foreign),
                processors=[
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.JSONRenderer(),
                ],
            )
        )
        return structlog.wrap_logger(
            logging.getLogger("application"),
            processors=[*chain, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            wrapper_class=structlog.stdlib.BoundLogger,
        )

    def test_before_a_processor_formatter(self, sampler, handler):
        logger = self.formatted(handler, chain=[SamplingProcessor(sampler)])
        handler.addFilter(SamplingFilter(sampler=sampler))
        for user in "abcdefgh":
            logger.info("hello", user=user)

        assert sampler.totals() == Totals(8, 2, 6)
        lines = [json.loads(handler.format(record)) for record in handler.records]
        assert [(line["event"], line["user"], line["lipservice_weight"]) for line in lines] == [
            ("hello", "a", 1.0),
            ("hello", "b", 1.0),
        ]
        assert [record.lipservice_weight for record in handler.records] == [1.0, 1.0]

    def test_a_filter_behind_a_processor_formatter_reads_the_event(self, sampler, handler):
        """Not the text of the whole dict, in which every user would be a pattern."""
        logger = self.formatted(handler)
        handler.addFilter(SamplingFilter(sampler=sampler))
        for user in "abcdefgh":
            logger.info("hello", user=user)

        (stats,) = sampler.get_pattern_stats().values()
        assert (stats.count, stats.signature) == (8, compute_signature("hello"))
        assert [record.msg["user"] for record in handler.records] == ["a", "b"]

    @pytest.mark.parametrize("chained", [False, True])
    def test_an_early_logger_behind_a_processor_formatter_reads_the_event(
        self, chained, sampler, handler
    ):
        """And believes what the chain has decided."""
        early = sampling_logger_class(sampler)("application", logging.INFO)
        early.addHandler(handler)
        logger = structlog.wrap_logger(
            early,
            processors=[
                *([SamplingProcessor(sampler)] if chained else []),
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
        )
        for user in "abcdefgh":
            logger.info("hello", user=user)

        (stats,) = sampler.get_pattern_stats().values()
        assert (stats.count, stats.signature) == (8, compute_signature("hello"))
        assert [record.lipservice_weight for record in handler.records] == [1.0, 1.0]

    def test_in_a_foreign_pre_chain_it_lets_records_pass(self, make_sampler, handler, monkeypatch):
        """A formatter cannot drop: DropEvent out of it would be an error on the screen."""
        failed = []
        monkeypatch.setattr(logging.Handler, "handleError", lambda *_: failed.append(1))
        sampler = make_sampler(DROPPING)
        self.formatted(handler, foreign=[SamplingProcessor(sampler)])
        for _ in range(3):
            logging.getLogger("application").info("hello")

        assert [json.loads(handler.format(record))["event"] for record in handler.records] == [
            "hello"
        ] * 3
        assert failed == []


class TestOwnThreads:
    def test_what_is_born_in_them_is_dropped_but_errors(self, make_sampler, out):
        sampler = make_sampler(KEEPING)
        logger = native(out, SamplingProcessor(sampler))
        with own_thread():
            logger.info("born of our own work")
            logger.error("a finalizer's error")

        assert events(out) == ["a finalizer's error"]


# ---------------------------------------------------------------------- the bound logger


class TestBoundLogger:
    def test_it_decides_before_any_processor_runs(self, sampler, out):
        ran = []
        logger = native(
            out,
            lambda _logger, _name, event_dict: ran.append(1) or event_dict,
            wrapper_class=sampling_bound_logger(sampler=sampler),
        )
        for number in range(10):
            assert logger.info("job is done", number=number) is None

        assert len(ran) == 2
        assert sampler.totals() == Totals(10, 2, 8)
        assert set(out.calls[0].kwargs) == {*STAMPS, "event", "number"}

    def test_with_the_processor_behind_it_counts_once(self, sampler, out):
        logger = native(
            out, SamplingProcessor(sampler), wrapper_class=sampling_bound_logger(sampler=sampler)
        )
        for _ in range(10):
            logger.info("hello")

        assert sampler.totals().seen == 10
        assert len(out.calls) == 2

    @pytest.mark.parametrize("name", NAMES)
    def test_each_method_has_its_severity(self, name, make_sampler, out):
        sampler = make_sampler(KEEPING)
        logger = native(out, wrapper_class=sampling_bound_logger(sampler=sampler))

        getattr(logger, name)("hello")

        (stats,) = sampler.get_pattern_stats().values()
        expected = {"msg": "INFO", "warn": "WARNING", "fatal": "CRITICAL"}
        assert stats.severity_distribution == {expected.get(name, name.upper()): 1}
        assert events(out) == ["hello"]

    @pytest.mark.parametrize(
        ("level", "severity"),
        [(10, "DEBUG"), (20, "INFO"), (30, "WARNING"), (40, "ERROR"), (50, "CRITICAL")],
    )
    def test_log_takes_the_level(self, level, severity, make_sampler, out):
        sampler = make_sampler(KEEPING)
        logger = native(out, wrapper_class=sampling_bound_logger(sampler=sampler))

        logger.log(level, "hello %s", "you")

        (stats,) = sampler.get_pattern_stats().values()
        assert stats.severity_distribution == {severity: 1}
        assert events(out) == ["hello you"]

    def test_levels_that_are_off_stay_off_and_are_not_counted(self, make_sampler, out):
        sampler = make_sampler(KEEPING)
        base = structlog.make_filtering_bound_logger(logging.WARNING)
        logger = native(out, wrapper_class=sampling_bound_logger(base, sampler))

        assert logger.info("hello") is None
        logger.debug("hello")
        logger.log(logging.INFO, "hello")
        logger.warning("look")
        asyncio.run(logger.ainfo("hello"))

        assert events(out) == ["look"]
        assert sampler.totals().seen == 1

    def test_arguments_are_filled_in_and_no_part_of_the_pattern(self, make_sampler, out):
        sampler = make_sampler(KEEPING)
        logger = native(out, wrapper_class=sampling_bound_logger(sampler=sampler))

        logger.info("the light is %s", "red")
        logger.info("100 %")

        assert events(out) == ["the light is red", "100 %"]
        templates = sorted(each.template for each in sampler.get_pattern_stats().values())
        assert templates == ["<*> %", "the light is <*>"]

    @MODERN
    def test_a_mapping_fills_in_too(self, sampler, out):
        logger = native(out, wrapper_class=sampling_bound_logger(sampler=sampler))

        logger.info("the light is %(colour)s", {"colour": "green"})

        assert events(out) == ["the light is green"]

    def test_exception_keeps_its_traceback(self, make_sampler, out):
        sampler = make_sampler(DROPPING)
        logger = native(out, wrapper_class=sampling_bound_logger(sampler=sampler))
        try:
            raise ValueError("on purpose")
        except ValueError:
            logger.exception("it broke")
            asyncio.run(logger.aexception("it broke too"))

        assert events(out) == ["it broke", "it broke too"]
        assert out.calls[0].kwargs["exc_info"] is True
        assert out.calls[1].kwargs["exc_info"][0] is ValueError
        assert sampler.totals() == Totals(2, 2)

    def test_bind_new_and_unbind_keep_the_class(self, sampler, out):
        cls = sampling_bound_logger(sampler=sampler)
        logger = native(out, wrapper_class=cls).bind(user=7)

        assert structlog.get_context(logger.bind(a=1)) == {"user": 7, "a": 1}
        for again in (logger, logger.bind(a=1), logger.bind(a=1).unbind("a"),
                      logger.try_unbind("nothing"), logger.new(b=2)):  # fmt: skip
            assert type(again) is cls
        assert structlog.get_context(logger.new(b=2)) == {"b": 2}

    def test_the_default_sampler_may_be_set_later(self, sampler, out):
        logger = native(out, wrapper_class=sampling_bound_logger())
        set_default_sampler(sampler)
        for _ in range(5):
            logger.info("hello")

        assert sampler.totals() == Totals(5, 2, 3)

    def test_a_class_without_methods_of_its_own_is_refused(self, sampler):
        """structlog's generic one finds them at the call: nothing would ever be sampled."""
        with pytest.raises(ConfigurationError, match="wrapper_class"):
            sampling_bound_logger(structlog.BoundLogger, sampler)

    def test_sampler_and_settings_are_not_both_taken(self, sampler):
        with pytest.raises(ConfigurationError, match="not both"):
            sampling_bound_logger(None, sampler, cost_target=0.1)

    def test_methods_look_like_those_they_stand_for(self, sampler):
        base = structlog.stdlib.BoundLogger
        cls = sampling_bound_logger(base, sampler)

        assert issubclass(cls, base)
        assert cls.info.__name__ == "info"
        assert cls.info.__doc__ == base.info.__doc__
        assert "BoundLogger" in cls.__name__

    def test_what_our_own_threads_log_goes_on_as_it_is(self, make_sampler, out):
        sampler = make_sampler(DROPPING)
        logger = native(out, wrapper_class=sampling_bound_logger(sampler=sampler))
        with own_thread():
            logger.info("a finalizer's")
            logger.log(20, "another one's")

        assert events(out) == ["a finalizer's", "another one's"]
        assert sampler.totals().seen == 0

    def test_threads_lose_no_count(self, make_sampler, out):
        sampler = make_sampler(SamplingPolicy(sampling_rate=0.3, keep_first=0))
        written = Counter()
        logger = native(
            out,
            lambda _logger, _name, event_dict: written.update(n=1) or event_dict,
            wrapper_class=sampling_bound_logger(sampler=sampler),
        )
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [
                threading.Thread(target=lambda: [logger.info("hello") for _ in range(500)])
                for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(before)

        assert sampler.totals() == Totals(4000, len(out.calls), 4000 - len(out.calls))


class TestBoundLoggerThroughLogging:
    def test_it_samples(self, sampler, handler):
        cls = sampling_bound_logger(structlog.stdlib.BoundLogger, sampler)
        logger = through_logging(wrapper_class=cls)
        for number in range(10):
            logger.info("job is done", number=number)

        assert [record.number for record in handler.records] == [0, 1]
        assert handler.records[0].lipservice_weight == 1.0
        assert sampler.totals() == Totals(10, 2, 8)

    def test_what_logging_has_switched_off_is_not_counted(self, make_sampler, handler):
        sampler = make_sampler(KEEPING)
        cls = sampling_bound_logger(structlog.stdlib.BoundLogger, sampler)
        logger = through_logging(wrapper_class=cls)

        logger.debug("hello")
        logger.log(logging.DEBUG, "hello")
        asyncio.run(logger.adebug("hello"))
        asyncio.run(logger.alog(logging.DEBUG, "hello"))
        logger.info("look")

        assert len(handler.records) == 1
        assert sampler.totals().seen == 1

    @pytest.mark.parametrize("name", ["exception", "error", "critical", "fatal"])
    def test_errors_and_exceptions_are_kept(self, name, make_sampler, handler):
        sampler = make_sampler(DROPPING)
        cls = sampling_bound_logger(structlog.stdlib.BoundLogger, sampler)
        logger = through_logging(wrapper_class=cls)
        try:
            raise ValueError("on purpose")
        except ValueError:
            getattr(logger, name)("it broke")
            asyncio.run(getattr(logger, f"a{name}")("it broke"))

        assert len(handler.records) == 2
        assert sampler.totals() == Totals(2, 2)
        if name == "exception":
            assert all(record.exc_info[0] is ValueError for record in handler.records)

    def test_a_level_that_is_off_for_an_exception_too(self, make_sampler, handler):
        sampler = make_sampler(KEEPING)
        logging.getLogger("application").setLevel(logging.CRITICAL)
        cls = sampling_bound_logger(structlog.stdlib.BoundLogger, sampler)

        through_logging(wrapper_class=cls).exception("it broke")

        assert handler.records == []
        assert sampler.totals().seen == 0

    def test_arguments(self, make_sampler, handler):
        sampler = make_sampler(KEEPING)
        cls = sampling_bound_logger(structlog.stdlib.BoundLogger, sampler)
        logger = through_logging(structlog.stdlib.PositionalArgumentsFormatter(), wrapper_class=cls)

        logger.info("the light is %s", "red")

        assert handler.records[0].getMessage() == "the light is red"
        (stats,) = sampler.get_pattern_stats().values()
        assert stats.template == "the light is <*>"


class TestAsync:
    """Methods that begin with an `a`, and the old AsyncBoundLogger."""

    BASES = pytest.mark.parametrize("base", ["native", "stdlib"])

    def logger(self, base, sampler, out):
        if base == "native":
            return native(out, wrapper_class=sampling_bound_logger(sampler=sampler))
        cls = sampling_bound_logger(structlog.stdlib.BoundLogger, sampler)
        return structlog.wrap_logger(_Enabled(out), processors=[_as_keywords], wrapper_class=cls)

    @BASES
    def test_kept_and_dropped_can_both_be_awaited(self, base, sampler, out):
        logger = self.logger(base, sampler, out)

        async def work():
            for number in range(6):
                assert await logger.ainfo("hello", number=number) is None
                await logger.alog(30, "look")

        asyncio.run(work())

        assert sampler.totals() == Totals(12, 4, 8)
        assert len(out.calls) == 4

    @BASES
    def test_context_variables_are_those_of_the_caller(self, base, make_sampler, out):
        sampler = make_sampler(KEEPING)
        request = contextvars.ContextVar("request")
        seen = []

        def look(_logger, _name, event_dict):
            seen.append(request.get(None))
            return event_dict

        wrapped = structlog.stdlib.BoundLogger if base == "stdlib" else None
        logger = structlog.wrap_logger(
            _Enabled(out),
            processors=[look, _as_keywords],
            wrapper_class=sampling_bound_logger(wrapped, sampler),
        )

        async def work(name):
            request.set(name)
            await logger.ainfo("hello")

        async def all_of_it():
            await asyncio.gather(*(work(name) for name in "abc"))

        asyncio.run(all_of_it())

        assert sorted(seen) == ["a", "b", "c"]

    def test_the_processor_takes_part_in_async_methods(self, sampler, out):
        logger = native(out, SamplingProcessor(sampler))

        async def work():
            for _ in range(5):
                await logger.ainfo("hello")

        asyncio.run(work())

        assert sampler.totals() == Totals(5, 2, 3)

    @MODERN
    def test_the_old_async_bound_logger(self, make_sampler, handler):
        sampler = make_sampler()
        cls = sampling_bound_logger(structlog.stdlib.AsyncBoundLogger, sampler)

        async def work():
            logger = through_logging(wrapper_class=cls).bind(user=7)
            assert type(logger) is cls
            for _ in range(5):
                await logger.info("hello")
            await logger.log(30, "look")
            try:
                raise ValueError("on purpose")
            except ValueError:
                await logger.exception("it broke")

        asyncio.run(work())

        assert [record.getMessage() for record in handler.records] == [
            "hello",
            "hello",
            "look",
            "it broke",
        ]
        assert handler.records[0].user == 7
        assert handler.records[-1].exc_info[0] is ValueError
        assert sampler.totals().seen == 7


class _Enabled:
    """A logger underneath that a standard library's bound logger can ask for its level."""

    def __init__(self, out):
        self.out = out

    def isEnabledFor(self, _level):
        return True

    def __getattr__(self, name):
        return getattr(self.out, name)


class TestCallSite:
    """The application's line, not ours."""

    SITE = structlog.processors.CallsiteParameterAdder(
        [
            structlog.processors.CallsiteParameter.FILENAME,
            structlog.processors.CallsiteParameter.MODULE,
            structlog.processors.CallsiteParameter.LINENO,
            structlog.processors.CallsiteParameter.FUNC_NAME,
            structlog.processors.CallsiteParameter.THREAD_NAME,
        ]
    )

    @pytest.mark.parametrize("method", ["info", "log", "exception", "warn"])
    @pytest.mark.parametrize("early", [True, False], ids=["bound logger", "processor"])
    def test_of_structlogs_own_parameters(self, method, early, make_sampler, out):
        sampler = make_sampler(KEEPING)
        cls = sampling_bound_logger(sampler=sampler) if early else None
        logger = native(out, *([] if early else [SamplingProcessor(sampler)]), self.SITE,
                        wrapper_class=cls)  # fmt: skip

        arguments = (40, "hello") if method == "log" else ("hello",)
        line = sys._getframe().f_lineno + 1
        getattr(logger, method)(*arguments)

        event = out.calls[0].kwargs
        assert (event["filename"], event["lineno"]) == ("test_structlog.py", line)
        assert event["func_name"] == "test_of_structlogs_own_parameters"
        assert event["module"] == "test_structlog"

    @MODERN
    @pytest.mark.parametrize("early", [True, False], ids=["bound logger", "processor"])
    @pytest.mark.parametrize("base", ["native", "stdlib"])
    def test_of_async_methods(self, base, early, make_sampler, out):
        sampler = make_sampler(KEEPING)
        wrapped = structlog.stdlib.BoundLogger if base == "stdlib" else None
        cls = sampling_bound_logger(wrapped, sampler) if early else wrapped
        logger = structlog.wrap_logger(
            _Enabled(out),
            processors=[*([] if early else [SamplingProcessor(sampler)]), self.SITE, _as_keywords],
            wrapper_class=cls or structlog.make_filtering_bound_logger(0),
        )
        lines = []

        async def work():
            lines.append(sys._getframe().f_lineno + 1)
            await logger.ainfo("hello")

        asyncio.run(work())

        event = out.calls[0].kwargs
        assert (event["func_name"], event["lineno"]) == ("work", lines[0])
        assert event["thread_name"] == "MainThread"

    @pytest.mark.parametrize("early", [True, False], ids=["bound logger", "processor"])
    def test_of_loggings_records(self, early, make_sampler):
        """By the findCaller that structlog's LoggerFactory brings."""
        sampler = make_sampler(KEEPING)
        base = structlog.stdlib.BoundLogger
        factory = structlog.stdlib.LoggerFactory()
        records = []
        logging.getLogger("a caller").addFilter(lambda record: records.append(record) or False)
        logger = structlog.wrap_logger(
            factory("a caller"),
            processors=[
                *([] if early else [SamplingProcessor(sampler)]),
                structlog.stdlib.render_to_log_kwargs,
            ],
            wrapper_class=sampling_bound_logger(base, sampler) if early else base,
        )

        line = sys._getframe().f_lineno + 1
        logger.warning("hello")

        assert (records[0].filename, records[0].lineno) == ("test_structlog.py", line)
        assert records[0].funcName == "test_of_loggings_records"

    def test_a_logger_without_a_name_is_named_after_the_callers_module(self, make_sampler):
        sampler = make_sampler(KEEPING)
        structlog.configure(
            processors=[structlog.stdlib.add_logger_name, structlog.processors.KeyValueRenderer()],
            wrapper_class=sampling_bound_logger(structlog.stdlib.BoundLogger, sampler),
            logger_factory=structlog.stdlib.LoggerFactory(),
        )

        assert structlog.get_logger().bind()._logger.name == __name__


class TestConfigured:
    """As applications use it: configured once, for all loggers."""

    def test_with_capture_logs(self, sampler):
        structlog.configure(
            processors=[structlog.processors.add_log_level, structlog.dev.ConsoleRenderer()],
            wrapper_class=sampling_bound_logger(sampler=sampler),
        )
        with capture_logs() as captured:
            logger = structlog.get_logger()
            for _ in range(5):
                logger.info("hello", user=7)
            logger.error("it broke")

        assert [event["event"] for event in captured] == ["hello", "hello", "it broke"]
        assert captured[0]["user"] == 7
        assert captured[0]["lipservice_weight"] == 1.0

    def test_capture_logs_sees_everything_where_the_processor_samples(self, sampler):
        """It puts itself in the place of all processors, ours among them."""
        structlog.configure(
            processors=[SamplingProcessor(sampler), structlog.dev.ConsoleRenderer()]
        )
        with capture_logs() as captured:
            for _ in range(5):
                structlog.get_logger().info("hello")

        assert len(captured) == 5

    def test_cached_loggers(self, sampler, out):
        structlog.configure(
            processors=[_as_keywords],
            wrapper_class=sampling_bound_logger(sampler=sampler),
            logger_factory=lambda *_: out,
            cache_logger_on_first_use=True,
        )
        logger = structlog.get_logger()
        for _ in range(5):
            logger.info("hello")

        assert len(out.calls) == 2


class TestCopies:
    def test_a_lazy_logger_can_be_pickled(self, sampler):
        structlog.configure(wrapper_class=sampling_bound_logger(sampler=sampler))

        pickle.loads(pickle.dumps(structlog.get_logger("name", user=7)))

    @pytest.mark.parametrize("settings", [{}, {"cost_target": 0.5, "protect": ["payment"]}])
    def test_a_bound_logger_can_be_pickled_with_its_context(self, settings):
        """As structlog's own can: for multiprocessing, say. The class is made again there."""
        cls = sampling_bound_logger(None, **settings)
        logger = structlog.wrap_logger(
            structlog.PrintLogger(),
            processors=[SamplingProcessor(**settings), structlog.processors.JSONRenderer()],
            wrapper_class=cls,
        ).bind(user=7)

        again = pickle.loads(pickle.dumps(logger))

        assert type(again).__name__ == cls.__name__
        assert type(again).info is not structlog.make_filtering_bound_logger(0).info
        assert structlog.get_context(again) == {"user": 7}
        assert type(pickle.loads(pickle.dumps(again))).__name__ == cls.__name__

    def test_a_processor_of_settings_is_the_same_one_in_this_process(self):
        processor = SamplingProcessor(cost_target=0.5)

        again = pickle.loads(pickle.dumps(processor))

        assert again.sampler is processor.sampler

    def test_one_with_a_sampler_of_its_own_takes_the_default_one_elsewhere(self, sampler):
        other = AdaptiveSampler()
        set_default_sampler(other)

        again = pickle.loads(pickle.dumps(SamplingProcessor(sampler)))

        assert again.sampler is other

    def test_a_deep_copy_goes_on_with_the_same_counts(self, sampler):
        assert copy.deepcopy(SamplingProcessor(sampler)).sampler is sampler


def test_early_and_late_estimate_the_same(make_sampler, out):
    policy = SamplingPolicy(sampling_rate=0.2, keep_first=5)
    for early in (True, False):
        sampler = make_sampler(policy)
        out.calls.clear()
        logger = native(
            out,
            *([] if early else [SamplingProcessor(sampler)]),
            wrapper_class=sampling_bound_logger(sampler=sampler) if early else None,
        )
        for number in range(4000):
            logger.info("job is done", number=number)

        weights = sum(call.kwargs["lipservice_weight"] for call in out.calls)
        assert abs(weights - 4000) < 5 * (4000 * 0.8 / 0.2) ** 0.5
        assert sampler.totals().kept == len(out.calls)
