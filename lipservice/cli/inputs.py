"""What commands that read log files have in common: their inputs, and how far they are."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from lipservice.exceptions import ConfigurationError
from lipservice.simulation.log_format import read_log_format
from lipservice.simulation.reading import Reading, Record, Source, read_sources


def add_files_argument(parser: argparse.ArgumentParser, metavar: str) -> None:
    """Declare `files`, for `open_sources`."""
    parser.add_argument(
        "files", nargs="*", metavar=metavar,
        help="log files, plain, .gz, .bz2 or .xz; - for standard input",
    )  # fmt: skip


def add_log_format_argument(parser: argparse._ActionsContainer) -> None:
    """Declare `--log-format`, for `read_records`."""
    parser.add_argument(
        "--log-format", metavar="FORMAT",
        help="the format string of your logging, if the guess is wrong: "
        "'%%(asctime)s %%(levelname)s %%(name)s %%(message)s'",
    )  # fmt: skip


def open_sources(names: list[str], troubles: list[str]) -> list[Source]:
    """
    The files of these names; "-" and no name at all are standard input.

    Files that this user may not read, as a shell's `/var/log/*.log` has them, are passed over if
    there are others.

    Args:
        names: As on the command line.
        troubles: Is told what was passed over.

    Raises:
        ConfigurationError: A file is not there, or none may be read; standard input is a terminal,
            absent, or named twice.
    """
    if not names:
        if sys.stdin is None or sys.stdin.isatty():
            raise ConfigurationError("name the log files to read, or - for standard input")
        names = ["-"]
    if names.count("-") > 1:
        raise ConfigurationError("standard input (-) can be read only once")
    forbidden: list[ConfigurationError] = []
    sources = [source for name in names if (source := _opened(name, forbidden)) is not None]
    if not sources:
        raise forbidden[0]
    troubles += [f"{error}; passed over" for error in forbidden]
    return sources


def _opened(name: str, forbidden: list[ConfigurationError]) -> Source | None:
    """The source of this name; None, and a word in *forbidden*, if it may not be read."""
    try:
        return Source("standard input", _stdin()) if name == "-" else Source(name)
    except ConfigurationError as error:
        if not isinstance(error.__cause__, PermissionError):
            raise
        forbidden.append(error)
        return None


def _stdin() -> IO[bytes]:
    if sys.stdin is None:
        raise ConfigurationError("there is no standard input")
    return sys.stdin.buffer


def read_records(
    sources: list[Source], reading: Reading, log_format: str | None
) -> Iterator[Record]:
    """
    The records of all sources, with a bar that shows how far they are read.

    Args:
        sources: As `open_sources` answers.
        reading: Is told what was read, and what went wrong.
        log_format: What `--log-format` was given.

    Raises:
        ConfigurationError: *log_format* is wrong, or a source cannot be read.
    """
    custom = read_log_format(log_format) if log_format else None
    with _progress_bar(sources) as progress:
        yield from read_sources(sources, reading, custom=custom, progress=progress)


@contextmanager
def _progress_bar(sources: list[Source]) -> Iterator[Callable[[int], object]]:
    """A bar on standard error, where a person sees it; bytes are those of the packed files."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield id
        return
    from tqdm import tqdm

    sizes = [source.size for source in sources]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    with tqdm(
        total=total, unit="B", unit_scale=True, leave=False, desc="reading", delay=0.3
    ) as bar:
        yield bar.update


def whole_number(text: str) -> int:
    """A count on a command line, 0 to 1,000,000."""
    if not (text.isascii() and text.isdigit() and len(text) <= 7 and int(text) <= 1_000_000):
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 0 to 1,000,000, not {text!r}"
        )
    return int(text)
