"""`logging`: filter, handler and logger class, in the configurations that applications have."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import io
import logging
import logging.config
import logging.handlers
import os
import pickle
import queue
import random
import re
import sys
import threading
import time
import warnings
from collections import Counter

import pytest

import lipservice
from lipservice import SamplingFilter, SamplingHandler, SamplingLogger, sampling_logger_class
from lipservice._settings import set_default_sampler
from lipservice._worker import OWN_THREADS, own_thread
from lipservice.decision import Totals
from lipservice.exceptions import ConfigurationError
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from lipservice.signature import compute_signature

DROPPING = SamplingPolicy(sampling_rate=0.0, keep_first=0, policy_id="dropping")
STAMPS = {
    "lipservice_signature",
    "lipservice_rate",
    "lipservice_weight",
    "lipservice_rule",
    "lipservice_policy",
}


class Keeping(logging.Handler):
    """Keeps records."""

    def __init__(self, *filters, level=logging.NOTSET):
        super().__init__(level)
        self.records = []
        for each in filters:
            self.addFilter(each)

    def emit(self, record):
        self.records.append(record)

    @property
    def messages(self):
        return [record.getMessage() for record in self.records]


@pytest.fixture
def make_sampler():
    made = []

    def make(policy=DROPPING, **options):
        made.append(AdaptiveSampler(policy=policy, notices=False, rng=random.Random(1), **options))
        return made[-1]

    yield make
    for sampler in made:
        assert sampler.shutdown(10.0)


@pytest.fixture
def sampler(make_sampler):
    """Keeps errors and the first two records of a pattern."""
    return make_sampler(SamplingPolicy(sampling_rate=0.0, keep_first=2, policy_id="first two"))


@pytest.fixture
def logger():
    """A logger that hands its records to nobody else, not even pytest."""
    logger = logging.getLogger("application.part")
    logger.setLevel(logging.DEBUG)
    logger.parent = None  # not `propagate`: pytest listens to loggers that do not propagate
    return logger


@pytest.fixture
def errors(monkeypatch):
    """What handlers complained of: exceptions out of emit, which logging prints and swallows."""
    found = []
    monkeypatch.setattr(
        logging.Handler, "handleError", lambda _self, _record: found.append(sys.exc_info()[1])
    )
    return found


@pytest.fixture(autouse=True)
def _no_handler_complains(errors):
    yield
    assert errors == []


# ---------------------------------------------------------------------- the filter


class TestFilter:
    def test_it_drops_what_the_sampler_does_not_keep(self, sampler, logger):
        handler = Keeping(SamplingFilter(sampler=sampler))
        logger.addHandler(handler)

        for number in range(10):
            logger.info("job %d is done", number)
            logger.error("job %d failed", number)

        assert handler.messages.count("job 9 failed") == 1
        assert [each for each in handler.messages if "done" in each] == [
            "job 0 is done",
            "job 1 is done",
        ]
        assert sampler.totals() == Totals(20, 12, 8)

    def test_kept_records_carry_the_decision_as_attributes(self, make_sampler, logger):
        sampler = make_sampler(SamplingPolicy(sampling_rate=0.25, keep_first=0, version=9))
        handler = Keeping(SamplingFilter(sampler=sampler))
        logger.addHandler(handler)
        for number in range(200):
            logger.info("job %d is done", number)

        record = handler.records[-1]
        assert record.lipservice_signature == compute_signature("job 7 is done")
        assert (record.lipservice_rate, record.lipservice_weight) == (0.25, 4.0)
        assert (record.lipservice_rule, record.lipservice_policy) == ("rate", "9")

    def test_message_and_arguments_stay_what_they_were(self, sampler, logger):
        seen = []
        filter_ = SamplingFilter(sampler=sampler)
        logger.addHandler(Keeping(lambda record: seen.append(record) or True, filter_))
        arguments = [{"a": [1]}, "text", 5]

        logger.info("%s and %s and %s", *arguments)
        logger.info("a mapping: %(a)s", {"a": 1})
        logger.info(arguments)

        assert seen[0].msg == "%s and %s and %s"
        assert seen[0].args == tuple(arguments)
        assert seen[0].args[0] is arguments[0]
        assert (seen[1].msg, seen[1].args) == ("a mapping: %(a)s", {"a": 1})
        assert seen[2].msg is arguments
        assert seen[2].args == ()
        extra = set(vars(seen[0])) - set(vars(logging.makeLogRecord({})))
        assert extra == STAMPS

    def test_a_dropped_record_gets_the_weight_0_and_nothing_else(self, make_sampler):
        record = logging.makeLogRecord({"msg": "hello", "levelno": logging.INFO})
        before = set(vars(record))

        assert not SamplingFilter(sampler=make_sampler()).filter(record)

        assert record.lipservice_weight == 0.0
        assert set(vars(record)) - before == {"lipservice_weight"}

    def test_two_handlers_with_the_same_filter_count_a_record_once(self, sampler, logger):
        filter_ = SamplingFilter(sampler=sampler)
        handlers = [Keeping(filter_), Keeping(filter_)]
        for handler in handlers:
            logger.addHandler(handler)

        for number in range(10):
            logger.info("job %d is done", number)

        assert sampler.totals().seen == 10
        assert handlers[0].records == handlers[1].records
        assert len(handlers[0].records) == 2

    def test_a_logger_and_a_handler_with_filters_count_a_record_once(self, sampler, logger):
        logger.addFilter(SamplingFilter(sampler=sampler))
        handler = Keeping(SamplingFilter(sampler=sampler))
        logger.addHandler(handler)

        for _ in range(10):
            logger.info("hello")

        assert sampler.totals() == Totals(10, 2, 8)
        assert len(handler.records) == 2

    def test_on_a_logger_it_does_not_see_the_records_of_its_children(self, sampler, logger):
        logger.addFilter(SamplingFilter(sampler=sampler))
        handler = Keeping()
        logger.addHandler(handler)

        for _ in range(5):
            logger.getChild("child").info("hello")

        assert len(handler.records) == 5

    def test_a_name_restricts_it_to_a_part_of_the_application(self, make_sampler):
        filter_ = SamplingFilter("application", sampler=make_sampler())

        def passes(name):
            return filter_.filter(logging.makeLogRecord({"name": name, "msg": "hello"}))

        assert not passes("application")
        assert not passes("application.part")
        assert passes("applications")
        assert passes("other")

    def test_a_stamp_from_elsewhere_is_believed(self, make_sampler):
        """A record of another process, decided there."""
        sampler = make_sampler()
        filter_ = SamplingFilter(sampler=sampler)
        for weight in (1.0, 20, "5.0", 0.5):
            record = logging.makeLogRecord({"msg": "hello", "lipservice_weight": weight})
            assert filter_.filter(record)
        assert not filter_.filter(logging.makeLogRecord({"lipservice_weight": 0.0}))
        assert sampler.totals().seen == 0

    def test_a_formatter_prints_the_weight(self, make_sampler, logger):
        sampler = make_sampler(SamplingPolicy(sampling_rate=0.1, keep_first=0))
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("%(lipservice_weight).1f %(message)s"))
        handler.addFilter(SamplingFilter(sampler=sampler))
        logger.addHandler(handler)
        for number in range(100):
            logger.info("job %d is done", number)

        lines = stream.getvalue().splitlines()
        assert 0 < len(lines) < 30
        assert all(re.fullmatch(r"10\.0 job \d+ is done", line) for line in lines)

    def test_a_formatter_prints_it_for_lipservices_own_records_too(self, make_sampler):
        """Else each notice would end in an error of the handler that its format names."""
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(
            logging.Formatter("%(lipservice_weight)s %(lipservice_rate)s %(lipservice_rule)s"
                              " %(lipservice_signature)s %(lipservice_policy)s %(message)s")
        )  # fmt: skip
        handler.addFilter(SamplingFilter(sampler=make_sampler()))
        own = logging.getLogger("lipservice")
        own.addHandler(handler)
        own.setLevel(logging.INFO)

        own.info("a notice")

        assert stream.getvalue().startswith("1.0 1.0 own ")
        assert stream.getvalue().endswith("a notice\n")

    def test_the_logger_lipservice_is_never_sampled(self, make_sampler):
        sampler = make_sampler()
        handler = Keeping(SamplingFilter(sampler=sampler))
        own = logging.getLogger("lipservice")
        own.addHandler(handler)
        own.setLevel(logging.DEBUG)

        for _ in range(50):
            own.debug("telling what it does")

        assert len(handler.records) == 50
        assert sampler.totals().seen == 0

    def test_arguments_that_do_not_fit_are_the_handlers_business(self, sampler, logger, errors):
        stream = logging.StreamHandler(io.StringIO())
        stream.addFilter(SamplingFilter(sampler=sampler))
        logger.addHandler(stream)

        for _ in range(3):
            logger.info("too few: %d %d", 1)  # noqa: PLE1206
            logger.info("wrong: %d", "text")
            logger.info("no mapping: %(name)s", 5)
            logger.info("no conversion: %z", 5)

        assert len(errors) == 8  # the first two of each pattern reached the handler
        errors.clear()
        assert sampler.totals().seen == 12

    @pytest.mark.parametrize(
        "message", [None, b"bytes", 5, ["list"], {"a": 1}, ValueError("x"), "\ud800", "x" * 10**6]
    )
    def test_any_object_may_be_logged(self, message, sampler, logger):
        handler = Keeping(SamplingFilter(sampler=sampler))
        logger.addHandler(handler)

        for _ in range(5):
            logger.info(message)

        assert [record.msg for record in handler.records] == [message] * 2

    def test_a_message_that_logs_while_it_is_read_is_no_trouble(self, sampler, logger):
        handler = Keeping(SamplingFilter(sampler=sampler))
        logger.addHandler(handler)

        class Chatty:
            def __str__(self):
                logger.info("reading")
                return "chatty"

        for _ in range(5):
            logger.info(Chatty())

        assert sampler.get_pattern_stats()[compute_signature("chatty")].count == 5
        assert sampler.totals().dropped > 0

    def test_without_a_sampler_the_default_one_decides_also_if_set_later(self, sampler):
        filter_ = SamplingFilter()
        set_default_sampler(sampler)
        record = logging.makeLogRecord({"msg": "hello", "levelno": logging.INFO})

        assert filter_.filter(record)

        assert filter_.sampler is sampler
        assert sampler.totals().seen == 1

    def test_a_sampler_given_in_place_of_the_name_is_told_where_it_goes(self):
        with pytest.raises(ConfigurationError, match=r"^name: .*sampler=\.\.\.$"):
            SamplingFilter(AdaptiveSampler())

    def test_sampler_and_settings_are_not_both_taken(self, sampler):
        with pytest.raises(ConfigurationError, match="not both"):
            SamplingFilter(sampler=sampler, cost_target=0.1)


class TestDictConfig:
    def configure(self, where, **filter_options):
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "filters": {"sampling": {"()": "lipservice.SamplingFilter", **filter_options}},
                "handlers": {
                    "memory": {"()": Keeping, **({"filters": ["sampling"]} if where == "handler" else {})},
                    "second": {"()": Keeping, **({"filters": ["sampling"]} if where == "handler" else {})},
                },
                "loggers": {
                    "application": {
                        "handlers": ["memory", "second"],
                        "level": "INFO",
                        "propagate": False,
                        **({"filters": ["sampling"]} if where == "logger" else {}),
                    }
                },
            }
        )  # fmt: skip
        return logging.getLogger("application")

    @pytest.mark.parametrize("where", ["handler", "logger"])
    def test_a_filter_of_settings(self, where):
        logger = self.configure(where, max_logs_per_minute=0, keep_first=3, notices=False)
        for number in range(20):
            logger.info("job %d is done", number)
            logger.error("job %d failed", number)

        for handler in logger.handlers:
            assert len([each for each in handler.messages if "done" in each]) == 3
            assert len([each for each in handler.messages if "failed" in each]) == 20
        (filter_,) = (logger if where == "logger" else logger.handlers[0]).filters
        assert filter_.sampler.totals().seen == 40
        filter_.sampler.shutdown()

    def test_a_wrong_setting_is_refused_by_name(self):
        with pytest.raises(ValueError, match="sampling") as refused:
            self.configure("handler", cost_target="ten percent")

        assert "cost_target" in str(refused.value.__cause__)

    def test_a_handler_around_another_one(self):
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "formatters": {"short": {"format": "%(levelname)s %(message)s"}},
                "handlers": {
                    "memory": {"()": Keeping},
                    "sampling": {
                        "()": "lipservice.SamplingHandler",
                        "target": "cfg://handlers.memory",
                        "level": "INFO",
                        "formatter": "short",
                        "max_logs_per_minute": 0,
                        "keep_first": 2,
                        "notices": False,
                    },
                },
                "loggers": {"application": {"handlers": ["sampling"], "level": "DEBUG"}},
            }
        )
        logger = logging.getLogger("application")
        for _ in range(10):
            logger.info("hello")
            logger.debug("hello")

        (handler,) = logger.handlers
        assert handler.target.messages == ["hello"] * 2
        assert handler.target.formatter._fmt == "%(levelname)s %(message)s"
        assert handler.sampler.totals().seen == 10
        handler.sampler.shutdown()

    def test_a_target_that_is_configured_later_is_refused_with_the_remedy(self):
        with pytest.raises(ValueError, match="a_sampling") as refused:
            logging.config.dictConfig(
                {
                    "version": 1,
                    "handlers": {
                        "a_sampling": {
                            "()": "lipservice.SamplingHandler",
                            "target": "cfg://handlers.memory",
                        },
                        "memory": {"()": Keeping},
                    },
                }
            )
        assert "name has to sort after" in str(refused.value.__cause__)

    def test_configuring_anew_while_threads_log(self, errors):
        """logging's own locks are held for it; nothing of ours waits for them or is waited for."""
        done = threading.Event()
        failed = []

        def work():
            logger = logging.getLogger("application")
            try:
                while not done.is_set():
                    logger.info("job %d is done", 5)
                    logger.error("job %d failed", 5)
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(60):
            logger = self.configure(
                "handler" if number % 2 else "logger", max_logs_per_minute=0, notices=False
            )
            for handler in logger.handlers:
                handler.records.clear()
            time.sleep(0.001)  # logging's lock is not fair: without it the threads may get no turn
        done.set()
        for thread in threads:
            thread.join(30)

        assert not any(thread.is_alive() for thread in threads)
        assert failed == []
        sampler = SamplingFilter(max_logs_per_minute=0, notices=False).sampler
        totals = sampler.totals()
        assert totals.seen == totals.kept + totals.dropped + totals.capped > 0
        sampler.shutdown()


