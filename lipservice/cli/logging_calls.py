"""
Logging calls in Python sources, found without running them.

    python_files(paths) -> find_calls(path) -> LoggingCall, for each call of a logger

What is a logger is told by its name and by how the file made it. Whether a call is healed at run
time is not guessed: the analysis of `lipservice.call_sites` is asked.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from string import Formatter
from typing import Final, NamedTuple

from lipservice import call_sites
from lipservice.exceptions import ConfigurationError
from lipservice.source_templates import (
    SourceTemplate,
    Use,
    split_percent_format,
    strings_of,
    template_of_expression,
    templates_at,
)

CONSTANT: Final = "constant"
ARGUMENTS: Final = "arguments"
F_STRING: Final = "f-string"
PERCENT: Final = "% operator"
FORMAT: Final = "str.format"
CONCATENATION: Final = "concatenation"
OTHER: Final = "other"
#: Kinds of calls whose message the application formats itself.
SELF_FORMATTED: Final = (F_STRING, PERCENT, FORMAT, CONCATENATION)

_METHODS: Final = frozenset(
    ["debug", "info", "success", "warning", "warn", "error", "critical", "exception", "fatal"]
) | {"log", "msg", "trace"}
_METHODS_WITH_LEVEL: Final = frozenset({"log", "alog"})
_FIRST_WORD: Final = frozenset({"log", "logger", "logging"})
_MAKERS: Final = frozenset({"getLogger", "get_logger", "getChild", "Logger", "get_task_logger"})
_LIBRARIES: Final = frozenset({"logging", "loguru", "structlog"})
_MESSAGE_NAMES: Final = ("msg", "event", "message", "text")
#: Folders that hold other people's code, or none.
_SKIPPED: Final = frozenset(
    ["__pycache__", "node_modules", "site-packages", "dist-packages", "build", "dist"]
) | {"venv", "env", "virtualenv"}
_LARGEST_FILE: Final = 16 * 1024 * 1024
# Calls whose value is a number, and the ends of format specs that take one.
_NUMBERS: Final = frozenset(["len", "int", "float", "round", "sum", "abs", "hash", "id", "ord"])
_NUMBER_SPEC: Final = re.compile(r"[bcdeEfFgGnoxX%,_]|[diouxXeEfFgGc]")
_SIMPLE_SPEC: Final = re.compile(r"(0?)([<>]?)([0-9]*)(\.[0-9]+)?([sdoxXeEfFgG]?)")


class Variable(NamedTuple):
    """What a template leaves open."""

    #: Its expression, as source.
    source: str
    #: Conversion of a percent format that does the same: `%s`, `%5.2f`.
    conversion: str
    #: Whether it can be a word: it is not known to be a number.
    word: bool


class LoggingCall(NamedTuple):
    """One logging call of a source."""

    path: str
    #: The line that its records name, from 1.
    line: int
    method: str
    kind: str
    #: The equivalent template; None where the message is not a string-building expression.
    template: SourceTemplate | None
    variables: tuple[Variable, ...]
    #: Why it is not healed at run time; "" where it is. Of `SELF_FORMATTED` kinds only.
    reason: str
    #: The same call with the values as arguments; "" where that cannot be told.
    replacement: str
    #: Whether the logger formats `{}` itself (loguru).
    braces: bool
    #: Whether the logger fills in the message, a percent format, with arguments.
    percent: bool
    #: Where the method's name ends in its line, in bytes.
    column: int

    @property
    def place(self) -> tuple[str, int, int]:
        """What tells calls apart: one that may log several messages is here once for each."""
        return (self.path, self.line, self.column)

    @property
    def words(self) -> int:
        """Variables that can be words, each of which makes a pattern of its own."""
        return sum(variable.word for variable in self.variables)


# --- files ----------------------------------------------------------------------------------


def python_files(paths: Iterable[str], *, tests: bool = True) -> list[str]:
    """
    The Python sources that *paths* name: files, and all below folders.

    Virtual environments, hidden folders and what others wrote (`site-packages`, `node_modules`)
    are passed over, and each file and folder is visited once, whatever links to it.

    Args:
        paths: Files and folders.
        tests: Whether folders and files of tests count.

    Raises:
        ConfigurationError: There is no such path, or no Python file below any.
    """
    names, seen = list(paths), set[tuple[int, int]]()
    found: list[Path] = []
    for name in names:
        path = Path(name)
        try:
            is_folder = path.is_dir()
            path.stat()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError(f"cannot read {name}: {reason}") from error
        found += _below(path, seen, tests=tests) if is_folder else [path]
    if not found:
        raise ConfigurationError(f"there is no Python file in {', '.join(names)}")
    return [str(path) for path in found]


def _below(folder: Path, seen: set[tuple[int, int]], *, tests: bool) -> Iterator[Path]:
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            continue  # not ours to read
        if any(entry.name == "pyvenv.cfg" for entry in entries):
            continue
        folders = []
        for entry in entries:
            if not tests and _is_test(entry.name):
                continue
            try:
                state = entry.stat()
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError:
                continue
            if not _is_new(state, seen):
                continue
            if is_folder and not entry.name.startswith(".") and entry.name not in _SKIPPED:
                folders.append(Path(entry.path))
            elif is_file and entry.name.endswith(".py"):
                yield Path(entry.path)
        waiting += reversed(folders)


def _is_new(state: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    place = (state.st_dev, state.st_ino)
    if place in seen:
        return False
    seen.add(place)
    return True


def _is_test(name: str) -> bool:
    return name in {"test", "tests", "testing", "conftest.py"} or (
        name.endswith(".py") and (name.startswith("test_") or name.endswith("_test.py"))
    )


def read_source(path: str) -> list[str]:
    """
    The lines of a source file.

    Raises:
        ConfigurationError: It cannot be read or decoded; the message says why.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise ConfigurationError(f"cannot read {path}: it is larger than 16 MiB")
        return call_sites.decoded(data).split("\n")
    except (OSError, SyntaxError, UnicodeError, LookupError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "msg", None) or error
        raise ConfigurationError(f"cannot read {path}: {reason}") from error


