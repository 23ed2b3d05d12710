"""Requests: coherent decisions, the flight recorder, and weights that stay true."""

import asyncio
import collections
import contextlib
import contextvars
import gc
import io
import logging
import logging.config
import os
import random
import threading
import time
import weakref

import pytest
import structlog
from loguru import logger as loguru_logger
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import lipservice
from lipservice.exceptions import ConfigurationError
from lipservice.integrations.stdlib import SamplingFilter, SamplingHandler, sampling_logger_class
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from lipservice.scope import (
    COHERENT_REQUESTS,
    RecorderLimits,
    RequestScope,
    current_scope,
    recorder_totals,
)
from tests.support.open_requests import open_requests

_samplers = []


@pytest.fixture(autouse=True)
def _samplers_end():
    yield
    while _samplers:
        _samplers.pop().shutdown()


@pytest.fixture(autouse=True)
def _nothing_left_over():
    gc.collect()  # requests that other tests never left


def make_sampler(rate=0.01, **policy):
    policy = SamplingPolicy(sampling_rate=rate, keep_first=0, **policy)
    sampler = AdaptiveSampler(policy=policy, notices=False, rng=random.Random(7))
    _samplers.append(sampler)
    return sampler


def attach(kind, sampler, logger_class=logging.Logger):
    """A logger with a stream behind the given form of sampling."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s %(lipservice_weight)s"))
    if kind == "early":
        logger_class = sampling_logger_class(sampler)
    logger = logger_class(f"scope.{kind}", logging.DEBUG)
    logger.manager = logging.Logger.manager
    logging.Logger.manager.loggerDict[logger.name] = logger
    logger.parent, logger.propagate = None, False
    if kind == "filter":
        handler.addFilter(SamplingFilter(sampler=sampler))
    elif kind == "logger filter":
        logger.addFilter(SamplingFilter(sampler=sampler))
    elif kind == "handler":
        handler = SamplingHandler(handler, sampler=sampler)
    logger.addHandler(handler)
    return logger, stream


def is_kept(outcome):
    return isinstance(outcome, lipservice.Decision)


#: Much longer than what a record takes besides.
TEXT = "a long text " * 1000

FORMS = ("filter", "logger filter", "handler", "early")


@pytest.mark.parametrize("kind", FORMS)
def test_a_failed_request_keeps_its_whole_story_in_order_before_the_error(kind):
    logger, stream = attach(kind, make_sampler(0.0))

    with lipservice.request("GET /cart"):
        for step in range(5):
            logger.info("step %d", step)
        logger.error("payment failed")
        logger.info("rolled back")

    assert stream.getvalue().splitlines() == [
        *(f"INFO step {step} 0.0" for step in range(5)),
        "ERROR payment failed 1.0",
        "INFO rolled back 0.0",
    ]


@pytest.mark.parametrize("kind", FORMS)
def test_a_good_request_leaves_nothing_behind(kind):
    logger, stream = attach(kind, make_sampler(0.0))
    before = recorder_totals()

    with lipservice.request():
        logger.info("all is well")

    after = recorder_totals()
    assert stream.getvalue() == ""
    assert after.let_go == before.let_go + 1
    assert after.held == before.held
    assert not open_requests()


@pytest.mark.parametrize("kind", FORMS)
def test_where_a_request_holds_nothing_what_it_drops_is_counted(kind):
    logger, stream = attach(kind, make_sampler(0.0))
    before = recorder_totals()

    with lipservice.request(limits=lipservice.RecorderLimits(max_records=0)):
        logger.info("one")
        logger.info("two")
        logger.error("failed")

    after = recorder_totals()
    assert [line for line in stream.getvalue().splitlines() if "failed" not in line] == []
    assert (after.evicted, after.held) == (before.evicted + 2, before.held)


@pytest.mark.parametrize("kind", FORMS)
def test_an_exception_that_leaves_the_request_releases_what_is_held(kind):
    logger, stream = attach(kind, make_sampler(0.0))

    with pytest.raises(ZeroDivisionError), lipservice.request():
        logger.info("about to divide")
        1 / 0  # noqa: B018

    assert stream.getvalue() == "INFO about to divide 0.0\n"


@pytest.mark.parametrize(
    ("error", "fails"),
    [
        (SystemExit(1), True),
        (SystemExit("no such file"), True),
        (SystemExit(["odd"]), True),
        (SystemExit(0), False),
        (SystemExit(), False),
        (asyncio.CancelledError(), False),
        (GeneratorExit(), False),
        (KeyboardInterrupt(), False),
    ],
    ids=repr,
)
def test_a_program_that_exits_with_an_error_has_failed_one_that_is_stopped_has_not(error, fails):
    logger, stream = attach("filter", make_sampler(0.0))

    with pytest.raises(type(error)), lipservice.request():
        logger.info("step")
        raise error

    assert stream.getvalue() == ("INFO step 0.0\n" if fails else "")


def test_keep_request_releases_and_outside_of_a_request_does_nothing():
    logger, stream = attach("filter", make_sampler(0.0))
    lipservice.keep_request()

    with lipservice.request():
        logger.info("interesting")
        lipservice.keep_request()

    assert stream.getvalue() == "INFO interesting 0.0\n"


def test_a_held_record_says_what_its_arguments_said_at_the_time_of_the_call():
    logger, stream = attach("filter", make_sampler(0.0))
    cart = ["tea"]

    with lipservice.request():
        logger.info("cart is %s", cart)
        cart.append("milk")
        logger.error("failed")

    assert "cart is ['tea'] 0.0" in stream.getvalue()


def test_nothing_of_one_request_is_released_in_the_next():
    logger, stream = attach("filter", make_sampler(0.0))
    for _ in range(3):
        with lipservice.request():
            logger.info("good")
    with lipservice.request():
        logger.error("bad")

    assert stream.getvalue() == "ERROR bad 1.0\n"


def test_a_nested_request_joins_the_outer_one():
    logger, stream = attach("filter", make_sampler(0.0))
    with lipservice.request() as outer:
        logger.info("outer")
        with lipservice.request() as inner:
            assert inner is outer
            logger.info("inner")
        logger.error("bad")

    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["outer", "inner", "bad"]


def test_a_root_request_is_its_own_and_the_outer_one_goes_on_afterwards():
    logger, stream = attach("filter", make_sampler(0.0))
    with lipservice.request() as outer:
        logger.info("outer")
        with lipservice.request(root=True) as inner:
            assert inner is not outer
            logger.info("inner")
            logger.error("bad")
        logger.info("later")
        assert not outer.failed

    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["inner", "bad"]


def test_tasks_and_threads_that_copy_the_context_belong_to_the_request():
    logger, stream = attach("filter", make_sampler(0.0))

    async def main():
        async with lipservice.request():
            await asyncio.gather(*(task(n) for n in range(3)))
            thread = threading.Thread(
                target=contextvars.copy_context().run, args=(logger.info, "in a thread")
            )
            thread.start()
            thread.join()
            logger.error("bad")

    async def task(n):
        logger.info("task %d", n)

    asyncio.run(main())

    assert len(stream.getvalue().splitlines()) == 5


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        (RecorderLimits(max_records=3), 3),
        (RecorderLimits(max_records=0), 0),
        (RecorderLimits(max_bytes=0), 0),
        (RecorderLimits(max_bytes=2000), 3),
    ],
)
def test_a_ring_is_bounded_and_the_oldest_records_go_first(limits, left):
    logger, stream = attach("filter", make_sampler(0.0))
    before = recorder_totals()

    with lipservice.request(limits=limits):
        for step in range(10):
            logger.info("step %d", step)
        logger.error("bad")

    assert stream.getvalue().splitlines()[:-1] == [
        f"INFO step {step} 0.0" for step in range(10 - left, 10)
    ]
    assert recorder_totals().evicted - before.evicted == 10 - left
    assert recorder_totals().released - before.released == left


def test_records_held_for_too_long_are_not_released():
    clock = [0.0]
    scope = RequestScope(None, 0, RecorderLimits(max_age=10), clock=lambda: clock[0])
    released = []
    scope.hold(lambda: released.append("old"), 1)
    clock[0] = 5.0
    scope.hold(lambda: released.append("new"), 1)
    clock[0] = 12.0

    scope.keep()

    assert released == ["new"]


def test_what_goes_is_let_go_of_outside_the_lock_since_its_end_may_run_code_that_waits():
    class Held:
        def __call__(self):
            pass

        def __del__(self):
            # As a pool's lock that is wanted here, and is held by a thread that logs.
            other = threading.Thread(target=lambda: totals.append(recorder_totals()), daemon=True)
            other.start()
            other.join(5)

    clock, totals = [0.0], []
    scope = RequestScope(None, 0, RecorderLimits(max_records=1), clock=lambda: clock[0])
    scope.hold(Held(), 1)
    scope.hold(Held(), 1)
    assert len(totals) == 1  # the first one has gone for the second one

    clock[0] = 1000.0
    scope.keep()
    assert len(totals) == 2  # the second one is too old


@pytest.mark.parametrize("limits", [{"max_records": 5}, 500, "500"])
def test_limits_that_are_none_are_refused(limits):
    with pytest.raises(ConfigurationError, match="limits is a RecorderLimits"):
        lipservice.request(limits=limits)


def test_rates_nest_within_a_request():
    for seed in range(2000):
        scope = RequestScope(None, random.Random(seed).getrandbits(56), RecorderLimits())
        if scope.keeps(0.01):
            assert scope.keeps(0.1)


def test_all_records_of_one_rate_share_the_request_s_fate():
    sampler = make_sampler(0.5)
    for _ in range(50):
        with lipservice.request() as scope:
            kept = [
                is_kept(sampler.decide_scoped(f"pattern {word}", "INFO", scope, is_format=False))
                for word in ("one way", "another way", "third way")
                for _ in range(10)
            ]
        assert len(set(kept)) == 1


@pytest.mark.parametrize("trace_id", ["", "xyz", "0" * 32, "1" * 31, None, 5])
def test_a_trace_id_that_is_none_is_refused(trace_id):
    if trace_id is None:
        assert lipservice.request(trace_id=None)
        return
    with pytest.raises(ConfigurationError, match="trace_id"):
        lipservice.request(trace_id=trace_id)


def test_the_trace_id_decides_alike_in_every_process():
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    with lipservice.request(trace_id=trace_id) as scope:
        assert f"{scope.randomness:014x}" == trace_id[-14:]


def test_the_trace_decides_also_if_its_span_begins_within_the_request():
    """As behind a middleware that stands outside of OpenTelemetry's."""
    logger, _ = attach("filter", make_sampler(0.5))
    with lipservice.request() as scope, TracerProvider().get_tracer("t").start_as_current_span("s"):
        logger.info("step")
        trace_id = trace.get_current_span().get_span_context().trace_id
    logger.info("outside")

    assert scope.randomness == trace_id & (1 << 56) - 1