# ---------------------------------------------------------------------- queues


class TestQueues:
    def test_a_queue_handler_takes_the_stamps_along(self, sampler, logger):
        records = queue.SimpleQueue()
        handler = logging.handlers.QueueHandler(records)
        handler.addFilter(SamplingFilter(sampler=sampler))
        logger.addHandler(handler)
        target = Keeping()
        listener = logging.handlers.QueueListener(records, target)
        listener.start()

        for number in range(50):
            logger.info("job %d is done", number)
        listener.stop()

        assert target.messages == ["job 0 is done", "job 1 is done"]
        assert [record.lipservice_weight for record in target.records] == [1.0, 1.0]
        assert sampler.totals().seen == 50

    def test_a_filter_behind_the_queue_decides_there(self, sampler, logger):
        records = queue.SimpleQueue()
        logger.addHandler(logging.handlers.QueueHandler(records))
        target = Keeping(SamplingFilter(sampler=sampler))
        listener = logging.handlers.QueueListener(records, target)
        listener.start()

        for number in range(50):
            logger.info("job %d is done", number)
        listener.stop()

        assert len(target.records) == 2
        (stats,) = sampler.get_pattern_stats().values()
        assert (stats.count, stats.signature) == (50, compute_signature("job 1 is done"))

    def test_both_ends_count_once(self, sampler, logger):
        records = queue.SimpleQueue()
        handler = logging.handlers.QueueHandler(records)
        handler.addFilter(SamplingFilter(sampler=sampler))
        logger.addHandler(handler)
        target = Keeping(SamplingFilter(sampler=sampler))
        listener = logging.handlers.QueueListener(records, target)
        listener.start()

        for number in range(50):
            logger.info("job %d is done", number)
        listener.stop()

        assert len(target.records) == 2
        assert sampler.totals().seen == 50

    def test_a_record_survives_pickling_with_its_stamps(self, sampler):
        record = logging.makeLogRecord({"msg": "hello", "levelno": logging.INFO})
        SamplingFilter(sampler=sampler).filter(record)

        again = pickle.loads(pickle.dumps(record))

        assert vars(again) == vars(record)


