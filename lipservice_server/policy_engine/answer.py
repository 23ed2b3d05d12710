"""
Reads a model's answer, believing nothing: what comes out is bounded whatever went in.

Structured output promises a shape, and only where the endpoint keeps its promise; so everything
is checked again here. An answer that is not of the schema is refused whole; an entry that is
wrong is left out, and its pattern keeps the built-in weight.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeGuard

from lipservice_server.policy_engine.model import Clamp
from lipservice_server.policy_engine.prompt import HIGHEST, LOWEST, MIDDLE
from lipservice_server.policy_engine.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: By how much a model may multiply or divide a built-in weight, at most.
MOST_FACTOR: Final = 2.0 ** (HIGHEST - MIDDLE)

_MAX_ANSWER: Final = 400_000
_MAX_REASON: Final = 160
_MAX_SUMMARY: Final = 500
_MAX_SAID: Final = 60
_MAX_CLAMPS: Final = 200
_MAX_WORDS_READ: Final = 30


class AnswerRefusedError(Exception):
    """The answer is not of the schema; the message says how, without quoting it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said, bounded."""

    #: Factor on the built-in weight, within 1/MOST_FACTOR..MOST_FACTOR, by number in the prompt.
    factors: Mapping[int, float]
    #: Reason by number in the prompt; plain text, cut.
    reasons: Mapping[int, str]
    #: Words to protect as they were proposed: plain text, not judged yet.
    words: tuple[str, ...]
    summary: str
    clamps: tuple[Clamp, ...]


def read_answer(text: str, patterns_shown: int) -> Answer:
    """
    Read *text*, the answer to a prompt with *patterns_shown* patterns.

    Raises:
        AnswerRefusedError: Nothing of it can be used.
    """
    document = _document(text)
    reader = _Reader(patterns_shown)
    reader.take_all(document["patterns"])
    if not reader.factors:
        raise AnswerRefusedError("the answer rated no pattern that was shown")
    return Answer(
        factors=reader.factors,
        reasons=reader.reasons,
        words=tuple(_texts(document["words"], _MAX_WORDS_READ)),
        summary=plain(document["summary"], _MAX_SUMMARY),
        clamps=bounded_clamps(reader.clamps),
    )


def factor_of(importance: float) -> float:
    """The factor on a built-in weight that an importance of 1 to 5 stands for; 3 is 1."""
    return float(2.0 ** (importance - MIDDLE))


def bounded_clamps(clamps: list[Clamp]) -> tuple[Clamp, ...]:
    """*clamps*, or the first of them and one that says how many more there were."""
    if len(clamps) <= _MAX_CLAMPS:
        return tuple(clamps)
    more = len(clamps) - _MAX_CLAMPS
    return (*clamps[:_MAX_CLAMPS], Clamp("more of these", f"{more:,} further entries"))


@dataclass(slots=True)
class _Reader:
    """Collects the entries of one answer."""

    shown: int
    factors: dict[int, float] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    clamps: list[Clamp] = field(default_factory=list)

    def take_all(self, entries: list[Any]) -> None:
        if len(entries) > 2 * self.shown + 10:
            raise AnswerRefusedError("the answer has far more entries than patterns were shown")
        repeated = _repeated(entries)
        for entry in entries:
            self._take(entry, repeated)

    def _take(self, entry: object, repeated: set[int]) -> None:
        if not isinstance(entry, dict) or not _is_whole(entry.get("i")):
            self._clamp("malformed entry", "", entry)
            return
        number, importance = int(entry["i"]), entry.get("importance")
        if not 0 <= number < self.shown:
            self._clamp("unknown number", _short(number), importance)
        elif number in repeated:
            self._clamp("number given twice", str(number), importance)
        elif not _is_number(importance):
            self._clamp("importance is no finite number", str(number), importance)
        else:
            self._accept(number, float(importance), entry.get("reason"))

    def _accept(self, number: int, importance: float, reason: object) -> None:
        bounded = min(max(importance, float(LOWEST)), float(HIGHEST))
        if bounded != importance:
            self._clamp("importance out of range", str(number), importance)
        self.factors[number] = factor_of(bounded)
        self.reasons[number] = plain(reason, _MAX_REASON)

    def _clamp(self, rule: str, subject: str, said: object) -> None:
        self.clamps.append(Clamp(rule, subject, plain(repr(said)[: 4 * _MAX_SAID], _MAX_SAID)))


def _document(text: str) -> dict[str, Any]:
    if len(text) > _MAX_ANSWER:
        raise AnswerRefusedError("the answer is too long")
    document = _parsed(text)
    kinds = {"patterns": list, "words": list, "summary": str}
    if not isinstance(document, dict):
        raise AnswerRefusedError("the answer is not a JSON object")
    for name, kind in kinds.items():
        if not isinstance(document.get(name), kind):
            raise AnswerRefusedError(f'the answer is not of the schema: no "{name}" as asked')
    return document


def _parsed(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except AnswerRefusedError:
        raise
    except (ValueError, RecursionError):
        # ValueError: not JSON, or an integer of thousands of digits.
        raise AnswerRefusedError("the answer is not JSON") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise AnswerRefusedError("the answer gives a key twice")
    return unique


def _no_constant(name: str) -> NoReturn:
    raise AnswerRefusedError(f"the answer holds {name}, which is not JSON")


def _repeated(entries: Iterable[object]) -> set[int]:
    seen: set[int] = set()
    repeated: set[int] = set()
    for entry in entries:
        number = entry.get("i") if isinstance(entry, dict) else None
        if _is_whole(number):
            (repeated if number in seen else seen).add(number)
    return repeated


def _short(number: int) -> str:
    # str() of an integer of thousands of digits raises; json.loads lets fewer than those through.
    return str(number)[:20]


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _texts(values: list[Any], most: int) -> list[str]:
    return [text for value in values[:most] if (text := plain(value, 2 * _MAX_SAID))]
