"""
Which of the words that a model proposes are taken.

A word protects every record whose template holds it, now and in future, at full rate. So it is
the one thing by which a model could raise the cost, and it is bounded on three sides: its form,
the number of words, and the share of the budget that all of them together would have cost in the
window that was seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lipservice.policy import SamplingPolicy
from lipservice_server.policy_engine.answer import bounded_clamps
from lipservice_server.policy_engine.model import Clamp
from lipservice_server.policy_engine.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lipservice.optimizer import PatternVolume

_SHORTEST: Final = 3
_LONGEST: Final = 32
_NOWHERE: Final = "word in no template"
_TOO_COSTLY: Final = "word costs more than its share of the budget"


def accept_words(
    proposed: Iterable[str],
    patterns: Sequence[PatternVolume],
    *,
    by_hand: Sequence[str],
    most: int,
    budget: float,
) -> tuple[tuple[str, ...], tuple[Clamp, ...]]:
    """
    Take words in the order in which they were proposed, as long as they are paid for.

    Args:
        proposed: Words of a model.
        patterns: All patterns of the request; those already protected cost nothing more.
        by_hand: Words that people protect already.
        most: How many words may be taken.
        budget: Bytes in the window that the words may keep, at most.

    Returns:
        The words taken, in lower case, and a clamp for each that was not.
    """
    taken: list[str] = []
    clamps: list[Clamp] = []
    known = {word.lower() for word in by_hand}
    paid: set[str] = set()
    for word in (plain(text, 2 * _LONGEST).lower() for text in proposed):
        if word in known:
            continue
        known.add(word)
        if fault := _fault_of_form(word, room=most - len(taken)):
            clamps.append(Clamp(fault, word))
            continue
        held = _held_by(word, patterns)
        new = [p for p in held if not p.always_kept and p.signature not in paid]
        cost = sum(p.total_bytes for p in new)
        if not held or cost > budget:
            clamps.append(Clamp(_TOO_COSTLY if held else _NOWHERE, word))
            continue
        taken.append(word)
        budget -= cost
        paid.update(p.signature for p in new)
    return tuple(taken), bounded_clamps(clamps)


def _well_formed(word: str) -> bool:
    return (
        _SHORTEST <= len(word) <= _LONGEST
        and word[0].isalpha()
        and all(char.isalpha() or char in "_-" for char in word)
    )


def _held_by(word: str, patterns: Sequence[PatternVolume]) -> list[PatternVolume]:
    # The SDK's own matcher decides, so that both sides mean the same by "holds".
    policy = SamplingPolicy(patterns=(word,))
    return [p for p in patterns if policy.protects(p.template)]


def _fault_of_form(word: str, *, room: int) -> str | None:
    if not _well_formed(word):
        return "not a single word of 3 to 32 letters"
    return None if room > 0 else "more words than allowed"