# ---------------------------------------------------------------------- our own threads


class TestOwnThreads:
    """What our HTTP client logs must not feed what caused it; all else is the application's."""

    def record(self, level=logging.INFO, **attributes):
        record = logging.LogRecord("urllib3.connectionpool", level, "p", 1, "hello", (), None)
        vars(record).update(attributes)
        return record

    def test_what_is_born_in_them_is_dropped_uncounted(self, make_sampler):
        sampler = make_sampler(SamplingPolicy())
        with own_thread():
            for level in (logging.DEBUG, logging.INFO, logging.WARNING):
                assert not SamplingFilter(sampler=sampler).filter(self.record(level))

        assert sampler.totals().seen == 0

    def test_errors_are_kept_even_there(self, make_sampler):
        """A finalizer of the application runs in any thread, also in ours."""
        sampler = make_sampler()
        with own_thread():
            assert SamplingFilter(sampler=sampler).filter(self.record(logging.ERROR))
            logger = sampling_logger_class(sampler)("application")
            handler = Keeping()
            logger.addHandler(handler)
            logger.error("it broke")
            logger.info("never mind")

        assert handler.messages == ["it broke"]
        assert sampler.totals() == Totals(2, 2)

    def test_a_thread_of_another_process_is_not_ours(self, sampler):
        """Forked processes have threads of the same numbers; their records come by queues."""
        with own_thread():
            ident = next(iter(OWN_THREADS))
            record = self.record(process=os.getpid() + 1, thread=ident)

            assert SamplingFilter(sampler=sampler).filter(record)
        assert sampler.totals().seen == 1

    def test_a_record_without_process_and_thread_is_no_trouble(self, sampler):
        with own_thread():
            record = self.record(process=None, thread=None)

            assert SamplingFilter(sampler=sampler).filter(record)


