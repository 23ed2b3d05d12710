"""
Healed call sites: the template of a message that the application formatted itself.

    site_at(path, line) -> CallSite -> format_for(message) -> the percent format, or None: LSIG-1
    analyse_waiting()      in the background: reads the source line of each new site, once

An f-string leaves nothing of its template in the record, so a word used as a value makes a
pattern of its own. The template still stands in the source: `f"user {name} logged in"` is the
format `user %s logged in`, and is counted with it.

Rule of this module: never wrong before often. A template counts only if its constant text is all
in the message, in order, from end to end, and if no other template of the line would do as well.
Whatever is in doubt has no format here, and LSIG-1 decides.

There is no lock: each step is one atomic dict operation or one assignment, and the worst that a
race or a fork can do is to analyse a site twice. Nothing here raises, prints or starts anything.
"""

from __future__ import annotations

import contextlib
import io
import keyword
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lipservice.signature import (
    fold,
    key_of_folded,
    percent_format_to_message,
    template_of_key,
)

if TYPE_CHECKING:
    import ast

#: Call sites that are known at most; what is logged elsewhere is left to LSIG-1.
MOST_SITES: Final = 8_192
#: Sites that wait for their analysis at most; others come in later.
MOST_WAITING: Final = 1_024
#: Characters of the message that a waiting site keeps to check its template with.
_LONGEST_EXAMPLE: Final = 1_024
_LONGEST_PATH: Final = 4_096
#: Bytes of a source file.
_LARGEST_FILE: Final = 2 * 1024 * 1024
#: Files whose lines are held while sites wait.
_MOST_FILES: Final = 8
# What is read of a source from the line of a call on.
_MOST_LINES: Final = 60
_MOST_CHARACTERS: Final = 16_384
_MOST_TOKENS: Final = 2_000
_LONGEST_ARGUMENT: Final = 4_096
_DEEPEST_STRING: Final = 6
#: Records of a site whose messages are compared with all of the template, not just its ends.
_DISTRUSTED: Final = 32
#: Messages in a row that are not the template's, after which the source must have changed.
_MOST_MISSES: Final = 8

HEALED: Final = "healed"
WAITING: Final = "waiting"
NOT_HEALED: Final = "not healed"

# Reasons, as people read them (docs/how-to/call-sites.md).
NO_SOURCE: Final = "no source"
NO_CALL: Final = "no call found"
NO_TEMPLATE: Final = "not a template"
CONSTANT: Final = "constant"
NO_WORDS: Final = "no constant text"
AMBIGUOUS: Final = "ambiguous"
MISMATCH: Final = "source does not match"
FAILED: Final = "unreadable source"


class SourceTemplate(NamedTuple):
    """A string-building expression of a source: its percent format, and its constant text."""

    #: Equivalent percent-style format string.
    format: str
    #: Whether it has a variable at all.
    varies: bool
    #: Constant text before the first variable, between variables, behind the last one.
    head: str
    middles: tuple[str, ...]
    tail: str

    def matches(self, message: str) -> bool:
        """Whether *message* is this template with any text for each variable."""
        if not self.varies:
            return message == self.head
        at = len(self.head)
        end = len(message) - len(self.tail)
        if end < at or not message.startswith(self.head) or not message.endswith(self.tail):
            return False
        for middle in self.middles:
            found = message.find(middle, at, end)
            if found < 0:
                return False
            at = found + len(middle)
        return True

    def has_words(self) -> bool:
        """Whether a constant token with a letter is left, so that it names one statement."""
        key = key_of_folded(fold(percent_format_to_message(self.format)))
        return any(map(_is_word, key.split()))


class CallSiteState(NamedTuple):
    """A call site, as people see it."""

    path: str
    line: int
    #: "healed", "waiting" or "not healed".
    state: str
    #: Why it is not healed; "" where it is, or waits.
    reason: str
    #: Its template with `<*>` for each variable; those of a line with several, ` | ` between.
    template: str
    #: Records that were decided by the format, about.
    healed: int


