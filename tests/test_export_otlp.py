"""What the encoder writes is what opentelemetry-proto reads, and costs what the docs say."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import ScopeLogs

from lipservice.export import otlp
from lipservice.export.capture import Entry, entry_of_record, freeze
from lipservice.export.config import LogContext, PostHogConfig
from lipservice.export.otlp import RecordEncoder, assemble, encode_resource
from lipservice.export.redaction import Nothing, Redactor
from tests.support.otlp_receiver import records_of


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def encoder(clock=None, **settings):
    config = PostHogConfig(api_key="phc_x", **settings)
    redactor = Redactor(config.redact_keys, config.redact_patterns) if config.redact else Nothing()
    return RecordEncoder(config, redactor, clock or Clock())


def entry(message="hello", severity=9, attributes=(), code=("", 0, ""), **fields):
    values = {
        "time": 1_700_000_000.25,
        "severity": severity,
        "severity_text": "",
        "logger": "shop.cart",
        "message": message,
        "args": None,
        "format": None,
        "attributes": [part for pair in dict(attributes).items() for part in pair],
        "path": code[0],
        "line": code[1],
        "function": code[2],
        "trace": None,
        "context": None,
        "exception": None,
        **fields,
    }
    return tuple(Entry(**values))  # as the adapters make it


def decoded(*entries, using=None):
    items = (using or encoder()).encode_slice(list(entries))
    return records_of(assemble(encode_resource({"service.name": "shop"}), items))


def stamped(rate=0.1, signature="0123456789abcdef", **more):
    return {
        "lipservice_signature": signature,
        "lipservice_rate": rate,
        "lipservice_weight": 1 / rate,
        **more,
    }


class TestRecord:
    def test_every_field_arrives(self):
        trace = (0xABC, 0xDEF, 1)
        record = entry(
            "paid",
            17,
            {"user": "bob", "n": 5},
            trace=trace,
            code=("/srv/shop/views.py", 87, "pay"),
            exception=("ValueError", "bad", "Traceback ..."),
        )

        (got,) = decoded(record)

        assert got == {
            "body": "paid",
            "severity_number": 17,
            "severity_text": "",
            "time_unix_nano": 1_700_000_000_250_000_000,
            "attributes": {
                "user": "bob",
                "n": 5,
                "code.at": "shop/views.py:87",
                "exception.type": "ValueError",
                "exception.message": "bad",
                "exception.stacktrace": "Traceback ...",
            },
            "dropped_attributes_count": 0,
            "trace_id": f"{0xABC:032x}",
            "span_id": f"{0xDEF:016x}",
            "flags": 1,
            "scope": "shop.cart",
            "resource": {"service.name": "shop"},
        }

    def test_loggers_become_scopes_and_keep_their_order(self):
        records = [entry(str(n), logger=f"l{n % 2}") for n in range(6)]

        got = decoded(*records)

        assert [(r["scope"], r["body"]) for r in got] == [
            ("l0", "0"),
            ("l0", "2"),
            ("l0", "4"),
            ("l1", "1"),
            ("l1", "3"),
            ("l1", "5"),
        ]

    @pytest.mark.parametrize("seconds", [0.0, -5.0, math.nan, math.inf, 1e300])
    def test_a_time_that_is_none_is_sent_as_unknown(self, seconds):
        assert decoded(entry(time=seconds))[0]["time_unix_nano"] == 0

    def test_a_long_text_is_cut_and_says_so(self):
        (got,) = decoded(
            entry("x" * 50, attributes={"a": "y" * 50}), using=encoder(max_value_length=20)
        )

        assert got["body"] == "x" * 20 + "... [30 more]"
        assert got["attributes"]["a"] == "y" * 20 + "... [30 more]"

    def test_more_than_128_attributes_are_counted(self):
        (got,) = decoded(entry(attributes={f"k{n}": n for n in range(140)}))

        assert len(got["attributes"]) == 128
        assert got["dropped_attributes_count"] == 12

    def test_a_custom_level_keeps_its_name(self):
        assert decoded(entry(severity_text="NOTICE"))[0]["severity_text"] == "NOTICE"

    def test_many_names_are_not_remembered_for_ever(self):
        using = encoder()
        for n in range(5_000):
            using.encode_slice([entry(attributes={f"name{n}": 1})])

        assert len(using._keys) <= 4096

    def test_the_application_cannot_give_names_that_are_ours(self):
        given_ = {"lip_weight": 99, "message": "m", "exception.type": "mine", "code.at": "here"}
        got = decoded(entry(attributes=given_), entry(attributes=given_, exception=("E", "m", "s")))

        assert got[0]["attributes"] == {"exception.type": "mine"}
        assert got[1]["attributes"]["exception.type"] == "E"


scalars = st.one_of(
    st.text(max_size=200),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.binary(max_size=50),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=10,
)


def expected(value):
    """What a receiver should see of *value*, said in another way than the encoder says it."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return value
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, list):
        return [expected(item) for item in value]
    return {k.encode("utf-8", "replace").decode(): expected(v) for k, v in value.items()}


