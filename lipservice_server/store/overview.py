"""What the dashboard alone asks: who is live and what is new. Reads, never writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lipservice_server.db import Database, Row
from lipservice_server.store.instances import LIVE_INTERVALS
from lipservice_server.store.services import Services

_DAY: Final = 86_400


class Overview:
    """Read-only questions over a team's services. Safe to share between threads."""

    def __init__(self, db: Database, services: Services) -> None:
        self._db = db
        self._services = services

    def service_names(self, team_id: int, *, limit: int) -> list[str]:
        """Names of the team's services, in their order."""
        rows = self._db.rows(
            "SELECT name FROM service WHERE team_id = ? ORDER BY name LIMIT ?", team_id, limit
        )
        return [row["name"] for row in rows]

    def templates(self, team_id: int, service_name: str, *, limit: int) -> list[str]:
        """Templates of a service's patterns, at most *limit* of them."""
        service_id = self._services.require(team_id, service_name)["id"]
        rows = self._db.rows(
            "SELECT template FROM pattern WHERE service_id = ? LIMIT ?", service_id, limit
        )
        return [row["template"] for row in rows]

    def beginning_with(
        self, team_id: int, service_name: str, start: str, *, limit: int
    ) -> list[Row]:
        """Patterns whose template begins with *start*: signature, template, severity, count."""
        service_id = self._services.require(team_id, service_name)["id"]
        return self._db.rows(
            "SELECT signature, template, severity, count FROM pattern"
            " WHERE service_id = ? AND substr(template, 1, ?) = ? ORDER BY count DESC LIMIT ?",
            service_id,
            len(start),
            start,
            limit,
        )

    def templates_of(
        self, team_id: int, service_name: str, signatures: Sequence[str]
    ) -> dict[str, str]:
        """Templates by signature, of those patterns that the service has."""
        service_id = self._services.require(team_id, service_name)["id"]
        if not signatures:
            return {}
        marks = ", ".join("?" * len(signatures))
        rows = self._db.rows(
            "SELECT signature, template FROM pattern"  # noqa: S608
            f" WHERE service_id = ? AND signature IN ({marks})",
            service_id,
            *signatures,
        )
        return {row["signature"]: row["template"] for row in rows}

    def live_instances(self, team_id: int, service_name: str | None, *, now: float) -> int:
        """How many instances have reported lately, of one service or (None) all of the team's."""
        which, params = self._which(team_id, service_name)
        row = self._db.row(
            f"SELECT count(*) AS n FROM instance i WHERE i.service_id {which}"  # noqa: S608
            " AND i.last_seen + i.seconds * ? >= ?",
            *params,
            LIVE_INTERVALS,
            int(now),
        )
        return int(row["n"]) if row else 0

    def newest(
        self, team_id: int, service_name: str | None, *, since: float, limit: int
    ) -> tuple[list[Row], int]:
        """
        Patterns first seen since a time, the newest first, and how many there are.

        A service's patterns are new only a day after its own first ones: before, all would be.
        """
        which, params = self._which(team_id, service_name)
        condition = (
            f"FROM pattern p JOIN service s ON s.id = p.service_id WHERE p.service_id {which}"
            " AND p.first_seen >= ? AND p.first_seen >= s.created_at + ?"
        )
        bounds = (*params, int(since), _DAY)
        total = self._db.row(f"SELECT count(*) AS n {condition}", *bounds)
        rows = self._db.rows(
            "SELECT s.name AS service_name, p.signature, p.template, p.severity, p.first_seen,"
            f" p.count, p.kept, p.rate {condition}"
            " ORDER BY p.first_seen DESC, p.signature LIMIT ?",
            *bounds,
            limit,
        )
        return rows, int(total["n"]) if total else 0

    def _which(self, team_id: int, service_name: str | None) -> tuple[str, list[int]]:
        if service_name is None:
            return "IN (SELECT id FROM service WHERE team_id = ?)", [team_id]
        return "= ?", [self._services.require(team_id, service_name)["id"]]