def test_threads_that_ask_for_a_request_s_number_at_once_get_one_number():
    numbers = set()
    for _ in range(200):
        scope, start = RequestScope(None, None, RecorderLimits()), threading.Barrier(3)

        def ask(scope=scope, start=start):
            start.wait()
            numbers.add((id(scope), scope.randomness))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(numbers) == 1
        numbers.clear()


def test_kept_records_carry_opentelemetry_s_threshold_and_randomness():
    sampler = make_sampler(0.25)
    logger, _ = attach("filter", sampler)
    seen = []
    logger.handlers[0].emit = seen.append
    while not seen:
        with lipservice.request():
            logger.info("hello")

    stamps = vars(seen[0])
    assert stamps["sampling.threshold"] == "c"
    assert int(stamps["sampling.randomness"], 16) >= int("c".ljust(14, "0"), 16)
    assert stamps["lipservice_weight"] == 4.0


def test_estimates_stay_unbiased_although_failed_requests_keep_everything():
    """4,000 requests of 5 records, 10 % fail: the mean of the weights is the count (z < 4)."""
    sampler = make_sampler(0.2)
    logger, _ = attach("filter", sampler)
    rng = random.Random(11)
    kept = []
    logger.handlers[0].emit = kept.append
    estimates = []
    for _ in range(4000):
        before = len(kept)
        with lipservice.request(trace_id=f"{rng.getrandbits(128):032x}"):
            for step in range(5):
                logger.info("step %d", step)
            if rng.random() < 0.1:
                logger.error("failed")
        estimates.append(
            sum(r.lipservice_weight for r in kept[before:] if r.levelno < logging.ERROR)
        )
    mean = sum(estimates) / len(estimates)
    deviation = (sum((e - mean) ** 2 for e in estimates) / len(estimates) ** 2) ** 0.5

    assert abs(mean - 5) < 4 * deviation
    totals = sampler.totals()
    assert totals.seen == totals.kept + totals.dropped + totals.capped


