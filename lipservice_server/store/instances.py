"""Instances: the processes that report, when they last did, and how much each logs."""

from __future__ import annotations

import json

from lipservice_server.db import Database, Row
from lipservice_server.store.services import Services

#: An instance is live while its last report is not older than this many of its intervals.
LIVE_INTERVALS = 3


class Instances:
    """The instances of a team's services. Safe to share between threads."""

    def __init__(self, db: Database, services: Services) -> None:
        self._db = db
        self._services = services

    def page(
        self,
        team_id: int,
        service_name: str,
        *,
        live_at: float | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> tuple[list[Row], int]:
        """Instances, the last seen first, and how many; only those live at *live_at* if given."""
        service = self._services.require(team_id, service_name)
        live = "" if live_at is None else " AND last_seen + seconds * ? >= ?"
        params = [] if live_at is None else [LIVE_INTERVALS, int(live_at)]
        total = self._db.row(
            f"SELECT count(*) AS n FROM instance WHERE service_id = ?{live}",  # noqa: S608
            service["id"],
            *params,
        )
        rows = self._db.rows(
            f"SELECT * FROM instance WHERE service_id = ?{live}"  # noqa: S608
            " ORDER BY last_seen DESC, instance_id LIMIT ? OFFSET ?",
            service["id"],
            *params,
            limit,
            offset,
        )
        for row in rows:
            del row["service_id"]
            row["health"] = json.loads(row["health"])
        return rows, int(total["n"]) if total else 0

    def live(self, service_id: int, *, now: float) -> dict[str, float]:
        """Unprotected records a minute of each live instance, by its id."""
        rows = self._db.rows(
            "SELECT instance_id, records_per_minute FROM instance WHERE service_id = ?"
            " AND last_seen + seconds * ? >= ?",
            service_id,
            LIVE_INTERVALS,
            int(now),
        )
        return {row["instance_id"]: float(row["records_per_minute"]) for row in rows}

    def prune(self, *, before: float) -> int:
        """Forget instances last seen before *before*; how many."""
        with self._db.transaction():
            return self._db.execute("DELETE FROM instance WHERE last_seen < ?", int(before))