# ---------------------------------------------------------------------- the handler


class TestHandler:
    def test_it_passes_on_what_is_kept(self, sampler, logger):
        target = Keeping()
        logger.addHandler(SamplingHandler(target, sampler=sampler))

        for number in range(10):
            logger.info("job %d is done", number)
            logger.error("job %d failed", number)

        assert len(target.records) == 12
        assert all(set(vars(record)) >= STAMPS for record in target.records)

    def test_what_is_below_its_level_is_not_counted(self, sampler, logger):
        target = Keeping()
        logger.addHandler(SamplingHandler(target, logging.WARNING, sampler=sampler))

        logger.info("hello")
        logger.warning("look")

        assert target.messages == ["look"]
        assert sampler.totals().seen == 1

    def test_what_is_below_the_targets_level_is_not_counted_either(self, sampler, logger):
        """It would not have been written without us: not ours to save."""
        target = Keeping(level=logging.WARNING)
        logger.addHandler(SamplingHandler(target, sampler=sampler))

        logger.info("hello")
        logger.warning("look")

        assert target.messages == ["look"]
        assert sampler.totals() == Totals(1, 1)

    def test_its_own_filters_come_first(self, sampler, logger):
        handler = SamplingHandler(Keeping(), sampler=sampler)
        handler.addFilter(lambda record: "secret" not in record.getMessage())
        logger.addHandler(handler)

        logger.info("a secret")
        logger.info("hello")

        assert handler.target.messages == ["hello"]
        assert sampler.totals().seen == 1

    def test_the_targets_filters_see_what_is_kept(self, sampler, logger):
        target = Keeping(lambda record: record.lipservice_weight >= 1.0)
        logger.addHandler(SamplingHandler(target, sampler=sampler))

        logger.info("hello")

        assert target.messages == ["hello"]

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="a filter may replace from 3.12 on")
    def test_a_record_that_a_filter_replaces_is_the_one_that_goes_on(self, sampler, logger):
        """By it secrets are taken out."""
        handler = SamplingHandler(Keeping(), sampler=sampler)

        def redact(record):
            clean = logging.makeLogRecord(vars(record))
            clean.msg = clean.msg.replace("hunter2", "***")
            return clean

        handler.addFilter(redact)
        logger.addHandler(handler)

        logger.info("my password is hunter2")

        assert handler.target.messages == ["my password is ***"]

    def test_formatter_flush_and_close_are_the_targets(self, sampler):
        calls = []

        class Target(Keeping):
            def flush(self):
                calls.append("flush")

            def close(self):
                calls.append("close")
                super().close()

        handler = SamplingHandler(Target(), sampler=sampler)
        formatter = logging.Formatter("%(message)s")
        handler.setFormatter(formatter)
        handler.flush()
        handler.close()

        assert handler.target.formatter is formatter
        assert calls == ["flush", "close"]

    def test_a_file_is_written_and_closed(self, sampler, logger, tmp_path):
        target = logging.FileHandler(tmp_path / "app.log", encoding="utf-8")
        handler = SamplingHandler(target, sampler=sampler)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        logger.addHandler(handler)
        for _ in range(5):
            logger.info("hällo")
        handler.close()

        assert (tmp_path / "app.log").read_text(encoding="utf-8") == "INFO hällo\n" * 2
        assert target.stream is None

    def test_around_a_memory_handler_and_inside_one(self, sampler, logger):
        target = Keeping()
        around = SamplingHandler(
            logging.handlers.MemoryHandler(100, logging.CRITICAL, target), sampler=sampler
        )
        logger.addHandler(around)
        for _ in range(5):
            logger.info("hello")
        assert target.records == []
        around.flush()
        assert target.messages == ["hello"] * 2

        logger.handlers[:] = []
        inside = logging.handlers.MemoryHandler(
            100, logging.CRITICAL, SamplingHandler(Keeping(), sampler=sampler)
        )
        logger.addHandler(inside)
        for _ in range(5):
            logger.info("other")
        inside.flush()
        assert inside.target.target.messages == ["other"] * 2
        inside.close()
        around.close()

    def test_captured_warnings_are_sampled_like_any_record(self, sampler):
        target = Keeping()
        logger = logging.getLogger("py.warnings")
        logger.addHandler(SamplingHandler(target, sampler=sampler))
        logger.propagate = False
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            for _ in range(5):
                warnings.warn("this is old", stacklevel=1)
            logging.captureWarnings(False)

        assert len(target.records) == 2
        assert "this is old" in target.messages[0]
        assert sampler.totals().seen == 5

    def test_logging_shutdown_takes_it(self, sampler):
        handler = SamplingHandler(logging.StreamHandler(io.StringIO()), sampler=sampler)

        logging.shutdown([*logging._handlerList[-2:]])

        handler.acquire()
        handler.release()
        assert handler.lock is None

    @pytest.mark.parametrize("target", [None, "stderr", sys.stderr, print])
    def test_a_target_that_is_no_handler_is_refused(self, target):
        with pytest.raises(ConfigurationError, match=r"target is a logging\.Handler"):
            SamplingHandler(target)

    def test_a_refused_one_leaves_nothing_behind_that_fails_at_exit(self, sampler):
        with pytest.raises(ConfigurationError):
            SamplingHandler(Keeping(), cost_target="no")
        gc.collect()

        logging.shutdown()

    def test_each_kept_record_is_written_once_by_threads(self, make_sampler, logger):
        sampler = make_sampler(SamplingPolicy(sampling_rate=0.5, keep_first=0))
        stream = io.StringIO()
        logger.addHandler(SamplingHandler(logging.StreamHandler(stream), sampler=sampler))

        def work(name):
            for number in range(500):
                logger.info("worker %s did job %d", name, number)

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcdefgh"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        lines = stream.getvalue().splitlines()
        assert len(lines) == len(set(lines)) == sampler.totals().kept
        assert sampler.totals().seen == 4000


