"""`lipservice patterns`: the patterns of logs, and the logging calls that split them."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lipservice._version import __version__
from lipservice.cli.inputs import (
    add_files_argument,
    add_log_format_argument,
    open_sources,
    read_records,
    whole_number,
)
from lipservice.cli.logging_calls import (
    SELF_FORMATTED,
    LoggingCall,
    find_calls,
    python_files,
    read_source,
)
from lipservice.exceptions import ConfigurationError
from lipservice.signature import compute_signature
from lipservice.simulation import wording
from lipservice.simulation.console import Console, fit, safe
from lipservice.simulation.counting import MOST_PATTERNS, Pattern, PatternCounter
from lipservice.simulation.reading import Reading, Record
from lipservice.source_templates import template_of_format

SCHEMA_VERSION: Final = 1
_DEFAULT_TOP: Final = 20
#: Files left out that are named; JSON has them all.
_MOST_TROUBLES: Final = 10
#: Signatures of a log whose call site is remembered; what comes after is looked for each time.
_MOST_SIGNATURES: Final = 1_000_000
_WORD: Final = re.compile(r"\w+")
_EXAMPLES: Final = """\
examples:
  lipservice patterns app.log
  kubectl logs deploy/web | lipservice patterns - --top 50
  lipservice patterns --call-sites src/
  lipservice patterns --call-sites src/ --logs app.log
  lipservice patterns --call-sites src/ --no-tests --check
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.epilog = _EXAMPLES
    add_files_argument(parser, "LOG")
    parser.add_argument(
        "--call-sites", nargs="+", metavar="PATH",
        help="show the logging calls in these Python files and folders that format their messages "
        "themselves, instead",
    )  # fmt: skip
    parser.add_argument(
        "--logs", nargs="+", default=[], metavar="LOG",
        help="with --call-sites: count in these logs how many patterns each call makes",
    )  # fmt: skip
    parser.add_argument(
        "--no-tests", action="store_true", help="with --call-sites: leave tests out"
    )
    parser.add_argument(
        "--check", action="store_true",
        help="with --call-sites: exit code 1 if there is such a call",
    )  # fmt: skip
    add_log_format_argument(parser)
    parser.add_argument(
        "--top", type=whole_number, metavar="N",
        help=f"rows to show (default: {_DEFAULT_TOP} patterns; all call sites; all with --json)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="write JSON, and nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    if arguments.call_sites:
        if arguments.files:
            raise ConfigurationError("with --call-sites, name the logs behind --logs")
        return _run_call_sites(arguments)
    for name in ("logs", "check", "no_tests"):
        if getattr(arguments, name):
            option = "--" + name.replace("_", "-")
            raise ConfigurationError(f"{option} needs --call-sites: name your Python sources there")
    return _run_patterns(arguments)


# --- the patterns of logs -------------------------------------------------------------------


@dataclass(slots=True)
class _Row:
    signature: str
    template: str
    records: int = 0
    bytes: int = 0
    severities: dict[str, int] = field(default_factory=dict)


def _run_patterns(arguments: argparse.Namespace) -> int:
    counter, reading = PatternCounter(), Reading()
    for record in read_records(
        open_sources(arguments.files, reading.troubles), reading, arguments.log_format
    ):
        counter.add(record)
    rows = _rows(counter.patterns())
    if arguments.json:
        print(json.dumps(_patterns_to_dict(rows, reading, arguments.top), indent=2))
    else:
        top = _DEFAULT_TOP if arguments.top is None else arguments.top
        _print_patterns(rows, reading, Console(sys.stdout), top)
    return 0


def _rows(patterns: Iterable[Pattern]) -> list[_Row]:
    """One row a signature, the most bytes first."""
    rows: dict[str, _Row] = {}
    for pattern in patterns:
        row = rows.setdefault(pattern.signature, _Row(pattern.signature, pattern.template))
        row.records += pattern.count
        row.bytes += pattern.bytes
        row.severities[pattern.severity] = row.severities.get(pattern.severity, 0) + pattern.count
    return sorted(rows.values(), key=lambda row: (-row.bytes, row.template))


def _patterns_to_dict(rows: Sequence[_Row], reading: Reading, top: int | None) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "generator": f"lipservice {__version__}",
        "input": _input_to_dict(reading, sum(row.records for row in rows)),
        "pattern_count": len(rows),
        "patterns": [
            {
                "signature": row.signature,
                "template": row.template,
                "records": row.records,
                "bytes": row.bytes,
                "severities": row.severities,
            }
            for row in rows[:top]
        ],
    }


def _input_to_dict(reading: Reading, records: int) -> dict[str, Any]:
    return {
        "names": reading.names,
        "records": records,
        "bytes": reading.bytes,
        "troubles": reading.troubles,
    }