def test_a_request_of_very_many_records_draws_for_each_from_the_hundredth_on():
    sampler = make_sampler(0.5)
    with lipservice.request() as scope:
        decisions = [
            is_kept(sampler.decide_scoped("same", "INFO", scope, is_format=False))
            for _ in range(1000)
        ]
    assert len(set(decisions[:100])) == 1
    assert 350 < sum(decisions[100:]) < 550


@pytest.mark.parametrize("threads", [6])
def test_counts_are_exact_within_requests_of_many_threads(threads):
    sampler = make_sampler(0.3)
    kept = []

    def work():
        mine = 0
        for _ in range(300):
            with lipservice.request() as scope:
                for _ in range(10):
                    mine += is_kept(sampler.decide_scoped("same", "INFO", scope, is_format=False))
                    mine += sampler.should_sample("same", "INFO")
        kept.append(mine)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    totals = sampler.totals()
    assert totals.seen == threads * 300 * 20
    assert totals.kept == sum(kept)


class TestAtTheTimeOfTheCall:
    """A released record says what it would have said if it had been written at once."""

    def test_containers_in_extra_are_copied_all_the_way_down(self):
        logger, _ = attach("filter", make_sampler(0.0))
        seen = []
        logger.handlers[0].emit = seen.append
        cart = {"items": [{"name": "tea"}]}

        with lipservice.request():
            logger.info("cart", extra={"cart": cart})
            cart["items"][0]["name"] = "milk"
            cart["items"].append("sugar")
            lipservice.keep_request()

        assert seen[0].cart == {"items": [{"name": "tea"}]}

    @pytest.mark.parametrize(
        ("value", "change"),
        [
            (([1],), lambda value: value[0].append(2)),
            ({(1, 2): [1]}, lambda value: value[1, 2].append(2)),
            (collections.OrderedDict(a=[1]), lambda value: value["a"].append(2)),
            (collections.defaultdict(list, {1: [1]}), lambda value: value[1].append(2)),
            (collections.Counter("aab"), lambda value: value.clear()),
            (collections.deque([[1]], 3), lambda value: value[0].append(2)),
            (bytearray(b"bytes"), lambda value: value.clear()),
            ({1, 2}, lambda value: value.clear()),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_a_container_of_any_kind_is_copied(self, value, change):
        logger, stream = attach("filter", make_sampler(0.0))
        logger.handlers[0].setFormatter(logging.Formatter("%(value)r"))
        said = repr(value)

        with lipservice.request():
            logger.info("changes", extra={"value": value})
            change(value)
            lipservice.keep_request()

        assert repr(value) != said
        assert stream.getvalue() == f"{said}\n"

    def test_a_dictionary_of_arguments_that_changes_says_what_it_said(self):
        logger, stream = attach("filter", make_sampler(0.0))
        step = {"number": 1}

        with lipservice.request():
            logger.info("step %(number)d", step)
            step["number"] = 2
            lipservice.keep_request()

        assert stream.getvalue() == "INFO step 1 0.0\n"

    @pytest.mark.parametrize("kind", ["filter", "handler"])
    def test_what_a_handler_behind_it_does_to_the_record_is_not_seen(self, kind):
        class Painting(logging.Formatter):
            def format(self, record):
                record.levelname = f"RED {record.levelname}"
                record.place = "console"
                record.exc_text = "painted"
                return super().format(record)

        logger, stream = attach(kind, make_sampler(0.0))
        console = logging.StreamHandler(io.StringIO())
        console.setFormatter(Painting())
        logger.addHandler(console)

        with lipservice.request():
            logger.info("step", extra={"place": "here"})
            lipservice.keep_request()

        assert stream.getvalue() == "INFO step 0.0\n"

    @pytest.mark.parametrize("kind", [logging.LogRecord, type("Own", (logging.LogRecord,), {})])
    def test_an_argument_that_was_formatted_is_not_kept_alive(self, kind):
        class Large:
            pass

        logging.setLogRecordFactory(kind)
        logger, stream = attach("filter", make_sampler(0.0))
        large = Large()
        alive = weakref.ref(large)

        with lipservice.request():
            logger.info("%s", large)
            del large
            gc.collect()
            assert alive() is None
            lipservice.keep_request()

        assert "Large object" in stream.getvalue()

    @pytest.mark.parametrize(
        ("arguments", "extra"),
        [
            ((TEXT,), None),
            (([TEXT],), None),
            (({"text": TEXT},), None),
            ((), {"text": TEXT}),
            ((), {"text": [{"text": (TEXT,)}]}),
            ((), {"text": bytearray(TEXT, "ascii")}),
        ],
    )
    def test_what_a_record_brings_along_counts_for_the_bounds(self, arguments, extra):
        logger, stream = attach("filter", make_sampler(0.0))
        before = recorder_totals()

        with lipservice.request(limits=RecorderLimits(max_bytes=5 * len(TEXT))):
            for _ in range(20):
                logger.info("%s" if arguments else "text", *arguments, extra=extra)
            lipservice.keep_request()

        assert recorder_totals().evicted - before.evicted in {16, 17}
        assert len(stream.getvalue().splitlines()) in {3, 4}

    def test_a_traceback_and_a_stack_count_for_the_bounds(self):
        def deep(left):
            if left:
                deep(left - 1)
            else:
                logger.info("deep", stack_info=True)
                try:
                    1 / 0  # noqa: B018
                except ZeroDivisionError:
                    logger.info("failed", exc_info=True)

        logger, _ = attach("filter", make_sampler(0.0))
        with lipservice.request():
            before = lipservice.scope._recorders.bytes
            deep(50)
            assert lipservice.scope._recorders.bytes - before > 5000

    def test_what_cannot_be_copied_is_not_held_and_harms_nobody(self):
        logger, stream = attach("filter", make_sampler(0.0))
        endless = []
        endless.append(endless)
        before = recorder_totals()

        with lipservice.request():
            logger.info("endless", extra={"endless": endless})
            logger.info("fine")
            lipservice.keep_request()

        assert stream.getvalue() == "INFO fine 0.0\n"
        assert recorder_totals().evicted == before.evicted + 1

    def test_a_formatter_that_asks_a_context_variable_finds_that_of_the_call(self):
        unit = contextvars.ContextVar("unit", default="none")

        class Asking(logging.Formatter):
            def format(self, record):
                return f"{unit.get()} {super().format(record)}"

        logger, stream = attach("filter", make_sampler(0.0))
        logger.handlers[0].setFormatter(Asking())

        async def main():
            async with lipservice.request():
                await asyncio.gather(task("one"), task("two"))
                unit.set("outer")
                logger.error("failed")

        async def task(name):
            unit.set(name)
            logger.info("work")

        asyncio.run(main())

        assert stream.getvalue().splitlines() == ["one work", "two work", "outer failed"]

    def test_time_and_thread_are_those_of_the_call(self):
        logger, _ = attach("filter", make_sampler(0.0))
        seen = []
        logger.handlers[0].emit = seen.append
        with lipservice.request():
            thread = threading.Thread(
                target=contextvars.copy_context().run, args=(logger.info, "early"), name="helper"
            )
            thread.start()
            thread.join()
            logger.error("late")

        early, late = seen
        assert early.threadName == "helper"
        assert early.created <= late.created

    def test_structlog_s_dictionary_on_its_way_to_a_formatter_stays_one(self):
        sampler = make_sampler(0.0)
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                processors=[
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.JSONRenderer(sort_keys=True),
                ]
            )
        )
        handler.addFilter(SamplingFilter(sampler=sampler))
        under = logging.Logger("scope.structlog")
        under.manager = logging.Logger.manager
        logging.Logger.manager.loggerDict[under.name] = under
        under.addHandler(handler)
        logger = structlog.wrap_logger(
            under,
            processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            wrapper_class=structlog.stdlib.BoundLogger,
        )

        with lipservice.request():
            logger.info("cart", items=["tea"])
            lipservice.keep_request()

        assert stream.getvalue() == '{"event": "cart", "items": ["tea"]}\n'


