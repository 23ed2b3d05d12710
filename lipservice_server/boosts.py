"""
Full fidelity for a while: begun and ended the same way by the API, the dashboard and the commands.

A boost belongs to the service, not to a policy version: it is laid over whatever is active
(`policy_cache`), and makes no version of its own.
"""

from __future__ import annotations

from lipservice_server.api.schemas import NewBoost
from lipservice_server.db import Row
from lipservice_server.errors import InvalidError
from lipservice_server.meant import pattern_meant
from lipservice_server.runtime import Runtime


def begin_boost(
    runtime: Runtime, team_id: int, service_name: str, wish: NewBoost, *, actor: str
) -> Row:
    """
    Keep everything that *wish* names, from the instances' next poll on.

    Raises:
        InvalidError: It names a logger and something else.
        NotFoundError: There is no such service, or no pattern of the template that it names.
        ConflictError: Too many run, or several patterns have the template or fit the message.
    """
    if wish.logger is not None and (wish.pattern is not None or wish.severity is not None):
        raise InvalidError("give a logger, or a pattern and severity, not both")
    signature = None
    if wish.pattern is not None:
        signature = pattern_meant(runtime.store, team_id, service_name, wish.pattern).signature
    row = runtime.store.boosts.begin(
        team_id,
        service_name,
        signature=signature,
        severity=wish.severity,
        logger=wish.logger,
        minutes=wish.minutes,
        reason=wish.reason,
        actor=actor,
        now=runtime.clock(),
    )
    runtime.cache.refresh((team_id, service_name))
    return row


def end_boost(
    runtime: Runtime, team_id: int, boost_id: int, *, service_name: str | None, actor: str
) -> Row:
    """
    End a boost now, for instances at their next poll; ending it again changes nothing.

    Raises:
        NotFoundError: There is none of this id in the team, or in the service where one is named.
    """
    row = runtime.store.boosts.end(
        team_id, boost_id, service_name=service_name, actor=actor, now=runtime.clock()
    )
    runtime.cache.refresh((team_id, row["service_name"]))
    return row


def of_what(row: Row) -> str:
    """What a boost keeps, in words, with the signature where it has one."""
    if row["logger"] is not None:
        return f"logger {row['logger']}"
    if row["signature"] is not None:
        at = f" at {row['severity']}" if row["severity"] else ""
        return f"pattern {row['signature']}{at}"
    return f"severity {row['severity']}" if row["severity"] else "the whole service"


def covers(row: Row, signature: str, severity: str) -> bool:
    """Whether a boost keeps the records of a pattern; one of a logger is left to its instances."""
    return (
        row["logger"] is None
        and row["signature"] in (None, signature)
        and row["severity"] in (None, severity)
    )
