"""Requests: coherent decisions, the flight recorder, and weights that stay true."""

import asyncio
import contextvars
import io
import logging
import random
import threading

import pytest

import lipservice
from lipservice.exceptions import ConfigurationError
from lipservice.integrations.stdlib import SamplingFilter, SamplingHandler, sampling_logger_class
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from lipservice.scope import WATCHED, RecorderLimits, RequestScope, recorder_totals

_samplers = []


@pytest.fixture(autouse=True)
def _samplers_end():
    yield
    while _samplers:
        _samplers.pop().shutdown()


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
    assert not WATCHED


@pytest.mark.parametrize("kind", FORMS)
def test_an_exception_that_leaves_the_request_releases_what_is_held(kind):
    logger, stream = attach(kind, make_sampler(0.0))

    with pytest.raises(ZeroDivisionError), lipservice.request():
        logger.info("about to divide")
        1 / 0  # noqa: B018

    assert stream.getvalue() == "INFO about to divide 0.0\n"


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
