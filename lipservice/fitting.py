"""
Which templates a finished message fits, where it does not have the signature of one.

An argument that is a plain word (`user eve logged in`) is a constant of the message and a variable
of the format string, so the message's own signature is not its pattern's (`user <*> logged in`).
Rule of this module: every function is pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

from lipservice.signature import fold, key_of_folded

VARIABLE: Final = "<*>"
#: Seconds without a record after which a pattern may have been replaced by another one that its
#: messages fit: it stems from the time before its call site was looked at.
REPLACED_AFTER: Final = 60.0

_Candidate = TypeVar("_Candidate")
_HOLE: Final = b"\x00"


def key_of_message(message: str) -> bytes:
    """LSIG-1 key of a message."""
    return key_of_folded(fold(message))


def key_of_template(template: str) -> bytes:
    """
    LSIG-1 key of a template; `signature_of_key` of it is the pattern's, unless it was cut off.

    The inverse of `template_of_key`: a message's own `<*>` is never in a template, as `<` and `>`
    separate its items.
    """
    return b" " + template.encode("utf-8", "replace").replace(VARIABLE.encode(), _HOLE)


def message_of(template: str) -> str:
    """A message that has this template, with numbers for its variables."""
    return template.replace(VARIABLE, "0")


def most_literal(candidates: Iterable[tuple[_Candidate, bytes]], key: bytes) -> list[_Candidate]:
    """
    Of candidates, each with its key, those that *key* fits, with anything for their variables.

    Of several, those with the most constants: more than one only where they have equally much.
    """
    items = key.split(b" ")
    found: list[_Candidate] = []
    most = 1
    for candidate, pattern in candidates:
        literal = len(pattern) - pattern.count(_HOLE)
        if literal >= most and _fits(pattern.split(b" "), items):
            if literal > most:
                found.clear()
            most = literal
            found.append(candidate)
    return found


def _fits(pattern: list[bytes], items: list[bytes]) -> bool:
    """Whether *items* are those of *pattern*, one or more of them for each variable."""
    if len(items) < len(pattern):
        return False
    at = {0}  # where the items may stand that come next
    for part in pattern:
        if part == _HOLE:
            at = set(range(min(at) + 1, len(items) + 1))
        else:
            at = {i + 1 for i in at if i < len(items) and items[i] == part}
        if not at:
            return False
    return len(items) in at