def returned_by_a_forked_child(work):
    """What *work* returns there, as a text."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writes, repr(work()).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writes)
    with os.fdopen(reads) as pipe:
        return pipe.read()


class TestWithoutBleeding:
    def test_what_a_task_logs_after_its_request_has_ended_belongs_to_none(self):
        logger, stream = attach("filter", make_sampler(0.0))
        done = []

        async def main():
            async with lipservice.request():
                left_over = asyncio.create_task(work())
                await asyncio.sleep(0)
            async with lipservice.request():
                await left_over
                logger.error("another request fails")

        async def work():
            await asyncio.sleep(0.01)
            done.append(current_scope())
            logger.info("left over")

        before = recorder_totals()
        asyncio.run(main())

        assert done == [None]
        assert stream.getvalue() == "ERROR another request fails 1.0\n"
        assert recorder_totals().held == before.held

    def test_a_request_that_is_never_left_is_forgotten_with_its_context(self):
        logger, _ = attach("filter", make_sampler(0.0))
        before = recorder_totals()

        def half_way():
            lipservice.request("half way").__enter__()
            logger.info("held")
            return recorder_totals().held

        assert contextvars.Context().run(half_way) == before.held + 1
        gc.collect()
        assert not open_requests()
        assert recorder_totals().held == before.held

    def test_a_forked_child_is_in_no_request_until_it_begins_its_own(self):
        """A pool's process that is forked in a request would never leave it."""
        logger, stream = attach("filter", make_sampler(0.0))

        def work():
            within = current_scope()
            logger.info("outside")
            logger.error("an error outside")
            logger.info("outside again")
            with lipservice.request():
                logger.info("of the child")
                logger.error("the child fails")
            return within, stream.getvalue().splitlines(), recorder_totals().held

        with lipservice.request():
            logger.info("of the parent")
            in_child = returned_by_a_forked_child(work)
            lipservice.keep_request()

        assert in_child == repr(
            (
                None,
                [
                    "ERROR an error outside 1.0",
                    "INFO of the child 0.0",
                    "ERROR the child fails 1.0",
                ],
                0,
            )
        )
        assert stream.getvalue() == "INFO of the parent 0.0\n"

    def test_a_forked_child_leaves_the_request_that_it_was_forked_in_unharmed(self):
        logger, stream = attach("filter", make_sampler(0.0))

        def work():
            logger.info("outside")
            unit.__exit__(ValueError, ValueError(), None)
            with lipservice.request() as scope:
                return current_scope() is scope, stream.getvalue(), recorder_totals().held

        with lipservice.request() as scope, lipservice.request(root=True) as inner:
            unit = lipservice.request(root=True)
            unit.__enter__()
            logger.info("of the parent")
            assert returned_by_a_forked_child(work) == repr((True, "", 0))
            unit.__exit__(None, None, None)
            assert current_scope() is inner
        assert not scope.failed

    def test_what_is_held_by_one_request_counts_against_all(self, monkeypatch):
        monkeypatch.setattr(
            "lipservice.scope._MAX_HELD_BYTES", lipservice.scope._recorders.bytes + 3000
        )
        logger, stream = attach("filter", make_sampler(0.0))
        before = recorder_totals()
        with lipservice.request(), lipservice.request(root=True):
            for step in range(10):
                logger.info("step %d", step)
            logger.error("bad")

        assert recorder_totals().evicted - before.evicted > 5
        assert "step 0" in stream.getvalue()