# --- calls ----------------------------------------------------------------------------------


def find_calls(path: str, lines: Sequence[str]) -> list[LoggingCall]:
    """
    The logging calls of a source file, in its order.

    Args:
        path: The name to give the file.
        lines: Its lines, without their ends.

    Raises:
        ConfigurationError: It is not Python of the version that runs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes and comparisons that are not ours
            tree = ast.parse("\n".join(lines))
        loggers = _Loggers(tree)
        calls = [
            each
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and (method := loggers.method_of(node)) is not None
            if (message := _message_of(node, method)) is not None
            for each in _describe(
                path, lines, node, method, message, braces=loggers.formats_braces(node)
            )
        ]
    except SyntaxError as error:
        raise ConfigurationError(
            f"cannot parse {path}, line {error.lineno}, as Python"
            f" {sys.version_info.major}.{sys.version_info.minor}: {error.msg}"
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ConfigurationError(f"cannot parse {path}: {error}") from error
    return sorted(calls, key=lambda call: call.line)


class _Loggers:
    """Which expressions of a file are loggers."""

    def __init__(self, tree: ast.Module) -> None:
        #: Names bound to loggers or logging libraries, and whether they format braces.
        self._names: dict[str, bool] = {}
        #: Names bound to logging functions: `from logging import info`.
        self._functions: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name in _LIBRARIES:
                        self._names[alias.asname or alias.name] = alias.name == "loguru"
            elif isinstance(node, ast.ImportFrom) and node.module in _LIBRARIES:
                for alias in node.names:
                    if node.module == "loguru" and alias.name == "logger":
                        self._names[alias.asname or alias.name] = True
                    elif alias.name in _METHODS and node.module == "logging":
                        self._functions[alias.asname or alias.name] = alias.name
            elif isinstance(node, ast.Assign) and _makes_logger(node.value):
                for target in node.targets:
                    if name := _last_name(target):
                        self._names.setdefault(name, False)

    def method_of(self, call: ast.Call) -> str | None:
        """The method of a logger that *call* calls; None if it calls none."""
        function = call.func
        if isinstance(function, ast.Name):
            return self._functions.get(function.id)
        if not isinstance(function, ast.Attribute):
            return None
        method = function.attr
        if method not in _METHODS and not (method[:1] == "a" and method[1:] in _METHODS):
            return None
        return method if self._is_logger(function.value) else None

    def formats_braces(self, call: ast.Call) -> bool:
        """Whether the logger of *call* formats `{}` itself."""
        node = call.func
        while True:
            if isinstance(node, ast.Attribute):
                node = node.value
            elif isinstance(node, ast.Call):
                node = node.func
            else:
                return isinstance(node, ast.Name) and self._names.get(node.id, False)

    def _is_logger(self, node: ast.expr) -> bool:
        while isinstance(node, ast.Call):
            if _makes_logger(node):
                return True
            # logger.bind(...), logger.opt(...): what a logger's method gives is one too.
            if not isinstance(node.func, ast.Attribute):
                return False
            node = node.func.value
        name = _last_name(node)
        return name is not None and (name in self._names or _sounds_like_logger(name))


def _makes_logger(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and _last_name(node.func) in _MAKERS


def _last_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None


def _sounds_like_logger(name: str) -> bool:
    """`logger`, `LOG`, `self._log`, `access_log`, `auditLogger`; but not `dialog`."""
    lower = name.lower().strip("_")
    return (
        lower.rpartition("_")[2] in _FIRST_WORD or lower.endswith("logger") or name.endswith("Log")
    )


def _message_of(call: ast.Call, method: str) -> ast.expr | None:
    """The expression of the message; None where the call has none."""
    position = 1 if method in _METHODS_WITH_LEVEL and len(call.args) > 1 else 0
    if len(call.args) > position and not isinstance(call.args[position], ast.Starred):
        return call.args[position]
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    return next((named[name] for name in _MESSAGE_NAMES if name in named), None)


def _describe(
    path: str,
    lines: Sequence[str],
    call: ast.Call,
    method: str,
    message: ast.expr,
    *,
    braces: bool,
) -> Iterator[LoggingCall]:
    """A call; once for each message that it may log, where all of them are known."""
    more = _arguments_behind(call, message, braces=braces)
    line = _line_of(call)
    strings: list[ast.expr] = strings_of(message, lines, line)
    templates = [_template_of(string, braces=braces, more=more) for string in strings]
    if None in templates:
        strings, templates = [message], [None]
    column = call.func.end_col_offset or 0
    for string, template in zip(strings, templates, strict=True):
        kind = OTHER if template is None else _kind_of(string, more=more)
        pieces = _rewritten(string) if kind in SELF_FORMATTED else None
        variables = tuple(each for each in pieces or () if isinstance(each, Variable))
        reason = replacement = ""
        if template is not None and kind in SELF_FORMATTED:
            reason = _why_not_healed(lines, line, template, braces=braces, more=more)
            if pieces is not None and not more and string is message:
                replacement = _replacement(call, message, pieces, braces=braces)
        yield LoggingCall(
            path,
            line,
            method,
            kind,
            template,
            variables,
            reason,
            replacement,
            braces,
            more and not braces,
            column,
        )


def _template_of(string: ast.expr, *, braces: bool, more: bool) -> SourceTemplate | None:
    if not more:
        return template_of_expression(string)
    if braces:
        return template_of_expression(string, Use.BRACES)
    # Where the format is malformed, the logger's `%` is to no effect.
    return template_of_expression(string, Use.FILLED) or template_of_expression(string)


def _arguments_behind(call: ast.Call, message: ast.expr, *, braces: bool) -> bool:
    """Whether the message is a format string with arguments of its own."""
    if message not in call.args:
        return False
    return call.args.index(message) + 1 < len(call.args) or (braces and bool(call.keywords))


def _kind_of(message: ast.expr, *, more: bool) -> str:
    template = template_of_expression(message)
    if template is None or not template.varies:
        return ARGUMENTS if more else CONSTANT
    if isinstance(message, ast.Call):
        return FORMAT
    if isinstance(message, ast.JoinedStr):
        return F_STRING
    if isinstance(message, ast.BinOp) and isinstance(message.op, ast.Mod):
        return PERCENT
    return CONCATENATION


def _line_of(call: ast.Call) -> int:
    """The line that CPython gives the frame: that of the method's name."""
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.end_lineno or function.lineno
    return call.lineno


