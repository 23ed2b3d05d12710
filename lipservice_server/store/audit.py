"""The audit log: who did what to what. Written in the transaction of the change; never changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lipservice_server.db import Database, Row


def record(
    db: Database,
    team_id: int,
    *,
    actor: str,
    action: str,
    target: str,
    detail: Mapping[str, Any],
    now: float,
) -> None:
    """Write one line, inside the transaction of the change; *detail* holds ids, never secrets."""
    db.execute(
        "INSERT INTO audit (team_id, at, actor, action, target, detail) VALUES (?, ?, ?, ?, ?, ?)",
        team_id,
        int(now),
        actor,
        action,
        target,
        json.dumps(detail, ensure_ascii=False),
    )


class Audit:
    """Reads the log. No verb changes a line; the old ones go after their time."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def page(
        self, team_id: int, *, before: int | None = None, limit: int = 50, action: str = ""
    ) -> list[Row]:
        """The newest lines before the line *before*; *action* is a beginning such as `key.`."""
        rows = self._db.rows(
            "SELECT id, at, actor, action, target, detail FROM audit"
            " WHERE team_id = ? AND id < ? AND substr(action, 1, ?) = ?"
            " ORDER BY id DESC LIMIT ?",
            team_id,
            before or 2**62,
            len(action),
            action,
            limit,
        )
        for row in rows:
            row["detail"] = json.loads(row["detail"])
        return rows

    def prune(self, *, before: float) -> int:
        """Forget lines written before *before*; how many."""
        with self._db.transaction():
            return self._db.execute("DELETE FROM audit WHERE at < ?", int(before))
