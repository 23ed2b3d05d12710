"""
What the policy server knows of a message's pattern: the counts of all instances of the service.

A message has its pattern's signature where what varies looks like a variable. Where an argument is
a plain word (`user eve logged in`), instances that log with a format string, or heal an f-string,
have reported `user <*> logged in` under another signature. So the templates that hold the
message's words are asked for, and the most literal one that the message fits is taken, where there
is no pattern of the message's own signature or it has not come lately.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple

from lipservice._answers import Problem
from lipservice.client import LipServiceClient
from lipservice.fitting import (
    REPLACED_AFTER,
    VARIABLE,
    key_of_message,
    key_of_template,
    most_literal,
)
from lipservice.signature import compute_signature, compute_template, signature_of_key

#: Words of a message that are searched for, the longest first.
_MOST_WORDS: Final = 5
_SHORTEST_WORD: Final = 3


class Volume(NamedTuple):
    """Records of all instances."""

    seen: int
    kept: int
    #: Of those seen: at ERROR and above.
    errors: int


class Pin(NamedTuple):
    """What a person has decided about a pattern."""

    #: 0 to 1.
    rate: float
    protected: bool
    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class FleetPattern:
    """A pattern as the instances of a service have reported it."""

    signature: str
    template: str
    #: The one that most of its records have had lately.
    severity: str
    first_seen: datetime
    last_seen: datetime
    #: The running hour and the 23 before it.
    last_24_hours: Volume
    #: The running day (UTC) and the six before it.
    last_7_days: Volume
    #: Since `first_seen`.
    ever: Volume
    pin: Pin | None
    #: Whether it was found by its template: the message has another signature, which no instance
    #: has reported, or not lately.
    by_template: bool


@dataclass(frozen=True, slots=True)
class FleetAnswer:
    """The pattern, or one line on why there is none."""

    pattern: FleetPattern | None = None
    why_not: str = ""


def ask_fleet(client: LipServiceClient, text: str, signature: str | None) -> FleetAnswer:
    """
    Ask the server for the pattern of a message; never raises.

    Args:
        client: The server, with a key that may read.
        text: The finished message; where *signature* is given it is not looked at.
        signature: The pattern's, where that is known.
    """
    own = signature or compute_signature(text)
    answer = client.fetch_pattern(own)
    row, problem = answer.document, answer.problem
    if problem is not None and problem.status == 404:
        row, problem = None, None
    by_template = False
    if problem is None and signature is None:
        other, problem = _fitting_row(client, text, own)
        if other is not None and (row is None or _has_replaced(other, row)):
            row, by_template = other, True
    if row is None:
        return FleetAnswer(why_not=_UNKNOWN if problem is None else _in_words(problem))
    return _with_volumes(client, row, by_template=by_template)


def _has_replaced(other: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether *own* has not come for a while and *other* has, as `explain` in a process looks."""
    try:
        idle = _time(other["last_seen"]) - _time(own["last_seen"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    return idle.total_seconds() > REPLACED_AFTER


def _with_volumes(
    client: LipServiceClient, row: Mapping[str, Any], *, by_template: bool
) -> FleetAnswer:
    name = str(row.get("signature"))
    hours = client.fetch_volume(name, step="hour", periods=24)
    days = client.fetch_volume(name, step="day", periods=7)
    problem = hours.problem or days.problem
    if problem is not None:
        return FleetAnswer(why_not=_in_words(problem))
    try:
        pattern = FleetPattern(
            signature=name,
            template=str(row["template"]),
            severity=str(row["severity"]),
            first_seen=_time(row["first_seen"]),
            last_seen=_time(row["last_seen"]),
            last_24_hours=_sum(hours.document),
            last_7_days=_sum(days.document),
            ever=Volume(int(row["count"]), int(row["kept"]), int(row["errors"])),
            pin=_pin(row),
            by_template=by_template,
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return FleetAnswer(why_not="no counts from the server: its answer cannot be read")
    return FleetAnswer(pattern)


def _sum(document: Mapping[str, Any] | None) -> Volume:
    points = (document or {})["points"]
    return Volume(
        *(sum(int(point[name]) for point in points) for name in ("count", "kept", "errors"))
    )


def _pin(row: Mapping[str, Any]) -> Pin | None:
    if row.get("pinned_rate") is None:
        return None
    return Pin(
        float(row["pinned_rate"]),
        bool(row.get("protected")),
        str(row.get("pin_reason") or ""),
        str(row.get("pinned_by") or ""),
    )


def _time(text: object) -> datetime:
    # "Z" is read by Python from 3.11 on.
    return datetime.fromisoformat(str(text).replace("Z", "+00:00")).astimezone(timezone.utc)


# ---------------------------------------------------------------------- by its template


def _fitting_row(
    client: LipServiceClient, message: str, own: str
) -> tuple[Mapping[str, Any] | None, Problem | None]:
    """The pattern besides *own* whose template the message fits best, if the server knows one."""
    rows: dict[str, Mapping[str, Any]] = {}
    for word in _words(message):
        answer = client.search_patterns(word)
        if answer.document is None:
            return None, answer.problem
        for row in _rows(answer.document):
            rows.setdefault(str(row["signature"]), row)
    rows.pop(own, None)
    return _best_fit(message, rows.values()), None


def _words(message: str) -> list[str]:
    """The words to search for; of short ones only, the longest."""
    template = compute_template(message)
    words = sorted({word for word in template.split(" ") if VARIABLE not in word}, key=_by_length)
    return [word for word in words if len(word) >= _SHORTEST_WORD][:_MOST_WORDS] or words[:1]


def _by_length(word: str) -> tuple[int, str]:
    return -len(word), word


def _rows(document: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """The patterns of a list whose template gives their signature: not cut off, and LSIG-1."""
    with contextlib.suppress(TypeError, KeyError):
        for row in document["patterns"]:
            if signature_of_key(key_of_template(str(row["template"]))) == row["signature"]:
                yield row


def _best_fit(message: str, rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Of *rows*, the one with the most literal template that the message fits."""
    keys = ((row, key_of_template(str(row["template"]))) for row in rows)
    return next(iter(most_literal(keys, key_of_message(message))), None)


# ---------------------------------------------------------------------- in words

_UNKNOWN: Final = "no instance has reported this pattern, nor one that the message fits"
_NO_KEY: Final = (
    "the counts of all instances need a key that may read:"
    " lipservice-server keys create --scope read"
)
_NO_SERVICE: Final = (
    "the server has no counts of this service; they need a key that may read, and a report"
)


def _in_words(problem: Problem) -> str:
    if problem.status in {401, 403}:
        return _NO_KEY
    if problem.status == 404:
        return _NO_SERVICE
    return f"no counts from the server: {problem}"