def _why_not_healed(
    lines: Sequence[str], line: int, template: SourceTemplate, *, braces: bool, more: bool
) -> str:
    if not template.has_words():
        return call_sites.NO_WORDS
    if template.is_wrapper:
        return call_sites.WRAPPER
    found = templates_at(lines, line, braces=braces, percent=more and not braces)
    if found is None:
        return call_sites.NO_CALL
    typical = next((each.message("x") for each in found if each.format == template.format), None)
    if typical is None:
        return call_sites.NO_TEMPLATE
    if sum(each.matches(typical) for each in found) > 1:
        return call_sites.AMBIGUOUS
    return ""


# --- the same call with arguments -----------------------------------------------------------


def _rewritten(node: ast.expr) -> list[str | Variable] | None:
    """Constant text and variables of a string-building expression; None if it cannot be told."""
    if isinstance(node, ast.NamedExpr):
        return None  # the name would be lost
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return _rewritten_f_string(node)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _rewritten(node.left), _rewritten(node.right)
        if left is None and right is None:
            return None
        return [
            *([_variable_of(node.left)] if left is None else left),
            *([_variable_of(node.right)] if right is None else right),
        ]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        return _rewritten_percent(node)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _rewritten_format(node, node.func) if node.func.attr == "format" else None
    return None


