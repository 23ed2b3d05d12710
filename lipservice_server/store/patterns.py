"""Patterns: their counts, their volume over time, and what a person has decided about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

from lipservice_server.db import Database, Row
from lipservice_server.errors import ConflictError, NotFoundError
from lipservice_server.store import audit
from lipservice_server.store.services import Services, touch

Step = Literal["hour", "day"]

#: What a list of patterns may be sorted by.
SORTS: Final = {
    "count": "count",
    "kept": "kept",
    "bytes": "bytes",
    "rate": "rate",
    "errors": "errors",
    "first_seen": "first_seen",
    "last_seen": "last_seen",
    "template": "template",
    "severity": "severity",
    "signature": "signature",
}
#: Decisions by hand that a service may hold.
MAX_OVERRIDES: Final = 10_000
_COLUMNS: Final = (
    "p.signature, p.template, p.severity, p.first_seen, p.last_seen, p.count, p.kept, p.bytes,"
    " p.kept_bytes, p.errors, p.rate, o.rate AS pinned_rate,"
    " coalesce(o.protected, 0) AS protected, o.reason AS pin_reason, o.created_by AS pinned_by"
)
_FROM: Final = (
    "FROM pattern p LEFT JOIN override o"
    " ON o.service_id = p.service_id AND o.signature = p.signature WHERE p.service_id = ?"
)


class Patterns:
    """The patterns of a team's services. Safe to share between threads."""

    def __init__(self, db: Database, services: Services) -> None:
        self._db = db
        self._services = services

    def search(
        self,
        team_id: int,
        service_name: str,
        *,
        search: str = "",
        severity: str = "",
        pinned: bool | None = None,
        first_seen_after: int | None = None,
        sort: str = "count",
        descending: bool = True,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[list[Row], int]:
        """
        One page of a service's patterns, and how many there are in all.

        *search* is a part of the template in any case, or the beginning of a signature; *sort* is
        a key of `SORTS`, *first_seen_after* a Unix time.
        """
        service = self._services.require(team_id, service_name)
        where, params = _conditions(search, severity, pinned, first_seen_after)
        total = self._db.row(f"SELECT count(*) AS n {_FROM}{where}", service["id"], *params)
        order = "DESC" if descending else "ASC"
        # Sorted are the names alone: to sort whole rows takes several times as long.
        rows = self._db.rows(
            f"SELECT {_COLUMNS} FROM (SELECT p.signature AS name {_FROM}{where}"  # noqa: S608
            f" ORDER BY p.{SORTS[sort]} {order}, p.signature LIMIT ? OFFSET ?) page"
            " JOIN pattern p ON p.service_id = ? AND p.signature = page.name"
            " LEFT JOIN override o ON o.service_id = p.service_id AND o.signature = p.signature"
            f" ORDER BY p.{SORTS[sort]} {order}, p.signature",
            service["id"],
            *params,
            limit,
            offset,
            service["id"],
        )
        return [_read(row) for row in rows], int(total["n"]) if total else 0

    def get(self, team_id: int, service_name: str, signature: str) -> Row:
        """
        One pattern.

        Raises:
            NotFoundError: The service has none of this signature.
        """
        service = self._services.require(team_id, service_name)
        row = self._db.row(
            f"SELECT {_COLUMNS} {_FROM} AND p.signature = ?",
            service["id"],
            signature,
        )
        if row is None:
            raise NotFoundError(f"there is no pattern {signature!r:.70} in this service")
        return _read(row)

    def with_template(self, team_id: int, service_name: str, template: str) -> str:
        """
        The signature of the pattern whose template this is.

        Raises:
            NotFoundError: The service has no such pattern.
            ConflictError: It has several.
        """
        service = self._services.require(team_id, service_name)
        rows = self._db.rows(
            "SELECT signature FROM pattern WHERE service_id = ? AND template = ? LIMIT 2",
            service["id"],
            template,
        )
        if not rows:
            raise NotFoundError("no pattern of this service has this template: give a message")
        if len(rows) > 1:
            raise ConflictError("several patterns have this template: give a signature")
        return str(rows[0]["signature"])

    def volumes(
        self,
        team_id: int,
        service_name: str,
        signatures: Sequence[str],
        *,
        step: Step,
        periods: int,
        now: float,
    ) -> dict[str, list[Row]]:
        """
        Counts of some patterns over the last *periods* hours or days, the oldest first.

        Each entry has `start` (Unix time), `count`, `kept`, `bytes` and `errors`; periods with no
        count are there with zeros. What was reported since the last roll-up is in the last one.
        """
        service = self._services.require(team_id, service_name)
        seconds = 3600 if step == "hour" else 86_400
        last = int(now) // seconds
        first = last - periods + 1
        names = list(dict.fromkeys(signatures))
        if not names:
            return {}
        found = self._periods(service["id"], names, step, first, last)
        for row in self._pending(service["id"], names):
            _add(found, row["signature"], last, row)
        return {
            name: [
                {"start": period * seconds, **found.get((name, period), _NOTHING)}
                for period in range(first, last + 1)
            ]
            for name in names
        }

    def risers(
        self, team_id: int, service_name: str, *, limit: int = 20, least: float = 100
    ) -> list[Row]:
        """
        Patterns whose volume has jumped, as `Rollups.find_risers` last found them.

        The steepest come first. Rows have `signature`, `template`, `severity`, `first_seen`,
        `today` and `before` (records a day, lately and in the week before) and `factor`; those with
        less than *least* today are left out.
        """
        service = self._services.require(team_id, service_name)
        return self._db.rows(
            "SELECT p.signature, p.template, p.severity, p.first_seen, r.today, r.before, r.factor"
            " FROM rising r JOIN pattern p ON p.service_id = r.service_id"
            " AND p.signature = r.signature WHERE r.service_id = ? AND r.today >= ?"
            " ORDER BY r.place LIMIT ?",
            service["id"],
            least,
            limit,
        )

    def for_generation(
        self, team_id: int, service_name: str, *, now: float, days: int = 7
    ) -> list[Row]:
        """Signature, template, severity, first_seen and the last days' count, bytes and errors."""
        service = self._services.require(team_id, service_name)
        rows = self._db.rows(
            "SELECT p.signature, p.template, p.severity, p.first_seen,"
            " p.count - p.rolled_count + coalesce(d.count, 0) AS count,"
            " p.bytes - p.rolled_bytes + coalesce(d.bytes, 0) AS bytes,"
            " p.errors - p.rolled_errors + coalesce(d.errors, 0) AS errors"
            " FROM pattern p LEFT JOIN (SELECT signature, sum(count) AS count,"
            " sum(bytes) AS bytes, sum(errors) AS errors FROM pattern_day"
            " WHERE service_id = ? AND day >= ? GROUP BY signature) d"
            " ON d.signature = p.signature"
            " WHERE p.service_id = ? AND p.reported_at >= ? ORDER BY p.signature",
            service["id"],
            int(now) // 86_400 - days + 1,
            service["id"],
            int(now) - days * 86_400,
        )
        for row in rows:  # PostgreSQL's sums are of type numeric
            for column in ("count", "bytes", "errors"):
                row[column] = int(row[column])
        return [row for row in rows if row["count"] > 0]

    def overrides(self, team_id: int, service_name: str) -> list[Row]:
        """What people have decided about this service's patterns, the newest first."""
        service = self._services.require(team_id, service_name)
        rows = self._db.rows(
            "SELECT signature, rate, protected, reason, created_at, created_by FROM override"
            " WHERE service_id = ? ORDER BY created_at DESC, signature",
            service["id"],
        )
        for row in rows:
            row["protected"] = bool(row["protected"])
        return rows

    def pin(
        self,
        team_id: int,
        service_name: str,
        signature: str,
        *,
        rate: float,
        protected: bool,
        reason: str,
        actor: str,
        now: float,
    ) -> Row:
        """
        Fix a pattern's rate by hand, or protect it (rate 1); it wins over every generation.

        Raises:
            NotFoundError: The service has no such pattern.
            ConflictError: The service has as many decisions as it may have.
        """
        with self._db.transaction():
            service = self._services.require(team_id, service_name)
            before = self.get(team_id, service_name, signature)
            self._check_room(service["id"])
            self._db.execute(
                "INSERT INTO override (service_id, signature, rate, protected, reason, created_at,"
                " created_by) VALUES (?, ?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (service_id, signature) DO UPDATE SET rate = excluded.rate,"
                " protected = excluded.protected, reason = excluded.reason,"
                " created_at = excluded.created_at, created_by = excluded.created_by",
                service["id"],
                signature,
                1.0 if protected else rate,
                int(protected),
                reason,
                int(now),
                actor,
            )
            touch(self._db, service["id"])
            after = {"rate": 1.0 if protected else rate, "protected": protected, "reason": reason}
            self._note(team_id, service_name, "pattern.pin", before, after, actor, now)
            return self.get(team_id, service_name, signature)

    def release(
        self, team_id: int, service_name: str, signature: str, *, actor: str, now: float
    ) -> None:
        """
        Take back a decision by hand.

        Raises:
            NotFoundError: There is none about this pattern.
        """
        with self._db.transaction():
            service = self._services.require(team_id, service_name)
            before = self.get(team_id, service_name, signature)
            gone = self._db.execute(
                "DELETE FROM override WHERE service_id = ? AND signature = ?",
                service["id"],
                signature,
            )
            if not gone:
                raise NotFoundError(f"the pattern {signature!r:.70} is not pinned")
            touch(self._db, service["id"])
            self._note(team_id, service_name, "pattern.release", before, {}, actor, now)

    def _check_room(self, service_id: int) -> None:
        row = self._db.row("SELECT count(*) AS n FROM override WHERE service_id = ?", service_id)
        if row is not None and row["n"] >= MAX_OVERRIDES:
            raise ConflictError(f"a service has at most {MAX_OVERRIDES:,} pins: release some")

    def _note(
        self,
        team_id: int,
        service_name: str,
        action: str,
        before: Row,
        after: dict[str, Any],
        actor: str,
        now: float,
    ) -> None:
        old = {"rate": before["pinned_rate"], "protected": before["protected"]}
        audit.record(
            self._db,
            team_id,
            actor=actor,
            action=action,
            target=f"{service_name}/{before['signature']}",
            detail={"before": old, "after": after},
            now=now,
        )

    def _periods(
        self, service_id: int, names: Sequence[str], step: Step, first: int, last: int
    ) -> dict[tuple[str, int], Row]:
        marks = ", ".join("?" * len(names))
        periods = ", ".join(str(period) for period in range(first, last + 1))
        # Lists, not ranges: each (period, signature) is one look-up in the primary key.
        rows = self._db.rows(
            f"SELECT signature, {step} AS period, count, kept, bytes, errors"  # noqa: S608
            f" FROM pattern_{step} WHERE service_id = ? AND {step} IN ({periods})"
            f" AND signature IN ({marks})",
            service_id,
            *names,
        )
        found: dict[tuple[str, int], Row] = {}
        for row in rows:
            _add(found, row["signature"], row["period"], row)
        return found

    def _pending(self, service_id: int, names: Sequence[str]) -> list[Row]:
        marks = ", ".join("?" * len(names))
        return self._db.rows(
            "SELECT signature, count - rolled_count AS count, kept - rolled_kept AS kept,"  # noqa: S608
            " bytes - rolled_bytes AS bytes, errors - rolled_errors AS errors FROM pattern"
            f" WHERE service_id = ? AND count > rolled_count AND signature IN ({marks})",
            service_id,
            *names,
        )


_NOTHING: Final = {"count": 0, "kept": 0, "bytes": 0, "errors": 0}


def _add(found: dict[tuple[str, int], Row], name: str, period: int, row: Row) -> None:
    total = found.setdefault((name, period), dict(_NOTHING))
    for column in _NOTHING:
        total[column] += int(row[column])


def _conditions(
    search: str, severity: str, pinned: bool | None, first_seen_after: int | None
) -> tuple[str, list[object]]:
    where = ""
    params: list[object] = []
    if search:
        where += " AND (lower(p.template) LIKE ? ESCAPE '\\' OR p.signature LIKE ? ESCAPE '\\')"
        escaped = _escape(search.lower())
        params += [f"%{escaped}%", f"{_escape(search)}%"]
    if severity:
        where += " AND p.severity = ?"
        params.append(severity)
    if pinned is not None:
        where += " AND o.signature IS NOT NULL" if pinned else " AND o.signature IS NULL"
    if first_seen_after is not None:
        where += " AND p.first_seen > ?"
        params.append(first_seen_after)
    return where, params


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _read(row: Row) -> Row:
    row["protected"] = bool(row["protected"])
    row["mean_bytes"] = row["bytes"] / row["count"] if row["count"] else None
    row["weight"] = None if row["rate"] <= 0 else min(1 / row["rate"], math.inf)
    return row
