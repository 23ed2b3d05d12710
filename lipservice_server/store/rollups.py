"""
Roll-ups: a pattern's counts since the last roll-up become counts of an hour and of a day.

A report touches one row for each pattern; its volume over time is worked out here, in the
background. What was rolled up is remembered beside the counts and changed in the transaction that
adds it to the hour and the day, so nothing is added twice or lost. Chunks are small, so that
reports never wait long for the write lock.
"""

from __future__ import annotations

from typing import Final

from lipservice_server.db import Database, Row
from lipservice_server.store.bulk import Bulk

_CHUNK: Final = 2_000
_COUNTS: Final = ("count", "kept", "bytes", "kept_bytes", "errors")
_DELTAS: Final = ", ".join(f"{name} - rolled_{name} AS {name}" for name in _COUNTS)


def _bulk(table: str, period: str) -> Bulk:
    return Bulk(
        table=table,
        columns={"service_id": "bigint", period: "bigint", "signature": "text"}
        | dict.fromkeys(_COUNTS, "bigint"),
        key=("service_id", period, "signature"),
        update=", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in _COUNTS),
    )


_HOURS: Final = _bulk("pattern_hour", "hour")
_DAYS: Final = _bulk("pattern_day", "day")


class Rollups:
    """Rolls counts up and prunes old ones, for all teams. Safe to run in several processes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def roll_up(self, service_id: int, *, now: float) -> int:
        """Roll up one service; the number of patterns that had new counts."""
        after, rolled = "", 0
        while True:
            with self._db.transaction():
                rows = self._pending(service_id, after)
                self._write(service_id, rows, int(now))
            rolled += len(rows)
            if len(rows) < _CHUNK:
                return rolled
            after = rows[-1]["signature"]

    def find_risers(self, service_id: int, *, now: float, most: int = 100, least: int = 50) -> int:
        """
        Find a service's patterns whose volume has jumped, for `Patterns.risers`; how many.

        Compared are the mean a day of yesterday and today, today in part, and that of the seven
        days before; a pattern with at most twice as much, or fewer than *least* a day, is none.
        """
        day = int(now) // 86_400
        rows = self._db.rows(
            "SELECT signature, sum(CASE WHEN day >= ? THEN count ELSE 0 END) AS lately,"
            " sum(CASE WHEN day < ? THEN count ELSE 0 END) AS earlier FROM pattern_day"
            " WHERE service_id = ? AND day BETWEEN ? AND ? GROUP BY signature"
            " HAVING sum(CASE WHEN day >= ? THEN count ELSE 0 END) >= ?",
            day - 1,
            day - 1,
            service_id,
            day - 8,
            day,
            day - 1,
            least * 2,
        )
        found = [
            (row["signature"], int(row["lately"]) / 2, int(row["earlier"]) / 7) for row in rows
        ]
        jumped = [(*row, row[1] / max(row[2], 1.0)) for row in found if row[1] > 2 * row[2]]
        jumped.sort(key=lambda row: (-row[3], row[0]))
        with self._db.transaction():
            self._db.execute("DELETE FROM rising WHERE service_id = ?", service_id)
            for place, (signature, today, before, factor) in enumerate(jumped[:most]):
                self._db.execute(
                    "INSERT INTO rising (service_id, place, signature, today, before, factor)"
                    " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (service_id, place) DO NOTHING",
                    service_id,
                    place,
                    signature,
                    today,
                    before,
                    factor,
                )
        return len(jumped[:most])

    def prune(
        self, service_id: int, *, hours_before: int, days_before: int, unseen_since: int
    ) -> int:
        """
        Forget old volume and patterns not seen for long; how many rows.

        *hours_before* and *days_before* are the first hour and day (since 1970) that stay; patterns
        last reported before *unseen_since* (Unix time) go, unless they are pinned.
        """
        gone = self._prune_periods("hour", service_id, hours_before)
        gone += self._prune_periods("day", service_id, days_before)
        with self._db.transaction():
            gone += self._db.execute(
                "DELETE FROM pattern WHERE service_id = ? AND reported_at < ?"
                " AND count = rolled_count AND signature NOT IN"
                " (SELECT signature FROM override WHERE service_id = ?)",
                service_id,
                unseen_since,
                service_id,
            )
        return gone

    def _pending(self, service_id: int, after: str) -> list[Row]:
        lock = " FOR UPDATE" if self._db.dialect == "postgresql" else ""
        return self._db.rows(
            f"SELECT signature, {_DELTAS} FROM pattern WHERE service_id = ? AND signature > ?"  # noqa: S608
            f" AND count > rolled_count ORDER BY signature LIMIT {_CHUNK}{lock}",
            service_id,
            after,
        )

    def _write(self, service_id: int, rows: list[Row], now: int) -> None:
        if not rows:
            return
        counts = [(row["signature"], *(row[name] for name in _COUNTS)) for row in rows]
        _HOURS.apply(self._db, [(service_id, now // 3600, *count) for count in counts])
        _DAYS.apply(self._db, [(service_id, now // 86_400, *count) for count in counts])
        settled = ", ".join(f"rolled_{name} = {name}" for name in _COUNTS)
        # The write lock (SQLite) or the rows' locks (PostgreSQL) are held: these are the same
        # counts that were read above.
        self._db.execute(
            f"UPDATE pattern SET {settled} WHERE service_id = ? AND signature >= ?"  # noqa: S608
            " AND signature <= ? AND count > rolled_count" + self._only(rows),
            service_id,
            rows[0]["signature"],
            rows[-1]["signature"],
            *([[row["signature"] for row in rows]] if self._db.dialect == "postgresql" else []),
        )

    def _only(self, rows: list[Row]) -> str:
        """On PostgreSQL, a report may add a pattern between the reading and the writing."""
        return " AND signature = ANY(?)" if rows and self._db.dialect == "postgresql" else ""

    def _prune_periods(self, step: str, service_id: int, first: int) -> int:
        """One period a transaction: each is a range of the primary key."""
        row = self._db.row(
            f"SELECT min({step}) AS oldest FROM pattern_{step} WHERE service_id = ?",  # noqa: S608
            service_id,
        )
        gone = 0
        oldest = first if row is None or row["oldest"] is None else int(row["oldest"])
        for period in range(oldest, first):
            with self._db.transaction():
                gone += self._db.execute(
                    f"DELETE FROM pattern_{step} WHERE service_id = ? AND {step} = ?",  # noqa: S608
                    service_id,
                    period,
                )
        return gone