# ---------------------------------------------------------------------- the logger class


@pytest.fixture
def loggers(make_sampler):
    """A logger of the standard library and a sampling one that keeps all, each with a handler."""
    pair = []
    kept_all = make_sampler(SamplingPolicy())
    for cls in (logging.Logger, sampling_logger_class(kept_all)):
        logger = cls("application")
        logger.setLevel(1)
        logger.addHandler(Keeping())
        pair.append(logger)
    return pair


def call_site(record):
    return record.pathname, record.filename, record.module, record.lineno, record.funcName


CALLS = {
    "info": lambda logger: logger.info("hello"),
    "arguments": lambda logger: logger.info("%s and %d", "a", 5),
    "mapping": lambda logger: logger.info("%(a)s", {"a": 5}),
    "empty mapping": lambda logger: logger.info("%s", {}),
    "object": lambda logger: logger.info(["not", "text"]),
    "debug": lambda logger: logger.debug("hello"),
    "warning": lambda logger: logger.warning("hello"),
    "error": lambda logger: logger.error("hello"),
    "critical": lambda logger: logger.critical("hello"),
    "fatal": lambda logger: logger.fatal("hello"),
    "log": lambda logger: logger.log(25, "hello %s", "you"),
    "odd level": lambda logger: logger.log(3, "hello"),
    "extra": lambda logger: logger.info("hello", extra={"user": 7, "order": [1]}),
    "stack_info": lambda logger: logger.info("hello", stack_info=True),
    "stacklevel 2": lambda logger: helper(logger, stacklevel=2),
    "stacklevel 3": lambda logger: helper(logger, stacklevel=3),
    "stacklevel 1": lambda logger: helper(logger, stacklevel=1),
    "stacklevel 500": lambda logger: helper(logger, stacklevel=500),
    "stack and level": lambda logger: helper(logger, stacklevel=2, stack_info=True),
    "exc_info error": lambda logger: logger.info("hello", exc_info=KeyError("x")),
    "exc_info false": lambda logger: logger.info("hello", exc_info=None),
    "exc_info nothing": lambda logger: logger.info("hello", exc_info=True),
    "exception": lambda logger: in_except(lambda: logger.exception("it broke")),
    "exc_info true": lambda logger: in_except(lambda: logger.info("it broke", exc_info=True)),
    "exc_info tuple": lambda logger: in_except(
        lambda: logger.info("it broke", exc_info=sys.exc_info())
    ),
    "adapter": lambda logger: logging.LoggerAdapter(logger, {"user": 7}).info("hello"),
    "adapter log": lambda logger: logging.LoggerAdapter(logger, {"user": 7}).log(30, "hello"),
    "nested": lambda logger: helper_of(lambda: helper_of(lambda: logger.info("hello"))),
    "generator": lambda logger: [logger.info("hello") for _ in range(1)],
    "module level": lambda logger: exec("logger.info('hello')", {"logger": logger}),
}


