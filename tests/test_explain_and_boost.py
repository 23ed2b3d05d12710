"""Why a record is kept or not, and full fidelity for a while."""

import io
import json
import logging
import random
import time
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lipservice
from lipservice import _engine
from lipservice._notices import Notices
from lipservice.decision import Totals
from lipservice.exceptions import ConfigurationError, PolicyError
from lipservice.integrations.stdlib import SamplingFilter, sampling_logger_class
from lipservice.policy import Boost, SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from lipservice.severity import SEVERITIES
from lipservice.signature import compute_signature
from tests.support.programs import run_script


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
    "wrong",
    [
        *({"minutes": 0}, {"minutes": True}, {"minutes": 1e9}),
        *({"logger": "a", "pattern": "b"}, {"severity": "debgu"}),
    ],
)
def test_a_wrong_boost_is_refused(sampler, wrong):
    with pytest.raises(ConfigurationError):
        sampler.boost(**wrong)


def test_a_signature_protected_by_hand_passes_even_the_limit(clock):
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
    assert not sampler.boosted_loggers


# ---------------------------------------------------------------------- boosts of a policy


WALL = 1_795_600_000.0  # 2026-11-25T09:46:40Z
NAMES = st.text(min_size=1, max_size=20)
ENDS = st.datetimes(
    min_value=datetime(1970, 1, 1), max_value=datetime(2999, 1, 1), timezones=st.just(timezone.utc)
).map(lambda at: at.replace(microsecond=0).timestamp())
BOOSTS = st.one_of(
    st.builds(
        Boost,
        signature=st.none() | st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
        severity=st.none() | st.sampled_from(SEVERITIES),
        until=ENDS,
    ),
    st.builds(Boost, logger=NAMES, until=ENDS),
)


def until(seconds):
    """A time of a policy document, seconds after WALL."""
    return datetime.fromtimestamp(WALL + seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def policy_with(*boosts, **fields):
    document = {"sampling_rate": 0.0, "keep_first": 2, "version": 4, **fields}
    return SamplingPolicy.from_dict({**document, "boosts": list(boosts)})


class Times:
    """A monotonic clock, and the time of day, which may be set."""

    def __init__(self):
        self.clock = 1000.0
        self.wall = WALL

    def forward(self, seconds):
        self.clock += seconds
        self.wall += seconds


@pytest.fixture
def times():
    return Times()


@pytest.fixture
def served(times):
    """A sampler whose policies come from a server, with times of its own."""
    sampler = AdaptiveSampler(
        policy=policy_with(),
        notices=False,
        rng=random.Random(3),
        clock=lambda: times.clock,
        now=lambda: times.wall,
    )
    see(sampler, "user 1 logged in", 10)
    see(sampler, "other", 10)
    yield sampler
    sampler.shutdown()


@given(st.lists(BOOSTS, max_size=5))
def test_boosts_come_back_from_a_policy_document_as_they_were(boosts):
    policy = SamplingPolicy(boosts=tuple(boosts))

    assert SamplingPolicy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy


@pytest.mark.parametrize("absent", [{}, {"boosts": None}, {"boosts": []}])
def test_a_policy_without_boosts_has_none(absent):
    assert SamplingPolicy.from_dict(absent).boosts == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-25T09:46:40Z", 0),
        ("2026-11-25T10:46:40+01:00", 0),
        ("2026-11-25T09:46:40", 0),  # without an offset it is UTC, whatever the machine's zone
        ("2026-11-25T09:46:40.250Z", 1),  # never ends early
    ],
)
def test_the_end_of_a_boost_is_read_as_utc(text, seconds, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        (boost,) = policy_with({"until": text}).boosts
    finally:
        monkeypatch.undo()
        time.tzset()

    assert boost == Boost(until=pytest.approx(WALL + seconds))


@pytest.mark.parametrize(
    ("boosts", "named"),
    [
        ("all", "boosts is a list"),
        ({"until": until(60)}, "boosts is a list"),
        (7, "boosts is a list"),
        ([7], "boosts holds objects"),
        ([None], "boosts holds objects"),
        ([{"until": until(60)}] * 1001, "boosts holds at most 1,000"),
        ([{"signature": 7, "until": until(60)}], "signature"),
        ([{"severity": 10, "until": until(60)}], "severity"),
        ([{"logger": ["a"], "until": until(60)}], "logger"),
        ([{"logger": "a", "severity": "INFO", "until": until(60)}], "logger together"),
        ([{"logger": "a", "signature": "0" * 16, "until": until(60)}], "logger together"),
        ([{}], "until"),
        ([{"until": None}], "until"),
        ([{"until": WALL}], "until"),
        ([{"until": "soon"}], "until"),
        ([{"until": "2026-13-01T00:00:00Z"}], "until"),
        ([{"until": until(60)}, {"until": ""}], "until"),
    ],
)
def test_a_malformed_boost_refuses_the_policy_and_is_named(boosts, named):
    with pytest.raises(PolicyError, match=named) as caught:
        SamplingPolicy.from_dict({"boosts": boosts})
    assert len(str(caught.value)) < 200


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["signature", "severity", "logger", "until", "x"]), inner, max_size=5
        )
    ),
    max_leaves=10,
)


