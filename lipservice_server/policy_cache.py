"""
What `GET /api/v1/policies/active` answers, rendered once and kept in every worker.

A service's entry is its active version with what belongs to the service laid over it: the mode,
the pins, the boosts that run, and the fleet's `max_logs_per_minute`. Of the last, each instance
gets its share; the rendered body is kept in parts, so that a share costs one join, and shares are
rounded down to two digits, so that bodies and ETags stay few and do not flutter.

No request waits for the database while an entry is there: the watcher replaces entries in the
background, and old ones are served for as long as the database is away. A boost that is over is
left out by whoever asks first: its end is in the entry, so that every worker keeps to it with no
write and no look at the database, and an entry out of an old snapshot does too.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
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
    #: What follows: the boosts that run.
    boosts: bytes
    tag: str
    #: Unix time at which the first of the boosts ends; infinite: none runs.
    ends_at: float
    shares: Mapping[str, int] = field(default_factory=dict)
    bodies: OrderedDict[int | None, Body] = field(default_factory=OrderedDict)
    #: Share of an instance that has not reported yet.
    newcomer: int | None = None

    @property
    def size(self) -> int:
        """Bytes, about, that the entry holds."""
        return 3 * (len(self.head) + len(self.tail) + len(self.boosts)) + 2_000

    def body(self, instance_id: str | None) -> Body:
        """The answer for one instance."""
        share = self.newcomer if instance_id is None else self._share(instance_id)
        body = self.bodies.get(share)
        return self._render(share) if body is None else body

    def without_ended(self, now: float) -> Entry:
        """The entry from *now* on; the policy in it is not rendered again."""
        left = [boost for boost in self.document["boosts"] if _moment(boost["until"]) > now]
        boosts = _render_boosts(left)
        return replace(
            self,
            document={**self.document, "boosts": left},
            boosts=boosts,
            tag=_tag(self.head, self.tail, boosts),
            ends_at=_first_end(left),
            bodies=OrderedDict(),
        )

    def _share(self, instance_id: str) -> int | None:
        return None if self.limit is None else self.shares.get(instance_id, self.newcomer)

    def _render(self, share: int | None) -> Body:
        number = b"null" if share is None else str(share).encode()
        plain = self.head + number + self.tail + self.boosts
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
        if entry is None:
            return self._default if key in self._unknown else None
        if entry.ends_at < math.inf and entry.ends_at <= self._clock():
            return self._end_boosts(key, entry)
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
        found = self.read(key)
        if found is None:
            self._forget(key)
            return self._default
        service_id, document, limit = found
        entry = make_entry(service_id, document, limit)
        self._deal(entry)
        self._put(key, entry)
        return entry

    def read(self, key: ServiceKey) -> tuple[int, dict[str, Any], int | None] | None:
        """A service's id, its document and its limit, as the store has them now."""
        store, (team_id, name) = self._store, key
        service = store.services.find(team_id, name)
        if service is None:
            return None
        active = store.policies.active(team_id, name)
        pins = store.patterns.overrides(team_id, name)
        boosts = boost_lines(store.boosts.running(team_id, name, now=self._clock()))
        document = default_document() if active is None else active["document"]
        laid = lay_over(document, service, pins) | ({"boosts": boosts} if boosts else {})
        return service["id"], laid, service["max_logs_per_minute"]

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

    def _end_boosts(self, key: ServiceKey, entry: Entry) -> Entry:
        fresh = entry.without_ended(self._clock())
        with self._lock:
            if self._entries.get(key) is entry:  # what was read anew meanwhile stays
                self._entries[key] = fresh
                self._bytes += fresh.size - entry.size
        return fresh

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


def boost_lines(running: Iterable[Row]) -> list[dict[str, Any]]:
    """
    Boosts as the document has them, one for each of what is boosted.

    Of several with the same selectors the one that ends last is served: an instance need not know
    what to make of two, and a short one cannot cut a long one off.
    """
    ends: dict[tuple[str | None, ...], int] = {}
    for row in running:
        of = (row["signature"], row["severity"], row["logger"])
        ends[of] = max(row["until"], ends.get(of, 0))
    return [
        {"signature": signature, "severity": severity, "logger": logger, "until": _iso(until)}
        for (signature, severity, logger), until in ends.items()
    ]


def make_entry(service_id: int | None, document: Mapping[str, Any], limit: int | None) -> Entry:
    """Render a document once; the promised fields come first, as they are documented."""
    running = document.get("boosts") or []
    ordered = {name: document[name] for name in _FIRST} | dict(document)
    ordered.pop("boosts", None)
    ordered["max_logs_per_minute"] = _MARK
    text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()
    name = b'"max_logs_per_minute":'
    head, tail = text.split(name + str(_MARK).encode(), 1)
    head, tail, boosts = head + name, tail[:-1], _render_boosts(running)
    return Entry(
        service_id=service_id,
        version=int(document.get("version") or 0),
        document=dict(document),
        limit=limit,
        head=head,
        tail=tail,
        boosts=boosts,
        tag=_tag(head, tail, boosts),
        ends_at=_first_end(running),
        newcomer=limit,
    )


def _render_boosts(boosts: list[dict[str, Any]]) -> bytes:
    """The last member of the document, where there are any, and the document's end."""
    if not boosts:
        return b"}"
    text = json.dumps(boosts, ensure_ascii=False, separators=(",", ":"))
    return b',"boosts":' + text.encode() + b"}"


def _tag(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:20]


def _first_end(boosts: list[dict[str, Any]]) -> float:
    return min((_moment(boost["until"]) for boost in boosts), default=math.inf)


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _moment(text: str) -> float:
    # Not fromisoformat, which knows no Z before Python 3.11.
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").timestamp()


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
