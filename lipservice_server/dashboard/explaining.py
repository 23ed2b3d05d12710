"""Explain: why was my log missing? A message or a signature, its pattern, and what decides it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from lipservice.severity import SEVERITIES
from lipservice.signature import compute_signature, compute_template
from lipservice_server.dashboard.boosts import running_of
from lipservice_server.dashboard.patterns import active_policy
from lipservice_server.dashboard.sentences import decide, why_rate
from lipservice_server.db import Row
from lipservice_server.errors import NotFoundError

if TYPE_CHECKING:
    from flask import Response

    from lipservice.policy import SamplingPolicy
    from lipservice_server.dashboard.pages import Pages, Visit

_SIGNATURE: Final = re.compile(r"[0-9a-f]{16}")
_DAYS: Final = 7


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
    if _SIGNATURE.fullmatch(asked):
        signature, template = asked, ""
    else:
        signature, template = compute_signature(asked), compute_template(asked)
    policy, details = active_policy(visit)
    boosts = running_of(visit, visit.name)
    try:
        row = visit.store.patterns.get(visit.team_id, visit.name, signature)
    except NotFoundError:
        return {
            "signature": signature,
            "template": template,
            "row": None,
            "steps": decide(
                _unknown(signature, template, severity), policy, severity or "INFO", boosts
            ),
        }
    return {
        "signature": signature,
        "template": row["template"],
        "row": row,
        "why": why_rate(row, policy, details),
        "steps": decide(row, policy, severity or row["severity"], boosts),
        "policy": policy,
        **_lately(visit, row, policy),
    }


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
