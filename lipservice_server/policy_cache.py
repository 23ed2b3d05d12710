"""
What `GET /api/v1/policies/active` answers, rendered once and kept in every worker.

A service's entry is its active version with what belongs to the service laid over it: the mode,
the pins, and the fleet's `max_logs_per_minute`. Of the last, each instance gets its share; the
rendered body is kept in two halves, so that a share costs one join, and shares are rounded down to
two digits, so that bodies and ETags stay few and do not flutter.

No request waits for the database while an entry is there: the watcher replaces entries in the
background, and old ones are served for as long as the database is away.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from lipservice_server.db import Row
from lipservice_server.store import Store

#: A number that no policy may have (limits are at least 0), put where the share will stand.
_MARK: Final = -987_654_321
_MOST_UNKNOWN: Final = 10_000
_MOST_BODIES: Final = 64
_WORTH_COMPRESSING: Final = 600
#: Part of the fleet's limit that is dealt out equally, so that a quiet instance is not starved.
_EQUAL_PART: Final = 0.2
_FIRST: Final = (
    "policy_id",
    "sampling_rate",
    "patterns",
    "max_logs_per_minute",
    "severity_rates",
)

ServiceKey = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Body:
    """One answer, ready to be sent."""

    etag: str
    plain: bytes
    #: Compressed, or None where it is not worth it.
    gzipped: bytes | None
    plain_headers: list[tuple[str, str]]
    gzipped_headers: list[tuple[str, str]]


@dataclass(slots=True)
class Entry:
    """What is served for one service. Replaced whole, except for its shares."""

    service_id: int | None
    version: int
    document: dict[str, Any]
    #: The fleet's limit, records a minute; None: no limit.
    limit: int | None
    head: bytes
    tail: bytes
    tag: str
    shares: Mapping[str, int] = field(default_factory=dict)
    bodies: OrderedDict[int | None, Body] = field(default_factory=OrderedDict)
    #: Share of an instance that has not reported yet.
    newcomer: int | None = None

    @property
    def size(self) -> int:
        """Bytes, about, that the entry holds."""
        return 3 * (len(self.head) + len(self.tail)) + 2_000

    def body(self, instance_id: str | None) -> Body:
        """The answer for one instance."""
        share = self.newcomer if instance_id is None else self._share(instance_id)
        body = self.bodies.get(share)
        return self._render(share) if body is None else body

    def _share(self, instance_id: str) -> int | None:
        return None if self.limit is None else self.shares.get(instance_id, self.newcomer)

    def _render(self, share: int | None) -> Body:
        number = b"null" if share is None else str(share).encode()
        plain = self.head + number + self.tail
        worth = len(plain) >= _WORTH_COMPRESSING
        gzipped = gzip.compress(plain, 6, mtime=0) if worth else None
        etag = f'W/"{self.tag}-{number.decode()}"'
        body = Body(
            etag=etag,
            plain=plain,
            gzipped=gzipped,
            plain_headers=_headers(etag, plain),
            gzipped_headers=_headers(etag, gzipped or b""),
        )
        self.bodies[share] = body
        while len(self.bodies) > _MOST_BODIES:
            with suppress(KeyError):  # another thread was first
                self.bodies.popitem(last=False)
        return body


def _headers(etag: str, body: bytes) -> list[tuple[str, str]]:
    return [("ETag", etag), ("Content-Length", str(len(body)))]


class PolicyCache:
    """The entries of one worker; the oldest go when memory is short. Safe between threads."""

    def __init__(
        self, store: Store, *, most_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._most_bytes = most_bytes
        self._clock = clock
        self._entries: OrderedDict[ServiceKey, Entry] = OrderedDict()
        self._unknown: OrderedDict[ServiceKey, None] = OrderedDict()
        self._loading: dict[ServiceKey, threading.Lock] = {}
        self._lock = threading.Lock()
        self._bytes = 0
        self._default = make_entry(None, default_document(), None)

    def peek(self, key: ServiceKey) -> Entry | None:
        """The entry in memory, or None where the database would have to be asked."""
        entry = self._entries.get(key)
        if entry is None and key in self._unknown:
            return self._default
        return entry

    def load(self, key: ServiceKey) -> Entry:
        """The entry, from the database where it is not in memory; one thread at a time asks."""
        with self._lock:
            gate = self._loading.setdefault(key, threading.Lock())
        with gate:
            entry = self.peek(key)
            if entry is None:
                entry = self.refresh(key)
        with self._lock:
            self._loading.pop(key, None)
        return entry

    def refresh(self, key: ServiceKey) -> Entry:
        """Read one service anew."""
        team_id, name = key
        found = read_service(self._store, team_id, name)
        if found is None:
            self._forget(key)
            return self._default
        service_id, document, limit = found
        entry = make_entry(service_id, document, limit)
        self._deal(entry)
        self._put(key, entry)
        return entry

    def put(self, key: ServiceKey, entry: Entry) -> None:
        """Keep an entry that came from the snapshot."""
        self._put(key, entry)

    def known(self) -> list[ServiceKey]:
        """The services that are in memory, those without a policy among them."""
        with self._lock:
            return [*self._entries, *self._unknown]

    def deal_shares(self) -> None:
        """Compute anew the shares of every fleet that has a limit."""
        with self._lock:
            entries = [entry for entry in self._entries.values() if entry.limit is not None]
        for entry in entries:
            self._deal(entry)

    def _deal(self, entry: Entry) -> None:
        if entry.limit is None or entry.service_id is None:
            return
        live = self._store.instances.live(entry.service_id, now=self._clock())
        entry.newcomer = round_share(entry.limit / (len(live) + 1))
        entry.shares = deal(entry.limit, live)

    def _put(self, key: ServiceKey, entry: Entry) -> None:
        with self._lock:
            self._unknown.pop(key, None)
            before = self._entries.pop(key, None)
            self._bytes += entry.size - (before.size if before else 0)
            self._entries[key] = entry
            while self._bytes > self._most_bytes and len(self._entries) > 1:
                _, old = self._entries.popitem(last=False)
                self._bytes -= old.size

    def _forget(self, key: ServiceKey) -> None:
        with self._lock:
            before = self._entries.pop(key, None)
            self._bytes -= before.size if before else 0
            self._unknown[key] = None
            if len(self._unknown) > _MOST_UNKNOWN:
                self._unknown.popitem(last=False)


def read_service(
    store: Store, team_id: int, name: str
) -> tuple[int, dict[str, Any], int | None] | None:
    """A service's id, the document to serve for it, and its limit; None where there is none."""
    service = store.services.find(team_id, name)
    if service is None:
        return None
    active = store.policies.active(team_id, name)
    pins = store.patterns.overrides(team_id, name)
    document = default_document() if active is None else active["document"]
    return service["id"], lay_over(document, service, pins), service["max_logs_per_minute"]