@settings(max_examples=60, deadline=None)
@given(
    st.text(max_size=300),
    st.dictionaries(st.text(min_size=1, max_size=20).filter(str.isidentifier), values, max_size=6),
)
@example("\ud800 lone", {"a": "\udfff"})
@example("x" * 126, {"k": "v" * 126, "n": 127, "m": 128, "neg": -1, "big": 2**63})
@example("x" * 16384, {"k" * 120: "v" * 130})
def test_anything_decodes_to_what_it_was(message, attributes):
    special = {*otlp._SPECIAL}
    attributes = {k: freeze(v) for k, v in attributes.items() if k not in special}

    (got,) = decoded(entry(message, attributes=attributes), using=encoder(redact=False))

    assert got["body"] == message.encode("utf-8", "replace").decode()
    assert got["attributes"] == {k: expected(v) for k, v in attributes.items() if v is not None}


@settings(max_examples=100, deadline=None)
@given(st.integers(min_value=-(2**63), max_value=2**64 - 1))
def test_varint_is_that_of_protobuf(number):
    from google.protobuf.internal.encoder import _VarintBytes

    assert otlp.varint(number) == _VarintBytes(number % 2**64)


class TestSampling:
    def test_signature_and_weight_go_with_each_record(self):
        using = encoder()
        got = [
            decoded(entry("user 5 logged in", attributes=stamped()), using=using)[0]
            for _ in range(3)
        ]

        assert [r["attributes"]["lip_sig"] for r in got] == ["0123456789abcdef"] * 3
        assert [r["attributes"]["lip_weight"] for r in got] == [10.0] * 3

    def test_facts_of_a_pattern_go_with_its_first_record_of_an_hour(self):
        clock = Clock()
        using = encoder(clock)
        record = entry("user 5 logged in", attributes=stamped(), code=("a/b.py", 3, "f"))
        facts = {"lip_template", "lip_rate", "code.at"}

        first = decoded(record, using=using)[0]["attributes"]
        second = decoded(record, using=using)[0]["attributes"]
        clock.now += 3600
        third = decoded(record, using=using)[0]["attributes"]

        assert first["lip_template"] == "user <*> logged in"
        assert facts <= first.keys()
        assert not facts & second.keys()
        assert facts <= third.keys()

    def test_a_new_rate_is_said_at_once(self):
        using = encoder()
        rates = [0.1, 0.1, 0.5, 0.5, 1.0, 0.5]

        got = [
            decoded(entry(attributes=stamped(rate)), using=using)[0]["attributes"] for rate in rates
        ]

        assert [r.get("lip_rate") for r in got] == [0.1, None, 0.5, None, 1.0, 0.5]

    def test_what_may_be_lost_is_said_again(self):
        using = encoder()
        decoded(entry(attributes=stamped()), using=using)
        using.forget_facts()

        assert "lip_template" in decoded(entry(attributes=stamped()), using=using)[0]["attributes"]

    def test_facts_with_each_record_on_request(self):
        using = encoder(pattern_facts_interval=0)
        got = [decoded(entry(attributes=stamped()), using=using)[0]["attributes"] for _ in range(2)]

        assert all("lip_template" in r and r["lip_rate"] == 0.1 for r in got)

    def test_the_template_of_a_format_string_is_the_format_strings(self):
        record = entry("took bob in 5", format="took %s in %d", attributes=stamped())

        assert decoded(record)[0]["attributes"]["lip_template"] == "took <*> in <*>"

    def test_rate_and_weight_one_are_not_sent(self):
        got = decoded(entry(attributes=stamped(1.0)))[0]["attributes"]

        assert got == {"lip_sig": "0123456789abcdef", "lip_template": "hello"}

    def test_weight_zero_of_a_record_dropped_elsewhere_is_sent(self):
        """So that the sum of weights stays true."""
        got = decoded(entry(attributes={"lipservice_weight": 0.0}))[0]["attributes"]

        assert got["lip_weight"] == 0.0

    def test_facts_survive_a_second_encoding_for_a_secret(self):
        record = entry("mail bob@example.com", attributes=stamped())

        (got,) = decoded(record)

        assert got["body"] == "mail [email]"
        assert "[email]" in got["attributes"]["lip_template"] or got["attributes"]["lip_template"]
        assert got["attributes"]["lip_rate"] == 0.1

    def test_attributes_can_be_chosen(self):
        record = entry(
            attributes=stamped(lipservice_rule="rate", lipservice_policy="7"),
            code=("/srv/a/b.py", 3, "f"),
            exception=("E", "m", "s"),
        )
        chosen = {"rule", "policy", "code_attributes", "severity_text"}

        (got,) = decoded(record, using=encoder(attributes=chosen))

        assert got["severity_text"] == "INFO"
        assert got["attributes"] == {
            "lip_rule": "rate",
            "lip_policy": "7",
            "code.file.path": "/srv/a/b.py",
            "code.line.number": 3,
            "code.function.name": "f",
        }


