"""Patterns: the list, one pattern, what is new or rising, and decisions by hand with their undo."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from flask import request
from pydantic import TypeAdapter, ValidationError

from lipservice.families import merge_families
from lipservice.policy import SamplingPolicy
from lipservice.severity import SEVERITIES, severity_name
from lipservice_server.api.schemas import Pin, Signature
from lipservice_server.boosts import covers
from lipservice_server.dashboard.boosts import SIGNATURE, running_of
from lipservice_server.dashboard.numbers import share
from lipservice_server.dashboard.outcomes import read_policy
from lipservice_server.dashboard.overview import risers_of
from lipservice_server.dashboard.sentences import why_rate
from lipservice_server.dashboard.workshop import PendingError
from lipservice_server.db import Row
from lipservice_server.errors import InvalidError
from lipservice_server.store.patterns import SORTS

if TYPE_CHECKING:
    from flask import Response

    from lipservice_server.dashboard.pages import Pages, Visit

_PAGE: Final = 50
_TREND_DAYS: Final = 14
_DAY: Final = 86_400
_SIGNATURE: Final[TypeAdapter[str]] = TypeAdapter(Signature)
_SIBLINGS: Final = 1_000
#: Above so many patterns, a family is worked out on the pattern's own page only.
_MOST_MERGED: Final = 20_000


def add_patterns(pages: Pages) -> None:
    """Declare the pages and forms."""
    _add_lists(pages)
    _add_one(pages)
    _add_decisions(pages)


def active_policy(visit: Visit) -> tuple[SamplingPolicy | None, dict[str, Any]]:
    """What is served for the service (None: no version is active), and the version's details."""
    key = (visit.team_id, visit.name, visit.named["id"], visit.named["revision"])
    return visit.pages.served.get(key, lambda: _read_active(visit))


def _read_active(visit: Visit) -> tuple[SamplingPolicy | None, dict[str, Any]]:
    active = visit.store.policies.active(visit.team_id, visit.name)
    if active is None:
        return None, {}
    pins = visit.store.patterns.overrides(visit.team_id, visit.name)
    details: dict[str, Any] = active["details"]
    return read_policy(active["document"], visit.named, pins), details