class TestStructlog:
    @pytest.fixture
    def lines(self):
        return []

    def logger(self, lines, base, sampler):
        def render(_logger, _name, event):
            return f"{event.pop('event')} {event['lipservice_rule']}"

        class Under(logging.Logger):
            def handle(self, record):
                lines.append(f"{record.levelname} {record.msg}")

        return structlog.wrap_logger(
            Under("shop.cart"),
            processors=[render],
            wrapper_class=lipservice.sampling_bound_logger(base, sampler),
        )

    def test_a_record_of_logging_s_underneath_is_that_of_the_call(self):
        """Time, place and thread; not those of the release."""
        logger, _ = attach("none", make_sampler(0.0))
        seen = []
        logger.handlers[0].emit = seen.append
        sampler = make_sampler(0.0)
        bound = structlog.wrap_logger(
            logger,
            processors=[structlog.stdlib.render_to_log_kwargs],
            wrapper_class=lipservice.sampling_bound_logger(structlog.stdlib.BoundLogger, sampler),
        )

        def work():
            bound.info("step", item="tea", stack_info=True)

        with lipservice.request():
            thread = threading.Thread(
                target=contextvars.copy_context().run, args=(work,), name="helper"
            )
            thread.start()
            thread.join()
            before = time.time()
            lipservice.keep_request()

        (record,) = seen
        assert record.created <= before
        assert (record.funcName, record.threadName) == ("work", "helper")
        assert record.lineno == work.__code__.co_firstlineno + 1
        assert (record.getMessage(), record.item) == ("step", "tea")
        assert (record.lipservice_weight, record.lipservice_rule) == (0.0, "released")
        assert record.stack_info.splitlines()[-1].strip().startswith("bound.info(")

    def test_the_one_line_for_structlog_holds_and_releases(self):
        stream = io.StringIO()
        lipservice.configure_adaptive_logging(
            "shop", downstream_handler=logging.StreamHandler(stream), max_logs_per_minute=0,
            keep_first=0, notices=False,
        )  # fmt: skip
        try:
            logger = lipservice.get_logger("shop.cart")
            with lipservice.request():
                logger.info("good", item="tea")
            with lipservice.request():
                logger.info("step", item="tea")
                logger.error("failed")
        finally:
            lipservice.shutdown()

        assert stream.getvalue().splitlines() == ["step", "failed"]

    @pytest.mark.parametrize(
        "base", [structlog.make_filtering_bound_logger(0), structlog.stdlib.BoundLogger]
    )
    def test_a_level_given_as_a_number_is_held_too(self, lines, base):
        logger = self.logger(lines, base, make_sampler(0.0))
        with lipservice.request():
            logger.log(logging.INFO, "by number")
            logger.info("by name")
            logger.error("failed")

        assert lines == ["INFO by number released", "INFO by name released", "ERROR failed error"]

    def test_a_level_that_is_off_for_the_logger_underneath_stays_off(self, lines):
        logger = self.logger(lines, structlog.make_filtering_bound_logger(0), make_sampler(0.0))
        logging.Logger.setLevel(logger._logger, logging.WARNING)
        with lipservice.request():
            logger.info("off")
            logger.warning("on")
            logger.error("failed")

        assert lines == ["WARNING on released", "ERROR failed error"]

    @pytest.mark.parametrize("shape", ["for a formatter", "as keywords"])
    def test_values_that_change_say_what_they_said(self, shape):
        def as_keywords(_logger, _name, event):
            return event

        class Under:
            def info(self, **event):
                stream.write(f"{event['items']}")

        stream = io.StringIO()
        under, _ = attach("none", make_sampler(0.0))
        under.handlers[0].setStream(stream)
        under.handlers[0].terminator = ""
        under.handlers[0].setFormatter(
            structlog.stdlib.ProcessorFormatter(processor=lambda _, __, event: str(event["items"]))
        )
        logger = structlog.wrap_logger(
            under if shape == "for a formatter" else Under(),
            processors=[
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter
                if shape == "for a formatter"
                else as_keywords
            ],
            wrapper_class=lipservice.sampling_bound_logger(
                structlog.make_filtering_bound_logger(0), make_sampler(0.0)
            ),
        )
        items = ["tea"]
        with lipservice.request():
            logger.info("cart", items=items)
            items.append("milk")
            lipservice.keep_request()

        assert stream.getvalue() == "['tea']"

    @pytest.mark.parametrize("early", [True, False])
    def test_the_exception_is_that_of_the_call(self, early):
        sampler = make_sampler(0.0)
        under, stream = attach("none" if early else "filter", sampler)
        under.handlers[0].setFormatter(
            structlog.stdlib.ProcessorFormatter(
                processors=[
                    structlog.processors.format_exc_info,
                    lambda _, __, event: event["exception"].splitlines()[-1],
                ]
            )
        )
        base = structlog.stdlib.BoundLogger
        logger = structlog.wrap_logger(
            under,
            processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            wrapper_class=lipservice.sampling_bound_logger(base, sampler) if early else base,
        )
        with lipservice.request():
            try:
                raise ValueError("the first one")
            except ValueError:
                logger.info("caught", exc_info=True)
            try:
                raise KeyError("another one")
            except KeyError:
                lipservice.keep_request()

        assert stream.getvalue() == "ValueError: the first one\n"

    def test_a_stack_level_leads_to_the_caller(self):
        handed_on = structlog.stdlib.render_to_log_kwargs(
            None, "info", {"event": "step", "stacklevel": 2}
        )
        if "stacklevel" not in handed_on:
            pytest.skip("this structlog knows no stack levels")

        def step(logger):
            logger.info("step", stacklevel=2)

        under, stream = attach("none", make_sampler(0.0))
        under.handlers[0].setFormatter(logging.Formatter("%(funcName)s %(message)s"))
        logger = structlog.wrap_logger(
            under,
            processors=[structlog.stdlib.render_to_log_kwargs],
            wrapper_class=lipservice.sampling_bound_logger(
                structlog.stdlib.BoundLogger, make_sampler(0.0)
            ),
        )

        def work():
            with lipservice.request():
                step(logger)
                lipservice.keep_request()

        work()
        assert stream.getvalue() == "work step\n"

    def test_the_old_async_bound_logger_holds_and_is_boosted_too(self, lines):
        sampler = make_sampler(0.0)

        async def work():
            logger = self.logger(lines, structlog.stdlib.AsyncBoundLogger, sampler)
            with lipservice.request():
                await logger.info("step")
                await logger.error("failed")
            sampler.boost(logger="shop")
            await logger.info("now")

        asyncio.run(work())
        assert lines == ["INFO step released", "ERROR failed error", "INFO now boosted"]

    @pytest.mark.parametrize("name", ["warn", "msg"])
    def test_another_name_of_a_method_is_held_under_the_name_that_structlog_gives_it(self, name):
        """The logger underneath need not have it."""

        class Under:
            def warning(self, event):
                lines.append(f"warning: {event}")

            def info(self, event):
                lines.append(f"info: {event}")

        lines = []
        logger = structlog.wrap_logger(
            Under(),
            processors=[lambda _, called, event: f"{called} {event['event']}"],
            wrapper_class=lipservice.sampling_bound_logger(
                structlog.make_filtering_bound_logger(0), make_sampler(0.0)
            ),
        )
        with lipservice.request():
            getattr(logger, name)("step")
            lipservice.keep_request()

        called = {"warn": "warning", "msg": "info"}[name]
        assert lines == [f"{called}: {called} step"]

    def test_a_logger_underneath_that_lacks_the_method_harms_nobody(self):
        logger = structlog.wrap_logger(
            object(),
            processors=[lambda _, __, event: event["event"]],
            wrapper_class=lipservice.sampling_bound_logger(
                structlog.make_filtering_bound_logger(0), make_sampler(0.0)
            ),
        )
        before = recorder_totals()
        with lipservice.request():
            logger.info("step")

        assert recorder_totals().evicted == before.evicted + 1

    def test_what_cannot_be_held_is_counted(self, lines):
        logger = self.logger(lines, structlog.make_filtering_bound_logger(0), make_sampler(0.0))
        before = recorder_totals()
        with lipservice.request():
            logger.info("step %d", "that is no number")
            lipservice.keep_request()

        assert not lines
        assert recorder_totals().evicted == before.evicted + 1

    def test_a_boosted_logger_is_kept(self, lines):
        sampler = make_sampler(0.0)
        logger = self.logger(lines, structlog.stdlib.BoundLogger, sampler)
        sampler.boost(logger="shop")
        logger.info("now")
        logger.log(logging.INFO, "and now")

        assert lines == ["INFO now boosted", "INFO and now boosted"]


