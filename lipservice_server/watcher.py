"""
The one background thread of a worker: looks for changed keys and policies, deals shares, writes
the snapshot.

It asks the database for three serials a second and reads only what changed. While the database is
away it goes on trying, and what is in memory goes on being served. It is started by the first
request in a process and started again if it ever ends, so that a fork needs no care.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lipservice.exceptions import ConfigurationError
from lipservice_server import migrations
from lipservice_server.auth import KeyRing
from lipservice_server.config import Settings
from lipservice_server.errors import DatabaseAwayError
from lipservice_server.policy_cache import PolicyCache, make_entry
from lipservice_server.secret import check_fingerprint
from lipservice_server.snapshot import Snapshot, read_snapshot, write_snapshot
from lipservice_server.store import Store

_SNAPSHOT_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


class Watcher:
    """Keeps a worker's keys and policies fresh."""

    def __init__(
        self, settings: Settings, store: Store, ring: KeyRing, cache: PolicyCache, secret: bytes
    ) -> None:
        self._settings = settings
        self._store = store
        self._ring = ring
        self._cache = cache
        self._secret = secret
        self._pid = 0
        self._starting = threading.Lock()
        self._stopped = threading.Event()
        self._serials: dict[str, int] = {}
        self._shares_at = 0.0
        self._snapshot_at = 0.0
        self._ready = False
        self.away = False

    @property
    def ready(self) -> bool:
        """Whether the schema is in place and keys and policies have been read once."""
        return self._ready and not self.away

    def ensure_started(self) -> None:
        """Start the thread where this process has none; costs next to nothing when it has."""
        if self._pid != os.getpid():
            with self._starting:
                if self._pid != os.getpid():
                    self.prepare()
                    threading.Thread(
                        target=self._run, name="lipservice-watcher", daemon=True
                    ).start()
                    self._pid = os.getpid()

    def prepare(self) -> None:
        """
        Bring the schema up to date and read keys, from the snapshot where the database is away.

        Raises:
            ConfigurationError: This server's secret is not the database's.
        """
        try:
            self.look()
        except DatabaseAwayError:
            self.away = True
            self._restore()

    def stop(self) -> None:
        """End the thread, for tests and shutdown."""
        self._stopped.set()

    def look(self) -> None:
        """
        Look once for what changed.

        Raises:
            DatabaseAwayError: The database does not answer.
        """
        if not self._ready:
            self._set_up()
        serials = self._read_serials()
        if serials != self._serials:
            self._take_over(serials)
        now = time.monotonic()
        if now - self._shares_at >= self._settings.share_seconds:
            self._cache.deal_shares()
            self._shares_at = now
        if now - self._snapshot_at >= _SNAPSHOT_SECONDS:
            self._snapshot_at = now
            self._write_snapshot()
        self.away = False

    def _run(self) -> None:
        while not self._stopped.wait(self._settings.cache_seconds):
            try:
                self.look()
            except DatabaseAwayError:  # noqa: PERF203  a failed look must not end the watching
                if not self.away:
                    _log.warning("the database is away: policies are served from memory")
                self.away = True
            except ConfigurationError as error:
                _log.error("%s", error)
            except Exception:
                _log.exception("looking for changed policies failed; trying again")

    def _set_up(self) -> None:
        db = self._store.db
        if self._settings.auto_migrate:
            migrations.migrate(db)
        elif migrations.current(db) < migrations.newest():
            raise DatabaseAwayError("the schema is not up to date: lipservice-server migrate")
        check_fingerprint(db, self._secret)
        self._ready = True

    def _read_serials(self) -> dict[str, int]:
        rows = self._store.db.rows("SELECT name, serial FROM change")
        return {row["name"]: int(row["serial"]) for row in rows}

    def _take_over(self, serials: Mapping[str, int]) -> None:
        before = self._serials
        if serials["keys"] != before.get("keys"):
            self._ring.reload()
        if serials["deleted"] != before.get("deleted"):
            for key in self._cache.known():
                self._cache.refresh(key)
        elif serials["policies"] != before.get("policies"):
            known = set(self._cache.known())
            for key in self._changed_since(before.get("policies", 0)):
                if key in known:
                    self._cache.refresh(key)
        self._serials = dict(serials)

    def _changed_since(self, serial: int) -> list[tuple[int, str]]:
        rows = self._store.db.rows("SELECT team_id, name FROM service WHERE revision > ?", serial)
        return [(int(row["team_id"]), row["name"]) for row in rows]

    @property
    def _path(self) -> Path:
        return Path(self._settings.data_dir) / "snapshot.json"

    def _restore(self) -> None:
        snapshot = read_snapshot(self._path)
        if snapshot is None:
            return
        self._ring.replace(snapshot.keys)
        for team_id, name, service_id, document, limit in snapshot.policies:
            self._cache.put((team_id, name), make_entry(service_id, document, limit))
        _log.warning("the database is away: serving %d policies from the snapshot",
                     len(snapshot.policies))  # fmt: skip

    def _write_snapshot(self) -> None:
        held = read_snapshot(self._path)
        if held is not None and dict(held.serials) == self._serials:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_snapshot(self._path, self._take_snapshot())
        except OSError as error:
            _log.warning("the snapshot of the policies cannot be written: %s", error.strerror)

    def _take_snapshot(self) -> Snapshot:
        policies, size = [], 0
        for service in self._store.services.every():
            if service["active_version"] is None:
                continue
            found = self._cache.read((service["team_id"], service["name"]))
            if found is None:
                continue
            rates, boosts = found[1]["pattern_rates"], found[1].get("boosts", ())
            size += 40 * len(rates) + 200 * len(boosts) + 2_000
            if size > self._settings.cache_bytes:
                break
            policies.append((service["team_id"], service["name"], *found))
        return Snapshot(serials=self._serials, keys=self._store.keys.live(), policies=policies)