@given(json_values | st.lists(json_values, max_size=3))
def test_whatever_stands_for_boosts_is_read_or_refused(boosts):
    try:
        read = SamplingPolicy.from_dict({"boosts": boosts}).boosts
    except PolicyError as error:
        refusal, read = str(error), ()
    else:
        refusal = "boosts "

    assert refusal.startswith("boosts ")
    assert all(isinstance(each, Boost) for each in read)


def test_a_boost_of_a_policy_is_kept_whole_with_weight_1_until_its_end(served, times):
    signature = compute_signature("user 1 logged in")
    served.apply_policy(policy_with({"signature": signature, "until": until(60)}))

    decisions = [served.decide_message("user 2 logged in", "INFO") for _ in range(50)]
    assert {(each.rule, each.weight) for each in decisions} == {("boosted", 1.0)}
    assert see(served, "other", 50) == 0
    assert served.explain("user 2 logged in").rule == "boosted"

    times.forward(60)
    served.tick()
    assert served.boosts() == ()
    assert see(served, "user 1 logged in", 50) == 0
    assert served.explain("user 2 logged in").rule == "rate"


def test_a_boost_that_is_over_when_its_policy_comes_keeps_nothing(served):
    served.apply_policy(policy_with({"until": until(-1)}, {"until": until(0)}))

    assert served.boosts() == ()
    assert see(served, "other", 50) == 0


@pytest.mark.parametrize("jump", [-7200.0, 7200.0])
def test_a_boost_lasts_as_long_as_was_left_of_it_when_it_came(served, times, jump):
    served.apply_policy(policy_with({"until": until(60)}))
    times.wall += jump  # somebody sets the clock

    times.forward(59)
    served.tick()
    assert see(served, "other", 50) == 50
    times.forward(1)
    served.tick()
    assert see(served, "other", 50) == 0


def test_a_boost_that_would_never_end_ends_in_a_day(served, times):
    served.apply_policy(policy_with({"until": "9999-12-31T23:59:59Z"}))

    times.forward(24 * 3600 - 1)
    served.tick()
    assert see(served, "other", 50) == 50
    times.forward(1)
    served.tick()
    assert see(served, "other", 50) == 0


def test_a_boost_that_is_served_again_neither_begins_anew_nor_lasts_longer(served, times):
    policy = {"until": until(60)}
    served.apply_policy(policy_with(policy))
    first = served.boosts()

    times.forward(30)
    served.apply_policy(policy_with(policy, version=5))
    assert served.boosts() == first
    assert see(served, "other", 50) == 50
    times.forward(30)
    served.tick()
    assert see(served, "other", 50) == 0


@pytest.mark.parametrize("after", [None, policy_with()])
def test_a_boost_that_is_no_longer_served_is_over_at_once(served, after):
    served.apply_policy(policy_with({"until": until(60)}, {"logger": "shop", "until": until(60)}))
    assert served.is_boosted("shop.cart")

    served.apply_policy(after)

    assert served.boosts() == ()
    assert not served.is_boosted("shop.cart")
    assert see(served, "other", 50) == (50 if after is None else 0)