def _print_patterns(rows: Sequence[_Row], reading: Reading, console: Console, top: int) -> None:
    if not rows:
        console.line("No log records were found.")
        return
    console.line(
        console.style(
            f"{'bytes':>8} {'records':>11}  {'severity':8} {'signature':16}  template", "dim"
        )
    )
    room = max(console.width - 50, 20)
    for row in rows[:top]:
        severity = max(row.severities, key=lambda name: row.severities[name])
        more = "+" if len(row.severities) > 1 else ""
        template = safe(row.template or "(empty message)")
        if console.terminal:
            template = fit(template, room).rstrip()
        console.line(
            f"{wording.bytes_words(row.bytes).replace(' bytes', ' B'):>8} {row.records:>11,}  "
            f"{severity + more:8} {row.signature:16}  {template}"
        )
    records = sum(row.records for row in rows)
    shown = f", {top:,} shown" if top < len(rows) else ""
    patterns = (
        _count(len(rows), "pattern")
        if len(rows) < MOST_PATTERNS
        else f"{len(rows):,} or more patterns"
    )
    console.line(
        f"{patterns}{shown}; {_count(records, 'record')}, {wording.bytes_words(reading.bytes)}"
    )
    _print_troubles(reading, console)


def _print_troubles(reading: Reading, console: Console) -> None:
    for trouble in reading.troubles:
        console.line(safe(trouble))


# --- call sites -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Site:
    """A call site, and what its messages became in the logs."""

    call: LoggingCall
    template: str
    signatures: int = 0
    records: int = 0
    bytes: int = 0


def _run_call_sites(arguments: argparse.Namespace) -> int:
    console = Console(sys.stdout)
    files = python_files(arguments.call_sites, tests=not arguments.no_tests)
    calls, troubles = _calls_in(files, named=arguments.call_sites)
    sites = [
        _Site(call, template_of_format(call.template.format))
        for call in calls
        if call.kind in SELF_FORMATTED and call.template is not None
    ]
    reading = Reading()
    if arguments.logs:
        sources = open_sources(arguments.logs, reading.troubles)
        counted = _count_in_logs(sites, read_records(sources, reading, arguments.log_format))
    else:
        counted = 0
    sites.sort(key=_worst_first)
    if arguments.json:
        document = _sites_to_dict(sites, calls, len(files), arguments.top)
        document["troubles"] = troubles
        if arguments.logs:
            document["input"] = _input_to_dict(reading, counted)
        print(json.dumps(document, indent=2))
    else:
        _print_sites(sites, console, arguments.top, measured=bool(arguments.logs))
        for trouble in troubles[:_MOST_TROUBLES]:
            console.line(f"left out: {safe(trouble)}")
        if len(troubles) > _MOST_TROUBLES:
            console.line(f"left out: {_count(len(troubles) - _MOST_TROUBLES, 'more file')}")
        own, healed, all_calls = _numbers_of_calls(sites, calls)
        console.line(
            f"{own:,} of {_count(all_calls, 'logging call')}"
            f" in {_count(len(files), 'file')}"
            f" {'formats its message itself' if own == 1 else 'format their messages themselves'};"
            f" healed at run time: {healed:,}"
        )
        _print_troubles(reading, console)
    return 1 if arguments.check and sites else 0


def _numbers_of_calls(sites: Sequence[_Site], calls: Sequence[LoggingCall]) -> tuple[int, int, int]:
    """Calls that format their messages themselves; those of them that are healed; all calls."""
    own = {site.call.place for site in sites}
    not_healed = {site.call.place for site in sites if site.call.reason}
    return len(own), len(own - not_healed), len({call.place for call in calls})


def _calls_in(files: Sequence[str], named: Sequence[str]) -> tuple[list[LoggingCall], list[str]]:
    """The logging calls of all *files*, and what is wrong with those that cannot be read."""
    calls: list[LoggingCall] = []
    troubles: list[str] = []
    for path in files:
        try:
            calls += find_calls(path, read_source(path))
        except ConfigurationError as error:  # noqa: PERF203 - a file that is named has to be good
            if path in named:
                raise
            troubles.append(str(error))
    return calls, troubles


def _worst_first(site: _Site) -> tuple[int, int, bool, int, int, str, int]:
    """By what it does in the logs; else by what it can do: what is healed makes one pattern."""
    call = site.call
    measured = (-site.signatures, -site.bytes)
    return (*measured, not call.reason, -call.words, -len(call.variables), call.path, call.line)


