"""
Which pattern a person means who gives a signature, a message, or a template.

A message is looked for as `AdaptiveSampler.boost` and `explain` do in a process: where an argument
was a plain word (`user bob logged in`), its pattern is the known one whose template it fits
(`user <*> logged in`). Only patterns of the service that is named are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from lipservice.fitting import (
    REPLACED_AFTER,
    VARIABLE,
    key_of_message,
    key_of_template,
    most_literal,
)
from lipservice.signature import signature_of_key, template_of_key
from lipservice_server.db import Row
from lipservice_server.errors import ConflictError
from lipservice_server.store import Store

_SIGNATURE: Final = re.compile(r"[0-9a-f]{16}")
#: Of patterns that a message fits equally well, so many are named.
_MOST_NAMED: Final = 5
_LONGEST_NAMED: Final = 80


class Meant(NamedTuple):
    """A pattern that somebody means."""

    signature: str
    #: As reported, else the message's own; "": it is not known.
    template: str
    #: Whether it was found because the message fits its template.
    by_template: bool = False


def pattern_meant(store: Store, team_id: int, service_name: str, text: str) -> Meant:
    """
    The pattern that *text* means: its signature, a message of it, or its template as reported.

    A message that fits no pattern which was reported means the one of its own signature.

    Raises:
        NotFoundError: There is no such service, or no pattern of the template that is given.
        ConflictError: Several patterns have the template, or the message fits several equally.
    """
    if _SIGNATURE.fullmatch(text):
        return Meant(text, _reported(store, team_id, service_name, text))
    if VARIABLE in text:
        # A template does not have its messages' signature: computed, it would mean nothing.
        return Meant(store.patterns.with_template(team_id, service_name, text), text)
    key = key_of_message(text)
    signature = signature_of_key(key)
    rows = store.boosts.candidates(team_id, service_name, signature, template_of_key(key))
    own = next((row for row in rows if row["signature"] == signature), None)
    fitting = _fitting(rows, signature, key)
    if own is not None:
        fitting = [row for row in fitting if row["last_seen"] > own["last_seen"] + REPLACED_AFTER]
    if len(fitting) > 1:
        raise ConflictError(
            f"the message fits several patterns, give a signature: {_list(fitting)}"
        )
    if fitting:
        return Meant(fitting[0]["signature"], fitting[0]["template"], by_template=True)
    return Meant(signature, own["template"] if own else template_of_key(key))


def _reported(store: Store, team_id: int, service_name: str, signature: str) -> str:
    rows = store.boosts.candidates(team_id, service_name, signature, "")
    return next((row["template"] for row in rows if row["signature"] == signature), "")


def _fitting(rows: Iterable[Row], own: str, key: bytes) -> list[Row]:
    """The most literal of the patterns that a message fits, besides the one of its signature."""
    keyed = ((row, key_of_template(row["template"])) for row in rows if row["signature"] != own)
    # A template that was cut off, or is another SDK's, does not say what its messages look like.
    whole = ((row, key) for row, key in keyed if signature_of_key(key) == row["signature"])
    return most_literal(whole, key)


def _list(rows: list[Row]) -> str:
    named = [f"{row['signature']} ({row['template'][:_LONGEST_NAMED]})" for row in rows]
    more = [f"{len(rows) - _MOST_NAMED} more"] if len(rows) > _MOST_NAMED else []
    return ", ".join(named[:_MOST_NAMED] + more)
