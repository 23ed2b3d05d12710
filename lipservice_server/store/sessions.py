"""
Sessions of the dashboard: who is signed in, until when, and what the next page is to tell them.

The hash of the session's id is the credential, so these verbs begin with it and not with a team:
the team is what they answer. A session ends with its key: each look-up joins the key's row, so a
revoked key's sessions are gone with the very next request, in every worker.
"""

from __future__ import annotations

from lipservice_server.db import Database, Row


class Sessions:
    """The dashboard's sessions. Safe to share between threads."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def begin(
        self, hashed: str, *, team_id: int, key_id: int | None, now: float, ends_at: float
    ) -> None:
        """Store a new session; those that have ended are forgotten with it."""
        with self._db.transaction():
            self._db.execute("DELETE FROM dashboard_session WHERE ends_at <= ?", int(now))
            self._db.execute(
                "INSERT INTO dashboard_session (hash, team_id, key_id, created_at, ends_at)"
                " VALUES (?, ?, ?, ?, ?)",
                hashed,
                team_id,
                key_id,
                int(now),
                int(ends_at),
            )

    def find(self, hashed: str, *, now: float) -> Row | None:
        """
        A session that lives, with `team_id`, `notice` and its key's `prefix` and `service_name`.

        None where it has ended, or its key was revoked, has expired or is no admin's. The `key_id`
        is None for a session of the loopback mode, which nobody signed in for.
        """
        row = self._db.row(
            "SELECT s.team_id, s.key_id, s.notice, k.prefix, k.scopes, k.service_name, k.id AS live"
            " FROM dashboard_session s LEFT JOIN api_key k ON k.id = s.key_id"
            " AND k.team_id = s.team_id AND k.revoked_at IS NULL"
            " AND (k.expires_at IS NULL OR k.expires_at > ?)"
            " WHERE s.hash = ? AND s.ends_at > ?",
            int(now),
            hashed,
            int(now),
        )
        if row is None:
            return None
        if row["key_id"] is None:
            return row
        return row if row["live"] is not None and "admin" in row["scopes"].split() else None

    def leave_notice(self, hashed: str, notice: str) -> None:
        """Keep a text for the session's next page; empty: it was shown."""
        self._db.execute("UPDATE dashboard_session SET notice = ? WHERE hash = ?", notice, hashed)

    def end(self, hashed: str) -> None:
        """End a session for good; ending it again changes nothing."""
        self._db.execute("DELETE FROM dashboard_session WHERE hash = ?", hashed)