class CallSite:
    """
    One line of a source that logs. Made by `site_at`; safe to use from any thread.

    Attributes:
        path: The file, as the record names it.
        line: The line of the call, from 1.
        braces: Whether the logger formats `{}` itself (loguru).
        healed: Records that `format_for` had a format for, about.
    """

    __slots__ = (
        "_example",
        "_format",
        "_head",
        "_healed_before",
        "_least",
        "_middle",
        "_misses",
        "_open",
        "_reason",
        "_tail",
        "_templates",
        "braces",
        "healed",
        "line",
        "path",
    )

    def __init__(self, path: str, line: int, *, braces: bool = False) -> None:
        self.path = path
        self.line = line
        self.braces = braces
        self.healed = 0
        # The one format of this site, and what its messages begin with, hold and end with. These
        # are set once, before the format: who sees the format sees them too.
        self._format: str | None = None
        self._head = self._middle = self._tail = ""
        self._least = 0
        self._templates: tuple[SourceTemplate, ...] = ()
        #: Whether a message is still of interest where there is no one format.
        self._open = True
        self._example: str | None = None
        #: Messages that did not fit since so many were healed.
        self._misses = 0
        self._healed_before = 0
        self._reason = WAITING

    def format_for(self, message: str) -> str | None:
        """
        The percent format that made *message*, for `DecisionEngine.decide_format`.

        Args:
            message: The finished message of a record of this line, which had no arguments.

        Returns:
            None where that is not known, or not sure: LSIG-1 decides. Never raises.
        """
        try:
            only = self._format
            if only is None:
                return self._look_up(message) if self._open else None
            # A call costs more than a look: the ends are asked for only where there is something.
            if (
                self._middle in message
                and (not self._least or message.startswith(self._head))
                and (not self._tail or message.endswith(self._tail, self._least))
            ):
                count = self.healed
                if count > _DISTRUSTED or self._templates[0].matches(message):
                    self.healed = count + 1
                    return only
            self._miss()
        except Exception:  # noqa: S110 - a message that is no text
            pass
        return None

    def _look_up(self, message: str) -> str | None:
        """Of a site that waits, or whose line has several templates."""
        templates = self._templates
        if not templates:
            if self._example is None and len(message) <= _LONGEST_EXAMPLE:
                self._example = message
                if not self._open:  # it was analysed meanwhile
                    self._example = None
            return None
        formats = {template.format for template in templates if template.matches(message)}
        if len(formats) != 1:
            self._miss()
            return None
        found = formats.pop()
        if not any(_is_healable(each) for each in templates if each.format == found):
            return None
        self.healed += 1
        return found

    def _miss(self) -> None:
        if self._healed_before != self.healed:
            self._healed_before = self.healed
            self._misses = 0
        self._misses += 1
        if self._misses >= _MOST_MISSES:
            self._refuse(MISMATCH)

    def _refuse(self, reason: str) -> None:
        self._open = False
        self._format = None
        self._reason = reason
        self._example = None

    def _settle(self, templates: Sequence[SourceTemplate]) -> None:
        """Take over what the source says, which the example has confirmed."""
        self._reason = ""
        self._example = None
        self._templates = tuple(templates)
        if len(templates) > 1:
            return
        template = templates[0]
        self._head, self._tail = template.head, template.tail
        self._middle = max(template.middles, key=len, default="")
        self._least = len(template.head)
        self._open = False
        self._format = template.format

    def analyse(self, source: Sequence[str] | None) -> None:
        """Find the template of this line. In the background; *source* is the lines of the file."""
        if source is None:
            return self._refuse(NO_SOURCE)
        found = templates_at(source, self.line, braces=self.braces)
        if found is None:
            return self._refuse(NO_CALL)
        if not found:
            return self._refuse(NO_TEMPLATE)
        example = self._example
        fitting = [each for each in found if example is None or each.matches(example)]
        healable = [each for each in found if _is_healable(each)]
        varies = any(each.varies for each in found)
        if not fitting:  # constants beside a name: `_("user %s") % name`
            self._refuse(MISMATCH if varies else NO_TEMPLATE)
        elif not healable:
            self._refuse(NO_WORDS if varies else CONSTANT)
        elif len(fitting) > 1 and example is not None:
            self._refuse(AMBIGUOUS)
        else:
            self._settle(found)
        return None

    def state(self) -> CallSiteState:
        """What is known of it now."""
        reason = self._reason
        templates = self._templates
        return CallSiteState(
            self.path,
            self.line,
            WAITING if reason == WAITING else NOT_HEALED if reason else HEALED,
            "" if reason == WAITING else reason,
            " | ".join(template_of_format(each.format) for each in templates),
            self.healed,
        )


