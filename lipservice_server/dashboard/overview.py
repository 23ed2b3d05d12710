"""The first page: what was seen, kept and saved, and what changed lately."""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from lipservice_server.dashboard.boosts import running_of
from lipservice_server.db import Row

if TYPE_CHECKING:
    from flask import Response

    from lipservice_server.dashboard.pages import Pages, Visit

_DAY: Final = 86_400
#: What a chart may show: (name in the address, words, step, seconds).
PERIODS: Final = (
    ("48h", "48 hours", "hour", 2 * _DAY),
    ("7d", "7 days", "day", 7 * _DAY),
    ("30d", "30 days", "day", 30 * _DAY),
    ("90d", "90 days", "day", 90 * _DAY),
)
_SHOWN: Final = 6


@dataclass(frozen=True, slots=True)
class Money:
    """What a month costs and saves, in the currency of the team's price."""

    price_per_gb: float
    saved: float
    #: At the end of the month, if it goes on like this.
    projected: float
    #: What the month's kept records would then have cost.
    projected_cost: float
    month: str


def add_overview(pages: Pages) -> None:
    """Declare the page."""

    @pages.page("/")
    def overview(visit: Visit) -> Response:
        name = _name(visit)
        period = period_of(visit)
        since = visit.now - period[3] + (_DAY if period[2] == "day" else 3_600)
        points = visit.store.savings.over_time(
            visit.team_id, name, step=period[2], since=since, until=visit.now
        )
        today = visit.store.savings.totals(
            visit.team_id, name, since=visit.now - _DAY, until=visit.now
        )
        return visit.show(
            "overview.html",
            tab="overview",
            period=period,
            periods=PERIODS,
            points=points,
            totals=_sum(points),
            today=today,
            money=money_of(visit, name),
            boosts=running_of(visit, name),
            live=visit.overview.live_instances(visit.team_id, name, now=visit.now),
            by_service=[] if name else _by_service(visit, since),
            **_lately(visit, name),
        )


def period_of(visit: Visit) -> tuple[str, str, Any, int]:
    """The period that the address names, a month where it names none."""
    wanted = visit.arg("period")
    return next((period for period in PERIODS if period[0] == wanted), PERIODS[2])


def price_of(visit: Visit) -> float:
    """The team's price of a gigabyte, else the operator's."""
    price = visit.store.teams.get(visit.team_id)["price_per_gb"]
    return float(visit.runtime.settings.price_per_gb if price is None else price)


def money_of(visit: Visit, name: str | None) -> Money:
    """This month's savings, so far and by its end."""
    price, today = price_of(visit), datetime.fromtimestamp(visit.now, timezone.utc)
    start = today.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    days = calendar.monthrange(today.year, today.month)[1]
    totals = visit.store.savings.totals(
        visit.team_id, name, since=start.timestamp(), until=visit.now
    )
    # A service that is younger than the month is projected from its own first day.
    age = min((_age(visit, name)), visit.now - start.timestamp())
    left = max(0.0, start.timestamp() + days * _DAY - visit.now)
    growth = 1 + left / max(age, 3_600.0)
    saved = (totals["bytes"] - totals["kept_bytes"]) / 1e9 * price
    return Money(
        price_per_gb=price,
        saved=saved,
        projected=saved * growth,
        projected_cost=totals["kept_bytes"] / 1e9 * price * growth,
        month=f"{today:%B}",
    )


def risers_of(visit: Visit, *, limit: int) -> list[Row]:
    """Patterns that jumped; one without a week before it is new, and shown as that."""
    rows = visit.store.patterns.risers(visit.team_id, visit.name, limit=200)
    return [row for row in rows if row["first_seen"] < visit.now - 7 * _DAY][:limit]


def _name(visit: Visit) -> str | None:
    return visit.viewer.service_name or (visit.service["name"] if visit.service else None)


def _age(visit: Visit, name: str | None) -> float:
    """Seconds since the service, or the team, was made."""
    team = visit.store.teams.get(visit.team_id)
    born = visit.service["created_at"] if name and visit.service else team["created_at"]
    return max(3_600.0, visit.now - float(born))


def _sum(points: list[Row]) -> Row:
    names = ("records", "kept", "bytes", "kept_bytes", "errors")
    return {name: sum(point[name] for point in points) for name in names}


def _by_service(visit: Visit, since: float) -> list[Row]:
    rows = visit.store.savings.by_service(visit.team_id, since=since, until=visit.now)
    settings = {row["name"]: row for row in visit.store.services.all(visit.team_id)}
    return [row | {"of": settings.get(row["service_name"], {})} for row in rows[:100]]


def _lately(visit: Visit, name: str | None) -> dict[str, Any]:
    """What changed in the last week."""
    new, new_total = visit.overview.newest(
        visit.team_id, name, since=visit.now - 7 * _DAY, limit=_SHOWN
    )
    rising = risers_of(visit, limit=_SHOWN) if name else []
    lines = visit.store.audit.page(visit.team_id, action="policy.activate", limit=200)
    activations = [line | _target(line) for line in lines]
    activations.sort(key=lambda line: -line["at"])
    if name is not None:
        activations = [line for line in activations if line["service_name"] == name]
    return {
        "new": new,
        "new_total": new_total,
        "rising": rising,
        "activations": activations[:_SHOWN],
    }


def _target(line: Row) -> dict[str, Any]:
    service_name, _, version = line["target"].rpartition("/")
    return {"service_name": service_name, "version": version}