def _rewritten_f_string(node: ast.JoinedStr) -> list[str | Variable] | None:
    pieces: list[str | Variable] = []
    for value in node.values:
        if isinstance(value, ast.FormattedValue):
            spec = _constant_spec(value.format_spec)
            inner = _rewritten(value.value) if not spec and value.conversion == -1 else None
            if inner is None:
                inner = [_variable(value.value, _letter(value.conversion), spec)]
            pieces += inner
        else:
            pieces += _rewritten(value) or []
    return pieces


def _letter(conversion: int) -> str:
    return chr(conversion) if conversion >= 0 else ""


def _constant_spec(spec: ast.expr | None) -> str | None:
    """The text of a format spec; None where it has variables itself."""
    if spec is None:
        return ""
    values = spec.values if isinstance(spec, ast.JoinedStr) else [spec]
    if not all(isinstance(each, ast.Constant) for each in values):
        return None
    return "".join(str(each.value) for each in values if isinstance(each, ast.Constant))


def _rewritten_percent(node: ast.BinOp) -> list[str | Variable] | None:
    if not (isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)):
        return None
    pieces: list[str | Variable] = []
    values: list[ast.expr] = (
        list(node.right.elts) if isinstance(node.right, ast.Tuple) else [node.right]
    )
    if any(isinstance(value, ast.Starred) for value in values):
        return None
    for part in split_percent_format(node.left.value):
        if not part.startswith("%") or part == "%":
            pieces.append(part)
        elif part.startswith("%(") or "*" in part or not values:
            return None
        else:
            value = values.pop(0)
            pieces.append(
                Variable(ast.unparse(value), part, _is_word(value, part[-1]))
                if part[-1] != "s"
                else _variable_of(value)._replace(conversion=part)
            )
    return None if values else pieces


def _rewritten_format(node: ast.Call, function: ast.Attribute) -> list[str | Variable] | None:
    text = function.value
    if not (isinstance(text, ast.Constant) and isinstance(text.value, str)):
        return None
    if any(isinstance(each, ast.Starred) for each in node.args) or any(
        keyword.arg is None for keyword in node.keywords
    ):
        return None
    named = {keyword.arg: keyword.value for keyword in node.keywords}
    pieces: list[str | Variable] = []
    automatic = 0
    for constant, field, spec, conversion in Formatter().parse(text.value):
        pieces.append(constant)
        if field is None:
            continue
        name = re.split(r"[.\[]", field, maxsplit=1)[0]
        value = named.get(name)
        if name == "" or name.isdigit():
            at = int(name) if name else automatic
            automatic += not name
            value = node.args[at] if at < len(node.args) else None
        if value is None or "{" in (spec or ""):
            return None
        value = _looked_up(value, field[len(name) :])
        pieces.append(_variable(value, conversion or "", spec or ""))
    return pieces