def test_boosts_of_the_server_and_of_the_process_hold_beside_each_other(served, times):
    served.apply_policy(policy_with({"logger": "shop", "until": until(120)}))
    served.boost("other", minutes=1)
    served.boost(logger="jobs", minutes=3)
    assert served.is_boosted("shop")
    assert served.is_boosted("jobs")
    assert see(served, "other", 50) == 50

    served.apply_policy(policy_with({"severity": "INFO", "until": until(90)}))
    assert not served.is_boosted("shop")
    assert served.is_boosted("jobs")

    times.forward(60)  # the process's own is over, the server's holds
    served.tick()
    assert see(served, "other", 50) == 50
    times.forward(30)
    served.tick()
    assert see(served, "other", 50) == 0
    assert [boost.logger for boost in served.boosts()] == ["jobs"]


def test_severities_of_boosts_are_read_as_those_of_records(served):
    served.apply_policy(
        policy_with({"severity": "warn", "until": until(60)}, keep_first=0, sampling_rate=0.0)
    )
    assert see(served, "other", 20, "WARNING") == 20
    assert see(served, "other", 20) == 0

    # A level that nobody knows is INFO's, on a record and in a boost.
    served.apply_policy(policy_with({"severity": "chatty", "until": until(60)}, keep_first=0))
    assert see(served, "other", 20, "chatty") == 20
    assert see(served, "other", 20, "DEBUG") == 0


def test_in_shadow_mode_a_boosted_record_is_kept_by_the_boost(served):
    served.apply_policy(policy_with({"until": until(60)}, mode="shadow"))

    decision = served.decide_message("other", "INFO")

    assert (decision.rule, decision.weight) == ("boosted", 1.0)
    assert served.totals().shadowed == 0


def test_a_boost_passes_the_limit_and_takes_nothing_of_it(served):
    served.apply_policy(policy_with({"signature": compute_signature("other"), "until": until(60)},
                                    sampling_rate=1.0, keep_first=0, max_logs_per_minute=10))  # fmt: skip

    assert see(served, "other", 500) == 500
    assert served.decide_message("user 1 logged in", "INFO").weight == 1.0, "there is all the room"


def test_what_a_boost_kept_is_told_apart_in_the_ledger(served):
    served.apply_policy(policy_with({"until": until(60)}, version=5))
    see(served, "user 1 logged in", 30)

    told = {
        (entry.policy, entry.rule): (entry.seen, entry.kept)
        for entry in served.explain("user 1 logged in").ledger
    }

    assert told == {("4", "first"): (2, 2), ("4", "rate"): (8, 0), ("5", "boosted"): (30, 30)}
    assert "by policy 5, rule boosted: kept 30" in str(served.explain("user 1 logged in"))


# ---------------------------------------------------------------------- lipservice.boost


def test_boost_reaches_every_sampler_of_the_process(sampler, served):
    see(sampler, "other", 10)

    lipservice.boost("other", severity="INFO", minutes=5)
    lipservice.boost(logger="shop")

    for each in (sampler, served):
        assert see(each, "other", 20) == 20
        assert see(each, "user 1 logged in", 20) <= 2
        assert each.is_boosted("shop.cart")


def test_boost_makes_the_default_sampler_where_there_is_none():
    told = run_script(
        """
        import lipservice

        lipservice.boost(logger="shop")
        print(lipservice.default_sampler().is_boosted("shop"))
        """
    )

    assert told == "True\n"


def test_a_wrong_boost_of_the_process_is_refused_and_changes_nothing(sampler):
    with pytest.raises(ConfigurationError, match="minutes"):
        lipservice.boost(minutes=0)
    assert sampler.boosts() == ()


# ---------------------------------------------------------------------- notices


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, logger="lipservice")
    return lambda: [each.getMessage() for each in caplog.records if each.name == "lipservice"]


def boost_named(until=WALL + 60, **selectors):
    return Boost(until=until, **selectors)


@pytest.mark.parametrize(
    ("boost", "whom"),
    [
        (boost_named(), "all patterns"),
        (boost_named(severity="DEBUG"), "severity DEBUG"),
        (boost_named(signature="0123456789abcdef"), "pattern 0123456789abcdef"),
        (
            boost_named(signature="0123456789abcdef", severity="DEBUG"),
            "pattern 0123456789abcdef at severity DEBUG",
        ),
        (boost_named(logger="shop.cart"), "logger shop.cart"),
    ],
)
def test_the_begin_and_end_of_a_boost_are_told_once_each(told, boost, whom):
    notices = Notices("checkout", lambda: 0.0)
    for boosts in ((), (boost,), (boost,), (), ()):
        notices.look(None, Totals(), boosts)

    assert told() == [
        f"everything of {whom} of checkout is kept until 09:47:40 UTC",
        f"{whom} of checkout is sampled again",
    ]


