"""Leases: one holder at a time for a piece of work, across threads, processes and hosts."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from lipservice_server.db import Database
from lipservice_server.errors import ConflictError


class Leases:
    """Named leases in the database; one that its holder left behind ends by itself."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @contextmanager
    def hold(self, name: str, *, seconds: float, now: float) -> Iterator[None]:
        """
        Hold the lease *name* for the length of the block, at most *seconds*.

        Raises:
            ConflictError: Another holds it.
        """
        holder = uuid.uuid4().hex
        with self._db.transaction():
            taken = self._db.execute(
                "INSERT INTO lease (name, holder, ends_at) VALUES (?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder,"
                " ends_at = excluded.ends_at WHERE lease.ends_at <= ?",
                name,
                holder,
                now + seconds,
                now,
            )
        if not taken:
            raise ConflictError(f"{name} is under way already", retry_after=10)
        try:
            yield
        finally:
            with self._db.transaction():
                self._db.execute("DELETE FROM lease WHERE name = ? AND holder = ?", name, holder)