def _looked_up(value: ast.expr, rest: str) -> ast.expr:
    """`.name` and `[key]` of a replacement field."""
    for name, key in re.findall(r"\.([^.\[]+)|\[([^\]]*)\]", rest):
        if name:
            value = ast.Attribute(value, name, ast.Load())
        else:
            index = ast.Constant(int(key) if key.isdigit() else key)
            value = ast.Subscript(value, index, ast.Load())
    return value


def _variable_of(value: ast.expr) -> Variable:
    """A variable without conversion; `str(x)` is `x`, since a logger calls it."""
    if (
        isinstance(value, ast.Call)
        and isinstance(value.func, ast.Name)
        and value.func.id in {"str", "repr"}
        and len(value.args) == 1
        and not value.keywords
        and not isinstance(value.args[0], ast.Starred)
    ):
        return _variable(value.args[0], "r" if value.func.id == "repr" else "", "")
    return _variable(value, "", "")


def _variable(value: ast.expr, conversion: str, spec: str | None) -> Variable:
    source = ast.unparse(value)
    word = _is_word(value, "" if conversion else (spec or "")[-1:])
    if not spec and spec is not None:
        return Variable(source, f"%{conversion or 's'}", word)
    simple = _SIMPLE_SPEC.fullmatch(spec) if spec is not None and not conversion else None
    if simple is None or (simple[1] and simple[2]):
        shown = f"{{{source}{'!' + conversion if conversion else ''}:{spec or '...'}}}"
        if spec is None:
            return Variable("", f"%s{shown}", word)
        called = {"r": "repr", "s": "str", "a": "ascii"}.get(conversion)
        inner = f"{called}({source})" if called else source
        return Variable(f"format({inner}, {spec!r})", "%s", word)
    zero, align, width, precision, letter = simple.groups(default="")
    # Without an alignment a number stands at the right, a text at the left.
    side = "-" if width and (align == "<" or (not align and letter in {"", "s"})) else ""
    return Variable(source, f"%{zero}{side}{width}{precision}{letter or 's'}", word)


def _is_word(value: ast.expr, letter: str) -> bool:
    if letter and _NUMBER_SPEC.fullmatch(letter):
        return False
    if isinstance(value, ast.Call):
        return _last_name(value.func) not in _NUMBERS
    if isinstance(value, ast.Constant):
        return isinstance(value.value, str)
    return True


def _replacement(
    call: ast.Call, message: ast.expr, pieces: Sequence[str | Variable], *, braces: bool
) -> str:
    variables = [piece for piece in pieces if isinstance(piece, Variable)]
    if any(not variable.source for variable in variables):
        return ""
    text = "".join(_written(piece, braces=braces) for piece in pieces)
    new: list[str] = []
    for argument in call.args:
        if argument is message:
            new += _literal(text), *(variable.source for variable in variables)
        else:
            new.append(ast.unparse(argument))
    for keyword in call.keywords:
        if keyword.value is message:
            new[:0] = [_literal(text), *(variable.source for variable in variables)]
        else:
            new.append(ast.unparse(keyword))
    return f"{ast.unparse(call.func)}({', '.join(new)})"


def _written(piece: str | Variable, *, braces: bool) -> str:
    if isinstance(piece, str):
        return piece.replace("{", "{{").replace("}", "}}") if braces else piece.replace("%", "%%")
    if not braces:
        return piece.conversion
    return {"%s": "{}", "%r": "{!r}", "%a": "{!a}"}.get(
        piece.conversion, "{:" + piece.conversion[1:].replace("-", "<") + "}"
    )


def _literal(text: str) -> str:
    """As a string literal in double quotes, where that needs no more escapes."""
    written = repr(text)
    if written[0] == "'" and '"' not in text:
        return f'"{written[1:-1]}"'
    return written