def _add_lists(pages: Pages) -> None:
    @pages.page("/patterns")
    def patterns(visit: Visit) -> Response:
        wanted = _wanted(visit)
        number = visit.whole("page", 1, least=1, most=10_000)
        rows, total = visit.store.patterns.search(
            visit.team_id,
            visit.name,
            search=wanted["q"],
            severity=wanted["severity"],
            pinned=True if wanted["only"] == "pinned" else None,
            sort=wanted["sort"],
            descending=wanted["order"] == "desc",
            limit=_PAGE,
            offset=(number - 1) * _PAGE,
        )
        policy, details = active_policy(visit)
        return visit.show(
            "patterns.html",
            tab="patterns",
            wanted=wanted,
            rows=[_told(row, policy, details) for row in rows],
            trends=_trends(visit, rows),
            families=_families(visit),
            total=total,
            page=number,
            pages=max(1, -(-total // _PAGE)),
            first=(number - 1) * _PAGE + 1,
            severities=SEVERITIES,
        )

    @pages.page("/changes")
    def changes(visit: Visit) -> Response:
        days = visit.whole("days", 7, least=1, most=30)
        new, total = visit.overview.newest(
            visit.team_id, visit.name, since=visit.now - days * _DAY, limit=_PAGE
        )
        rising = risers_of(visit, limit=_PAGE)
        return visit.show(
            "changes.html",
            tab="changes",
            days=days,
            new=new,
            total=total,
            rising=rising,
            trends=_trends(visit, [*new, *rising]),
        )


def _families(visit: Visit) -> dict[str, int]:
    """Of each template the number of its family; empty while, or where, it takes too long."""
    try:
        return visit.pages.workshop.get(
            ("families", visit.team_id, visit.name), lambda: _family_sizes(visit), wait=0.1
        )
    except PendingError:
        return {}


def _family_sizes(visit: Visit) -> dict[str, int]:
    templates = visit.overview.templates(visit.team_id, visit.name, limit=_MOST_MERGED + 1)
    if len(templates) > _MOST_MERGED:
        return {}
    families = merge_families(templates)
    sizes = Counter(families[template] for template in templates)
    return {template: sizes[families[template]] for template in templates}


def _wanted(visit: Visit) -> dict[str, str]:
    sort, severity = visit.arg("sort", "count"), visit.arg("severity").upper()
    return {
        "q": visit.arg("q")[:200],
        "sort": sort if sort in SORTS else "count",
        "order": "asc" if visit.arg("order") == "asc" else "desc",
        "severity": severity if severity in SEVERITIES else "",
        "only": "pinned" if visit.arg("only") == "pinned" else "",
    }


def _told(row: Row, policy: SamplingPolicy | None, details: dict[str, Any]) -> Row:
    """A pattern with its rate in force and the reason for it."""
    severity = severity_name(row["severity"])
    rate = 1.0
    if policy is not None and not policy.protects(row["template"]):
        rate = policy.rate_for(row["signature"], severity)
    if row["pinned_rate"] is not None and policy is None:
        rate = row["pinned_rate"]
    weight = 1 / rate if rate else None
    return row | {"now": rate, "weight_now": weight, "why": why_rate(row, policy, details)}


def _trends(visit: Visit, rows: list[Row]) -> dict[str, list[int]]:
    volumes = visit.store.patterns.volumes(
        visit.team_id,
        visit.name,
        [row["signature"] for row in rows],
        step="day",
        periods=_TREND_DAYS,
        now=visit.now,
    )
    return {name: [point["count"] for point in points] for name, points in volumes.items()}


def _add_one(pages: Pages) -> None:
    @pages.page("/pattern")
    def pattern(visit: Visit) -> Response:
        row = visit.store.patterns.get(visit.team_id, visit.name, _named(visit.arg("signature")))
        policy, details = active_policy(visit)
        step = "hour" if visit.arg("step") == "hour" else "day"
        points = visit.store.patterns.volumes(
            visit.team_id,
            visit.name,
            [row["signature"]],
            step="hour" if step == "hour" else "day",
            periods=48 if step == "hour" else 30,
            now=visit.now,
        )
        return visit.show(
            "pattern.html",
            tab="patterns",
            row=_told(row, policy, details),
            policy=policy,
            step=step,
            points=points[row["signature"]],
            siblings=_siblings(visit, row),
            boosts=[
                boost
                for boost in running_of(visit, visit.name)
                if covers(boost, row["signature"], severity_name(row["severity"]))
            ],
            boostable=SIGNATURE.fullmatch(row["signature"]) is not None,
        )


def _siblings(visit: Visit, row: Row) -> list[Row]:
    """The family: of the patterns that begin alike, those that the optimizer gives one budget."""
    start = row["template"].split("<*>", 1)[0][:40].strip()
    if len(start) < 3:
        return []
    rows = visit.overview.beginning_with(visit.team_id, visit.name, start, limit=_SIBLINGS)
    families = merge_families([each["template"] for each in rows])
    mine = families.get(row["template"])
    return [
        each
        for each in rows
        if mine is not None
        and families.get(each["template"]) == mine
        and each["signature"] != row["signature"]
    ][:8]


def _add_decisions(pages: Pages) -> None:
    @pages.page("/pattern/pin", post=True)
    def pin(visit: Visit) -> Response:
        signature = _named(visit.field("signature"))
        protect = visit.field("rate") == "protect"
        rate = None if protect else _rate(visit.field("rate"))
        before = visit.store.patterns.get(visit.team_id, visit.name, signature)
        try:
            checked = Pin(rate=rate, protected=protect, reason=visit.field("reason"))
        except ValidationError:
            raise InvalidError("a reason has at most 500 characters") from None
        visit.store.patterns.pin(
            visit.team_id,
            visit.name,
            signature,
            rate=1.0 if rate is None else rate,
            protected=protect,
            reason=checked.reason,
            actor=visit.viewer.actor,
            now=visit.now,
        )
        done = "Protected" if protect else f"Pinned at {share(rate)}"
        return _done(visit, before, f"{done}. It holds from the instances' next poll on.")

    @pages.page("/pattern/release", post=True)
    def release(visit: Visit) -> Response:
        signature = _named(visit.field("signature"))
        before = visit.store.patterns.get(visit.team_id, visit.name, signature)
        visit.store.patterns.release(
            visit.team_id, visit.name, signature, actor=visit.viewer.actor, now=visit.now
        )
        return _done(visit, before, "Let go: the policy decides about this pattern again.")


def _done(visit: Visit, before: Row, message: str) -> Response:
    """Serve the change at once, and offer to take it back."""
    visit.runtime.cache.refresh((visit.team_id, visit.name))
    signature = before["signature"]
    if request.form.get("undo"):
        visit.tell("Taken back.")
    else:
        visit.tell(message, _undo(visit.name, before))
    return visit.go("pattern", signature=signature)


def _undo(service_name: str, before: Row) -> dict[str, Any]:
    """The form that brings back what held before; its doing is audited like any other."""
    fields = {"service": service_name, "signature": before["signature"], "undo": "1"}
    if before["pinned_rate"] is None:
        return {"page": "pattern/release", "fields": fields}
    rate = "protect" if before["protected"] else f"{100 * before['pinned_rate']:.10g}"
    reason = before["pin_reason"] or ""
    return {"page": "pattern/pin", "fields": {**fields, "rate": rate, "reason": reason}}


def _rate(text: str) -> float:
    """A share in percent, as it is typed."""
    try:
        percent = float(text.replace(",", ".").removesuffix("%").strip())
    except ValueError:
        raise InvalidError("a rate is a number of percent, 0 to 100") from None
    if not 0 <= percent <= 100:
        raise InvalidError("a rate lies between 0 and 100 percent")
    return percent / 100


def _named(signature: str) -> str:
    try:
        return _SIGNATURE.validate_python(signature)
    except ValidationError:
        raise InvalidError("a signature is 1 to 64 characters of A-Z a-z 0-9 . _ : -") from None