def test_loguru_keeps_what_a_boosted_logger_says():
    sampler = make_sampler(0.0)
    stream = io.StringIO()
    loguru_logger.remove()
    identifier = loguru_logger.add(
        stream, filter=lipservice.LoguruFilter(sampler), format="{message} {extra[lipservice_rule]}"
    )
    sampler.boost(logger="tests")
    loguru_logger.info("now")
    loguru_logger.remove(identifier)

    assert stream.getvalue() == "now boosted\n"


def test_one_trace_id_over_very_many_requests_decides_about_the_first_only():
    trace_id = f"{random.Random('only here').getrandbits(128):032x}"
    numbers = []
    for _ in range(3 * COHERENT_REQUESTS):
        with lipservice.request(trace_id=trace_id) as scope:
            numbers.append(scope.randomness)

    assert set(numbers[:COHERENT_REQUESTS]) == {int(trace_id[-14:], 16)}
    assert len(set(numbers)) == 2 * COHERENT_REQUESTS + 1


def test_at_the_limit_threshold_and_weight_agree_and_stay_unbiased():
    """The limit scales a request's rates by one factor, known before its number has a say."""
    clock = [0.0]
    estimates = []
    for seed in range(400):
        sampler = AdaptiveSampler(
            policy=SamplingPolicy(sampling_rate=1.0, keep_first=0, max_logs_per_minute=400),
            notices=False,
            clock=lambda: clock[0],
            rng=random.Random(seed),
        )
        rng = random.Random(1000 + seed)
        weights = 0.0
        for _ in range(150):
            scope = RequestScope(None, rng.getrandbits(56), RecorderLimits())
            for step in "abc":
                decision = sampler.decide_scoped(step, "INFO", scope, is_format=False)
                if is_kept(decision):
                    assert scope.keeps(decision.rate)
                    weights += decision.weight
        assert sampler.totals().capped < 450
        estimates.append(weights)
        sampler.shutdown()
    mean = sum(estimates) / len(estimates)
    deviation = (sum((e - mean) ** 2 for e in estimates) ** 0.5) / len(estimates)

    assert abs(mean - 450) < 4 * deviation