class TestLoggerLikeLoggings:
    """Whatever is asked of it, its records are those of `logging.Logger`."""

    @pytest.mark.parametrize("name", CALLS)
    def test_the_record_is_the_same(self, loggers, name):
        for logger in loggers:
            CALLS[name](logger)

        (plain,), (sampled,) = (logger.handlers[0].records for logger in loggers)
        assert call_site(sampled) == call_site(plain)
        ours = {name: value for name, value in vars(sampled).items() if name not in STAMPS}
        theirs = dict(vars(plain))
        for parts in (ours, theirs):
            for varies in ("created", "msecs", "relativeCreated", "exc_info"):
                parts.pop(varies)
            if parts["stack_info"]:
                parts["stack_info"] = _without_line_numbers(parts["stack_info"])
        assert ours == theirs
        assert _kind_of(sampled.exc_info) == _kind_of(plain.exc_info)
        assert set(vars(sampled)) > STAMPS

    @pytest.mark.parametrize("name", CALLS)
    def test_a_record_that_is_released_is_that_of_its_call(self, make_sampler, name):
        """Also where it is made at its release only, in another thread and task."""
        loggers = []
        for cls in (logging.Logger, sampling_logger_class(make_sampler(DROPPING))):
            logger = cls("application")
            logger.setLevel(1)
            logger.addHandler(Keeping())
            loggers.append(logger)

        async def call():
            asyncio.current_task().set_name("errand")
            for logger in loggers:
                CALLS[name](logger)

        with lipservice.request():
            run = contextvars.copy_context().run
            thread = threading.Thread(target=run, args=(asyncio.run, call()), name="helper")
            thread.start()
            thread.join()
            done = time.time()
            time.sleep(0.01)
            lipservice.keep_request()

        (plain,), (sampled,) = (logger.handlers[0].records for logger in loggers)
        assert call_site(sampled) == call_site(plain)
        assert sampled.getMessage() == plain.getMessage()
        assert bool(sampled.stack_info) == bool(plain.stack_info)
        told = logging.Formatter().format
        assert told(sampled).count("Error") == told(plain).count("Error")
        varies = {"msg", "args", "exc_info", "exc_text", "stack_info", "message"}
        times = {"created", "msecs", "relativeCreated"}
        ours, theirs = (
            {key: value for key, value in vars(each).items() if key not in varies | times | STAMPS}
            for each in (sampled, plain)
        )
        assert ours == theirs
        assert ours["threadName"] == "helper"
        assert plain.created - 0.001 <= sampled.created <= done
        assert sampled.msecs == pytest.approx(sampled.created % 1 * 1000, abs=1)
        since_start = sampled.relativeCreated - plain.relativeCreated
        assert since_start == pytest.approx((sampled.created - plain.created) * 1000, abs=0.01)

    def test_a_record_of_a_factory_of_the_application_s_is_made_at_the_call(self, make_sampler):
        made = []

        class Record(logging.LogRecord):
            def __init__(self, *args, **options):
                super().__init__(*args, **options)
                self.number = len(made)
                made.append(self.getMessage())

        logger = sampling_logger_class(make_sampler(DROPPING))("application", 1)
        logger.addHandler(Keeping())
        usual = logging.getLogRecordFactory()
        logging.setLogRecordFactory(Record)
        try:
            with lipservice.request():
                logger.info("one %d", 1)
                made.append("between")
                lipservice.keep_request()
        finally:
            logging.setLogRecordFactory(usual)

        assert made == ["one 1", "between"]
        assert [each.number for each in logger.handlers[0].records] == [0]

    def test_where_a_request_holds_nothing_no_record_is_made(self, make_sampler, monkeypatch):
        monkeypatch.setattr(logging.LogRecord, "__init__", None)
        logger = sampling_logger_class(make_sampler(DROPPING))("application", 1)
        before = lipservice.recorder_totals().evicted
        with lipservice.request(limits=lipservice.RecorderLimits(max_records=0)):
            logger.info("one %d", 1)

        assert lipservice.recorder_totals().evicted == before + 1

    def test_a_deep_stack_shows_the_callers_only(self, loggers):
        for logger in loggers:
            logger.info("hello", stack_info=True)

        stack = loggers[1].handlers[0].records[0].stack_info
        assert "lipservice" not in stack.rpartition("\n  File")[2]
        assert "stdlib.py" not in stack.replace("test_stdlib.py", "")

    def test_lookup_can_be_switched_off_as_logging_documents(self, loggers, monkeypatch):
        monkeypatch.setattr(logging, "_srcfile", None)
        for logger in loggers:
            logger.info("hello")

        sites = [call_site(logger.handlers[0].records[0]) for logger in loggers]
        assert sites[0] == sites[1]
        assert sites[0][-1] == "(unknown function)"

    @pytest.mark.parametrize("extra", [{"message": 1}, {"asctime": 1}, {"name": 1}])
    def test_an_extra_that_logging_refuses_is_refused(self, loggers, extra):
        for logger in loggers:
            with pytest.raises(KeyError, match="overwrite"):
                logger.info("hello", extra=extra)

    def test_a_level_that_is_no_number_is_refused(self, loggers):
        for logger in loggers:
            with pytest.raises(TypeError):
                logger.log("INFO", "hello")

    def test_a_subclass_that_makes_its_own_records_goes_on_doing_so(self, make_sampler):
        class MyRecord(logging.LogRecord):
            pass

        class MyLogger(sampling_logger_class(make_sampler(SamplingPolicy()))):
            def makeRecord(self, *args, **kwargs):
                record = super().makeRecord(*args, **kwargs)
                record.tenant = "acme"
                return record

        logging.setLogRecordFactory(MyRecord)
        logger = MyLogger("application")
        logger.addHandler(Keeping())
        logger.info("hello", extra={"user": 7})

        (record,) = logger.handlers[0].records
        assert type(record) is MyRecord
        assert (record.tenant, record.user) == ("acme", 7)
        assert record.funcName == "test_a_subclass_that_makes_its_own_records_goes_on_doing_so"
        assert record.lipservice_weight == 1.0

    def test_a_subclass_that_wraps_log_keeps_its_callers(self, make_sampler):
        class MyLogger(sampling_logger_class(make_sampler(SamplingPolicy()))):
            def _log(self, *args, stacklevel=1, **kwargs):
                super()._log(*args, stacklevel=stacklevel + 1, **kwargs)

        logger = MyLogger("application")
        logger.addHandler(Keeping())
        logger.info("hello")

        (record,) = logger.handlers[0].records
        assert record.funcName == "test_a_subclass_that_wraps_log_keeps_its_callers"


