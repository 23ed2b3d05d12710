"""
Boosts: what is kept whole for a while, whatever the policy says.

One that runs has an `ends_at` in the future, so it ends by itself and nothing has to be written for
that. All three of `signature`, `severity` and `logger` None: the whole service.
"""

from __future__ import annotations

import math
import time
from typing import Final

from lipservice_server.db import Database, Row
from lipservice_server.errors import ConflictError, NotFoundError
from lipservice_server.store import audit
from lipservice_server.store.services import Services, touch

#: Boosts of one service that may run at one time.
MAX_RUNNING: Final = 100
_SELECTORS: Final = ("signature", "severity", "logger")
_COLUMNS: Final = (
    "b.id, s.name AS service_name, b.signature, b.severity, b.logger, p.template, b.minutes,"
    " b.reason, b.created_at, b.created_by, b.ends_at AS until, b.ended_by"
)
_FROM: Final = (
    "FROM boost b JOIN service s ON s.id = b.service_id LEFT JOIN pattern p"
    " ON p.service_id = b.service_id AND p.signature = b.signature WHERE s.team_id = ?"
)


class Boosts:
    """The boosts of a team's services. Safe to share between threads."""

    def __init__(self, db: Database, services: Services) -> None:
        self._db = db
        self._services = services

    def running(self, team_id: int, service_name: str, *, now: float) -> list[Row]:
        """What is to be served: selectors and `until` (a Unix time), the oldest first."""
        service = self._services.require(team_id, service_name)
        return self._db.rows(
            "SELECT signature, severity, logger, ends_at AS until FROM boost"
            " WHERE service_id = ? AND ends_at > ? ORDER BY id",
            service["id"],
            math.floor(now),
        )

    def page(
        self,
        team_id: int,
        service_name: str | None,
        *,
        ended: bool = False,
        before: int | None = None,
        limit: int = 50,
        now: float,
    ) -> list[Row]:
        """
        The newest that run, or have ended, before the boost *before*.

        Of one service or (None) all of the team's. `template` is None where no instance has
        reported the pattern, `ended_by` where a boost ends or has ended by itself.
        """
        where, params = "", []
        if service_name is not None:
            where = " AND b.service_id = ?"
            params.append(self._services.require(team_id, service_name)["id"])
        return self._db.rows(
            f"SELECT {_COLUMNS} {_FROM}{where} AND b.ends_at {'<=' if ended else '>'} ?"
            " AND b.id < ? ORDER BY b.id DESC LIMIT ?",
            team_id,
            *params,
            math.floor(now),
            before or 2**62,
            limit,
        )

    def get(self, team_id: int, boost_id: int, *, service_name: str | None = None) -> Row:
        """
        One boost; with *service_name*, only where it is that service's.

        Raises:
            NotFoundError: There is none.
        """
        row = self._db.row(f"SELECT {_COLUMNS} {_FROM} AND b.id = ?", team_id, boost_id)
        if row is None or service_name not in (None, row["service_name"]):
            where = "team" if service_name is None else "service"
            raise NotFoundError(f"there is no boost {boost_id} in this {where}")
        return row

    def begin(
        self,
        team_id: int,
        service_name: str,
        *,
        signature: str | None,
        severity: str | None,
        logger: str | None,
        minutes: float,
        reason: str,
        actor: str,
        now: float,
    ) -> Row:
        """
        Keep everything of a pattern, severity or logger, or of the whole service, from now on.

        Raises:
            NotFoundError: The team has no such service.
            ConflictError: As many run in this service as may.
        """
        with self._db.transaction():
            service = self._services.require(team_id, service_name)
            touch(self._db, service["id"])  # first: it lets one writer at a time count what runs
            self._check_room(service["id"], now)
            boost_id = self._db.insert(
                "INSERT INTO boost (service_id, signature, severity, logger, minutes, reason,"
                " created_at, created_by, ends_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
                " RETURNING id",
                service["id"],
                signature,
                severity,
                logger,
                minutes,
                reason,
                int(now),
                actor,
                math.ceil(now + 60.0 * minutes),
            )
            row = self.get(team_id, boost_id)
            detail = _detail(row) | {"minutes": minutes, "until": _iso(row["until"])}
            detail |= {"reason": reason} if reason else {}
            self._note(team_id, row, "boost.begin", detail, actor, now)
            return row

    def end(
        self,
        team_id: int,
        boost_id: int,
        *,
        service_name: str | None = None,
        actor: str,
        now: float,
    ) -> Row:
        """
        End a boost now; one that has ended stays as it is.

        Raises:
            NotFoundError: There is none of this id, or it is another service's.
        """
        with self._db.transaction():
            before = self.get(team_id, boost_id, service_name=service_name)
            service = self._services.require(team_id, before["service_name"])
            touch(self._db, service["id"])  # first: of two who end it, the later one finds it ended
            ended = self._db.execute(
                "UPDATE boost SET ends_at = ?, ended_by = ?"
                " WHERE id = ? AND service_id = ? AND ends_at > ?",
                math.floor(now),
                actor,
                boost_id,
                service["id"],
                math.floor(now),
            )
            if ended:
                detail = _detail(before) | {
                    "was_to_end": _iso(before["until"]),
                    "ended": _iso(now),
                }
                self._note(team_id, before, "boost.end", detail, actor, now)
            return self.get(team_id, boost_id)

    def candidates(
        self, team_id: int, service_name: str, signature: str, template: str
    ) -> list[Row]:
        """
        The pattern of *signature*, and those that a message of *template* may fit.

        Rows have `signature`, `template` and `last_seen`. The templates begin with a variable or as
        *template* does, and hold a variable: the others cannot fit.
        """
        service = self._services.require(team_id, service_name)
        first = template.split(" ", 1)[0]
        return self._db.rows(
            "SELECT signature, template, last_seen FROM pattern WHERE service_id = ?"
            " AND (signature = ? OR template LIKE '<*>%' OR"
            " (template LIKE ? ESCAPE '\\' AND template LIKE '%<*>%')) ORDER BY signature",
            service["id"],
            signature,
            f"{_escape(first)} %",
        )

    def prune(self, *, before: float) -> int:
        """Forget boosts that ended before *before*; how many."""
        with self._db.transaction():
            return self._db.execute("DELETE FROM boost WHERE ends_at < ?", int(before))

    def _check_room(self, service_id: int, now: float) -> None:
        row = self._db.row(
            "SELECT count(*) AS n FROM boost WHERE service_id = ? AND ends_at > ?",
            service_id,
            math.floor(now),
        )
        if row is not None and row["n"] >= MAX_RUNNING:
            raise ConflictError(f"at most {MAX_RUNNING} boosts of a service run at once: end some")

    def _note(
        self, team_id: int, row: Row, action: str, detail: Row, actor: str, now: float
    ) -> None:
        target = f"{row['service_name']}/{row['id']}"
        audit.record(
            self._db, team_id, actor=actor, action=action, target=target, detail=detail, now=now
        )


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _detail(row: Row) -> Row:
    """What the boost is about; nothing of it is named where it is the whole service."""
    named = {name: row[name] for name in _SELECTORS if row[name] is not None}
    return named or {"of": "the whole service"}


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