def test_a_boost_that_stays_is_not_told_again_when_another_begins_or_ends(told):
    stays, other = boost_named(logger="shop"), boost_named(severity="DEBUG")
    notices = Notices(None, lambda: 0.0)
    for boosts in ((stays,), (other, stays), (stays,)):
        notices.look(None, Totals(), boosts)

    assert [line for line in told() if "shop" in line] == [
        "everything of logger shop is kept until 09:47:40 UTC"
    ]


def test_what_two_boosts_name_is_sampled_again_when_both_are_over(told):
    short, longer = boost_named(logger="shop"), boost_named(WALL + 120, logger="shop")
    notices = Notices(None, lambda: 0.0)
    for boosts in ((short,), (short, longer), (longer,), ()):
        notices.look(None, Totals(), boosts)

    assert told() == [
        "everything of logger shop is kept until 09:47:40 UTC",
        "everything of logger shop is kept until 09:48:40 UTC",
        "logger shop is sampled again",
    ]


def test_a_boost_that_is_over_before_anybody_looks_is_told(told):
    short, stays = boost_named(logger="shop"), boost_named(severity="DEBUG")
    notices = Notices("checkout", lambda: 0.0)
    notices.heard((short, stays))
    notices.heard((short,))
    for boosts in ((stays,), ()):
        notices.look(None, Totals(), boosts)

    assert told() == [
        "everything of severity DEBUG of checkout is kept until 09:47:40 UTC",
        "everything of logger shop of checkout was kept for a moment, and is sampled again",
        "severity DEBUG of checkout is sampled again",
    ]


def test_a_policy_that_comes_again_with_a_boost_is_not_told_as_a_new_one(told):
    notices = Notices("checkout", lambda: 0.0)
    boost = {"logger": "shop", "until": until(60)}
    for policy in (policy_with(), policy_with(boost), policy_with(), policy_with(version=5)):
        notices.look(policy, Totals(), policy.boosts)

    assert [line.partition(" (")[0] for line in told()] == [
        "sampling of checkout by policy 4",
        "everything of logger shop of checkout is kept until 09:47:40 UTC",
        "logger shop of checkout is sampled again",
        "sampling of checkout by policy 5",
    ]


def test_boosts_that_nobody_looks_at_take_no_room(told):
    notices = Notices(None, lambda: 0.0)
    for number in range(5000):
        notices.heard((boost_named(logger=f"l{number}"),))
    notices.look(None, Totals())

    assert 0 < len(told()) <= 1000


@pytest.fixture
def telling(times):
    """A sampler that tells, and how to let its background work look once."""
    sampler = AdaptiveSampler(
        policy=policy_with(), rng=random.Random(3), clock=lambda: times.clock,
        now=lambda: times.wall,
    )  # fmt: skip
    yield sampler
    sampler.shutdown()


def test_boosts_between_two_looks_are_told_wherever_they_come_from(telling, times, told):
    telling._worker.ensure_started = lambda: None  # this test looks, nobody else
    telling._tick()
    telling.boost(logger="short", minutes=0.01)
    times.forward(1)
    telling._tick()
    telling.apply_policy(policy_with({"severity": "DEBUG", "until": until(60)}, version=5))
    telling.apply_policy(policy_with(version=6))
    times.forward(1)
    telling._tick()

    boosts = [line for line in told() if "sampled again" in line]
    assert boosts == [
        f"everything of {whom} was kept for a moment, and is sampled again"
        for whom in ("logger short", "severity DEBUG")
    ]


def test_what_began_since_the_last_look_and_what_ends_with_the_work_is_told(telling, told):
    telling._tick()
    telling.boost(logger="shop")

    telling.shutdown()

    assert [line for line in told() if "logger shop" in line] == [
        "everything of logger shop was kept for a moment, and is sampled again"
    ]


def test_a_boost_holds_for_what_is_logged_while_the_interpreter_exits():
    told = run_script(
        """
        import atexit, logging, sys
        import lipservice
        from lipservice.policy import SamplingPolicy

        sampler = lipservice.AdaptiveSampler(policy=SamplingPolicy(sampling_rate=0.0, keep_first=0))
        atexit.register(lambda: print(sampler.should_sample("bye", "INFO")))
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
        sampler.boost()
        print(sampler.should_sample("bye", "INFO"))
        """
    )

    lines = told.splitlines()
    assert (lines[0], lines[-1]) == ("True", "True")
    assert "all patterns is kept until" in told