def helper_of(action):
    return action()


def helper(logger, **options):
    logger.info("hello", **options)


def in_except(action):
    try:
        raise ValueError("on purpose")
    except ValueError:
        action()


def _kind_of(exc_info):
    return exc_info and (exc_info[0], str(exc_info[1]))


def _without_line_numbers(stack):
    return re.sub(r"line \d+", "line", stack)


class TestLogger:
    def test_it_drops_before_a_record_exists(self, make_sampler):
        made = []
        logging.setLogRecordFactory(
            lambda *args, **kwargs: made.append(1) or logging.LogRecord(*args, **kwargs)
        )
        sampler = make_sampler()
        logger = sampling_logger_class(sampler)("application")
        logger.addHandler(Keeping())

        for number in range(100):
            logger.warning("job %d is done", number)

        assert made == []
        assert sampler.totals().dropped == 100

    def test_what_is_off_is_not_counted(self, sampler):
        logger = sampling_logger_class(sampler)("application")
        logger.setLevel(logging.WARNING)
        logger.info("hello")
        logging.disable(logging.WARNING)
        logger.warning("hello")

        assert sampler.totals().seen == 0

    def test_the_default_sampler_decides_where_none_is_bound(self, sampler):
        set_default_sampler(sampler)
        logger = SamplingLogger("application")
        logger.addHandler(Keeping())
        for _ in range(10):
            logger.warning("hello")

        assert sampler.totals() == Totals(10, 2, 8)

    def test_as_logger_class_it_is_for_loggers_made_from_then_on(self, sampler):
        before = logging.getLogger("made before")
        logging.setLoggerClass(sampling_logger_class(sampler))
        after = logging.getLogger("made after")
        child = after.getChild("child")

        assert type(before) is logging.Logger
        assert isinstance(after, SamplingLogger)
        assert isinstance(child, SamplingLogger)
        handler = Keeping()
        for logger in (before, after):
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
        for _ in range(5):
            before.info("hello")
            child.info("hello")
        assert len(handler.records) == 5 + 2

    def test_the_logger_lipservice_is_not_sampled(self, make_sampler):
        sampler = make_sampler()
        logger = sampling_logger_class(sampler)("lipservice")
        logger.addHandler(Keeping())
        for _ in range(5):
            logger.warning("a notice")

        (first, *_) = records = logger.handlers[0].records
        assert len(records) == 5
        assert first.funcName == "test_the_logger_lipservice_is_not_sampled"
        assert first.lipservice_weight == 1.0
        assert sampler.totals().seen == 0

    def test_a_handlers_filter_believes_its_stamp(self, sampler):
        logger = sampling_logger_class(sampler)("application")
        handler = Keeping(SamplingFilter(sampler=sampler))
        logger.addHandler(handler)
        for _ in range(10):
            logger.warning("hello")

        assert sampler.totals().seen == 10
        assert len(handler.records) == 2

    def test_it_believes_a_stamp_in_extra(self, make_sampler):
        """structlog's processor has decided before, and renders its keys into `extra`."""
        sampler = make_sampler()
        logger = sampling_logger_class(sampler)("application")
        logger.addHandler(Keeping())

        logger.warning("hello", extra={"lipservice_weight": 20.0, "user": 7})

        (record,) = logger.handlers[0].records
        assert (record.lipservice_weight, record.user) == (20.0, 7)
        assert record.funcName == "test_it_believes_a_stamp_in_extra"
        assert sampler.totals().seen == 0

    def test_format_strings_share_a_pattern_whatever_their_arguments(self, sampler):
        logger = sampling_logger_class(sampler)("application")
        logger.addHandler(Keeping())
        for word in ("red", "green", "blue"):
            logger.warning("the light is %s", word)

        (stats,) = sampler.get_pattern_stats().values()
        assert (stats.count, stats.template) == (3, "the light is <*>")

    def test_the_bytes_of_messages_are_measured(self, make_sampler):
        sampler = make_sampler(SamplingPolicy())
        logger = sampling_logger_class(sampler)("application")
        logger.addHandler(Keeping())
        for _ in range(40):
            logger.warning("the light is %s", "x" * 100)

        (stats,) = sampler.get_pattern_stats().values()
        assert stats.bytes == 40 * len("the light is " + "x" * 100)

    def test_pickled_it_is_the_logger_of_its_name(self, sampler):
        logging.setLoggerClass(sampling_logger_class(sampler))
        logger = logging.getLogger("a pickled one")

        assert pickle.loads(pickle.dumps(logger)) is logger

    def test_threads_lose_no_count(self, make_sampler):
        sampler = make_sampler(SamplingPolicy(sampling_rate=0.3, keep_first=0))
        logger = sampling_logger_class(sampler)("application")
        logger.addHandler(Keeping())
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [
                threading.Thread(
                    target=lambda: [logger.warning("job %d", number) for number in range(800)]
                )
                for _ in range(8)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(before)

        kept = len(logger.handlers[0].records)
        assert sampler.totals() == Totals(6400, kept, 6400 - kept)


def test_every_way_of_attaching_estimates_the_same(make_sampler, logger):
    """Sum of the weights of what is written, for filter, handler and logger class."""
    policy = SamplingPolicy(sampling_rate=0.2, keep_first=5)
    weights = Counter()
    for way in ("filter", "handler", "logger"):
        sampler = make_sampler(policy)
        handler = Keeping()
        target = logging.Logger("application")
        if way == "filter":
            handler.addFilter(SamplingFilter(sampler=sampler))
            target.addHandler(handler)
        elif way == "handler":
            target.addHandler(SamplingHandler(handler, sampler=sampler))
        else:
            target = sampling_logger_class(sampler)("application")
            target.addHandler(handler)
        for number in range(5000):
            target.warning("job %d is done", number)
        weights[way] = sum(record.lipservice_weight for record in handler.records)
        assert sampler.totals().kept == len(handler.records)

    # 5 standard deviations of the sum of weights 5 over 5,000 draws at 0.2.
    assert all(abs(weight - 5000) < 5 * (5000 * 0.8 / 0.2) ** 0.5 for weight in weights.values())


def test_a_pause_in_a_handler_does_not_hold_up_decisions(make_sampler, logger):
    """No lock of ours is held while a record is written."""
    sampler = make_sampler(SamplingPolicy())
    inside, go_on = threading.Event(), threading.Event()

    class Slow(Keeping):
        def emit(self, record):
            inside.set()
            go_on.wait(30)

    logger.addHandler(SamplingHandler(Slow(), sampler=sampler))
    thread = threading.Thread(target=logger.info, args=("hello",))
    thread.start()
    assert inside.wait(30)

    before = time.monotonic()
    for number in range(100):
        sampler.should_sample(f"other {'x' * number}", "INFO")
    sampler.tick()
    sampler.drain()
    go_on.set()
    thread.join()

    assert time.monotonic() - before < 25


def test_the_package_offers_them():
    assert lipservice.SamplingFilter is SamplingFilter
