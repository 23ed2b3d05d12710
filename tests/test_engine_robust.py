"""Whatever is logged, at whatever severity: no exception, one count, and in doubt it is kept."""

from __future__ import annotations

import enum
import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipservice._engine import DecisionEngine
from lipservice.decision import Decision
from lipservice.policy import SamplingPolicy
from lipservice.signature import compute_signature

DROPPING = SamplingPolicy(sampling_rate=0.0, keep_first=0)


class BadText:
    def __str__(self):
        raise ValueError("no text today")


class WrongText:
    def __str__(self):
        return 5  # noqa: PLE0307 - wrong on purpose


class BadHash:
    __hash__ = None

    def __str__(self):
        return "it has a text"


class BadEquality(str):
    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other):
        raise RuntimeError("not comparable")


class BadString(str):
    __slots__ = ()

    def __hash__(self):
        raise TypeError("not hashable")

    def encode(self, *_):
        raise RuntimeError("not encodable")


class BadLength(str):
    __slots__ = ()

    def __len__(self):
        raise RuntimeError("endless")


class Event(str, enum.Enum):
    STARTED = "it has started"


class Level(enum.IntEnum):
    LOUD = 40


class EndlessText:
    def __str__(self):
        return str(self)


OBJECTS = [
    None, 0, 1.5, True, b"bytes", bytearray(b"more"), [], {}, set(), (), object(), Exception("x"),
    BadText(), WrongText(), BadHash(), BadEquality("text"), BadString("text"), BadLength("text"),
    Event.STARTED, EndlessText(), float("nan"), 10**4000, "\ud800 alone", "\x00", "x" * 1_000_000,
    "1 " * 100_000, "%", "%s %s", "%(a", "%" * 5000, [[]] * 1000,
]  # fmt: skip
SEVERITIES = [
    "INFO", "info", "", "PURPLE", "\ud800", None, 0, -1, 20, 25, 10**100, -(10**100), 20.0, True,
    float("nan"), b"INFO", [], {}, Event.STARTED, BadString("INFO"), BadText(), object(), "x" * 10_000,
]  # fmt: skip
EXPECTED_DOUBTS = (BadText, WrongText, BadString, EndlessText, BadEquality, BadLength)


def calls_of(engine):
    return (engine.decide_message, engine.decide_format, engine.should_sample)


def check_one_more(engine, call, message, severity):
    before = engine.totals().seen

    answer = call(message, severity)

    assert answer is None or isinstance(answer, (Decision, bool))
    totals = engine.totals()
    assert totals.seen == before + 1
    assert totals.seen == totals.kept + totals.dropped + totals.capped
    return answer


class TestAnyObject:
    @pytest.mark.parametrize("severity", SEVERITIES, ids=lambda each: f"{type(each).__name__}")
    def test_it_is_counted_once_and_nothing_is_raised(self, severity, swallowed):
        engine = DecisionEngine(policy=DROPPING)
        for message in OBJECTS:
            for call in calls_of(engine):
                check_one_more(engine, call, message, severity)
        swallowed.clear()

    def test_what_has_no_text_is_kept(self, swallowed):
        engine = DecisionEngine(policy=DROPPING)
        for message in (BadText(), WrongText(), BadString("x"), EndlessText()):
            for call in calls_of(engine):
                assert check_one_more(engine, call, message, "INFO")
        assert engine._doubtful == len(swallowed) == 12
        swallowed.clear()

    def test_what_has_a_text_is_decided_by_it(self):
        engine = DecisionEngine(policy=DROPPING)
        for message in OBJECTS:
            if not isinstance(message, EXPECTED_DOUBTS):
                for call in calls_of(engine):
                    assert not check_one_more(engine, call, message, "INFO")

    def test_an_object_shares_the_pattern_of_its_text(self):
        engine = DecisionEngine()
        for message in ("it has a text", BadHash()):
            engine.decide_message(message, "INFO")

        assert engine.get_pattern_stats()[compute_signature("it has a text")].count == 2

    @pytest.mark.parametrize("severity", [None, 12.5, b"INFO", [], {"level": "INFO"}, object()])
    def test_a_severity_that_is_none_is_treated_as_info_each_time(self, severity):
        engine = DecisionEngine(policy=DROPPING)
        for call in calls_of(engine):
            assert not any(check_one_more(engine, call, "hello", severity) for _ in range(5))

        assert engine.get_pattern_stats()[compute_signature("hello")].severity_distribution == {
            "INFO": 15
        }

    def test_an_int_enum_is_its_level(self):
        engine = DecisionEngine(policy=DROPPING)

        assert engine.decide_message("hello", Level.LOUD).rule == "error"

    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(
        message=st.text(st.characters(codec=None)) | st.binary() | st.from_regex(r"%[^ ]{0,5}.*"),
        severity=st.text(max_size=8) | st.integers() | st.floats() | st.none(),
    )
    def test_any_text_at_any_severity(self, message, severity):
        engine = DecisionEngine(policy=DROPPING)
        for call in calls_of(engine):
            assert not check_one_more(engine, call, message, severity) or severity_is_high(severity)
        assert engine._doubtful == 0


def severity_is_high(severity):
    if isinstance(severity, int):
        return severity >= 40
    return str(severity).strip().upper() in {
        "ERROR", "CRITICAL", "FATAL", "ERR", "EXCEPTION", "SEVERE", "FAILURE", "CRIT", "ALERT",
        "EMERG", "EMERGENCY", "PANIC",
    }  # fmt: skip


class TestTextThatLogs:
    def test_records_that_are_born_in_a_text_are_decided_like_any_other(self):
        engine = DecisionEngine(policy=SamplingPolicy(sampling_rate=0.0, keep_first=2))

        class Chatty:
            def __str__(self):
                kept.append(engine.decide_message("reading the chatty one", "INFO") is not None)
                return "the chatty one"

        kept = []
        outer = [engine.decide_message(Chatty(), "INFO") is not None for _ in range(5)]

        assert outer == kept == [True, True, False, False, False]
        assert engine.totals().seen == 10

    def test_a_text_that_logs_itself_ends_in_doubt(self, swallowed):
        engine = DecisionEngine(policy=DROPPING)

        class Mirror:
            def __str__(self):
                engine.decide_message(self, "INFO")
                return "mirror"

        engine.decide_message(Mirror(), "INFO")

        assert engine._busy is False
        totals = engine.totals()
        assert totals.seen == totals.kept + totals.dropped > 10
        swallowed.clear()


class TestNothingIsKeptAlive:
    """The tables remember texts, never the application's objects."""

    @pytest.mark.parametrize("way", ["decide_message", "decide_format", "should_sample"])
    def test_a_string_of_a_class_of_its_own_is_let_go(self, way):
        class Text(str):  # noqa: SLOT000 - it has attributes, as lazy translations do
            pass

        engine = DecisionEngine()
        text = Text("hello there")
        gone = weakref.ref(text)
        getattr(engine, way)(text, "INFO")
        del text
        gc.collect()

        assert gone() is None
        getattr(engine, way)("hello there", "INFO")
        assert engine.get_pattern_stats()[compute_signature("hello there")].count == 2

    def test_a_string_that_refuses_to_be_compared_spoils_nothing_for_others(self, swallowed):
        engine = DecisionEngine(policy=DROPPING)
        engine.decide_message(BadEquality("hello there"), "INFO")
        swallowed.clear()

        assert [engine.decide_message("hello there", "INFO") for _ in range(3)] == [None] * 3
