"""
What a line of source says of the messages that it logs.

    templates_at(lines, line)   the calls that begin in the line -> the templates of their strings
    template_of_expression      a syntax tree that builds a string -> its template

An f-string, `%`, `str.format` and `+` are all told as the percent format that would make the same
messages. The work is bounded, whatever the source: a file is never parsed as a whole, only the
arguments of the calls of one logical line, and the function around them where one is a name. Rule
of this module: every function is pure, and bad source means that there is no template.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Final, NamedTuple

from lipservice._syntax_trees import expression_of, module_of
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
    #: Of a template that is itself a percent format with arguments: the `%` in its constant text.
    #: -1: it makes finished messages.
    percents: int = -1

    def matches(self, message: str) -> bool:
        """
        Whether *message* is this template with any text for each variable.

        Of a template with `percents` no variable may hold a `%`, which could take an argument away.
        """
        _, varies, head, middles, tail, _, percents = self
        if not varies:
            return message == head
        if not message.startswith(head) or not message.endswith(tail):
            return False
        if percents >= 0 and message.count("%") != percents:
            return False
        at = len(head)
        end = len(message) - len(tail)
        if end < at:
            return False
        for middle in middles:
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


class Use(Enum):
    """What becomes of a string."""

    #: It is the message.
    MESSAGE = "message"
    #: It is a format in braces, of a message that is seen when it has been filled in.
    BRACES = "braces"
    #: It is a percent format, of a message that is seen when it has been filled in.
    FILLED = "filled"
    #: It is a percent format, and seen as it is.
    FORMAT = "format"


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

    def source_of(self, start: int, end: int) -> str:
        """A part of the text that was read, without escapes that the compiler would warn of."""
        pieces: list[str] = []
        for place in self._odd:
            if start <= place < end:
                pieces += self._text[start:place], "\\"
                start = place
        pieces.append(self._text[start:end])
        return "".join(pieces)

    def source(self) -> str:
        """
        All of the text, without escapes that the compiler would warn of.

        Raises:
            _Unreadable: A string does not end, or a number runs into a word.
        """
        at = 0
        while match := _TOKEN.match(self._text, at):
            at = match.end()
            if match.lastgroup == "quote":
                at = self._end_of_string(at, match["prefix"].lower(), match["quote"], 0)
            elif match.lastgroup == "word" and _runs_into_a_word(match[0]):
                raise _Unreadable
        return self.source_of(0, len(self._text))

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
                if _runs_into_a_word(word):
                    return
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
            if match.lastgroup == "word" and _runs_into_a_word(match[0]):
                raise _Unreadable
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


def _runs_into_a_word(word: str) -> bool:
    """`1if`, of which the compiler would warn."""
    return word[0].isdigit() and not _NUMBER.fullmatch(word)


def templates_at(
    lines: Sequence[str], line: int, *, braces: bool = False, percent: bool = False
) -> list[SourceTemplate] | None:
    """
    The templates of the strings that the calls of a line are given, each format once.

    Args:
        lines: The source.
        line: The line of the call as a frame has it, from 1.
        braces: Whether a string with arguments behind it is a format in braces.
        percent: Whether only strings with arguments behind them are asked for, which are percent
            formats then, and not filled in.

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
        is_filled_in = False  # by the arguments that are left
        for position, argument in enumerate(arguments):
            if argument.end - argument.start > _LONGEST_ARGUMENT:
                continue
            source = _message_of_argument(scanner.source_of(argument.start, argument.end))
            # A name is the message where it comes first, or behind a level.
            if argument.has_string or (source.isidentifier() and position <= 1):
                behind = [text[each.start : each.end] for each in arguments[position + 1 :]]
                uses = _uses(behind, braces=braces, percent=percent)
                templates = _templates_of(source, uses, lines, line)
                for each in templates:
                    if each.varies or not is_filled_in:
                        found.setdefault(each.format, each)
                is_filled_in |= Use.BRACES in uses and any(each.varies for each in templates)
    return list(found.values()) if any_call else None


