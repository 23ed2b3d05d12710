"""Teams, and what each may spend on models in a day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import peewee

from lipservice_server.db import Database, Row
from lipservice_server.errors import ConflictError, NotFoundError
from lipservice_server.store import audit

_CHANGEABLE: Final = ("price_per_gb", "llm_daily_calls", "llm_daily_tokens")


class Teams:
    """The teams. Made by the operator on the command line, never through the API."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def create(self, name: str, *, now: float) -> int:
        """
        Make a team; its id.

        Raises:
            ConflictError: There is one of this name.
        """
        try:
            with self._db.transaction():
                team_id = self._db.insert(
                    "INSERT INTO team (name, created_at) VALUES (?, ?) RETURNING id", name, int(now)
                )
                audit.record(
                    self._db,
                    team_id,
                    actor="command line",
                    action="team.create",
                    target=name,
                    detail={},
                    now=now,
                )
                return team_id
        except peewee.IntegrityError as error:
            raise ConflictError(f"there is a team {name!r:.80}") from error

    def named(self, name: str) -> Row:
        """
        The team of this name.

        Raises:
            NotFoundError: There is none.
        """
        row = self._db.row("SELECT * FROM team WHERE name = ?", name)
        if row is None:
            raise NotFoundError(f"there is no team {name!r:.80}")
        return row

    def get(self, team_id: int) -> Row:
        """The team of this id."""
        row = self._db.row("SELECT * FROM team WHERE id = ?", team_id)
        if row is None:
            raise NotFoundError("there is no such team")
        return row

    def every(self) -> list[Row]:
        """All teams, by name, for the command line and background work."""
        return self._db.rows("SELECT * FROM team ORDER BY name")

    def update(self, team_id: int, changes: Mapping[str, Any], *, actor: str, now: float) -> Row:
        """Change a team's price and budgets; the team as it is afterwards."""
        with self._db.transaction():
            before = self.get(team_id)
            for column in _CHANGEABLE:
                if column in changes:
                    self._db.execute(
                        f"UPDATE team SET {column} = ? WHERE id = ?",  # noqa: S608  from our list
                        changes[column],
                        team_id,
                    )
            audit.record(
                self._db,
                team_id,
                actor=actor,
                action="team.update",
                target=before["name"],
                detail={
                    "before": {name: before[name] for name in changes},
                    "after": dict(changes),
                },
                now=now,
            )
            return self.get(team_id)

    def usage(self, team_id: int, day: int) -> Row:
        """Calls and tokens that the team has used on *day* (days since 1970)."""
        row = self._db.row(
            "SELECT calls, tokens FROM llm_usage WHERE team_id = ? AND day = ?", team_id, day
        )
        return row or {"calls": 0, "tokens": 0}

    def reserve_call(
        self, team_id: int, day: int, *, calls_allowed: int, tokens_allowed: int, reserve: int
    ) -> int | None:
        """
        Take one call out of the day's budget before it is made.

        *reserve* tokens are booked with it, so that calls at one time cannot pass the cap
        together; `settle` puts the true number in their place.

        Returns:
            The tokens that the call may use, or None where the budget does not allow it.
        """
        with self._db.transaction():
            self._db.execute(
                "INSERT INTO llm_usage (team_id, day, calls, tokens) VALUES (?, ?, 0, 0)"
                " ON CONFLICT (team_id, day) DO NOTHING",
                team_id,
                day,
            )
            granted = self._db.execute(
                "UPDATE llm_usage SET calls = calls + 1, tokens = tokens + ?"
                " WHERE team_id = ? AND day = ? AND calls < ? AND tokens + ? <= ?",
                reserve,
                team_id,
                day,
                calls_allowed,
                reserve,
                tokens_allowed,
            )
            return reserve if granted else None

    def settle(self, team_id: int, day: int, *, reserved: int, used: int) -> None:
        """Book the tokens that a call really used in place of those reserved for it."""
        with self._db.transaction():
            self._db.execute(
                "UPDATE llm_usage SET tokens = tokens + ? WHERE team_id = ? AND day = ?",
                used - reserved,
                team_id,
                day,
            )