class TestSeveralHandlers:
    """All that the one decision kept a record out of get it when it is released."""

    def test_each_sampling_handler_of_a_logger_gets_it_once(self):
        sampler = make_sampler(0.0)
        logger = logging.getLogger("scope.several")
        logger.propagate = False
        logger.setLevel(logging.DEBUG)
        streams = [io.StringIO(), io.StringIO(), io.StringIO(), io.StringIO()]
        wrapped, other, filtered, deaf = map(logging.StreamHandler, streams)
        filtered.addFilter(SamplingFilter(sampler=sampler))
        deaf.setLevel(logging.WARNING)
        logger.handlers = [
            SamplingHandler(wrapped, sampler=sampler),
            SamplingHandler(other, sampler=sampler),
            filtered,
            SamplingHandler(deaf, sampler=sampler),
        ]
        with lipservice.request():
            logger.info("step")
            logger.error("failed")
        logger.handlers = []

        assert [s.getvalue() for s in streams] == ["step\nfailed\n"] * 3 + ["failed\n"]

    def test_each_sampling_sink_of_loguru_gets_it_once(self):
        sampler = make_sampler(0.0)
        streams = [io.StringIO(), io.StringIO()]
        loguru_logger.remove()
        for number, stream in enumerate(streams):
            loguru_logger.add(
                lipservice.SamplingSink(stream, sampler), format=f"{number} {{message}}"
            )
        with lipservice.request():
            loguru_logger.info("step")
            loguru_logger.error("failed")
        loguru_logger.remove()

        assert [s.getvalue() for s in streams] == ["0 step\n0 failed\n", "1 step\n1 failed\n"]

    def test_a_released_record_of_loguru_s_has_the_weight_0_and_what_was_bound_at_the_call(self):
        sampler, seen = make_sampler(0.0), []
        loguru_logger.remove()
        loguru_logger.add(
            lipservice.SamplingSink(lambda message: seen.append(message.record), sampler)
        )
        cart = ["tea"]
        with lipservice.request():
            loguru_logger.bind(cart=cart).info("step")
            cart.append("milk")
            loguru_logger.error("failed")
        loguru_logger.remove()

        step, failed = seen
        assert step["extra"]["cart"] == ["tea"]
        assert (step["extra"]["lipservice_rule"], step["extra"]["lipservice_weight"]) == (
            "released",
            0.0,
        )
        assert failed["extra"]["lipservice_weight"] == 1.0

    def test_a_large_text_of_loguru_s_counts_for_the_bounds(self):
        sampler, stream = make_sampler(0.0), io.StringIO()
        loguru_logger.remove()
        loguru_logger.add(lipservice.SamplingSink(stream, sampler), format="{extra[text]}")
        with lipservice.request(limits=RecorderLimits(max_bytes=7 * len(TEXT))):
            for _ in range(20):
                loguru_logger.bind(text=TEXT).info("step")  # it is held in the extra, too
            lipservice.keep_request()
        loguru_logger.remove()

        assert len(stream.getvalue().splitlines()) == 3

    def test_a_sink_that_gets_a_record_when_its_request_has_failed_meanwhile_writes_it(self):
        """Another thread's ERROR between two sinks of one record."""
        sampler, streams = make_sampler(0.0), [io.StringIO(), io.StringIO()]
        loguru_logger.remove()
        loguru_logger.add(lipservice.SamplingSink(streams[0], sampler), format="{message}")
        loguru_logger.add(lambda _: lipservice.keep_request(), format="{message}")
        loguru_logger.add(lipservice.SamplingSink(streams[1], sampler), format="{message}")
        with lipservice.request():
            loguru_logger.info("step")
        loguru_logger.remove()

        assert [s.getvalue() for s in streams] == ["step\n", "step\n"]

    @pytest.mark.parametrize("failing", ["an error", "an exception", "an error in a thread"])
    @pytest.mark.parametrize("pausing", [False, True])
    def test_a_coroutine_of_loguru_s_gets_the_story_in_order(self, failing, pausing):
        sampler, told = make_sampler(0.0), []

        async def sink(message):
            if "one" in message:
                await asyncio.sleep(0)  # the others wait for it
            told.append(str(message).strip())

        async def work():
            async with lipservice.request():
                loguru_logger.info("one")
                loguru_logger.info("two")
                if pausing:
                    await asyncio.sleep(0)
                if failing == "an error":
                    loguru_logger.error("failed")
                elif failing == "an exception":
                    raise ZeroDivisionError
                else:
                    await asyncio.to_thread(lipservice.keep_request)
                loguru_logger.info("later")
            loguru_logger.info("outside")

        async def main():
            loguru_logger.add(lipservice.SamplingSink(sink, sampler), format="{message}")
            with contextlib.suppress(ZeroDivisionError):
                await work()
            await loguru_logger.complete()
            for _ in range(100):  # what is released by an exception is a task of its own
                await asyncio.sleep(0)
            await loguru_logger.complete()

        loguru_logger.remove()
        asyncio.run(main())
        loguru_logger.remove()

        assert sorted(told[:2]) == ["one", "two"]
        assert (
            told[2:]
            == {
                "an error": ["failed", "later"],
                "an exception": [],
                "an error in a thread": ["later"],
            }[failing]
        )

    def test_a_sink_of_loguru_s_that_pickles_records_gets_them_all_the_same(self, capsys):
        sampler = make_sampler(0.0)
        sampled, whole = io.StringIO(), []
        loguru_logger.remove()
        loguru_logger.add(lipservice.SamplingSink(sampled, sampler), format="{message}")
        loguru_logger.add(
            lambda message: whole.append(str(message)), format="{message}", enqueue=True
        )
        with lipservice.request():
            loguru_logger.info("step")
            loguru_logger.error("failed")
        loguru_logger.remove()

        assert whole == ["step\n", "failed\n"]
        assert sampled.getvalue() == "step\nfailed\n"
        assert capsys.readouterr().err == ""