def default_document() -> dict[str, Any]:
    """What is served before a first policy is made: everything is kept."""
    return {
        "policy_id": "default",
        "version": 0,
        "sampling_rate": 1.0,
        "patterns": [],
        "max_logs_per_minute": None,
        "severity_rates": {},
        "pattern_rates": {},
        "mode": "active",
        "reasoning": "No policy has been made for this service yet: everything is kept.",
        "generated_by": "default",
    }


def lay_over(document: Mapping[str, Any], service: Row, pins: list[Row]) -> dict[str, Any]:
    """*document* with the service's mode and pins; the document itself is not changed."""
    rates = dict(document.get("pattern_rates") or {})
    rates.update((pin["signature"], pin["rate"]) for pin in pins)
    words = list(dict.fromkeys([*document.get("patterns", []), *service["words"]]))
    mode = "shadow" if service["mode"] == "shadow" else document.get("mode", "active")
    # A rate of 1 could still be scaled down to the limit: what is protected is named besides.
    protected = sorted(pin["signature"] for pin in pins if pin["protected"])
    laid = {**document, "pattern_rates": rates, "patterns": words, "mode": mode}
    return {**laid, "protected": protected} if protected else laid


def make_entry(service_id: int | None, document: Mapping[str, Any], limit: int | None) -> Entry:
    """Render a document once; the promised fields come first, as they are documented."""
    ordered = {name: document[name] for name in _FIRST} | dict(document)
    ordered["max_logs_per_minute"] = _MARK
    text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()
    name = b'"max_logs_per_minute":'
    head, tail = text.split(name + str(_MARK).encode(), 1)
    digest = hashlib.sha256(text).hexdigest()[:20]
    return Entry(
        service_id=service_id,
        version=int(document.get("version") or 0),
        document=dict(document),
        limit=limit,
        head=head + name,
        tail=tail,
        tag=digest,
        newcomer=limit,
    )


def deal(limit: int, volumes: Mapping[str, float]) -> dict[str, int]:
    """
    Deal a fleet's limit out among its live instances.

    A fifth is dealt out equally, the rest in proportion to the unprotected records a minute that
    each has; every instance gets at least 1. Rounding down keeps the sum within the limit.
    """
    if not volumes:
        return {}
    total = sum(volumes.values())
    equal = limit * (_EQUAL_PART if total > 0 else 1.0) / len(volumes)
    rest = limit * (1 - _EQUAL_PART) / total if total > 0 else 0.0
    return {name: round_share(equal + rest * volume) for name, volume in volumes.items()}


def round_share(share: float) -> int:
    """*share* rounded down to two digits, at least 1."""
    whole = max(1, int(share))
    unit: int = 10 ** max(0, len(str(whole)) - 2)
    return whole // unit * unit
