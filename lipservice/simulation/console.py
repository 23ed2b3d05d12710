"""
What a terminal can show: its width, its colours, the characters of its encoding.

`Console` writes to one stream. Colours only on a terminal, and never where NO_COLOR is set
(https://no-color.org) or TERM is "dumb"; characters that the encoding lacks are replaced by plain
ones, so that nothing fails under an ASCII locale.
"""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Mapping
from typing import Final, TextIO

_STYLES: Final = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
#: What to print where the encoding has no such character.
_PLAIN: Final = {
    "█": "#", "▉": "#", "▊": "#", "▋": "=", "▌": "=", "▍": "-", "▎": "-", "▏": "-",
    "░": ".", "─": "-", "·": "-", "…": "~",  "→": "->", "●": "*", "✓": "+", "±": "+-",
      "≈": "~", "€": "EUR", "\u202f": " ", "\xa0": " ", "▁": "_", "▂": "_",
    "▃": "-", "▄": "-", "▅": "=", "▆": "=", "▇": "#",
}  # fmt: skip
_NARROWEST: Final = 40
_WIDEST: Final = 200


class Console:
    """A text stream for people."""

    def __init__(self, stream: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        self._stream = stream
        self._encoding = getattr(stream, "encoding", None) or "ascii"
        #: Whether a person is likely to look on.
        self.terminal = _is_terminal(stream)
        self._colours = (
            self.terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        )
        columns = shutil.get_terminal_size((100, 24)).columns
        #: Columns to fill.
        self.width = max(_NARROWEST, min(columns, _WIDEST))

    def style(self, text: str, *names: str) -> str:
        """*text* in colour, where there are colours; names as in `_STYLES`."""
        if not self._colours or not names or not text:
            return text
        return f"\x1b[{';'.join(_STYLES[name] for name in names)}m{text}\x1b[0m"

    def line(self, text: str = "") -> None:
        """Write one line."""
        self._stream.write(self._printable(text) + "\n")

    def raw(self, text: str) -> None:
        """Write *text* as it is (cursor movements), and at once."""
        self._stream.write(self._printable(text))
        self._stream.flush()

    def _printable(self, text: str) -> str:
        try:
            text.encode(self._encoding)
        except (UnicodeEncodeError, LookupError):
            plain = "".join(_PLAIN.get(character, character) for character in text)
            return plain.encode(self._encoding, "replace").decode(self._encoding)
        return text


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def safe(text: str) -> str:
    """*text* without what could move the cursor or hide things: log lines are not to be trusted."""
    return "".join(
        character if character == " " or not _is_unsafe(character) else "\ufffd"
        for character in text
    )


def _is_unsafe(character: str) -> bool:
    # Cc and Cf: controls and format characters (escape sequences, bidirectional overrides).
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"}


def width_of(text: str) -> int:
    """Columns that *text* takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fit(text: str, width: int) -> str:
    """*text* cut or padded to exactly *width* columns."""
    if width_of(text) <= width:
        return text + " " * (width - width_of(text))
    shown = ""
    taken = 0
    for character in text:
        columns = _columns(character)
        if taken + columns > width - 1:
            break
        shown += character
        taken += columns
    return shown + "…" + " " * (width - 1 - taken)
