"""
Policy versions: immutable documents, numbered for each service from 1.

A version's document never changes. What belongs to the service and not to a version (mode, the
fleet's max_logs_per_minute, pins) is laid over the document when it is served, so that it holds
whichever version is active and goes on holding after a roll back; see `policy_cache`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

from lipservice.policy import SamplingPolicy
from lipservice_server.db import Database, Row
from lipservice_server.errors import ConflictError, NotFoundError
from lipservice_server.store import audit
from lipservice_server.store.services import Services, touch

State = Literal["draft", "active", "superseded", "rejected"]
_SHOWN: Final = (
    "version, policy_id, state, generated_by, created_at, created_by, activated_at, cost_target,"
    " cost_reduction"
)


class Policies:
    """The policy versions of a team's services. Safe to share between threads."""

    def __init__(self, db: Database, services: Services) -> None:
        self._db = db
        self._services = services

    def history(
        self, team_id: int, service_name: str, *, before: int | None = None, limit: int = 50
    ) -> list[Row]:
        """Versions without their documents, the newest first."""
        service = self._services.require(team_id, service_name)
        return self._db.rows(
            f"SELECT {_SHOWN} FROM policy WHERE service_id = ? AND version < ?"  # noqa: S608
            " ORDER BY version DESC LIMIT ?",
            service["id"],
            before or 2**53,
            limit,
        )

    def get(self, team_id: int, service_name: str, version: int) -> Row:
        """
        One version with its `document` and `details`.

        Raises:
            NotFoundError: The service has no such version.
        """
        service = self._services.require(team_id, service_name)
        row = self._db.row(
            "SELECT * FROM policy WHERE service_id = ? AND version = ?", service["id"], version
        )
        if row is None:
            raise NotFoundError(f"there is no policy version {version} in this service")
        del row["service_id"]
        row["document"], row["details"] = json.loads(row["document"]), json.loads(row["details"])
        return row

    def active(self, team_id: int, service_name: str) -> Row | None:
        """The active version with its document, or None."""
        service = self._services.require(team_id, service_name)
        if service["active_version"] is None:
            return None
        return self.get(team_id, service_name, service["active_version"])

    def add(
        self,
        team_id: int,
        service_name: str,
        policy: SamplingPolicy,
        *,
        activate: bool,
        actor: str,
        now: float,
        cost_target: float | None = None,
        cost_reduction: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Row:
        """
        Store *policy* as the service's next version; its row with the document.

        The version's number and, where the policy has no name of its own, its `policy_id` are
        given here.
        """
        with self._db.transaction():
            service = self._lock(team_id, service_name)
            version = service["last_version"] + 1
            document = policy.to_dict() | {"version": version}
            self._db.execute(
                "INSERT INTO policy (service_id, version, policy_id, state, document, details,"
                " generated_by, created_at, created_by, cost_target, cost_reduction)"
                " VALUES (?, ?, ?, 'draft', ?, ?, ?, ?, ?, ?, ?)",
                service["id"],
                version,
                document["policy_id"],
                json.dumps(document, ensure_ascii=False, separators=(",", ":")),
                json.dumps(details or {}, ensure_ascii=False),
                policy.generated_by,
                int(now),
                actor,
                cost_target,
                cost_reduction,
            )
            self._db.execute(
                "UPDATE service SET last_version = ? WHERE id = ?", version, service["id"]
            )
            audit.record(
                self._db,
                team_id,
                actor=actor,
                action="policy.create",
                target=f"{service_name}/{version}",
                detail=_summary(policy, cost_target, cost_reduction),
                now=now,
            )
            if activate:
                self.activate(team_id, service_name, version, actor=actor, now=now)
            return self.get(team_id, service_name, version)

    def activate(
        self, team_id: int, service_name: str, version: int, *, actor: str, now: float
    ) -> Row:
        """
        Make a version the active one: approve a draft, or roll back to an earlier one.

        Raises:
            NotFoundError: The service has no such version.
            ConflictError: The version was rejected.
        """
        with self._db.transaction():
            service = self._lock(team_id, service_name)
            wanted = self.get(team_id, service_name, version)
            if wanted["state"] == "rejected":
                raise ConflictError(f"version {version} was rejected")
            before = service["active_version"]
            if before == version:
                return wanted
            if before is not None:
                self._set_state(service["id"], before, "superseded")
            self._set_state(service["id"], version, "active")
            self._db.execute(
                "UPDATE policy SET activated_at = ? WHERE service_id = ? AND version = ?",
                int(now),
                service["id"],
                version,
            )
            self._db.execute(
                "UPDATE service SET active_version = ? WHERE id = ?", version, service["id"]
            )
            touch(self._db, service["id"])
            audit.record(
                self._db,
                team_id,
                actor=actor,
                action="policy.activate",
                target=f"{service_name}/{version}",
                detail={"before": before, "after": version},
                now=now,
            )
            return self.get(team_id, service_name, version)

    def reject(
        self, team_id: int, service_name: str, version: int, *, actor: str, now: float
    ) -> Row:
        """
        Refuse a draft for good.

        Raises:
            ConflictError: The version is no draft.
        """
        with self._db.transaction():
            service = self._lock(team_id, service_name)
            wanted = self.get(team_id, service_name, version)
            if wanted["state"] != "draft":
                raise ConflictError(f"version {version} is {wanted['state']}, not a draft")
            self._set_state(service["id"], version, "rejected")
            audit.record(
                self._db,
                team_id,
                actor=actor,
                action="policy.reject",
                target=f"{service_name}/{version}",
                detail={},
                now=now,
            )
            return self.get(team_id, service_name, version)

    def prune(self, *, keep: int) -> int:
        """Forget all but the newest *keep* versions of each service and the active one."""
        gone = 0
        for service in self._services.every():
            with self._db.transaction():
                gone += self._db.execute(
                    "DELETE FROM policy WHERE service_id = ? AND version <= ?"
                    " AND state <> 'active'",
                    service["id"],
                    service["last_version"] - keep,
                )
        return gone

    def _lock(self, team_id: int, service_name: str) -> Row:
        """The service, its row locked on PostgreSQL: versions are numbered one after another."""
        if self._db.dialect == "postgresql":
            self._db.rows(
                "SELECT id FROM service WHERE team_id = ? AND name = ? FOR UPDATE",
                team_id,
                service_name,
            )
        return self._services.require(team_id, service_name)

    def _set_state(self, service_id: int, version: int, state: State) -> None:
        self._db.execute(
            "UPDATE policy SET state = ? WHERE service_id = ? AND version = ?",
            state,
            service_id,
            version,
        )


def _summary(
    policy: SamplingPolicy, cost_target: float | None, cost_reduction: float | None
) -> dict[str, Any]:
    return {
        "policy_id": policy.policy_id,
        "generated_by": policy.generated_by,
        "sampling_rate": policy.sampling_rate,
        "pattern_rates": len(policy.pattern_rates),
        "cost_target": cost_target,
        "cost_reduction": cost_reduction,
    }
