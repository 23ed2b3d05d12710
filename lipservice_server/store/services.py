"""Services: what a team's applications are called, and how each is to be treated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from lipservice_server.db import Database, Row
from lipservice_server.errors import ConflictError, NotFoundError
from lipservice_server.store import audit

#: Services that a team may have: a wrong service_name in a loop must not fill the store.
MAX_SERVICES: Final = 5_000
_CHANGEABLE: Final = (
    "cost_target",
    "max_logs_per_minute",
    "llm_provider",
    "mode",
    "auto_generate",
    "auto_apply",
    "words",
)
_TABLES: Final = (
    "pattern",
    "pattern_hour",
    "pattern_day",
    "service_hour",
    "report",
    "instance",
    "policy",
    "override",
    "rising",
    "boost",
)


class Services:
    """The services of teams. Safe to share between threads."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, team_id: int, name: str) -> Row | None:
        """The service, or None."""
        row = self._db.row("SELECT * FROM service WHERE team_id = ? AND name = ?", team_id, name)
        return _read(row) if row else None

    def require(self, team_id: int, name: str) -> Row:
        """
        The service.

        Raises:
            NotFoundError: The team has none of this name.
        """
        found = self.find(team_id, name)
        if found is None:
            raise NotFoundError(f"there is no service {name!r:.80} in this team")
        return found

    def all(self, team_id: int) -> list[Row]:
        """Every service of the team, by name."""
        rows = self._db.rows("SELECT * FROM service WHERE team_id = ? ORDER BY name", team_id)
        return [_read(row) for row in rows]

    def ensure(self, team_id: int, name: str, *, now: float) -> int:
        """The service's id; it is made where the team has none of this name."""
        row = self._db.row("SELECT id FROM service WHERE team_id = ? AND name = ?", team_id, name)
        if row is not None:
            return int(row["id"])
        with self._db.transaction():
            count = self._db.row("SELECT count(*) AS n FROM service WHERE team_id = ?", team_id)
            if count is not None and count["n"] >= MAX_SERVICES:
                raise ConflictError(f"a team has at most {MAX_SERVICES:,} services")
            self._db.execute(
                "INSERT INTO service (team_id, name, created_at, mode, auto_generate, auto_apply,"
                " words, last_version, revision, records, generated_records)"
                " VALUES (?, ?, ?, 'active', 1, 1, '[]', 0, 0, 0, 0)"
                " ON CONFLICT (team_id, name) DO NOTHING",
                team_id,
                name,
                int(now),
            )
            row = self._db.row(
                "SELECT id FROM service WHERE team_id = ? AND name = ?", team_id, name
            )
            assert row is not None  # noqa: S101  inserted above, in this transaction
            touch(self._db, row["id"])
        return int(row["id"])

    def update(
        self, team_id: int, name: str, changes: Mapping[str, Any], *, actor: str, now: float
    ) -> Row:
        """Change settings of a service; the service as it is afterwards."""
        with self._db.transaction():
            before = self.require(team_id, name)
            for column in _CHANGEABLE:
                if column in changes:
                    value = _write(changes[column])
                    self._db.execute(
                        f"UPDATE service SET {column} = ? WHERE id = ?",  # noqa: S608  from our list
                        value,
                        before["id"],
                    )
            touch(self._db, before["id"])
            old = {column: before[column] for column in changes}
            audit.record(
                self._db,
                team_id,
                actor=actor,
                action="service.update",
                target=name,
                detail={"before": old, "after": dict(changes)},
                now=now,
            )
            return self.require(team_id, name)

    def delete(self, team_id: int, name: str, *, actor: str, now: float) -> None:
        """Delete a service and everything that was counted for it."""
        with self._db.transaction():
            service = self.require(team_id, name)
            for table in _TABLES:
                self._db.execute(
                    f"DELETE FROM {table} WHERE service_id = ?",  # noqa: S608  from our list
                    service["id"],
                )
            self._db.execute("DELETE FROM service WHERE id = ?", service["id"])
            bump(self._db, "deleted")
            audit.record(
                self._db,
                team_id,
                actor=actor,
                action="service.delete",
                target=name,
                detail={"records": service["records"]},
                now=now,
            )

    def due(self, *, before: float, records: int) -> list[Row]:
        """
        Services, of every team, that may be generated by themselves.

        Args:
            before: Latest time of the last generation, as a Unix time.
            records: Records that must have come since.
        """
        rows = self._db.rows(
            "SELECT * FROM service WHERE auto_generate = 1"
            " AND coalesce(generated_at, 0) <= ? AND records - generated_records >= ?"
            " ORDER BY generated_at, id",
            int(before),
            records,
        )
        return [_read(row) for row in rows]

    def every(self) -> list[Row]:
        """Every service of every team, for background work."""
        return [_read(row) for row in self._db.rows("SELECT * FROM service ORDER BY id")]

    def mark_generated(self, team_id: int, service_id: int, *, now: float) -> None:
        """Remember that a generation was made, so that the next one waits for new counts."""
        with self._db.transaction():
            self._db.execute(
                "UPDATE service SET generated_at = ?, generated_records = records"
                " WHERE id = ? AND team_id = ?",
                int(now),
                service_id,
                team_id,
            )


def touch(db: Database, service_id: int) -> None:
    """Let every worker know that what it serves for this service has changed."""
    serial = bump(db, "policies")
    db.execute("UPDATE service SET revision = ? WHERE id = ?", serial, service_id)


def bump(db: Database, name: str) -> int:
    """
    Raise a serial by one, inside the transaction of the change.

    Its row stays locked until the commit, so serials become visible in their order and a worker
    that has seen one has missed none before it.
    """
    return db.insert("UPDATE change SET serial = serial + 1 WHERE name = ? RETURNING serial", name)


def _read(row: Row) -> Row:
    row["words"] = json.loads(row["words"])
    for flag in ("auto_generate", "auto_apply"):
        row[flag] = bool(row[flag])
    return row


def _write(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return int(value) if isinstance(value, bool) else value
