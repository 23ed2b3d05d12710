"""
Reports: counts are added exactly once, whatever dies and however often a report is sent again.

The report's id is written in the same transaction as its counts: an id that was written first
would make the repeat of a failed report count nothing, one that was written later would count it
twice. Rows are touched in one order (report, patterns by signature, hour, instance, service), so
that reports cannot deadlock.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Any, Final

from lipservice_server.db import Database
from lipservice_server.errors import ConflictError
from lipservice_server.intake import Intake
from lipservice_server.store.bulk import Bulk
from lipservice_server.store.services import Services

_PATTERNS: Final = Bulk(
    table="pattern",
    columns={
        "service_id": "bigint",
        "signature": "text",
        "template": "text",
        "severity": "text",
        "first_seen": "bigint",
        "last_seen": "bigint",
        "count": "bigint",
        "kept": "bigint",
        "bytes": "bigint",
        "kept_bytes": "bigint",
        "errors": "bigint",
        "rate": "double precision",
        "reported_at": "bigint",
    },
    key=("service_id", "signature"),
    update=(
        "count = pattern.count + excluded.count, kept = pattern.kept + excluded.kept,"
        " bytes = pattern.bytes + excluded.bytes,"
        " kept_bytes = pattern.kept_bytes + excluded.kept_bytes,"
        " errors = pattern.errors + excluded.errors, rate = excluded.rate,"
        " reported_at = excluded.reported_at,"
        " severity = excluded.severity, last_seen ="
        " CASE WHEN excluded.last_seen > pattern.last_seen"
        " THEN excluded.last_seen ELSE pattern.last_seen END,"
        " template = CASE WHEN pattern.template = '' THEN excluded.template"
        " ELSE pattern.template END"
    ),
)


@dataclass(frozen=True, slots=True)
class Sender:
    """Which instance sent a report, and what it says of itself."""

    instance_id: str
    #: Seconds that the report covers; None: since the instance's last one.
    interval: float | None = None
    sdk_language: str = ""
    sdk_version: str = ""
    health: dict[str, Any] = field(default_factory=dict)


class _GoneError(Exception):
    """The service was deleted after its id was remembered."""


class Reports:
    """Takes reports in. Safe to share between threads."""

    def __init__(self, db: Database, services: Services) -> None:
        self._db = db
        self._services = services
        self._ids: dict[tuple[int, str], int] = {}
        self._lock = threading.Lock()

    def accept(
        self,
        team_id: int,
        service_name: str,
        intake: Intake,
        *,
        report_id: str | None = None,
        digest: str = "",
        sender: Sender | None = None,
        now: float,
        wait: float | None = None,
    ) -> bool:
        """
        Add a report's counts; False where it was counted before.

        *digest* is a hash of the body, to tell a repeat from another report of the same id; *wait*
        the longest wait for the right to write, in seconds.

        Raises:
            ConflictError: A report of this id and another body was counted.
            DatabaseAwayError: Nothing was counted; send it again.
        """
        for _ in range(2):
            service_id = self._service_id(team_id, service_name, now)
            try:
                with self._db.transaction(wait=wait):
                    if report_id is not None and not self._claim(
                        service_id, report_id, digest, len(intake.rows), now
                    ):
                        return False
                    self._add(service_id, team_id, intake, sender, now)
                    return True
            except _GoneError:
                with self._lock:
                    self._ids.pop((team_id, service_name), None)
        raise ConflictError("the service is being deleted")

    def prune(self, *, before: float) -> int:
        """Forget ids of reports received before *before*; how many."""
        with self._db.transaction():
            return self._db.execute("DELETE FROM report WHERE received_at < ?", int(before))

    def _service_id(self, team_id: int, name: str, now: float) -> int:
        known = self._ids.get((team_id, name))
        if known is None:
            known = self._services.ensure(team_id, name, now=now)
            with self._lock:
                if len(self._ids) > 10_000:
                    self._ids.clear()
                self._ids[team_id, name] = known
        return known

    def _claim(
        self, service_id: int, report_id: str, digest: str, patterns: int, now: float
    ) -> bool:
        claimed = self._db.execute(
            "INSERT INTO report (service_id, report_id, digest, received_at, patterns)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (service_id, report_id) DO NOTHING",
            service_id,
            report_id,
            digest,
            int(now),
            patterns,
        )
        if claimed == 1:
            return True
        row = self._db.row(
            "SELECT digest FROM report WHERE service_id = ? AND report_id = ?",
            service_id,
            report_id,
        )
        if row is not None and row["digest"] != digest:
            raise ConflictError("a report of this report_id and another body was counted before")
        return False

    def _add(
        self, service_id: int, team_id: int, intake: Intake, sender: Sender | None, now: float
    ) -> None:
        start, end = (service_id,), (int(now),)
        _PATTERNS.apply(self._db, [start + row + end for row in intake.rows])
        self._add_hour(service_id, intake, now)
        if sender is not None:
            self._add_instance(service_id, intake, sender, now)
        touched = self._db.execute(
            "UPDATE service SET records = records + ?, last_report_at = ?"
            " WHERE id = ? AND team_id = ?",
            intake.totals.records,
            int(now),
            service_id,
            team_id,
        )
        if touched != 1:
            raise _GoneError

    def _add_hour(self, service_id: int, intake: Intake, now: float) -> None:
        totals = intake.totals
        self._db.execute(
            "INSERT INTO service_hour (service_id, hour, records, kept, bytes, kept_bytes, errors,"
            " reports) VALUES (?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT (service_id, hour) DO UPDATE SET"
            " records = service_hour.records + excluded.records,"
            " kept = service_hour.kept + excluded.kept,"
            " bytes = service_hour.bytes + excluded.bytes,"
            " kept_bytes = service_hour.kept_bytes + excluded.kept_bytes,"
            " errors = service_hour.errors + excluded.errors,"
            " reports = service_hour.reports + 1",
            service_id,
            int(now) // 3600,
            totals.records,
            totals.kept,
            totals.bytes,
            totals.kept_bytes,
            totals.errors,
        )

    def _add_instance(self, service_id: int, intake: Intake, sender: Sender, now: float) -> None:
        seconds = sender.interval or 600.0
        unprotected = intake.totals.records - intake.totals.errors
        # Half old, half new: shares of the fleet's budget should follow the volume, not jump.
        self._db.execute(
            "INSERT INTO instance (service_id, instance_id, first_seen, last_seen, sdk_language,"
            " sdk_version, seconds, records_per_minute, reports, records, kept, health)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?)"
            " ON CONFLICT (service_id, instance_id) DO UPDATE SET last_seen = excluded.last_seen,"
            " sdk_language = excluded.sdk_language, sdk_version = excluded.sdk_version,"
            " seconds = excluded.seconds, records_per_minute ="
            " (instance.records_per_minute + excluded.records_per_minute) / 2,"
            " reports = instance.reports + 1, records = instance.records + excluded.records,"
            " kept = instance.kept + excluded.kept, health = excluded.health",
            service_id,
            sender.instance_id,
            int(now),
            int(now),
            sender.sdk_language,
            sender.sdk_version,
            max(1, int(seconds)),
            unprotected * 60.0 / max(1.0, seconds),
            intake.totals.records,
            intake.totals.kept,
            json.dumps(sender.health),
        )
