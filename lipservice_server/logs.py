"""The server's own log: one line a record on stderr, control characters made visible."""

from __future__ import annotations

import logging
import re
from typing import Final

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class _OneLine(logging.Formatter):
    """No text from outside can end a line of the log or steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def visible(text: str) -> str:
    """*text* with its control characters, all but line ends, as escapes."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def set_up_logging(level: str) -> None:
    """Send the package's records to stderr, once."""
    logger = logging.getLogger("lipservice_server")
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
