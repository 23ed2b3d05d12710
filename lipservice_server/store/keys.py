"""API keys: ids, hashes, scopes and lives. No verb returns or takes a key itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lipservice_server.db import Database, Row
from lipservice_server.errors import ConflictError, NotFoundError
from lipservice_server.store import audit
from lipservice_server.store.services import bump

#: Keys that a team may have, revoked ones among them until they are pruned.
MAX_KEYS: Final = 1_000
_SHOWN: Final = (
    "id, name, prefix, scopes, service_name, created_at, expires_at, revoked_at, replaced_by"
)


class Keys:
    """The keys of teams. Every change raises the serial that tells all workers."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def live(self) -> list[Row]:
        """Every key that is not revoked, of every team, for the workers' memory."""
        return self._db.rows(
            "SELECT id, team_id, name, prefix, hash, scopes, service_name, expires_at"
            " FROM api_key WHERE revoked_at IS NULL"
        )

    def live_one(self, prefix: str) -> Row | None:
        """One key that is not revoked, by its id."""
        return self._db.row(
            "SELECT id, team_id, name, prefix, hash, scopes, service_name, expires_at"
            " FROM api_key WHERE revoked_at IS NULL AND prefix = ?",
            prefix,
        )

    def all(self, team_id: int) -> list[Row]:
        """Every key of the team, the newest first, without its hash."""
        rows = self._db.rows(
            f"SELECT {_SHOWN} FROM api_key WHERE team_id = ? ORDER BY id DESC",  # noqa: S608
            team_id,
        )
        return [_read(row) for row in rows]

    def get(self, team_id: int, key_id: int) -> Row:
        """
        One key of the team, without its hash.

        Raises:
            NotFoundError: The team has none of this id.
        """
        row = self._db.row(
            f"SELECT {_SHOWN} FROM api_key WHERE team_id = ? AND id = ?",  # noqa: S608
            team_id,
            key_id,
        )
        if row is None:
            raise NotFoundError("there is no such key in this team")
        return _read(row)

    def add(
        self,
        team_id: int,
        *,
        name: str,
        prefix: str,
        hashed: str,
        scopes: Sequence[str],
        service_name: str | None,
        expires_at: int | None,
        actor: str,
        now: float,
    ) -> Row:
        """Store a new key's hash; the key's row without it."""
        with self._db.transaction():
            count = self._db.row("SELECT count(*) AS n FROM api_key WHERE team_id = ?", team_id)
            if count is not None and count["n"] >= MAX_KEYS:
                raise ConflictError(f"a team has at most {MAX_KEYS:,} keys")
            key_id = self._db.insert(
                "INSERT INTO api_key (team_id, name, prefix, hash, scopes, service_name,"
                " created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
                team_id,
                name,
                prefix,
                hashed,
                " ".join(scopes),
                service_name,
                int(now),
                expires_at,
            )
            bump(self._db, "keys")
            audit.record(
                self._db,
                team_id,
                actor=actor,
                action="key.create",
                target=prefix,
                detail={"name": name, "scopes": list(scopes), "service_name": service_name},
                now=now,
            )
            return self.get(team_id, key_id)

    def replace(
        self,
        team_id: int,
        key_id: int,
        *,
        prefix: str,
        hashed: str,
        ends_at: int,
        actor: str,
        now: float,
    ) -> Row:
        """
        Make a successor of a key; the old one works beside it until *ends_at* (a Unix time).

        Raises:
            NotFoundError: The team has no such key.
            ConflictError: The key is revoked, expired or was rotated already.
        """
        with self._db.transaction():
            old = self.get(team_id, key_id)
            if old["revoked_at"] is not None or _is_over(old, now):
                raise ConflictError("the key is revoked or expired: make a new one")
            if old["replaced_by"] is not None:
                raise ConflictError("the key was rotated already: rotate its successor")
            new = self.add(
                team_id,
                name=old["name"],
                prefix=prefix,
                hashed=hashed,
                scopes=old["scopes"],
                service_name=old["service_name"],
                expires_at=_same_life(old, now),
                actor=actor,
                now=now,
            )
            ends = ends_at if old["expires_at"] is None else min(ends_at, old["expires_at"])
            self._db.execute(
                "UPDATE api_key SET expires_at = ?, replaced_by = ? WHERE id = ? AND team_id = ?",
                ends,
                new["id"],
                key_id,
                team_id,
            )
            audit.record(
                self._db,
                team_id,
                actor=actor,
                action="key.rotate",
                target=old["prefix"],
                detail={"successor": prefix, "old_key_ends_at": ends},
                now=now,
            )
            return new

    def revoke(self, team_id: int, key_id: int, *, actor: str, now: float) -> Row:
        """End a key at once; ending it again changes nothing."""
        with self._db.transaction():
            key = self.get(team_id, key_id)
            if key["revoked_at"] is None:
                self._db.execute(
                    "UPDATE api_key SET revoked_at = ? WHERE id = ? AND team_id = ?",
                    int(now),
                    key_id,
                    team_id,
                )
                bump(self._db, "keys")
                audit.record(
                    self._db,
                    team_id,
                    actor=actor,
                    action="key.revoke",
                    target=key["prefix"],
                    detail={"name": key["name"]},
                    now=now,
                )
            return self.get(team_id, key_id)

    def prune(self, *, before: float) -> int:
        """Forget keys that were revoked or expired before *before*; how many."""
        with self._db.transaction():
            return self._db.execute(
                "DELETE FROM api_key WHERE coalesce(revoked_at, expires_at) < ?", int(before)
            )


def _is_over(key: Row, now: float) -> bool:
    return key["expires_at"] is not None and key["expires_at"] <= now


def _same_life(old: Row, now: float) -> int | None:
    """A successor lives as long as its predecessor was to live."""
    if old["expires_at"] is None:
        return None
    return int(now) + int(old["expires_at"]) - int(old["created_at"])


def _read(row: Row) -> Row:
    row["scopes"] = row["scopes"].split()
    return row
