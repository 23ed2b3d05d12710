"""
Files, archives and pipes -> lines -> log records, in one pass and bounded memory.

Rule of this module: nothing is lost. Every line belongs to exactly one record, and the sizes of
the records add up to the bytes that were read. What cannot be decoded is replaced, what is too
long is cut for the parser but counted in full, and an archive that ends early is read up to there.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import stat
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, NamedTuple

from lipservice.exceptions import ConfigurationError
from lipservice.simulation.formats import FOLLOWS, RECORD, Line, LineFormat, LineParser

#: Bytes of a line that the parser sees.
LONGEST_LINE: Final = 1024 * 1024
_BLOCK: Final = 256 * 1024
_LEARN_LINES: Final = 1000

_GZIP: Final = b"\x1f\x8b"
_BZIP2: Final = b"BZh"
_XZ: Final = b"\xfd7zXZ\x00"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_Unpacker = Callable[[io.BufferedReader], io.BufferedIOBase]
_UNPACKERS: Final[tuple[tuple[bytes, _Unpacker], ...]] = (
    (_GZIP, lambda raw: gzip.GzipFile(fileobj=raw)),
    (_BZIP2, bz2.BZ2File),
    (_XZ, lzma.LZMAFile),
)
_WIDE: Final = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))

#: What a broken archive raises.
_BROKEN: Final = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


class Record(NamedTuple):
    """One record of a log, with the lines that belong to it."""

    #: Seconds since 1970, or None.
    seconds: float | None
    #: Canonical severity, or None if the log does not say.
    severity: str | None
    #: What the application gave to its logger, as far as the format is known.
    message: str
    #: Bytes of its lines with their ends.
    size: int
    #: Lines: 1, and those of a traceback or another continuation.
    lines: int


@dataclass(slots=True)
class Reading:
    """What was read, counted while it is read."""

    #: Name of each input.
    names: list[str] = field(default_factory=list)
    lines: int = 0
    #: Bytes after unpacking.
    bytes: int = 0
    #: Lines of each format.
    formats: Counter[str] = field(default_factory=Counter)
    #: What went wrong and did not stop the reading, for people.
    troubles: list[str] = field(default_factory=list)


class Source:
    """
    One input: a file, or standard input where its name is `-`.

    Raises:
        ConfigurationError: The input cannot be read; the message says which and why.
    """

    def __init__(self, name: str, stdin: IO[bytes] | None = None) -> None:
        self.name = name
        #: Bytes of the file as it is, or None where it cannot be told.
        self.size: int | None = None
        #: Seconds since 1970 that no line is later than.
        self.latest = time.time()
        self._stdin = stdin
        if stdin is None:
            self._look()

    def _look(self) -> None:
        with _readable(self.name):
            state = Path(self.name).stat()
            if stat.S_ISDIR(state.st_mode):
                raise ConfigurationError(
                    f"{self.name} is a directory; name its files, for example "
                    f"{self.name.rstrip('/')}/*.log"
                )
            if stat.S_ISREG(state.st_mode):
                with Path(self.name).open("rb"):
                    self.size, self.latest = state.st_size, state.st_mtime

    def blocks(self, reading: Reading, progress: Callable[[int], object]) -> Iterator[bytes]:
        """
        The unpacked bytes, block by block.

        Args:
            reading: takes note of an archive that ends early.
            progress: is told after each block how many bytes of the packed input it took.
        """
        if self._stdin is not None:
            yield from self._unpacked(self._stdin, reading, progress)
            return
        with _readable(self.name):
            opened = Path(self.name).open("rb")  # noqa: SIM115 - closed two lines below
        with opened as raw:
            yield from self._unpacked(raw, reading, progress)

    def _unpacked(
        self, raw: IO[bytes], reading: Reading, progress: Callable[[int], object]
    ) -> Iterator[bytes]:
        counted = _Counted(raw)
        file: io.BufferedReader = io.BufferedReader(counted, _BLOCK)
        start = file.peek(6)[:6]
        if start.startswith(_ZSTD):
            raise ConfigurationError(
                f"{self.name} is packed with zstd: unpack it into a pipe, "
                f"zstd -dc {self.name} | lipservice simulate -"
            )
        unpacker = next((make for magic, make in _UNPACKERS if start.startswith(magic)), None)
        stream: io.BufferedIOBase = unpacker(file) if unpacker else file
        # read1 gives what an archive holds up to the place where it is broken.
        read = stream.read1 if unpacker else stream.read
        done = 0
        while True:
            try:
                with _readable(self.name):
                    block = read(_BLOCK)
            except _BROKEN as error:
                reading.troubles.append(
                    f"{self.name}: the archive is broken ({error}); read up to there"
                )
                return
            progress(counted.count - done)
            done = counted.count
            if not block:
                return
            yield block


class _Counted(io.RawIOBase):
    """Counts the bytes read from another stream, which stays open."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._raw.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)


