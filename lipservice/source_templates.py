"""
What a line of source says of the messages that it logs.

    templates_at(lines, line)   the calls that begin in the line -> the templates of their strings
    template_of_expression      a syntax tree that builds a string -> its template

An f-string, `%`, `str.format` and `+` are all told as the percent format that would make the same
messages. The work is bounded, whatever the source: a file is never parsed as a whole, only the
arguments of the calls of one logical line. Rule of this module: every function is pure, and
bad source means that there is no template.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from lipservice._syntax_trees import expression_of
from lipservice.signature import (
    fold,
    key_of_folded,
    percent_format_to_message,
    template_of_key,
)

# What is read of a source from the line of a call on.
_MOST_LINES: Final = 60
_MOST_CHARACTERS: Final = 16_384
_MOST_TOKENS: Final = 2_000
_LONGEST_ARGUMENT: Final = 4_096
_DEEPEST_STRING: Final = 6
#: Names of variables that hold the message of another statement.
_NAMES_OF_MESSAGES: Final = frozenset({"msg", "message", "text", "log_msg", "log_message"})
#: Constant words from which on a template that passes a message on names a statement itself.
_LEAST_WORDS_OF_WRAPPER: Final = 3


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
    #: Whether a variable is another statement's message, by its name: the call is a wrapper's.
    passes_message: bool = False

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

    def message(self, value: str) -> str:
        """A message of this template, *value* standing for the variables."""
        if not self.varies:
            return self.head
        return value.join([self.head, *self.middles, self.tail])

    @property
    def is_healable(self) -> bool:
        """Whether messages may be counted under it: it varies, and names one statement."""
        return self.varies and self.has_words() and not self.is_wrapper

    @property
    def is_wrapper(self) -> bool:
        """
        Whether it only adds to the messages of other statements: `f"[{name}] {msg}"`.

        It begins with a variable, or has hardly a word of its own. As one pattern it would hide
        the statements whose messages it passes on.
        """
        return self.passes_message and (not self.head or self._words() < _LEAST_WORDS_OF_WRAPPER)

    def has_words(self) -> bool:
        """Whether a constant token with a letter is left, so that it names one statement."""
        return self._words() > 0

    def _words(self) -> int:
        key = key_of_folded(fold(percent_format_to_message(self.format)))
        return sum(map(_is_word, key.split()))


def template_of_format(format_string: str) -> str:
    """The template that people see for a percent format."""
    return template_of_key(key_of_folded(fold(percent_format_to_message(format_string))))


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
    named = _KEYWORD_ARGUMENT.match(source)
    if named is not None:
        if named[1] not in _MESSAGE_KEYWORDS:
            return None
        source = source[named.end() :]
    try:
        return template_of_expression(expression_of(source), braces=braces)
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
    if pieces is None:
        return None
    return _template_of_pieces(pieces)._replace(passes_message=_passes_message(expression))


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


def _passes_message(node: ast.expr) -> bool:
    """Whether a variable of a string-building expression has the name of a message."""
    if isinstance(node, ast.Name):
        return node.id in _NAMES_OF_MESSAGES
    parts: Sequence[ast.expr] = ()
    if isinstance(node, ast.JoinedStr):
        parts = node.values
    elif isinstance(node, (ast.FormattedValue, ast.NamedExpr)):
        parts = [node.value]
    elif isinstance(node, ast.BinOp):
        parts = [node.left, node.right]
    elif isinstance(node, ast.Tuple):
        parts = node.elts
    elif isinstance(node, ast.Dict):
        parts = node.values
    elif isinstance(node, ast.Call) and (
        (isinstance(node.func, ast.Attribute) and node.func.attr == "format")
        or (isinstance(node.func, ast.Name) and node.func.id in {"str", "repr"})
    ):
        parts = [*node.args, *(argument.value for argument in node.keywords)]
    return any(map(_passes_message, parts))


def _pieces(node: ast.expr) -> _Pieces | None:
    """Pieces of a string; None where the expression is not known to build one."""
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
    if isinstance(node, ast.FormattedValue):
        if node.conversion == -1 and node.format_spec is None:
            return _pieces(node.value) or [None]
        return [None]
    return _pieces(node) or []


def _pieces_of_operation(node: ast.BinOp) -> _Pieces | None:
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
    for part in split_percent_format(text):
        yield None if part.startswith("%") and part != "%" else part


def split_percent_format(text: str) -> list[str]:
    """
    Constant text and conversions (`%-5s`, `%(name)d`) of a percent format, in order.

    Each `%%` is a part of its own, "%". A part that begins with "%" and goes on is a conversion.
    """
    parts: list[str] = []
    done = 0
    for match in _CONVERSION.finditer(text):
        if match["odd"] is not None:
            raise _Unreadable
        parts += text[done : match.start()], "%" if match["percent"] else match[0]
        done = match.end()
    return [*filter(None, parts), *filter(None, [text[done:]])]


def _pieces_of_brace_format(text: str) -> Iterator[str | None]:
    from string import Formatter  # noqa: PLC0415

    try:
        for constant, field, _, _ in Formatter().parse(text):
            yield constant
            if field is not None:
                yield None
    except ValueError as error:
        raise _Unreadable from error


def _is_word(item: bytes) -> bool:
    return item != b"\x00" and any(byte >= 0x80 or chr(byte).isalpha() for byte in item)