# --- the table ------------------------------------------------------------------------------

_Table = dict[str, dict[int, CallSite]]
_plain: Final[_Table] = {}
_braced: Final[_Table] = {}
# Every site of both tables, to count and to list them.
_every: Final[dict[tuple[str, int, bool], CallSite]] = {}
# An ordered set. A site leaves it when its analysis is done, not when it begins: a child that is
# forked in between finds it still there.
_waiting: Final[dict[CallSite, None]] = {}
_files: Final[dict[str, list[str] | None]] = {}


def site_at(path: str, line: int, *, braces: bool = False) -> CallSite | None:
    """
    The call site at a line of a file; one that is new waits for `analyse_waiting`.

    Args:
        path: The file, as the record (`pathname`) or the frame (`co_filename`) names it.
        line: The line that the record (`lineno`) or the frame names, from 1.
        braces: Whether the logger formats `{}` itself, as loguru does.

    Returns:
        None where it is not known and there is no room for it. Never raises. Safe from any
        thread.
    """
    try:
        return (_braced if braces else _plain)[path][line]
    except Exception:
        return _new_site(path, line, braces)


def _new_site(path: str, line: int, braces: object) -> CallSite | None:
    try:
        return _add_site(path, line, braces=bool(braces))
    except Exception:
        return None


def _add_site(path: str, line: int, *, braces: bool) -> CallSite | None:
    if len(_every) >= MOST_SITES or len(_waiting) >= MOST_WAITING:
        return None
    if type(path) is not str or type(line) is not int or len(path) > _LONGEST_PATH:
        return None
    key = (path, line, braces)
    new = CallSite(path, line, braces=braces)
    site = _every.setdefault(key, new)
    if site is not new:  # another thread was quicker, or a finalizer that logged in between
        return site
    if len(_every) > MOST_SITES:
        _every.pop(key, None)
        return None
    _waiting[site] = None
    (_braced if braces else _plain).setdefault(path, {})[line] = site
    return site


def has_waiting() -> bool:
    """Whether `analyse_waiting` has something to do."""
    return bool(_waiting)


def analyse_waiting(limit: int = 64) -> int:
    """
    Analyse sites that wait: for the background, since it reads files.

    Args:
        limit: Sites at most. One takes well under a millisecond, and bounded work whatever the
            source is.

    Returns:
        How many are left. Never raises.
    """
    for _ in range(max(limit, 0)):
        site = _first_waiting()
        if site is None:
            break
        try:
            site.analyse(_lines_of(site.path))
        except Exception:  # RecursionError and MemoryError of the parser among them
            site._refuse(FAILED)  # noqa: SLF001 - of this module
        _waiting.pop(site, None)
    if not _waiting:
        _files.clear()
    return len(_waiting)


def call_sites() -> list[CallSiteState]:
    """
    What is known of each call site: those that heal the most records first, constants last.

    For people; safe from any thread.
    """
    states = [site.state() for site in list(_every.values())]
    states.sort(key=lambda each: (-each.healed, each.reason == CONSTANT, each.path, each.line))
    return states


def template_of_format(format_string: str) -> str:
    """The template that people see for a percent format."""
    return template_of_key(key_of_folded(fold(percent_format_to_message(format_string))))


def _first_waiting() -> CallSite | None:
    for _ in range(100):
        with contextlib.suppress(RuntimeError):  # a site came in between
            return next(iter(_waiting), None)
    return None


def _forget_all() -> None:
    """Begin with nothing, for tests."""
    for table in (_plain, _braced, _every, _waiting, _files):
        table.clear()


# --- reading sources ------------------------------------------------------------------------


def _lines_of(path: str) -> list[str] | None:
    if path not in _files:
        if len(_files) >= _MOST_FILES:
            _files.clear()
        _files[path] = read_lines(path)
    return _files.get(path)