def test_a_boost_after_a_shutdown_begins_nothing_that_nobody_would_end(sampler):
    see(sampler, "other", 10)
    sampler.shutdown()

    sampler.boost("other", minutes=1)
    sampler.boost(logger="shop")
    sampler.apply_policy(policy_with({"until": until(1e6)}))

    assert see(sampler, "other", 10) == 0
    assert sampler.boosts() == ()
    assert not sampler.is_boosted("shop")


@pytest.mark.parametrize(
    "at",
    [
        "0001-01-01T00:00:00+14:00", "0999-01-01T00:00:00Z", "2026-11-25T09:46:40.500Z",
        "9999-12-31T23:59:59.500Z",
    ],
)  # fmt: skip
def test_a_boost_of_any_time_can_be_written_and_read_again(at):
    policy = policy_with({"until": at})

    assert SamplingPolicy.from_dict(policy.to_dict()) == policy


def test_boosts_of_a_process_that_asks_again_and_again_take_no_room(sampler, clock):
    for number in range(1200):
        clock[0] += 0.01
        sampler.boost("user 5 logged in", minutes=5 if number else 10)
        sampler.boost(logger=f"l{number}", minutes=1)

    assert len(sampler.boosts()) == 1000
    pattern = [each for each in sampler.boosts() if each.logger is None]
    assert len(pattern) == 1, "of the same, the one that ends last holds"
    clock[0] += 599 - 12
    assert sampler.boosts() == tuple(pattern)


def test_a_boost_of_the_root_logger_is_one_of_all_loggers(sampler):
    sampler.boost(logger="root")

    assert all(map(sampler.is_boosted, ("root", "shop", "shop.cart", "")))
    assert not sampler.boosts()[0].severity


def test_an_explanation_adds_up_while_records_come(sampler, monkeypatch):
    def rows(cell, rows_of=_engine.rows_of):
        see(sampler, "user 2 logged in", 3)  # as another thread may
        return rows_of(cell)

    see(sampler, "user 1 logged in", 10)
    monkeypatch.setattr(_engine, "rows_of", rows)

    explanation = sampler.explain("user 1 logged in")

    assert explanation.seen == sum(each.seen for each in explanation.ledger) == 13
    assert explanation.kept == sum(each.kept for each in explanation.ledger) == 2


def test_an_explanation_tells_a_record_of_a_signal_handler_by_its_rule(sampler, monkeypatch):
    def judge(cell, *, wants_size, judged=sampler._judge):
        monkeypatch.undo()
        see(sampler, "user 2 logged in", 1)  # in the middle of a decision
        return judged(cell, wants_size=wants_size)

    see(sampler, "user 1 logged in", 1)
    monkeypatch.setattr(sampler, "_judge", judge)
    see(sampler, "user 1 logged in", 1)

    explanation = sampler.explain("user 1 logged in")

    assert explanation.seen == sum(each.seen for each in explanation.ledger) == 3
    assert "reentered" in {each.rule for each in explanation.ledger}


def test_first_records_end_in_a_boosted_logger_too(sampler):
    sampler.boost(logger="shop")

    rules = [sampler.decide_boosted("new", "INFO", is_format=False).rule for _ in range(5)]

    assert rules == ["first", "first", "boosted", "boosted", "boosted"]


def test_a_boost_by_a_message_names_the_pattern_that_explain_names(sampler):
    for _ in range(10):
        sampler.decide_format("user %s logged in", "INFO")
    sampler.boost("user eve logged in")

    assert sampler.decide_format("user %s logged in", "INFO").rule == "boosted"
    assert sampler.explain("user eve logged in").rule == "boosted"


def test_a_message_from_before_its_call_site_was_known_leads_to_the_pattern_of_today(
    sampler, clock
):
    see(sampler, "user bob logged in", 1)
    for _ in range(3):
        for _ in range(20):
            sampler.decide_format("user %s logged in", "INFO")
        clock[0] += 60
        sampler.tick()

    assert sampler.explain("user bob logged in").template == "user <*> logged in"
    assert sampler.explain("user bob logged in").seen == 60
    assert sampler.explain(compute_signature("user bob logged in")).seen == 1
