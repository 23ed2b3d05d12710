"""Full fidelity for a while: what runs, and the forms that begin and end it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from flask import request
from pydantic import ValidationError

from lipservice_server.api.bodies import explain
from lipservice_server.api.schemas import NewBoost
from lipservice_server.boosts import begin_boost, end_boost, of_what
from lipservice_server.dashboard.numbers import moment
from lipservice_server.db import Row
from lipservice_server.errors import InvalidError
from lipservice_server.store.boosts import MAX_RUNNING

if TYPE_CHECKING:
    from flask import Response

    from lipservice_server.dashboard.pages import Pages, Visit

#: A signature that instances compute; reports of others may hold any text in its place.
SIGNATURE: Final = re.compile(r"[0-9a-f]{16}")


def add_boosts(pages: Pages) -> None:
    """Declare the forms."""

    @pages.page("/boost/begin", post=True)
    def boost_begin(visit: Visit) -> Response:
        wish = _wish(visit)
        actor = visit.viewer.actor
        row = begin_boost(visit.runtime, visit.team_id, visit.name, wish, actor=actor)
        fields = {"service": visit.name, "boost": str(row["id"]), "undo": "1"}
        if row["signature"]:
            fields["signature"] = row["signature"]
        visit.tell(
            f"Everything of {of_what(row)} is kept until {moment(row['until'])}. "
            "It holds from the instances' next poll on.",
            {"page": "boost/end", "fields": fields},
        )
        return _back(visit)

    @pages.page("/boost/end", post=True)
    def boost_end(visit: Visit) -> Response:
        number = _number(visit.field("boost"))
        actor = visit.viewer.actor
        row = end_boost(visit.runtime, visit.team_id, number, service_name=visit.name, actor=actor)
        visit.tell(
            "Taken back."
            if request.form.get("undo")
            else f"Ended: the policy decides about {of_what(row)} again, from the instances' next "
            "poll on."
        )
        return _back(visit)


def running_of(visit: Visit, service_name: str | None) -> list[Row]:
    """What runs for one service or (None) all of the team's, the newest first."""
    return visit.store.boosts.page(visit.team_id, service_name, limit=MAX_RUNNING, now=visit.now)


def _wish(visit: Visit) -> NewBoost:
    signature = visit.field("signature") or None
    if signature is not None and not SIGNATURE.fullmatch(signature):
        raise InvalidError("a signature has 16 hex digits")
    fields = {
        "pattern": signature,
        "severity": visit.field("severity") or None,
        "logger": visit.field("logger") or None,
        "minutes": _minutes(visit.field("minutes")),
        "reason": visit.field("reason"),
    }
    try:
        return NewBoost.model_validate(fields)
    except ValidationError as error:
        raise explain(error) from None


def _back(visit: Visit) -> Response:
    """To the page that the form stood on."""
    signature = visit.field("signature")
    if signature:
        return visit.go("pattern", signature=signature)
    return visit.go("", service=None if request.form.get("all") else visit.name)


def _minutes(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise InvalidError("minutes: a number above 0 and at most 1440") from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise InvalidError("a boost is named by its number")
    return int(text)