class TestContext:
    context = LogContext(
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
        trace_flags=1,
        distinct_id="bob@example.com",
        session_id="s-1",
        user_id=7,
        request_id="r-1",
        attributes={"plan": "pro"},
    )

    def test_a_context_links_the_record(self):
        (got,) = decoded(entry(context=self.context))

        assert got["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
        assert got["span_id"] == "b7ad6b7169203331"
        assert got["attributes"] == {
            "posthogDistinctId": "bob@example.com",
            "sessionId": "s-1",
            "user_id": 7,
            "request_id": "r-1",
            "plan": "pro",
        }

    def test_what_the_record_says_itself_wins(self):
        record = entry(context=self.context, attributes={"user_id": 8, "distinct_id": "ann"})

        got = decoded(record)[0]["attributes"]

        assert (got["user_id"], got["posthogDistinctId"]) == (8, "ann")
        assert "distinct_id" not in got

    @pytest.mark.parametrize("trace_id", ["zz", "g" * 32, b"short", 0, -1, 2**128, 1.5, "0" * 32])
    def test_a_trace_id_that_is_none_is_left_out(self, trace_id):
        (got,) = decoded(entry(context=LogContext(trace_id=trace_id, span_id="b7ad6b7169203331")))

        assert (got["trace_id"], got["span_id"]) == ("", "")


class TestCost:
    """Bytes before compression are what PostHog bills; docs/how-to/posthog.md states these."""

    extra: ClassVar = {"user_id": 8231, "order_id": 99120, "region": "eu-west", "ms": 12.5}

    def billed(self, attributes, count=100):
        record = logging.LogRecord("shop.cart", 20, "/srv/shop/views.py", 87, "x" * 100, (), None)
        record.__dict__.update(attributes)
        items = encoder().encode_slice([entry_of_record(record)[0] for _ in range(count)])
        resource = {
            "host.name": "web-17.example.com",
            "process.pid": 12345,
            "service.name": "shop",
            "team_id": "12345",
        }
        return len(assemble(encode_resource(resource), items)) / count

    def test_a_record_of_100_characters_with_4_attributes(self):
        assert self.billed(self.extra) <= 255

    def test_the_same_when_it_was_sampled(self):
        assert self.billed({**self.extra, **stamped()}) <= 255


class TestAnswer:
    @pytest.mark.parametrize("rejected", [0, 1, 300, 2**40])
    def test_partial_success_is_read(self, rejected):
        answer = ExportLogsServiceResponse(
            partial_success=ExportLogsPartialSuccess(
                rejected_log_records=rejected, error_message="too old"
            )
        )

        assert otlp.partial_success(answer.SerializeToString()) == (rejected, "too old")

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=60))
    @example(b"{}")
    @example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
    def test_garbage_says_nothing_or_something_but_never_raises(self, body):
        rejected, reason = otlp.partial_success(body)

        assert rejected >= 0
        assert len(reason) <= 300


class TestSpooledRecord:
    def test_the_original_time_is_added_as_an_attribute(self):
        item = encoder().encode(entry("old"))
        later = otlp.with_original_time(item, otlp.time_of(item))

        record = ScopeLogs.FromString(later).log_records[0]

        assert otlp.time_of(item) == 1_700_000_000.25
        assert record.body.string_value == "old"
        assert record.attributes[0].value.string_value == "2023-11-14T22:13:20.250000+00:00"


def test_the_encoding_is_canonical_protobuf_for_one_logger():
    """Re-serialised by protobuf itself the size is the same: nothing is written twice."""
    items = encoder().encode_slice([entry("a", attributes={"k": [1, {"b": 2.5}]})] * 3)
    body = assemble(encode_resource({"service.name": "s", "n": 1}), items)

    assert len(ExportLogsServiceRequest.FromString(body).SerializeToString()) == len(body)


