"""Savings and volume: a service's totals over time, from the table of its hours."""

from __future__ import annotations

from typing import Final, Literal

from lipservice_server.db import Database, Row
from lipservice_server.store.services import Services

_SUMS: Final = (
    "sum(h.records) AS records, sum(h.kept) AS kept, sum(h.bytes) AS bytes,"
    " sum(h.kept_bytes) AS kept_bytes, sum(h.errors) AS errors, sum(h.reports) AS reports"
)
_NAMES: Final = ("records", "kept", "bytes", "kept_bytes", "errors", "reports")


class Savings:
    """What was seen, kept and saved. Safe to share between threads."""

    def __init__(self, db: Database, services: Services) -> None:
        self._db = db
        self._services = services

    def over_time(
        self,
        team_id: int,
        service_name: str | None,
        *,
        step: Literal["hour", "day"],
        since: float,
        until: float,
    ) -> list[Row]:
        """
        Sums of each hour or day, the oldest first, of one service or (None) all of the team's.

        Each entry has `start` (Unix time), `records`, `kept`, `bytes`, `kept_bytes`, `errors` and
        `reports`; periods with no report are there with zeros.
        """
        hours = 1 if step == "hour" else 24
        first, last = int(since) // 3600 // hours, int(until) // 3600 // hours
        which, params = self._which(team_id, service_name)
        rows = self._db.rows(
            f"SELECT h.hour / {hours} AS period, {_SUMS} FROM service_hour h WHERE {which}"  # noqa: S608
            f" AND h.hour >= ? AND h.hour < ? GROUP BY h.hour / {hours}",
            *params,
            first * hours,
            (last + 1) * hours,
        )
        found = {int(row["period"]): row for row in rows}
        return [
            {"start": period * hours * 3600, **_sums(found.get(period))}
            for period in range(first, last + 1)
        ]

    def totals(self, team_id: int, service_name: str | None, *, since: float, until: float) -> Row:
        """Sums over a time, of one service or (None) all of the team's."""
        which, params = self._which(team_id, service_name)
        row = self._db.row(
            f"SELECT {_SUMS} FROM service_hour h WHERE {which} AND h.hour BETWEEN ? AND ?",  # noqa: S608
            *params,
            int(since) // 3600,
            int(until) // 3600,
        )
        return _sums(row)

    def by_service(self, team_id: int, *, since: float, until: float) -> list[Row]:
        """Sums over a time for each of the team's services, the largest first."""
        rows = self._db.rows(
            f"SELECT s.name AS service_name, {_SUMS} FROM service s LEFT JOIN service_hour h"  # noqa: S608
            " ON h.service_id = s.id AND h.hour BETWEEN ? AND ?"
            " WHERE s.team_id = ? GROUP BY s.name",
            int(since) // 3600,
            int(until) // 3600,
            team_id,
        )
        sums = [{"service_name": row["service_name"], **_sums(row)} for row in rows]
        return sorted(sums, key=lambda row: (-row["bytes"], row["service_name"]))

    def prune(self, *, before: float) -> int:
        """Forget hours before *before*; how many."""
        with self._db.transaction():
            return self._db.execute("DELETE FROM service_hour WHERE hour < ?", int(before) // 3600)

    def _which(self, team_id: int, service_name: str | None) -> tuple[str, list[int]]:
        if service_name is None:
            return "h.service_id IN (SELECT id FROM service WHERE team_id = ?)", [team_id]
        return "h.service_id = ?", [self._services.require(team_id, service_name)["id"]]


def _sums(row: Row | None) -> Row:
    """The sums as whole numbers: PostgreSQL's are of type numeric, and NULL where there is none."""
    return {name: int(row[name] or 0) if row else 0 for name in _NAMES}
