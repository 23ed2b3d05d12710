"""The parts of one server process, put together. Nothing global: an app holds its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from lipservice_server.admission import Admission
from lipservice_server.auth import KeyRing
from lipservice_server.config import Settings
from lipservice_server.db import Database
from lipservice_server.events import Events, make_events
from lipservice_server.limits import Limits, connect_redis
from lipservice_server.metrics import Metrics
from lipservice_server.policy_cache import PolicyCache
from lipservice_server.secret import load_secret
from lipservice_server.store import Store
from lipservice_server.watcher import Watcher


@dataclass(frozen=True, slots=True)
class Runtime:
    """What requests, commands and background work share."""

    settings: Settings
    store: Store
    ring: KeyRing
    cache: PolicyCache
    watcher: Watcher
    limits: Limits
    admission: Admission
    metrics: Metrics
    events: Events
    #: Unix time, injected.
    clock: Callable[[], float]


def make_runtime(settings: Settings, *, clock: Callable[[], float] = time.time) -> Runtime:
    """
    Put the parts together; starts no thread and opens no connection.

    Raises:
        ConfigurationError: The data directory or the secret cannot be used.
    """
    secret = load_secret(settings)
    db = Database(
        settings.database, pool_size=settings.pool_size, timeout=settings.database_timeout
    )
    store = Store(db)
    ring = KeyRing(store, secret, token_seconds=settings.token_seconds, clock=clock)
    cache = PolicyCache(store, most_bytes=settings.cache_bytes, clock=clock)
    return Runtime(
        settings=settings,
        store=store,
        ring=ring,
        cache=cache,
        watcher=Watcher(settings, store, ring, cache, secret),
        limits=_limits(settings),
        admission=Admission(
            threads=settings.threads,
            writers=settings.writers,
            body_seconds=settings.body_seconds,
        ),
        metrics=Metrics(),
        events=make_events(settings),
        clock=clock,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        {
            "poll": settings.polls_per_minute,
            "report": settings.reports_per_minute,
            "request": settings.requests_per_minute,
            "generate": settings.generations_per_minute,
            "failure": settings.failures_per_minute,
        },
        redis=connect_redis(settings.redis_url),
        workers=settings.workers,
    )