class TestCostTable:
    """The table of docs/how-to/posthog.md, row by row."""

    page = Path(__file__).parent.parent / "docs" / "how-to" / "posthog.md"

    def stated(self, name):
        """(fixed bytes, whether the text comes on top) of the row with *name*."""
        rows = [line.split("|") for line in self.page.read_text(encoding="utf-8").splitlines()]
        (cell,) = [row[3].strip() for row in rows if len(row) > 4 and row[2].strip() == name]
        return int(cell.split()[0]), "text" in cell

    def size(self, chosen=(), **fields):
        """Bytes of a record; the message is long, so that its size takes two bytes in all cases."""
        using = encoder(attributes=set(chosen), pattern_facts_interval=3600)
        return len(using.encode(entry(**{"message": "x" * 200, **fields})))

    @pytest.mark.parametrize(
        ("name", "chosen", "stamps"),
        [
            ("`lip_sig`", "signature", stamped(1.0)),
            ("`lip_weight`", "weight", stamped(0.1)),
            ("`lip_rate`", "rate", stamped(0.1)),
            ("`lip_template`", "template", stamped(1.0)),
            ("`lip_rule`", "rule", stamped(1.0, lipservice_rule="first")),
            ("`lip_policy`", "policy", stamped(1.0, lipservice_policy="12345")),
        ],
    )
    def test_sampling(self, name, chosen, stamps):
        cost = self.size({chosen}, attributes=stamps) - self.size(attributes=stamps)
        fixed, has_text = self.stated(name)
        text = {"template": 200, "rule": 5, "policy": 5}.get(chosen, 0)

        # A text from 126 bytes on takes up to four bytes more for its sizes.
        assert 0 <= cost - fixed - text * has_text <= (4 if text > 125 else 0)

    def test_code(self):
        code = ("/srv/shop/views.py", 87, "pay")
        at = self.size({"code"}, code=code) - self.size(code=code)
        three = self.size({"code_attributes"}, code=code) - self.size(code=code)

        assert at == self.stated("`code.at`")[0] + len("shop/views.py:87")
        assert three == self.stated("`code.*`")[0] + len("/srv/shop/views.py" + "pay")

    def test_exception(self):
        error = ("ValueError", "bad", "Traceback ...")
        cost = self.size({"exception"}, exception=error) - self.size()

        assert cost == self.stated("`exception.*`")[0] + len("".join(error))

    def test_own_attributes(self):
        text = self.size(attributes={"name": "value"}) - self.size()

        assert text == 8 + len("name" + "value")
        for number in (1, True, 300, 2**31, 1.5, -1):
            assert 8 <= self.size(attributes={"name": number}) - self.size() - len("name") <= 17


class TestSecrets:
    """The encoder remembers texts that are clean; what it remembers never hides a secret."""

    texts: ClassVar = {
        "user 5 paid": "user 5 paid",
        "user 6 paid": "user 6 paid",
        "order 4111111111111112": "order 4111111111111112",
        "order 4111111111111111": "order [card]",
        "mail bob@example.com": "mail [email]",
        "password=hunter2": "password=[redacted]",
    }

    def test_messages_and_attributes_in_one_slice_and_in_the_next(self):
        using = encoder()
        for _ in range(3):
            got = decoded(
                *[entry(text, attributes={"a": text}) for text in self.texts], using=using
            )

            assert [r["body"] for r in got] == list(self.texts.values())
            assert [r["attributes"]["a"] for r in got] == list(self.texts.values())

    @pytest.mark.parametrize("text", texts)
    def test_wherever_it_stands(self, text):
        clean = self.texts[text]
        context = LogContext(user_id=text, attributes={"c": text})
        records = [
            entry("m", attributes={"list": ["x", {"k": text}]}),
            entry("m", exception=("E", text, f"Traceback\n{text}")),
            entry("m", context=context),
            entry("%s", args=(text,)),
            entry("m", attributes={"exception.message": text}),
        ]

        nested, failed, linked, formatted, own = decoded(*records)

        assert nested["attributes"]["list"] == ["x", {"k": clean}]
        assert failed["attributes"]["exception.message"] == clean
        assert failed["attributes"]["exception.stacktrace"] == f"Traceback\n{clean}"
        assert (linked["attributes"]["user_id"], linked["attributes"]["c"]) == (clean, clean)
        assert formatted["body"] == clean
        assert own["attributes"]["exception.message"] == clean

    def test_a_card_as_a_number(self):
        got = decoded(
            entry(
                attributes={"a": 4111111111111111, "b": [4111111111111111], "c": 4111111111111112}
            )
        )

        assert got[0]["attributes"] == {"a": "[card]", "b": ["[card]"], "c": 4111111111111112}

    def test_what_is_remembered_is_bounded(self):
        using = encoder()
        for n in range(300):
            using.encode_slice(
                [entry(f"{chr(97 + n % 26)}{n:x} " + "é" * (n % 200)) for _ in range(3)]
            )

        assert len(using._clean) <= 8000 + 3
        assert max(map(len, using._clean)) <= 256