def _uses(behind: Sequence[str], *, braces: bool, percent: bool) -> list[Use]:
    """What a string can be to its call, by the arguments behind it."""
    given = [each.strip() for each in behind if each.strip()]
    if braces:
        return [Use.BRACES if given else Use.MESSAGE]
    positional = any(
        not each.startswith("**") and not _KEYWORD_ARGUMENT.match(each) for each in given
    )
    if percent:
        return [Use.FORMAT] if positional else []
    return [Use.MESSAGE, Use.FILLED] if positional else [Use.MESSAGE]


def _message_of_argument(source: str) -> str:
    """The expression of an argument that can be a message; empty for others."""
    named = _KEYWORD_ARGUMENT.match(source)
    if named is None:
        return source.strip()
    return source[named.end() :].strip() if named[1] in _MESSAGE_KEYWORDS else ""


def _templates_of(
    source: str, uses: Sequence[Use], lines: Sequence[str], line: int
) -> list[SourceTemplate]:
    """Of each string that an expression can be; none, where one of them cannot be told."""
    if not uses:
        return []
    try:
        expression = expression_of(source)
    except (SyntaxError, ValueError):
        return []
    strings = strings_of(expression, lines, line)
    found: list[SourceTemplate] = []
    for use in uses:
        templates = [template_of_expression(each, use) for each in strings]
        known = [each for each in templates if each is not None]
        if len(known) == len(templates):
            # `"user %s in", name`: what is constant until it is filled in is no message.
            found = [*(each for each in found if each.varies), *known]
    return found


# --- what a name was given ------------------------------------------------------------------

_DEFINITION: Final = re.compile(r"\s*(?:async\s+)?def\b")
#: What a function is read of, to find what a name in it was given.
_MOST_LINES_OF_FUNCTION: Final = 300
_MOST_STRINGS: Final = 16


def strings_of(expression: ast.expr, lines: Sequence[str], line: int) -> list[ast.expr]:
    """
    The expressions of which one makes the value of *expression*.

    Both sides of a conditional; of a local name, all that its function assigns to it; else the
    expression itself. So `msg = f"..."` and `log.info(msg)` are told as `log.info(f"...")`.

    Args:
        expression: The syntax tree.
        lines: The source.
        line: Where the expression stands in it, from 1.
    """
    strings: list[ast.expr] = []
    for side in _sides(expression):
        given = _assigned(side.id, lines, line) if isinstance(side, ast.Name) else None
        strings += [side] if given is None else given
    return strings if len(strings) <= _MOST_STRINGS else [expression]


def _sides(expression: ast.expr) -> list[ast.expr]:
    if isinstance(expression, ast.NamedExpr):
        return _sides(expression.value)
    if isinstance(expression, ast.IfExp):
        return [*_sides(expression.body), *_sides(expression.orelse)]
    return [expression]


def _assigned(name: str, lines: Sequence[str], line: int) -> list[ast.expr] | None:
    """All that can be in a local variable of the function around a line; None: not known."""
    place = _place_of_function(lines, line)
    text = "\n".join(lines[place[0] : place[1]]) if place else ""
    # Most names are parameters: it takes no parser to see that nothing is assigned to them.
    if len(text) > _MOST_CHARACTERS or not re.search(rf"\b{name}\s*(:[^=\n]*)?=(?!=)", text):
        return None
    scope = _function_at(text, line - place[0]) if place else None
    if scope is None:
        return None
    values: list[ast.expr | None] = []
    plain: set[ast.AST] = set()
    for node in ast.walk(scope):
        if node is scope:
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            if any(_binds(each, name) for each in ast.walk(node)):
                return None  # two variables of one name
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            own = [each for each in targets if isinstance(each, ast.Name) and each.id == name]
            plain.update(own)
            values += [node.value] if own else []
        elif node not in plain and _binds(node, name):
            return None
    return [side for value in values if value is not None for side in _sides(value)] or None


