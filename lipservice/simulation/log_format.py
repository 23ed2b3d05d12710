"""
A line format from a format string of Python's logging, for logs that no guess gets right.

    --log-format '%(asctime)s %(levelname)s %(name)s %(message)s'

Both styles that `logging.Formatter` knows are read, `%(name)s` and `{name}`.
"""

from __future__ import annotations

import re
from typing import Final

from lipservice.exceptions import ConfigurationError
from lipservice.simulation.formats import ANY_TIME, LineFormat
from lipservice.simulation.levels import ANY_LEVEL

_PERCENT: Final = re.compile(r"%\((\w+)\)([-+ #0]*)(\d*)(?:\.\d+)?[a-zA-Z]|(%%)")
_BRACE: Final = re.compile(r"\{(\w+)(?:![rsa])?(?::([^}]*))?\}|(\{\{|\}\})")
_NUMBERS: Final = frozenset(
    {"process", "thread", "lineno", "levelno", "msecs", "created", "relativeCreated"}
)


def read_log_format(text: str) -> LineFormat:
    """
    The line format of *text*, which is a format string of `logging.Formatter`.

    Raises:
        ConfigurationError: it has no message, or a field twice.
    """
    field = _PERCENT if "%(" in text else _BRACE
    pattern, position, seen = "", 0, set()
    for match in field.finditer(text):
        pattern += re.escape(text[position : match.start()])
        position = match.end()
        name = match[1]
        if name is None:
            pattern += re.escape(match[0][0])
            continue
        if name in {"asctime", "levelname", "message"} and name in seen:
            raise ConfigurationError(f"--log-format has {name} more than once")
        seen.add(name)
        pattern += (
            rf"\s*{_expression(name)}\s*"
            if match[0][1:-1].rstrip("s") != name
            else _expression(name)
        )
    pattern += re.escape(text[position:])
    if "message" not in seen:
        raise ConfigurationError(
            "--log-format needs the message: for example "
            "'%(asctime)s %(levelname)s %(name)s %(message)s'"
        )
    return LineFormat("--log-format", "", pattern + "$", yearless=True)


def _expression(name: str) -> str:
    if name == "message":
        return r"(?P<message>.*?)"
    if name == "asctime":
        return ANY_TIME
    if name == "levelname":
        return f"(?P<level>{ANY_LEVEL}|[A-Z]\\w*)"
    return r"-?\d+(?:\.\d+)?" if name in _NUMBERS else r".{0,200}?"
