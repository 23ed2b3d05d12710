"""A logging call's entry says what was true at that moment, whatever happens to it afterwards."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import gc
import logging
import sys
import uuid
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipservice.export import capture
from lipservice.export.capture import Entry, entry_of_record, freeze
from lipservice.export.config import LogContext


def record(msg="hello", args=(), extra=None, level=logging.INFO, **fields):
    made = logging.getLogger("shop").makeRecord(
        "shop", level, "/srv/shop/views.py", 87, msg, args, None, "pay", extra
    )
    made.__dict__.update(fields)
    return made


def entry(*args, **fields):
    return Entry._make(entry_of_record(record(*args, **fields))[0])


def said(entry):
    """The message as it will be sent."""
    return entry.message if entry.args is None else capture.formatted(entry.message, entry.args)


def pairs(attributes):
    return dict(zip(attributes[::2], attributes[1::2], strict=True))


class Text(str):
    __slots__ = ()


class TestMoment:
    def test_arguments_that_change_later_do_not_change_the_message(self):
        items = [1]
        got = entry("have %s", (items,))
        items.append(2)

        assert (got.message, got.args, got.format) == ("have [1]", None, "have %s")

    def test_arguments_that_cannot_change_are_left_for_the_worker_to_format(self):
        got = entry("%s has %d of %.1f%%", ("bob", 5, 2.5))

        assert (got.message, got.args) == ("%s has %d of %.1f%%", ("bob", 5, 2.5))
        assert said(got) == "bob has 5 of 2.5%"

    @pytest.mark.parametrize("value", [True, [1], {"a": 1}, object(), Text("x"), (1,)])
    def test_a_str_is_asked_in_the_callers_thread_unless_it_is_a_plain_value(self, value):
        assert (entry("%s", (value,)).args is None) is (type(value) is not bool)

    def test_extra_that_changes_later_does_not_change_the_attributes(self):
        basket, nested = ["a"], {"x": {"y": [1]}}
        got = entry(extra={"basket": basket, "nested": nested, "n": 1})
        basket.append("b")
        nested["x"]["y"].append(2)

        assert pairs(got.attributes) == {"basket": ["a"], "nested": {"x": {"y": [1]}}, "n": 1}

    def test_nothing_of_the_application_is_kept_alive(self):
        class Thing:
            pass

        thing = Thing()
        ref = weakref.ref(thing)
        try:
            local = thing
            raise ValueError("bad")
        except ValueError:
            made = record("%s", (thing,), {"thing": thing}, exc_info=sys.exc_info())
        got = entry_of_record(made)[0]
        del thing, local, made
        sys.last_exc = sys.last_value = None  # some test runners leave them
        gc.collect()

        assert ref() is None
        assert got


class TestFields:
    def test_a_plain_record(self):
        got = entry()

        assert got.severity == 9
        assert got.severity_text == ""
        assert got.logger == "shop"
        assert (got.path, got.line, got.function) == ("/srv/shop/views.py", 87, "pay")
        assert got.attributes == ()
        assert (got.trace, got.context, got.exception) == (None, None, None)

    @pytest.mark.parametrize(
        ("level", "number", "text"),
        [
            (5, 1, "Level 5"),
            (10, 5, ""),
            (25, 9, "Level 25"),
            (30, 13, ""),
            (45, 17, "Level 45"),
            (50, 21, ""),
            (0, 5, "NOTSET"),
        ],
    )
    def test_levels(self, level, number, text):
        got = entry(level=level)

        assert (got.severity, got.severity_text) == (number, text)

    def test_extra_is_found_whatever_a_formatter_or_filter_added(self):
        made = record(extra={"a": 1})
        logging.Formatter("%(asctime)s %(message)s").format(made)
        made.b = 2

        got = Entry._make(entry_of_record(made)[0])

        assert {"a": 1, "b": 2}.items() <= pairs(got.attributes).items()

    def test_extra_is_found_in_a_record_whose_standard_attributes_were_moved(self):
        made = record(extra={"a": 1})
        for name in ("process", "taskName"):
            if name in made.__dict__:
                made.__dict__[name] = made.__dict__.pop(name)
        made.__dict__.pop(capture._LAST_STANDARD)
        made.b = 2

        assert pairs(Entry._make(entry_of_record(made)[0]).attributes) == {"a": 1, "b": 2}

    def test_a_record_made_from_a_dict_is_as_good(self):
        made = logging.makeLogRecord({"msg": "m %s", "args": ("x",), "name": "far", "user": 5})

        got = Entry._make(entry_of_record(made)[0])

        assert (said(got), got.logger, pairs(got.attributes)) == ("m x", "far", {"user": 5})

    def test_a_dict_argument_fills_a_named_format(self):
        assert entry("%(a)s!", ({"a": 1},)).message == "1!"

    def test_stack_info_is_an_attribute(self):
        assert pairs(entry(stack_info="Stack (most recent call last)").attributes)["stack_info"]

    def test_large_records_take_more_places(self):
        assert entry_of_record(record("x" * 100))[1] == 1
        assert entry_of_record(record("x" * 10_000))[1] == 5
        assert entry_of_record(record("%s", ("x" * 10_000,)))[1] == 5
        assert entry_of_record(record("%s", (["x" * 10_000],)))[1] == 5
        assert entry_of_record(record(extra={"a": "x" * 10_000}))[1] == 5
        assert entry_of_record(record(extra={"a": ["x" * 10_000]}))[1] == 5


class TestBadInput:
    class Rude:
        def __str__(self):
            raise RuntimeError("no")

        __repr__ = __str__

    @pytest.mark.parametrize(
        ("msg", "args"),
        [
            ("%d", ("x",)),
            ("%s %s", (1,)),
            ("%s", (Rude(),)),
            (Rude(), ()),
            (Rude(), (1,)),
            (None, ()),
            (5, ()),
            ("100%", (1,)),
            ("%(a)s", (1,)),
            (b"\xff", ()),
        ],
    )
    def test_any_message_gives_an_entry(self, msg, args):
        assert isinstance(said(entry(msg, args)), str)

    def test_a_wrong_format_keeps_both_parts(self):
        assert said(entry("%d items", ("x",))) == "%d items ('x',)"

    @settings(max_examples=100, deadline=None)
    @given(
        st.recursive(
            st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.binary()),
            lambda x: st.one_of(
                st.lists(x),
                st.tuples(x),
                st.frozensets(st.integers()),
                st.dictionaries(st.integers(), x),
            ),
        )
    )
    def test_freeze_gives_plain_values_only(self, value):
        def plain(frozen):
            if type(frozen) is list:
                return all(map(plain, frozen))
            if type(frozen) is dict:
                return all(type(k) is str and plain(v) for k, v in frozen.items())
            return type(frozen) in {str, int, float, bool, bytes, type(None)}

        assert plain(freeze(value))

    def test_freeze_keeps_numbers_numbers_and_says_the_rest_in_words(self):
        class Colour(enum.Enum):
            RED = 3

        class Name(str):
            __slots__ = ()

        @dataclasses.dataclass
        class Point:
            x: int

        when = dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc)
        given_ = {
            Colour.RED: 3,
            Name("n"): "n",
            np.float64(1.5): 1.5,
            np.int32(7): 7,
            when: "2026-01-02T00:00:00+00:00",
            decimal.Decimal("1.10"): "1.10",
            uuid.UUID(int=1): "00000000-0000-0000-0000-000000000001",
        }

        assert {key: freeze(key) for key in given_} == given_
        assert {type(freeze(key)) for key in given_} == {int, str, float}
        assert freeze(Point(1)).endswith("Point(x=1)")
        assert freeze(ValueError("bad")) == "ValueError: bad"
        assert freeze(self.Rude()) == "<unprintable Rude>"

    def test_freeze_ends_on_what_holds_itself(self):
        loop = []
        loop.append(loop)

        assert freeze(loop)

    def test_freeze_is_bounded(self):
        assert len(freeze(list(range(1000)))) == 64


class TestException:
    def test_type_message_and_stack(self):
        try:
            raise decimal.InvalidOperation("bad")
        except decimal.InvalidOperation:
            got = entry(exc_info=sys.exc_info()).exception

        assert got[:2] == ("decimal.InvalidOperation", "bad")
        assert got[2].startswith("Traceback (most recent call last):")
        assert got[2].endswith("decimal.InvalidOperation: bad")

    @pytest.mark.parametrize("exc_info", [None, False, (None, None, None), "text", (1, 2, 3)])
    def test_no_exception(self, exc_info):
        assert entry(exc_info=exc_info).exception is None

    def test_an_exception_that_cannot_be_printed(self):
        class Bad(Exception):
            def __str__(self):
                raise RuntimeError

        assert capture.exception_text(Bad())[1] == "<unprintable Bad>"

    def test_text_that_a_queue_handler_left(self):
        assert entry(exc_text="Traceback: x").exception == ("", "", "Traceback: x")


class TestContext:
    def test_the_current_context_is_taken(self):
        with LogContext(distinct_id="bob").use() as context:
            assert entry().context is context
        assert entry().context is None

    def test_contexts_nest(self):
        with LogContext(distinct_id="a").use():
            with LogContext(distinct_id="b").use():
                assert entry().context.distinct_id == "b"
            assert entry().context.distinct_id == "a"

    def test_posthogs_own_context_is_read_where_it_is_in_use(self):
        import posthog

        with posthog.new_context():
            posthog.identify_context("ann")
            posthog.set_context_session("s-9")
            got = entry().context

        assert (got.distinct_id, got.session_id) == ("ann", "s-9")
        assert entry().context is None

    def test_opentelemetrys_span_is_read(self):
        from opentelemetry.sdk.trace import TracerProvider

        tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
        with tracer.start_as_current_span("s") as span:
            got = entry().trace

        ids = span.get_span_context()
        assert got == (ids.trace_id, ids.span_id, int(ids.trace_flags))
        assert entry().trace is None

    def test_a_module_of_that_name_that_is_another(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "opentelemetry.trace", object())
        monkeypatch.setitem(sys.modules, "posthog.contexts", object())

        assert entry().trace is None