class TestWhereItWouldHaveGone:
    """A released record takes the way that it would have taken if it had been kept."""

    def test_not_to_a_handler_that_has_it_since_its_filter_is_for_other_loggers(self):
        sampler = make_sampler(0.0)
        logger, streams = attach_all(
            [SamplingFilter(sampler=sampler)], [SamplingFilter("other", sampler=sampler)]
        )
        with lipservice.request():
            logger.info("step")
            logger.error("failed")

        assert told(streams) == [["step", "failed"], ["step", "failed"]]

    def test_to_a_handler_with_a_sampler_of_its_own_which_has_believed_the_first_one(self):
        logger, streams = attach_all(
            [SamplingFilter(sampler=make_sampler(0.0))], [SamplingFilter(sampler=make_sampler(0.0))]
        )
        with lipservice.request():
            logger.info("step")
            logger.error("failed")

        assert told(streams) == [["step", "failed"], ["step", "failed"]]

    def test_not_past_the_filters_of_another_sampling_handler(self):
        sampler = make_sampler(0.0)
        logger, streams = attach_all([], [])
        logger.handlers = [SamplingHandler(each, sampler=sampler) for each in logger.handlers]
        logger.handlers[1].addFilter(lambda record: "private" not in record.getMessage())
        with lipservice.request():
            logger.info("private step")
            logger.error("failed")

        assert told(streams) == [["private step", "failed"], ["failed"]]

    def test_not_past_the_filters_that_stand_behind_a_logger_s_sampling_filter(self):
        logger, streams = attach_all([])
        logger.filters = [SamplingFilter(sampler=make_sampler(0.0)), hide_the_password]
        with lipservice.request():
            logger.info("password sesame")
            logger.error("failed")

        assert told(streams) == [["password ***", "failed"]]

    @pytest.mark.parametrize("on", ["handler", "logger"])
    def test_once_through_the_filters_that_stand_before_the_sampling_filter(self, on):
        def number(record):
            record.msg = f"[{next(numbers)}] {record.msg}"
            return True

        numbers = iter(range(10))
        filters = [number, SamplingFilter(sampler=make_sampler(0.0)), hide_the_password]
        logger, streams = attach_all(filters if on == "handler" else [])
        logger.filters = filters if on == "logger" else []
        with lipservice.request():
            logger.info("password sesame")
            logger.error("failed")

        assert told(streams) == [["[0] password ***", "[1] failed"]]

    def test_through_all_filters_of_another_handler_which_may_add_what_its_format_names(self):
        def name(record):
            record.place = "here"
            return True

        sampling = SamplingFilter(sampler=make_sampler(0.0))
        logger, streams = attach_all([sampling], [name, sampling])
        logger.handlers[1].setFormatter(logging.Formatter("%(place)s %(message)s"))
        with lipservice.request():
            logger.info("step")
            logger.error("failed")

        assert told(streams) == [["step", "failed"], ["here step", "here failed"]]

    def test_not_past_a_filter_that_stands_before_a_sampling_filter_of_several_handlers(self):
        def is_a_warning(record):
            return record.levelno >= logging.WARNING

        sampling = SamplingFilter(sampler=make_sampler(0.0))
        logger, streams = attach_all([is_a_warning, sampling], [sampling])
        with lipservice.request():
            logger.info("step")
            logger.error("failed")

        assert told(streams) == [["failed"], ["step", "failed"]]

    def test_to_the_handlers_of_today_where_logging_was_configured_anew_meanwhile(self):
        settings = {
            "version": 1,
            "filters": {
                "sampling": {"()": SamplingFilter, "sampler": make_sampler(0.0)},
            },
            "handlers": {
                "console": {"class": "logging.StreamHandler", "filters": ["sampling"]},
            },
            "root": {"handlers": ["console"], "level": "INFO"},
            "disable_existing_loggers": False,
        }
        logging.config.dictConfig(settings)
        with lipservice.request():
            logging.getLogger("scope.reload").info("step")
            settings["filters"]["sampling"]["sampler"] = make_sampler(0.0)
            logging.config.dictConfig(settings)
            stream = io.StringIO()
            logging.root.handlers[0].setStream(stream)
            logging.getLogger("scope.reload").error("failed")
        logging.root.handlers.clear()

        assert stream.getvalue() == "step\nfailed\n"


def attach_all(*filters_of_handlers):
    """A logger with a handler for each list of filters, and their streams."""
    logger = logging.getLogger("scope.way")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    streams = []
    logger.handlers = []
    for filters in filters_of_handlers:
        streams.append(io.StringIO())
        logger.addHandler(logging.StreamHandler(streams[-1]))
        logger.handlers[-1].filters = filters
    return logger, streams


def told(streams):
    return [stream.getvalue().splitlines() for stream in streams]


def hide_the_password(record):
    record.msg = record.msg.replace("sesame", "***")
    return True