def _print_sites(
    sites: Sequence[_Site], console: Console, top: int | None, *, measured: bool
) -> None:
    """One line a site, in full: lines are for `grep` and editors, not for a width."""
    for site in sites[:top]:
        call = site.call
        facts = [f"{call.kind}, {_count(len(call.variables), 'variable')}"]
        if not call.variables:
            facts = [call.kind]
        facts.append(f"not healed: {call.reason}" if call.reason else "healed")
        columns = [safe(site.template), ", ".join(facts)]
        if measured:
            size = wording.bytes_words(site.bytes)
            columns.insert(
                0, f"{_count(site.signatures, 'pattern')}, {_count(site.records, 'record')}, {size}"
            )
        if call.replacement:
            columns.append(safe(call.replacement))
        place = console.style(f"{safe(call.path)}:{call.line}:", "bold")
        console.line(f"{place} {' | '.join(columns)}")


def _sites_to_dict(
    sites: Sequence[_Site], calls: Sequence[LoggingCall], files: int, top: int | None
) -> dict[str, Any]:
    own, healed, all_calls = _numbers_of_calls(sites, calls)
    return {
        "schema_version": SCHEMA_VERSION,
        "generator": f"lipservice {__version__}",
        "files": files,
        "logging_calls": all_calls,
        "call_site_count": own,
        "healed_count": healed,
        "call_sites": [
            {
                "path": Path(site.call.path).as_posix(),
                "line": site.call.line,
                "kind": site.call.kind,
                "template": site.template,
                "variables": len(site.call.variables),
                "word_variables": site.call.words,
                "healed": not site.call.reason,
                "reason": site.call.reason or None,
                "replacement": site.call.replacement or None,
                "signatures": site.signatures,
                "records": site.records,
                "bytes": site.bytes,
            }
            for site in sites[:top]
        ],
    }


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


# --- which site made a message --------------------------------------------------------------


def _count_in_logs(sites: Sequence[_Site], records: Iterable[Record]) -> int:
    """Count for each site the signatures that its messages have; returns the records read."""
    finder = SiteFinder([site.call for site in sites])
    site_of: dict[int, int] = {}
    counted = [[0, 0, 0] for _ in sites]
    number = 0
    for record in records:
        number += 1
        signature = int(compute_signature(record.message), 16)
        at = site_of.get(signature)
        if at is None:
            at = finder.find(record.message)
            if len(site_of) < _MOST_SIGNATURES:
                site_of[signature] = at
                if at >= 0:
                    counted[at][0] += 1
        if at >= 0:
            counted[at][1] += 1
            counted[at][2] += record.size
    # Sites with one template cannot be told apart by their messages: each has what all have.
    for site, at in zip(sites, finder.representatives, strict=True):
        site.signatures, site.records, site.bytes = counted[at] if at >= 0 else (0, 0, 0)
    return number


class SiteFinder:
    """
    Finds the call that made a message: that of the most constant text, if several could have.

    Each template is filed under the rarest of its words that stands whole in every message of it;
    templates without such a word are compared with every message.
    """

    def __init__(self, calls: Sequence[LoggingCall]) -> None:
        self._templates = [call.template for call in calls]
        first: dict[str, int] = {}
        #: For each call the first one of the same template; -1 where it has no constant text.
        self.representatives: list[int] = []
        words: dict[int, list[str]] = {}
        for at, template in enumerate(self._templates):
            if template is None or not template.has_words():
                self.representatives.append(-1)
                continue
            self.representatives.append(first.setdefault(template.format, at))
            if first[template.format] == at:
                words[at] = _whole_words(template.head, [*template.middles, template.tail])
        filed: dict[str, int] = {}
        for each in words.values():
            for word in set(each):
                filed[word] = filed.get(word, 0) + 1
        self._by_word: dict[str, list[int]] = {}
        self._others: list[int] = []
        for at, each in words.items():
            if each:
                rarest = min(each, key=lambda word: (filed[word], -len(word)))
                self._by_word.setdefault(rarest, []).append(at)
            else:
                self._others.append(at)

    def find(self, message: str) -> int:
        """The number of the call, of `representatives`; -1 if none could have made *message*."""
        best, most = -1, -1
        by_word = self._by_word
        for word in {*_WORD.findall(message)} if by_word else ():
            for at in by_word.get(word, ()):
                best, most = self._better(at, message, best, most)
        for at in self._others:
            best, most = self._better(at, message, best, most)
        return best

    def _better(self, at: int, message: str, best: int, most: int) -> tuple[int, int]:
        template = self._templates[at]
        if template is not None and template.matches(message):
            size = len(template.message(""))
            if (size, -at) > (most, -best):
                return at, size
        return best, most


def _whole_words(head: str, others: Sequence[str]) -> list[str]:
    """Words of constant text that no variable can lengthen: those at its edges may go on in one."""
    whole = []
    for position, text in enumerate([head, *others]):
        for match in _WORD.finditer(text):
            at_start = match.start() == 0 and position > 0
            at_end = match.end() == len(text) and position < len(others)
            if not at_start and not at_end:
                whole.append(match[0])
    return whole