def _binds(node: ast.AST, name: str) -> bool:
    """Whether a node binds a name by itself: a target, a parameter, an import, `except ... as`."""
    if isinstance(node, ast.Name):
        return node.id == name and not isinstance(node.ctx, ast.Load)
    if isinstance(node, (ast.Constant, ast.Attribute, ast.keyword)):
        return False
    fields = [value for _, value in ast.iter_fields(node)]
    return name in fields or any(isinstance(each, list) and name in each for each in fields)


def _function_at(text: str, line: int) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The innermost function that a line belongs to, of a text that is one function."""
    try:
        source = _Scanner(text).source() + "\n"
        if source[0].isspace():  # a method, say
            source, line = f"if 1:\n{source}", line + 1
        tree = module_of(source)
    except (SyntaxError, ValueError, _Unreadable):
        return None
    return max(
        (
            node
            for node in ast.walk(tree)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            and node.lineno < line <= (node.end_lineno or 0)
        ),
        key=lambda node: node.lineno,
        default=None,
    )


def _place_of_function(lines: Sequence[str], line: int) -> tuple[int, int] | None:
    """Where the function around a line begins and ends, by its indentation; from 0."""
    least = _indent_of(lines[line - 1])
    for start in range(line - 2, max(line - 2 - _MOST_LINES_OF_FUNCTION, -1), -1):
        indent = _indent_of(lines[start])
        if indent < least:
            least = indent
            if _DEFINITION.match(lines[start]):
                break
    else:
        return None
    last = start + _MOST_LINES_OF_FUNCTION
    for end in range(line, min(last, len(lines))):
        if _indent_of(lines[end]) <= least:
            return start, end
    return (start, len(lines)) if last >= len(lines) else None


def _indent_of(text: str) -> int:
    """Of a line that may begin a statement; else more than any."""
    stripped = text.lstrip()
    return len(text) - len(stripped) if stripped and stripped[0] not in "#)]}" else 1_000_000


# --- from an expression to its template -----------------------------------------------------

#: Constant text, and None for each variable.
_Pieces = list["str | None"]

_CONVERSION: Final = re.compile(
    r"%(?:(?P<percent>%)|(?:\([^()]*\))?[-+ #0]*(?:\*|[1-9][0-9]*)?(?:\.(?:\*|[0-9]*))?[hlL]?"
    r"[diouxXcrsaeEfFgG]|(?P<odd>))"
)


def template_of_expression(expression: ast.expr, use: Use = Use.MESSAGE) -> SourceTemplate | None:
    """
    The template of an expression that builds a string; None if it does not, or not in one way.

    f-strings, `%`, `str.format`, `+`, and mixtures of them. What is not constant is a variable.

    Args:
        expression: The syntax tree.
        use: What becomes of the string.
    """
    try:
        pieces = _pieces(expression)
        if pieces is None:
            return None
        if use is Use.BRACES:
            pieces = _convert(pieces, _pieces_of_brace_format)
        filled = pieces
        if use in {Use.FILLED, Use.FORMAT}:
            filled = _convert(pieces, _pieces_of_percent_format)
        if use is Use.FILLED:
            pieces = filled
    except _Unreadable:
        return None
    constants = [""]
    for piece in pieces:
        if piece is None:
            constants.append("")
        else:
            constants[-1] += piece
    head, *middles = constants
    tail = middles.pop() if middles else ""
    return SourceTemplate(
        "".join("%s" if piece is None else piece.replace("%", "%%") for piece in filled),
        varies=len(constants) > 1,
        head=head,
        middles=tuple(filter(None, middles)),
        tail=tail,
        passes_message=_passes_message(expression),
        percents="".join(constants).count("%") if use is Use.FORMAT else -1,
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
