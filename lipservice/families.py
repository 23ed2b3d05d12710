"""
Sibling templates that share a budget: the merge of LSIG-1.

A word used as a value (a user name, a host) stays in the template, so that one log statement
becomes many patterns. Here such patterns are brought together into families, by the rule of
SIGNATURE.md, "Merge of sibling templates". Rule of this module: nothing may depend on a merge for
correctness. It only shares a budget and tidies a table.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial
from operator import xor
from random import Random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: How a template prints a variable.
WILDCARD: Final = "<*>"
#: Values that a position needs before it counts as a variable. Two would merge opposites.
LEAST_VALUES: Final = 5
#: Tokens that must stay constant.
LEAST_CONSTANTS: Final = 2
#: A statement with several such variables loses one of them in each round.
ROUNDS: Final = 3

#: Bits of the random numbers that stand for tokens. Among 10 million blanked templates the
#: chance that any two different ones get the same number is below 1e-22.
_BITS: Final = 120


def merge_families(templates: Iterable[str]) -> dict[str, str]:
    """
    Bring sibling templates together.

    Distinct templates with the same number of tokens (split at blanks) that differ in exactly one
    position are siblings once that position has at least `LEAST_VALUES` values among them, a
    variable counting as one value. A template with several such positions gives up the one with
    the most values, the first of equals. At most `ROUNDS` rounds are made on the templates that
    result, and at least `LEAST_CONSTANTS` tokens of a family are constant.

    The result depends on the set of templates alone: not on their order, nor on repeats. Time is
    proportional to the number of tokens in all. Safe to call from several threads.

    Args:
        templates: Templates as `lipservice.signature.compute_template` prints them.

    Returns:
        For every template its family, which is named by its own template: the constant tokens,
        and `<*>` for every variable. A template without siblings is its own family.

    Example:
        >>> names = ("alice", "bob", "carol", "dave", "erin")
        >>> families = merge_families(f"user {name} logged in" for name in names)
        >>> set(families.values())
        {'user <*> logged in'}
    """
    families = {template: template for template in templates}
    for _ in range(ROUNDS):
        renamed = _one_round(set(families.values()))
        if not renamed:
            break
        families = {template: renamed.get(name, name) for template, name in families.items()}
    return families


def _one_round(templates: Iterable[str]) -> dict[str, str]:
    by_length: defaultdict[int, list[str]] = defaultdict(list)
    for template in templates:
        by_length[template.count(" ")].append(template)
    renamed: dict[str, str] = {}
    for blanks, alike in by_length.items():
        if blanks >= LEAST_CONSTANTS and len(alike) >= LEAST_VALUES:
            renamed |= _merge_alike(alike)
    return renamed


def _merge_alike(templates: Sequence[str]) -> dict[str, str]:
    """New names for those of *templates*, distinct and of one length, that have siblings."""
    rows = [template.split(" ") for template in templates]
    renamed = {}
    for template, tokens, position in zip(templates, rows, _widest_positions(rows), strict=True):
        if position >= 0 and tokens[position] != WILDCARD:
            tokens[position] = WILDCARD
            renamed[template] = " ".join(tokens)
    return renamed


def _widest_positions(rows: Sequence[list[str]]) -> list[int]:
    """
    For each row the position in which it has the most siblings, or -1.

    Every token of a position stands for a random number (Zobrist hashing), a row for the exclusive
    or of its tokens' numbers. Taking a token's number out again leaves the row with that position
    blanked; as rows are distinct, the rows with the same rest count the position's values.
    """
    columns = _random_columns(rows)
    whole = columns[0]
    for column in columns[1:]:
        whole = list(map(xor, whole, column))
    spare = [len(row) - row.count(WILDCARD) - LEAST_CONSTANTS for row in rows]
    widest, most = [-1] * len(rows), [LEAST_VALUES - 1] * len(rows)
    for position, column in enumerate(columns):
        blanked = list(map(xor, whole, column))
        siblings = {rest: n for rest, n in Counter(blanked).items() if n >= LEAST_VALUES}
        for row, rest in enumerate(blanked) if siblings else ():
            values = siblings.get(rest, 0)
            if values > most[row] and spare[row] > 0:
                widest[row], most[row] = position, values
    return widest


def _random_columns(rows: Sequence[list[str]]) -> list[list[int]]:
    """For each position a random number for each row's token."""
    draw = partial(Random(0).getrandbits, _BITS)
    columns = []
    for position in range(len(rows[0])):
        numbers: defaultdict[str, int] = defaultdict(draw)
        columns.append([numbers[row[position]] for row in rows])
    return columns
