"""
Text from logs, for people: it was written by strangers, and may be meant to deceive.

Nothing here makes HTML: a text is split into pieces, and the template shows each as escaped text in
its own element. Characters that are invisible, that move the cursor or that turn the direction of
reading are shown by their code point.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

_VARIABLE: Final = "<*>"
#: Categories of Unicode whose characters cannot be seen: control, format, surrogate, private,
#: unassigned, line and paragraph separators.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class Piece(NamedTuple):
    """A part of a text."""

    #: "text", "variable" or "hidden" (its text is the code point's name then).
    kind: str
    text: str


def pieces(text: str, most: int = 4_096) -> list[Piece]:
    """A template in pieces, its variables and hidden characters apart; cut to *most* characters."""
    found: list[Piece] = []
    shown = text if len(text) <= most else text[:most] + "…"
    for number, part in enumerate(shown.split(_VARIABLE)):
        if number:
            found.append(Piece("variable", _VARIABLE))
        found.extend(_split_hidden(part))
    return found


def plain(text: str, most: int = 4_096) -> str:
    """A text for an attribute or a list of choices, with hidden characters made visible."""
    return "".join(
        f"[{piece.text}]" if piece.kind == "hidden" else piece.text for piece in pieces(text, most)
    )


def as_text(value: object) -> str:
    """A value out of JSON as text, its numbers in four digits; text itself as it is."""
    return value if isinstance(value, str) else json.dumps(_rounded(value), ensure_ascii=False)


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return value


def _split_hidden(text: str) -> Iterator[Piece]:
    if text.isascii() and text.isprintable():
        if text:
            yield Piece("text", text)
        return
    run: list[str] = []
    for character in text:
        if unicodedata.category(character) in _UNSEEN:
            if run:
                yield Piece("text", "".join(run))
                run = []
            yield Piece("hidden", f"U+{ord(character):04X}")
        else:
            run.append(character)
    if run:
        yield Piece("text", "".join(run))


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "pieces": pieces,
    "plain": plain,
    "as_text": as_text,
}
