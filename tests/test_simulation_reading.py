"""Files, archives and pipes -> records: nothing is lost, and a traceback stays with its record."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipservice.exceptions import ConfigurationError
from lipservice.severity import SEVERITIES
from lipservice.simulation.formats import RECORD, LineParser
from lipservice.simulation.log_format import read_log_format
from lipservice.simulation.reading import (
    Reading,
    Source,
    group_lines,
    read_sources,
    split_lines,
)
from tests.test_log_reading import LINES

NOW = 1_717_200_000.0


def records_of(text: str | bytes, **options):
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    reading = Reading()
    return list(read_sources([Source("-", io.BytesIO(data))], reading, **options)), reading


PYTHON_TRACEBACK = """\
2024-01-02 15:04:05,123 INFO shop.cart starting
2024-01-02 15:04:06,123 ERROR shop.cart payment failed for order 17
Traceback (most recent call last):
  File "cart.py", line 12, in pay
    charge(card)
ValueError: card refused

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "cart.py", line 14, in pay
    rollback()
RuntimeError: ERROR in rollback
with a second line of text
2024-01-02 15:04:07,123 INFO shop.cart done
"""

JAVA_TRACEBACK = """\
2024-01-02 15:04:05,123 ERROR [main] com.example.Foo: request failed
java.lang.IllegalStateException: no session
\tat com.example.Foo.bar(Foo.java:12)
\tat com.example.Foo.main(Foo.java:3)
Caused by: java.io.IOException: closed
\t... 12 more
2024-01-02 15:04:06,123 INFO [main] com.example.Foo: next
"""

DOCKER_TRACEBACK = "".join(
    json.dumps({"log": line + "\n", "stream": "stderr", "time": "2024-01-02T15:04:05.1Z"}) + "\n"
    for line in (
        "ERROR:shop:payment failed",
        "Traceback (most recent call last):",
        '  File "cart.py", line 12',
        "ValueError: card refused",
        "INFO:shop:next",
    )
)


class TestContinuations:
    def test_a_python_traceback_belongs_to_the_record_above_it(self):
        records, _ = records_of(PYTHON_TRACEBACK)

        assert [record.lines for record in records] == [1, 13, 1]
        assert records[1].message == "payment failed for order 17"
        assert len(PYTHON_TRACEBACK.encode()) == sum(record.size for record in records)

    def test_a_java_stack_trace_belongs_to_the_record_above_it(self):
        records, _ = records_of(JAVA_TRACEBACK)

        assert [record.message for record in records] == ["request failed", "next"]
        assert [record.lines for record in records] == [6, 1]

    def test_a_traceback_within_docker_json_belongs_to_the_record_above_it(self):
        records, _ = records_of(DOCKER_TRACEBACK)

        assert [record.message for record in records] == ["payment failed", "next"]
        assert records[0].severity == "ERROR"

    def test_a_traceback_in_a_log_without_a_format_ends_with_its_closing_line(self):
        records, _ = records_of(
            "going on\nTraceback (most recent call last):\n  File x\nKeyError: 'a'\ngoing on again\n"
        )

        assert [record.message for record in records] == ["going on", "going on again"]

    def test_an_exception_named_like_a_level_closes_a_traceback(self):
        records, _ = records_of(
            "INFO:shop:before\nTraceback (most recent call last):\n  File x\nException: boom\nINFO:shop:after\n"
        )

        assert [record.message for record in records] == ["before", "after"]

    def test_a_traceback_with_nothing_above_it_is_an_error(self):
        records, _ = records_of("Traceback (most recent call last):\n  File x\nKeyError: 'a'\n")

        assert [(record.severity, record.lines) for record in records] == [("ERROR", 3)]

    def test_a_line_that_has_no_format_is_a_message_of_its_own(self):
        records, _ = records_of("INFO:shop:one\nprinted by hand\nINFO:shop:two\n")

        assert [record.message for record in records] == ["one", "printed by hand", "two"]
        assert [record.severity for record in records] == ["INFO", None, "INFO"]

    def test_postgres_detail_belongs_to_the_error(self):
        records, _ = records_of(
            "2024-01-02 15:04:05.1 UTC [7] ERROR:  duplicate key\n"
            "2024-01-02 15:04:05.1 UTC [7] DETAIL:  Key (id)=(1) already exists.\n"
            "2024-01-02 15:04:05.1 UTC [7] STATEMENT:  INSERT INTO t\n\tVALUES (1)\n"
        )

        assert [(record.message, record.lines) for record in records] == [("duplicate key", 4)]

    def test_the_parts_of_a_line_that_a_container_run_time_cut_are_one_record(self):
        records, _ = records_of(
            "2024-01-02T15:04:05.1Z stdout P INFO:shop:first half\n"
            "2024-01-02T15:04:05.1Z stdout F and the second\n"
            "2024-01-02T15:04:05.1Z stdout F INFO:shop:next\n"
        )

        assert [(r.message, r.lines) for r in records] == [("first half", 2), ("next", 1)]


class TestLearning:
    def test_a_name_column_is_found_when_every_message_has_one(self):
        names = ("cart", "pay", "search")
        lines = [f"2024-01-02 15:04:{i % 60:02},1 INFO {names[i % 3]}: did {i}" for i in range(60)]
        records, _ = records_of("\n".join(lines))

        assert {f"did {i}" for i in range(60)} == {record.message for record in records}

    def test_words_that_only_look_like_names_stay(self):
        lines = [f"2024-01-02 15:04:{i % 60:02},1 INFO word{i}: did it" for i in range(60)]
        records, _ = records_of("\n".join(lines))

        assert records[7].message == "word7: did it"

    def test_a_level_is_found_after_thousands_of_lines_without_one(self):
        text = "2024-01-02 15:04:05 all is well\n" * 3000 + "2024-01-02 15:04:05 ERROR broken\n"
        records, _ = records_of(text)

        assert records[-1][1:3] == ("ERROR", "broken")

    def test_mixed_formats_are_told_apart_and_counted(self):
        _, reading = records_of(
            '{"event": "a", "level": "info"}\nWARNING:root:b\nplain\n{"event": "c", "level": "info"}\n'
        )

        assert reading.formats == {"JSON lines": 2, "Python logging (default)": 1, "plain text": 1}


class TestLogFormat:
    @pytest.mark.parametrize(
        ("log_format", "line"),
        [
            ("%(asctime)s %(levelname)s %(name)s %(message)s", "2024-01-02 15:04:05,123 ERROR cart it broke"),
            ("%(levelname)-8s|%(process)d|%(message)s", "ERROR   |77|it broke"),
            ("{asctime} {levelname:>8} {name}: {message}", "2024-01-02 15:04:05,123    ERROR cart: it broke"),
            ("%(message)s (%(levelname)s)", "it broke (ERROR)"),
        ],
    )  # fmt: skip
    def test_a_line_written_by_it_is_read_by_it(self, log_format, line):
        found = LineParser(NOW, read_log_format(log_format)).parse(line)

        assert (found[0], *found[2:]) == (RECORD, "ERROR", "it broke")

    @pytest.mark.parametrize("log_format", ["%(levelname)s", "", "%(message)s %(message)s"])
    def test_it_needs_one_message(self, log_format):
        with pytest.raises(ConfigurationError, match="message"):
            read_log_format(log_format)


class TestSources:
    TEXT = b"INFO:shop:one\nERROR:shop:two\n" * 1000

    @pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
    def test_an_archive_is_known_by_its_first_bytes(self, tmp_path, pack):
        path = tmp_path / "app.log"  # no telling suffix
        path.write_bytes(pack(self.TEXT))
        taken, reading = [], Reading()
        records = list(read_sources([Source(str(path))], reading, progress=taken.append))

        assert (2000, len(self.TEXT)) == (len(records), reading.bytes)
        assert path.stat().st_size == sum(taken)

    def test_an_archive_that_ends_early_is_read_up_to_there(self, tmp_path):
        path = tmp_path / "app.log.gz"
        packed = gzip.compress(bytes(range(256)) * 40 + self.TEXT * 20, compresslevel=1)
        path.write_bytes(packed[: len(packed) // 2])
        reading = Reading()
        records = list(read_sources([Source(str(path))], reading))

        assert records
        assert len(reading.troubles) == 1
        assert "app.log.gz" in reading.troubles[0]

    def test_what_unpacks_to_nothing_and_an_empty_file_have_no_records(self, tmp_path):
        for data in (b"", gzip.compress(b"")):
            assert (records_of(data)[0], records_of(data)[1].lines) == ([], 0)

    def test_utf_16_and_a_byte_order_mark_are_read(self):
        text = "ERROR:shop:käse\r\nINFO:shop:two\r\n"

        for encoding in ("utf-16", "utf-8-sig"):
            records, _ = records_of(text.encode(encoding))
            assert [record.message for record in records] == ["käse", "two"]

    def test_bytes_that_are_no_utf_8_are_replaced(self):
        records, reading = records_of(b"INFO:shop:caf\xe9 \xff\x00\nINFO:shop:two\n")

        assert (len(records), reading.bytes) == (2, 32)
        assert "caf\ufffd" in records[0].message

    @pytest.mark.parametrize("kind", ["absent", "directory", "zstd"])
    def test_an_input_that_cannot_be_read_is_named_in_one_line(self, tmp_path, kind):
        path = tmp_path / kind
        if kind == "directory":
            path.mkdir()
        elif kind == "zstd":
            path.write_bytes(b"\x28\xb5\x2f\xfd rest")

        with pytest.raises(ConfigurationError, match=kind):
            list(read_sources([Source(str(path))], Reading()))

    def test_the_year_of_a_timestamp_without_one_is_the_last_that_fits(self):
        lines = [("Dec 31 23:59:00 host app[1]: a", 1), ("Jan  1 00:01:00 host app[1]: b", 1)]
        new_year = 1_704_067_200.0  # 2024-01-01
        records = list(group_lines(lines, LineParser(latest=new_year + 3600)))

        assert [new_year - 60, new_year + 60] == [record.seconds for record in records]

    def test_a_line_beyond_the_bound_is_cut_but_counted_in_full(self):
        blocks = [b"INFO:a:" + b"x" * 50, b"y" * 100, b"z" * 200 + b"\nINFO:a:next\n"]
        (long, long_size), (_, next_size) = [x for batch in split_lines(blocks, 64) for x in batch]

        assert (long_size, next_size) == (358, 12)
        assert len(long) <= 64


TEXTS = st.one_of(
    st.text(max_size=200),
    st.sampled_from([line for line, *_ in LINES]),
    st.sampled_from([line for line, *_ in LINES]).flatmap(
        lambda line: st.integers(0, len(line)).map(lambda at: line[:at])
    ),
    st.tuples(st.sampled_from([x[0] for x in LINES]), st.text(max_size=20)).map("".join),
    st.sampled_from(
        ["", "  ", "\tat a.b(C.java:1)", "Traceback (most recent call last):", "ValueError: x",
         "Caused by: x", "}", '{"log": "', '{"log":"x","stream":"stderr"}', "\x1b[31mERROR\x1b[0m x",
         '{"log":"{\\"log\\":\\"{}\\"}"}', "[" * 100, "{" * 100, '{"a":' * 2000, "a=1 b=", "\u0663\u0664 <\u0661>"]
    ),
)  # fmt: skip


class TestNeverLosesALine:
    @given(st.lists(TEXTS, max_size=12))
    @settings(max_examples=300, deadline=None)
    def test_lines_and_bytes_of_the_records_add_up(self, texts):
        data = "\n".join(texts).encode("utf-8", "replace")
        records, reading = records_of(data)
        lines = data.count(b"\n") + (not data.endswith(b"\n") and bool(data))

        assert lines == sum(record.lines for record in records) == reading.lines
        if not data.startswith((b"\xff\xfe", b"\xfe\xff")):
            assert len(data) == sum(record.size for record in records) == reading.bytes
        assert {record.severity for record in records} <= {*SEVERITIES, None}

    @given(st.binary(max_size=400), st.integers(1, 40), st.integers(8, 64))
    @settings(max_examples=200, deadline=None)
    def test_blocks_of_any_size_give_the_same_lines(self, data, size, longest):
        blocks = [data[at : at + size] for at in range(0, len(data), size)]
        whole = [x for batch in split_lines([data], 10_000) for x in batch]
        pieces = [x for batch in split_lines(blocks, longest) for x in batch]

        assert [n for _, n in whole] == [n for _, n in pieces]
        assert len(data) == sum(n for _, n in pieces)

    @given(TEXTS)
    @settings(max_examples=500, deadline=None)
    def test_the_parser_never_raises(self, text):
        parser = LineParser(NOW)
        kind, seconds, severity, message = parser.parse(text.split("\n")[0])

        assert kind in {0, 1, 2}
        assert seconds is None or isinstance(seconds, float)
        assert severity is None or severity in SEVERITIES
        assert isinstance(message, str)

    @pytest.mark.parametrize(
        "filler", ["1", "a", " ", "a1", "1.", "[", "[a] ", "a=", '"', "{", "\\", "(", "a:", "::", "- ", "a.", "| "]
    )  # fmt: skip
    def test_no_line_makes_the_parser_slow(self, filler):
        """
        Each head is the start of a format, then comes a lot of what it could try in vain.

        Nothing is timed: with a quadratic expression this does not end before the suite's timeout.
        """
        heads = ["", "2024-01-02 15:04:05 ", "[2024-01-02 15:04:05] ", "Jan  2 15:04:05 host ",
                 "INFO ", "INFO:", "[2024-01-02 15:04:05] INFO ", "a=1 ", "2024-01-02 15:04:05 [info] ",
                 "[15:04:05] INFO ", "INFO[0001] ", "10.0.0.1 - - [", "[2024-01-02T15:04:05Z] app.INFO: "]  # fmt: skip
        for head in heads:
            line = LineParser(NOW).parse(head + filler * (200_000 // len(filler)))

            assert isinstance(line[3], str)
