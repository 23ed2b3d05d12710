"""Explain: why was my log missing? A message or a signature, its pattern, and what decides it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lipservice.severity import SEVERITIES
from lipservice.signature import compute_signature, compute_template
from lipservice_server.dashboard.boosts import running_of
from lipservice_server.dashboard.patterns import active_policy
from lipservice_server.dashboard.sentences import decide, why_rate
from lipservice_server.db import Row
from lipservice_server.errors import ConflictError, NotFoundError
from lipservice_server.meant import Meant, pattern_meant

if TYPE_CHECKING:
    from flask import Response

    from lipservice.policy import SamplingPolicy
    from lipservice_server.dashboard.pages import Pages, Visit

_DAYS: Final = 7
_BY_TEMPLATE: Final = (
    "With its words as they are, no instance reports this message: of the known patterns, this is "
    "the one that the message fits best."
)


def add_explaining(pages: Pages) -> None:
    """Declare the page."""

    @pages.page("/explain")
    def explain(visit: Visit) -> Response:
        asked = visit.arg("q")
        wanted = visit.arg("severity").upper()
        values: dict[str, Any] = {"asked": asked, "severity": wanted, "severities": SEVERITIES}
        if asked and visit.service is not None:
            values |= _explain(visit, asked, wanted if wanted in SEVERITIES else "")
        return visit.show("explain.html", tab="explain", **values)


def _explain(visit: Visit, asked: str, severity: str) -> dict[str, Any]:
    meant, note = _meant(visit, asked)
    signature = meant.signature
    policy, details = active_policy(visit)
    boosts = running_of(visit, visit.name)
    try:
        row = visit.store.patterns.get(visit.team_id, visit.name, signature)
    except NotFoundError:
        return {
            "signature": signature,
            "template": meant.template,
            "note": note,
            "row": None,
            "steps": decide(
                _unknown(signature, meant.template, severity), policy, severity or "INFO", boosts
            ),
        }
    return {
        "signature": signature,
        "note": note,
        "template": row["template"],
        "row": row,
        "why": why_rate(row, policy, details),
        "steps": decide(row, policy, severity or row["severity"], boosts),
        "policy": policy,
        **_lately(visit, row, policy),
    }


def _meant(visit: Visit, asked: str) -> tuple[Meant, str]:
    """The pattern that is asked about, and what there is to say of how it was found."""
    asked = asked.replace("\x00", " ")  # PostgreSQL takes none
    try:
        meant = pattern_meant(visit.store, visit.team_id, visit.name, asked)
    except (ConflictError, NotFoundError) as error:
        return Meant(compute_signature(asked), compute_template(asked)), f"{error.message}."
    return meant, _BY_TEMPLATE if meant.by_template else ""


def _lately(visit: Visit, row: Row, policy: SamplingPolicy | None) -> dict[str, Any]:
    """What became of the pattern's records."""
    volumes = visit.store.patterns.volumes(
        visit.team_id, visit.name, [row["signature"]], step="day", periods=_DAYS, now=visit.now
    )
    points = volumes[row["signature"]]
    seen = sum(point["count"] for point in points)
    kept = sum(point["kept"] for point in points)
    del policy
    return {"points": points, "seen": seen, "kept": kept, "dropped": max(0, seen - kept)}


def _unknown(signature: str, template: str, severity: str) -> Row:
    """A pattern that nobody has reported."""
    return {
        "signature": signature,
        "template": template,
        "severity": severity or "INFO",
        "pinned_rate": None,
        "protected": False,
    }