def read_lines(path: str) -> list[str] | None:
    """
    The lines of a source file without their ends, or None where it cannot be read as one.

    Reads regular files of at most 2 MiB, modules in zip files, and what `linecache` holds of code
    that was never in a file (notebooks).
    """
    try:
        data = _bytes_of_file(path)
        if data is None:
            return _lines_from_elsewhere(path)
        return _decoded(data).split("\n")
    except Exception:
        return None


def _bytes_of_file(path: str) -> bytes | None:
    """The content; None where there is no such file. OSError or ValueError: it is not one."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - bounded and plain
            raise ValueError(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    # It may have become something else by now: nothing here may wait for a pipe.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    with open(os.open(path, flags | getattr(os, "O_BINARY", 0)), "rb") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(path)
        data = file.read(_LARGEST_FILE + 1)
    if len(data) > _LARGEST_FILE:
        raise ValueError(path)
    return data


def _decoded(data: bytes) -> str:
    import tokenize  # noqa: PLC0415 - when first needed

    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def _lines_from_elsewhere(path: str) -> list[str] | None:
    cache = getattr(sys.modules.get("linecache"), "cache", {})
    entry = cache.get(path)
    if entry is not None and len(entry) == 4:
        return [line.rstrip("\n") for line in entry[2]]
    zips = getattr(sys.modules.get("zipimport"), "zipimporter", None)
    if zips is None or ".zip" not in path:
        return None
    for module in list(sys.modules.values()):
        spec: Any = getattr(module, "__spec__", None)
        # Only zipimport's own: another loader's code is not ours to run here.
        if getattr(module, "__file__", None) == path and type(spec.loader) is zips:
            text = spec.loader.get_source(spec.name)
            return text.split("\n") if text and len(text) <= _LARGEST_FILE else None
    return None


# --- finding the calls of a line ------------------------------------------------------------

_TOKEN: Final = re.compile(
    r"""[ \t\f]+ | \\\n | \#[^\n]*
      | (?P<prefix>[rRbBuUfFtT]{0,2})(?P<quote>'''|\"\"\"|'|\")
      | (?P<word>\w+)
      | (?P<other>.|\n)""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER: Final = re.compile(
    r"0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|[0-9][0-9_]*(?:[eE][0-9_]*)?[jJ]?"
)
# Each is the rest of a string behind its opening quote; there is one way to match.
_REST_OF_STRING: Final = {
    "'": re.compile(r"[^\\'\n]*(?:\\.[^\\'\n]*)*'", re.DOTALL),
    '"': re.compile(r'[^\\"\n]*(?:\\.[^\\"\n]*)*"', re.DOTALL),
    "'''": re.compile(r"[^\\']*(?:(?:\\.|'(?!''))[^\\']*)*'''", re.DOTALL),
    '"""': re.compile(r'[^\\"]*(?:(?:\\.|"(?!""))[^\\"]*)*"""', re.DOTALL),
}
_SPECIAL: Final = {
    quote: re.compile(r"[\\{}]|" + quote + ("" if len(quote) == 3 else r"|\n"))
    for quote in _REST_OF_STRING
}
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
# Escapes that the compiler would warn of on standard error: the backslash stands for itself.
_ODD_ESCAPE: Final = re.compile(r"[^\n\\'\"abfnrtv0-7xNuU]|[4-7][0-7]{2}")
_ODD_ESCAPE_OF_BYTES: Final = re.compile(r"[^\n\\'\"abfnrtv0-7x]|[4-7][0-7]{2}")
_KEYWORD_ARGUMENT: Final = re.compile(r"\s*([^\W\d]\w*)\s*=(?!=)")
_OPENING: Final = "([{"
_CLOSING: Final = ")]}"
#: Keyword arguments that carry a message.
_MESSAGE_KEYWORDS: Final = frozenset({"msg", "message", "event", "text"})


class _Unreadable(Exception):  # noqa: N818 - never leaves this module
    """The source goes on in a way that is not understood."""


class _Argument(NamedTuple):
    start: int
    end: int
    has_string: bool


class _Bracket:
    """An open bracket; of a call, if its arguments are of interest."""

    __slots__ = ("arguments", "has_string", "is_call", "primary_line", "start")

    def __init__(self, start: int, primary_line: int, *, is_call: bool) -> None:
        self.start = start
        self.primary_line = primary_line
        self.is_call = is_call
        self.arguments: list[_Argument] = []
        self.has_string = False

    def end_argument(self, end: int) -> None:
        self.arguments.append(_Argument(self.start, end, self.has_string))
        self.start = end + 1
        self.has_string = False


class _Scanner:
    """
    Finds the calls that begin in the first line of a text, up to the end of its logical line.

    The text may begin in the middle of an expression. A call begins where CPython says that it
    does when it makes a frame's line number: at the name behind the last dot, or where what is
    called begins. Only brackets, strings and names are told apart, so that it works alike on
    every Python, whatever its f-strings allow.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        #: Places of backslashes that have to be doubled before the text is parsed.
        self._odd: list[int] = []

    def calls(self) -> Iterator[list[_Argument]]:
        """The arguments of each call; ends quietly where the text is not understood."""
        try:
            yield from self._calls()
        except _Unreadable:
            return

    def source_of(self, argument: _Argument) -> str:
        """The text of an argument, without escapes that the compiler would warn of."""
        pieces: list[str] = []
        at = argument.start
        for place in self._odd:
            if argument.start <= place < argument.end:
                pieces += self._text[at:place], "\\"
                at = place
        pieces.append(self._text[at : argument.end])
        return "".join(pieces)

    def _calls(self) -> Iterator[list[_Argument]]:
        text, scan = self._text, _TOKEN.match
        at = line = tokens = 0
        stack: list[_Bracket] = []
        # The line where the primary expression to the left begins, or -1: there is none; and the
        # line of its last name.
        primary, name = -1, -1
        behind_dot = False
        while match := scan(text, at):
            at = match.end()
            kind = match.lastgroup
            if kind is None:
                line += match[0] == "\\\n"
                continue
            tokens += 1
            if tokens > _MOST_TOKENS:
                return
            if kind == "quote":
                primary, name, behind_dot = line, -1, False
                start = at
                at = self._end_of_string(at, match["prefix"].lower(), match["quote"], 0)
                line += text.count("\n", start, at)
                for bracket in stack:
                    bracket.has_string = True
                continue
            if kind == "word":
                word = match[0]
                if word[0].isdigit() and not _NUMBER.fullmatch(word):
                    return  # `1if`, of which the compiler would warn
                if not behind_dot or primary < 0:
                    primary = line
                name = line
                if not behind_dot and keyword.iskeyword(word):
                    primary = name = -1
                behind_dot = False
                continue
            mark = match[0]
            if mark == ".":
                behind_dot = True
                continue
            behind_dot = False
            if mark == "\n":
                line += 1
                if not stack:
                    return
            elif mark in _OPENING:
                # Where CPython says that a call begins: primary is -1 where none is called.
                begin = name if name >= 0 else primary
                wanted = mark == "(" and begin == 0
                stack.append(_Bracket(at, primary if primary >= 0 else line, is_call=wanted))
                primary = name = -1
            elif mark in _CLOSING:
                name = -1
                if not stack:
                    primary = line
                    continue
                bracket = stack.pop()
                primary = bracket.primary_line
                if bracket.is_call:
                    bracket.end_argument(match.start())
                    yield bracket.arguments
            else:
                primary = name = -1
                if mark == "," and stack and stack[-1].is_call:
                    stack[-1].end_argument(match.start())

    def _end_of_string(self, at: int, prefix: str, quote: str, depth: int) -> int:
        """Where the string whose content begins at *at* ends."""
        if "f" in prefix or "t" in prefix:
            return self._end_of_f_string(at, prefix, quote, depth)
        match = _REST_OF_STRING[quote].match(self._text, at)
        if match is None:
            raise _Unreadable
        if "r" not in prefix and "\\" in match[0]:
            odd = _ODD_ESCAPE_OF_BYTES if "b" in prefix else _ODD_ESCAPE
            for escape in _ESCAPE.finditer(self._text, at, match.end()):
                if odd.match(self._text, escape.start(1)):
                    self._odd.append(escape.start())
        return match.end()

    def _end_of_f_string(self, at: int, prefix: str, quote: str, depth: int) -> int:
        if depth > _DEEPEST_STRING:
            raise _Unreadable
        text, search = self._text, _SPECIAL[quote].search
        while match := search(text, at):
            at = match.end()
            mark = match[0]
            if mark == quote:
                return at
            if mark == "\n":
                break
            if mark == "\\":
                at = self._end_of_escape(at, prefix)
            elif text.startswith(mark, at):  # {{ or }}
                at += 1
            elif mark == "{":
                at = self._end_of_field(at, prefix, quote, depth)
        raise _Unreadable

    def _end_of_escape(self, at: int, prefix: str) -> int:
        """Behind an escape of an f-string whose backslash stands before *at*."""
        text = self._text
        if "r" not in prefix:
            if text.startswith("N{", at):
                return text.find("}", at) + 1 or len(text)
            if _ODD_ESCAPE.match(text, at):
                self._odd.append(at - 1)
        return at if text.startswith(("{", "}"), at) else at + 1

    def _end_of_field(self, at: int, prefix: str, quote: str, depth: int) -> int:
        """Behind the `}` of the replacement field of an f-string whose `{` stands before *at*."""
        if depth > _DEEPEST_STRING:
            raise _Unreadable
        opened = 0
        while match := _TOKEN.match(self._text, at):
            at = match.end()
            if match.lastgroup == "quote":
                at = self._end_of_string(at, match["prefix"].lower(), match["quote"], depth + 1)
                continue
            mark = match["other"]
            if mark is None:
                continue
            if mark in _OPENING:
                opened += 1
            elif mark == "}" and not opened:
                return at
            elif mark in _CLOSING:
                opened -= 1
            elif mark == ":" and not opened:
                return self._end_of_format_spec(at, prefix, quote, depth)
        raise _Unreadable

    def _end_of_format_spec(self, at: int, prefix: str, quote: str, depth: int) -> int:
        while match := _SPECIAL[quote].search(self._text, at):
            at = match.end()
            mark = match[0]
            if mark == "}":
                return at
            if mark == "{":
                at = self._end_of_field(at, prefix, quote, depth + 1)
            elif mark == "\\":
                at = self._end_of_escape(at, prefix)
            else:
                break
        raise _Unreadable


def templates_at(
    lines: Sequence[str], line: int, *, braces: bool = False
) -> list[SourceTemplate] | None:
    """
    The templates of the strings that the calls of a line are given, each format once.

    Args:
        lines: The source.
        line: The line of the call as a frame has it, from 1.
        braces: Whether a string with arguments behind it is a format in braces.

    Returns:
        None if there is no call; empty if none of its arguments is a string or builds one.
    """
    if not 1 <= line <= len(lines):
        return None
    text = "\n".join(lines[line - 1 : line - 1 + _MOST_LINES])[:_MOST_CHARACTERS] + "\n"
    scanner = _Scanner(text)
    found: dict[str, SourceTemplate] = {}
    any_call = False
    for arguments in list(scanner.calls()):
        any_call = True
        for position, argument in enumerate(arguments):
            if not argument.has_string or argument.end - argument.start > _LONGEST_ARGUMENT:
                continue
            more = any(text[each.start : each.end].strip() for each in arguments[position + 1 :])
            template = _template_of_argument(scanner.source_of(argument), braces=braces and more)
            if template is not None:
                found.setdefault(template.format, template)
    return list(found.values()) if any_call else None


def _template_of_argument(source: str, *, braces: bool) -> SourceTemplate | None:
    import ast  # noqa: PLC0415 - when first needed

    named = _KEYWORD_ARGUMENT.match(source)
    if named is not None:
        if named[1] not in _MESSAGE_KEYWORDS:
            return None
        source = source[named.end() :]
    try:
        return template_of_expression(ast.parse(f"(\n{source}\n)", mode="eval").body, braces=braces)
    except (SyntaxError, ValueError):
        return None


# --- from an expression to its template -----------------------------------------------------

#: Constant text, and None for each variable.
_Pieces = list["str | None"]

_CONVERSION: Final = re.compile(
    r"%(?:(?P<percent>%)|(?:\([^()]*\))?[-+ #0]*(?:\*|[1-9][0-9]*)?(?:\.(?:\*|[0-9]*))?[hlL]?"
    r"[diouxXcrsaeEfFgG]|(?P<odd>))"
)


def template_of_expression(expression: ast.expr, *, braces: bool = False) -> SourceTemplate | None:
    """
    The template of an expression that builds a string; None if it does not, or not in one way.

    f-strings, `%`, `str.format`, `+`, and mixtures of them. What is not constant is a variable.

    Args:
        expression: The syntax tree.
        braces: Whether the string is then used as a format in braces.
    """
    try:
        pieces = _pieces(expression)
        if pieces is not None and braces:
            pieces = _convert(pieces, _pieces_of_brace_format)
    except _Unreadable:
        return None
    return None if pieces is None else _template_of_pieces(pieces)


def _template_of_pieces(pieces: _Pieces) -> SourceTemplate:
    format_string = "".join("%s" if piece is None else piece.replace("%", "%%") for piece in pieces)
    constants = [""]
    for piece in pieces:
        if piece is None:
            constants.append("")
        else:
            constants[-1] += piece
    head, *middles = constants
    tail = middles.pop() if middles else ""
    return SourceTemplate(
        format_string, len(constants) > 1, head, tuple(filter(None, middles)), tail
    )


def _pieces(node: ast.expr) -> _Pieces | None:
    """Pieces of a string; None where the expression is not known to build one."""
    import ast  # noqa: PLC0415

    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return [piece for value in node.values for piece in _pieces_of_field(value)]
    if isinstance(node, ast.NamedExpr):
        return _pieces(node.value)
    if isinstance(node, ast.BinOp):
        return _pieces_of_operation(node)
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "format"
    ):
        pieces = _pieces(node.func.value)
        return None if pieces is None else _convert(pieces, _pieces_of_brace_format)
    return None


def _pieces_of_field(node: ast.expr) -> _Pieces:
    import ast  # noqa: PLC0415

    if isinstance(node, ast.FormattedValue):
        if node.conversion == -1 and node.format_spec is None:
            return _pieces(node.value) or [None]
        return [None]
    return _pieces(node) or []


def _pieces_of_operation(node: ast.BinOp) -> _Pieces | None:
    import ast  # noqa: PLC0415

    left = _pieces(node.left)
    if isinstance(node.op, ast.Mod):
        return None if left is None else _convert(left, _pieces_of_percent_format)
    if isinstance(node.op, ast.Add):
        right = _pieces(node.right)
        if left is None and right is None:
            return None
        return [*([None] if left is None else left), *([None] if right is None else right)]
    return None


def _convert(pieces: _Pieces, parse: Callable[[str], Iterator[str | None]]) -> _Pieces:
    """The constant text of *pieces*, itself read as a format."""
    converted: _Pieces = []
    for piece in _joined(pieces):
        if piece is None:
            converted.append(None)
        else:
            converted += parse(piece)
    return converted


def _joined(pieces: _Pieces) -> Iterator[str | None]:
    text = ""
    for piece in pieces:
        if piece is not None:
            text += piece
            continue
        if text:
            yield text
        text = ""
        yield None
    if text:
        yield text


def _pieces_of_percent_format(text: str) -> Iterator[str | None]:
    done = 0
    for match in _CONVERSION.finditer(text):
        if match["odd"] is not None:
            raise _Unreadable
        yield text[done : match.start()]
        yield "%" if match["percent"] else None
        done = match.end()
    yield text[done:]


def _pieces_of_brace_format(text: str) -> Iterator[str | None]:
    from string import Formatter  # noqa: PLC0415

    try:
        for constant, field, _, _ in Formatter().parse(text):
            yield constant
            if field is not None:
                yield None
    except ValueError as error:
        raise _Unreadable from error


def _is_healable(template: SourceTemplate) -> bool:
    return template.varies and template.has_words()


def _is_word(item: bytes) -> bool:
    return item != b"\x00" and any(byte >= 0x80 or chr(byte).isalpha() for byte in item)