class _readable:  # noqa: N801 - a context manager, used as a function
    """Tells which input could not be read, in one line."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
            reason = error.strerror or str(error)
            raise ConfigurationError(f"cannot read {self._name}: {reason}") from error
        if isinstance(error, ValueError) and "null byte" in str(error):
            raise ConfigurationError(f"cannot read {self._name!r}: {error}") from error


def read_sources(
    sources: Iterable[Source],
    reading: Reading,
    *,
    custom: LineFormat | None = None,
    progress: Callable[[int], object] = id,
) -> Iterator[Record]:
    """
    The records of all *sources*, one after the other.

    Args:
        sources: the inputs; each has its own formats and its own continuation lines.
        reading: is filled while the records are taken.
        custom: the format that the user named.
        progress: is told how many bytes of the packed inputs each block took.

    Raises:
        ConfigurationError: An input can no longer be read.
    """
    for source in sources:
        reading.names.append(source.name)
        parser = LineParser(source.latest, custom)
        batches = split_lines(_narrow(source.blocks(reading, progress)))
        for record in group_lines(_learning(batches, parser), parser):
            reading.lines += record.lines
            reading.bytes += record.size
            yield record
        reading.formats += parser.formats()


def _narrow(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Turn UTF-16 into UTF-8 and take away the mark that some editors put first."""
    first = next(blocks, b"")
    for mark, encoding in _WIDE:
        if first.startswith(mark):
            decoder = codecs.getincrementaldecoder(encoding)("replace")
            yield decoder.decode(first[len(mark) :]).encode("utf-8", "replace")
            for block in blocks:
                yield decoder.decode(block).encode("utf-8", "replace")
            return
    yield first
    yield from blocks


def split_lines(
    blocks: Iterable[bytes], longest: int = LONGEST_LINE
) -> Iterator[list[tuple[str, int]]]:
    """
    Lines as text, each with its bytes including its end, in batches of one block.

    Args:
        blocks: bytes of any size.
        longest: bytes of a line that are decoded; the others are only counted.
    """
    rest, cut = b"", 0
    for block in blocks:
        pieces = (rest + block).split(b"\n")
        rest = pieces.pop()
        if pieces:
            batch = [(_text(piece, longest), len(piece) + 1) for piece in pieces]
            if cut:
                batch[0] = (batch[0][0], batch[0][1] + cut)
                cut = 0
            yield batch
        if len(rest) > longest:
            cut += len(rest) - longest
            rest = rest[:longest]
    if rest or cut:
        yield [(_text(rest, longest), len(rest) + cut)]


def _text(piece: bytes, longest: int) -> str:
    if len(piece) > longest:
        piece = piece[:longest]
    return piece.decode("utf-8", "replace").rstrip("\r")


def _learning(
    batches: Iterable[list[tuple[str, int]]], parser: LineParser
) -> Iterator[tuple[str, int]]:
    learned = False
    for batch in batches:
        if not learned:
            parser.learn(text for text, _ in batch[:_LEARN_LINES])
            learned = True
        if batch and batch[0][0].startswith("\ufeff"):
            batch[0] = (batch[0][0][1:], batch[0][1])
        yield from batch


_HEADER: Final = re.compile(
    r"Traceback \(most recent call last\)|Exception Group Traceback|Exception in thread "
    r"|goroutine \d+ \[|stack backtrace:|Stack trace:"
)
_CONTINUES: Final = re.compile(
    r"Caused by: |Suppressed: |\.\.\. \d+ (?:more|common)|at [\w$.<>/ ]+\("
    r"|During handling of the above exception|The above exception was the direct cause"
    r"|[}\])]+[,;]?$|--- End of (?:inner exception )?stack trace"
)
_JAVA_EXCEPTION: Final = re.compile(
    r"(?:[a-z_][\w$]*\.)+[A-Z][\w$]*(?:Exception|Error|Throwable|Warning)\b"
)
_CLOSING: Final = re.compile(r"[A-Za-z_][\w.]*(?:: |:?$)")


class _Continuations:
    """Which lines go on with the record above them."""

    __slots__ = ("_parser", "_traceback")

    def __init__(self, parser: LineParser) -> None:
        self._parser = parser
        self._traceback = False

    @property
    def in_traceback(self) -> bool:
        return self._traceback

    def restart(self, text: str) -> None:
        """A record begins, with *text*."""
        self._traceback = _HEADER.match(text) is not None

    def follows(self, line: Line, text: str) -> bool:
        """Whether *text*, which was parsed as *line*, belongs to the record above it."""
        kind, seconds, _, inner = line
        if kind == RECORD:
            return self._traceback and seconds is None and self._closes(text)
        if kind == FOLLOWS or inner[:1] <= " ":
            return True
        if _HEADER.match(inner):
            self._traceback = True
            return True
        if _CONTINUES.match(inner):
            return True
        if self._traceback:
            # With a format to go by, everything up to the next record is part of the
            # traceback; without, only the line that closes it.
            self._traceback = self._parser.knows_format
            return True
        return self._parser.knows_format and _JAVA_EXCEPTION.match(inner) is not None

    def _closes(self, text: str) -> bool:
        """`Exception: boom` looks like a level and a message, but not behind a traceback."""
        if _CLOSING.match(text) is None or text.split(":", 1)[0].isupper():
            return False
        self._traceback = False
        return True


def group_lines(lines: Iterable[tuple[str, int]], parser: LineParser) -> Iterator[Record]:
    """
    Lines of one log, each with its bytes -> its records.

    A line that is blank or indented, or that goes on with a traceback, belongs to the record
    above it. Blank lines before the first record belong to that one.
    """
    parse = parser.parse
    continuations = _Continuations(parser)
    follows = continuations.follows
    open_record = False
    seconds: float | None = None
    severity: str | None = None
    message = ""
    total = count = 0
    for text, size in lines:
        if text[:1] <= " " and (open_record or not text.strip()):
            total += size
            count += 1
            continue
        line = parse(text)
        if open_record:
            if (line[0] != RECORD or continuations.in_traceback) and follows(line, text):
                total += size
                count += 1
                continue
            yield Record(seconds, severity, message, total, count)
            total = count = 0
        open_record = True
        total += size
        count += 1
        kind, seconds, severity, message = line
        if kind == RECORD:
            if continuations.in_traceback:
                continuations.restart("")
        else:
            parser.count_plain()
            continuations.restart(message)
            if continuations.in_traceback:
                severity = severity or "ERROR"
    if count:
        yield Record(seconds, severity, message, total, count)
