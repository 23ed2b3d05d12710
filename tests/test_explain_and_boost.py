"""Why a record is kept or not, and full fidelity for a while."""

import io
import logging
import random

import pytest

from lipservice.exceptions import ConfigurationError
from lipservice.integrations.stdlib import SamplingFilter, sampling_logger_class
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from lipservice.scope import WATCHED


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def sampler(clock):
    sampler = AdaptiveSampler(
        policy=SamplingPolicy(sampling_rate=0.0, keep_first=2, patterns=("payment",), version=4),
        notices=False,
        rng=random.Random(3),
        clock=lambda: clock[0],
    )
    yield sampler
    sampler.shutdown()


def see(sampler, message, times, severity="INFO"):
    return sum(sampler.should_sample(message, severity) for _ in range(times))


@pytest.mark.parametrize(
    ("message", "severity", "rule", "rate"),
    [
        ("user 5 logged in", "INFO", "rate", 0.0),
        ("user 5 logged in", "ERROR", "error", 1.0),
        ("Payment 5 taken", "DEBUG", "protected", 1.0),
        ("never seen", "INFO", "first", 1.0),
    ],
)
def test_explain_names_the_rule_and_counts_nothing(sampler, message, severity, rule, rate):
    see(sampler, "user 1 logged in", 10)
    before = sampler.totals()

    explanation = sampler.explain(message, severity)

    assert (explanation.rule, explanation.rate) == (rule, rate)
    assert explanation.policy == "4"
    assert sampler.totals() == before


def test_explain_takes_a_signature_and_tells_what_became_of_the_pattern(sampler):
    see(sampler, "user 1 logged in", 10)
    by_message = sampler.explain("user 2 logged in")

    by_signature = sampler.explain(by_message.signature)

    assert by_signature == by_message
    assert (by_signature.seen, by_signature.kept) == (10, 2)
    assert "user <*> logged in" in str(by_signature)


def test_a_boosted_pattern_is_kept_whole_until_its_time_is_over(sampler, clock):
    see(sampler, "user 1 logged in", 10)
    see(sampler, "other", 10)
    sampler.boost("user 9 logged in", minutes=5)

    assert see(sampler, "user 1 logged in", 100) == 100
    assert see(sampler, "other", 100) == 0

    clock[0] += 301
    sampler.tick()
    assert see(sampler, "user 1 logged in", 100) == 0


def test_a_boost_may_be_for_a_severity_or_for_all(sampler):
    for severity in ("INFO", "DEBUG"):
        see(sampler, "x", 10, severity)
    sampler.boost(severity="debug")

    assert see(sampler, "x", 50, "DEBUG") == 50
    assert see(sampler, "x", 50, "INFO") == 0
    sampler.boost()
    assert see(sampler, "x", 50, "INFO") == 50


@pytest.mark.parametrize("form", ["filter", "early"])
def test_a_boosted_logger_and_its_children_lose_nothing_and_bias_nothing(sampler, clock, form):
    cls = sampling_logger_class(sampler) if form == "early" else logging.Logger
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(lipservice_weight)s"))
    if form == "filter":
        handler.addFilter(SamplingFilter(sampler=sampler))
    logger = cls("shop.cart", logging.INFO)
    logger.manager = logging.Logger.manager
    logger.addHandler(handler)
    see(sampler, "hello %s", 5)
    for _ in range(3):
        logger.info("hello")
    stream.truncate(0)
    sampler.boost(logger="shop")

    for _ in range(20):
        logger.info("hello")

    assert stream.getvalue().strip("\0\n").split("\n") == ["1.0"] * 20
    clock[0] += 601
    sampler.tick()
    stream.truncate(0)
    logger.info("hello")
    assert stream.getvalue().strip("\0\n") == ""


@pytest.mark.parametrize(
    "wrong", [{"minutes": 0}, {"minutes": True}, {"minutes": 1e9}, {"logger": "a", "pattern": "b"}]
)
def test_a_wrong_boost_is_refused(sampler, wrong):
    with pytest.raises(ConfigurationError):
        sampler.boost(**wrong)


def test_a_signature_protected_by_hand_passes_even_the_limit(clock):
    from lipservice.signature import compute_signature

    signature = compute_signature("invoice 1 sent")
    policy = SamplingPolicy(
        sampling_rate=0.0, keep_first=0, max_logs_per_minute=1, protected=frozenset({signature})
    )
    sampler = AdaptiveSampler(policy=policy, notices=False, clock=lambda: clock[0])

    assert see(sampler, "invoice 7 sent", 100) == 100
    assert sampler.explain("invoice 7 sent").rule == "protected"
    sampler.apply_policy(SamplingPolicy(sampling_rate=0.0, keep_first=0))
    assert see(sampler, "invoice 7 sent", 100) == 0
    sampler.shutdown()


def test_a_boost_does_not_outlive_the_background_work_that_would_end_it(sampler):
    see(sampler, "user 1 logged in", 10)
    sampler.boost("user 9 logged in")
    sampler.boost(logger="shop")
    assert see(sampler, "user 1 logged in", 10) == 10

    sampler.shutdown()

    assert see(sampler, "user 1 logged in", 10) == 0
    assert not sampler.is_boosted("shop")
    assert not WATCHED
