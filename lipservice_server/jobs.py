"""
Background work, through huey: generation, roll-ups, retention, the day's savings.

The queue is a SQLite file, or Redis where REDIS_URL is set. The plain functions do the work and can
be called from anywhere; each is harmless when it runs twice at once, so several hosts may each run
a worker.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from huey import RedisHuey, SqliteHuey, crontab

from lipservice_server.config import Settings
from lipservice_server.db import Row, patience
from lipservice_server.errors import ConflictError, InvalidError, ServerError
from lipservice_server.generation import Wish, generate_policy
from lipservice_server.runtime import Runtime

_DAY: Final = 86_400
_ACTOR: Final = "background"
_PATIENCE: Final = 60.0

_log = logging.getLogger(__name__)


def make_jobs(runtime: Runtime) -> Any:
    """huey with the periodic tasks of *runtime*; `create_consumer().run()` works them off."""
    huey = _queue(runtime.settings)

    def every(when: Any, work: Callable[[Runtime], object]) -> None:
        def task() -> None:
            _guarded(runtime, work)

        huey.periodic_task(when, name=work.__name__)(task)

    every(crontab(minute=f"*/{runtime.settings.rollup_minutes}"), roll_up)
    every(crontab(minute="*"), regenerate)
    every(crontab(minute="7"), find_risers)
    every(crontab(minute="17"), prune)
    every(crontab(hour="0", minute="20"), tell_savings)
    return huey


def roll_up(runtime: Runtime) -> int:
    """Roll up every service's counts; the number of patterns that had new ones."""
    now = runtime.clock()
    return sum(
        runtime.store.rollups.roll_up(service["id"], now=now)
        for service in runtime.store.services.every()
    )


def find_risers(runtime: Runtime) -> int:
    """Find every service's patterns whose volume has jumped; how many."""
    now = runtime.clock()
    return sum(
        runtime.store.rollups.find_risers(service["id"], now=now)
        for service in runtime.store.services.every()
    )


def regenerate(runtime: Runtime) -> list[str]:
    """Generate the services with enough new counts; the names of those that got a version."""
    settings = runtime.settings
    if settings.regenerate_minutes == 0:
        return []
    due = runtime.store.services.due(
        before=runtime.clock() - settings.regenerate_minutes * 60,
        records=settings.regenerate_records,
    )
    return [service["name"] for service in due if _regenerate_one(runtime, service)]


def prune(runtime: Runtime) -> dict[str, int]:
    """Forget what is older than the settings say; how many rows of each kind."""
    settings, store, now = runtime.settings, runtime.store, runtime.clock()
    volume = 0
    for service in store.services.every():
        volume += store.rollups.prune(
            service["id"],
            hours_before=int(now) // 3600 - settings.hours_kept,
            days_before=int(now) // _DAY - settings.days_kept,
            unseen_since=int(now) - settings.days_kept * _DAY,
        )
    return {
        "volume": volume,
        "report ids": store.reports.prune(before=now - 2 * _DAY),
        "instances": store.instances.prune(before=now - 7 * _DAY),
        "totals": store.savings.prune(before=now - settings.totals_days_kept * _DAY),
        "boosts": store.boosts.prune(before=now - 30 * _DAY),
        "versions": store.policies.prune(keep=settings.versions_kept),
        "keys": store.keys.prune(before=now - 30 * _DAY),
        "audit lines": store.audit.prune(before=now - settings.totals_days_kept * _DAY),
    }


def tell_savings(runtime: Runtime) -> int:
    """Hand PostHog what each service saved yesterday; the number of events."""
    store, told = runtime.store, 0
    today = int(runtime.clock()) // _DAY * _DAY
    for team in store.teams.every():
        price = team["price_per_gb"]
        price = runtime.settings.price_per_gb if price is None else price
        for sums in store.savings.by_service(team["id"], since=today - _DAY, until=today - 1):
            saved = sums["bytes"] - sums["kept_bytes"]
            if sums["records"]:
                runtime.events.capture(
                    "lipservice daily savings",
                    team=team["id"],
                    properties=sums | {"saved_bytes": saved, "saved_money": saved / 1e9 * price},
                )
                told += 1
    runtime.events.flush()
    return told


def _queue(settings: Settings) -> Any:
    if settings.redis_url:
        return RedisHuey("lipservice", url=settings.redis_url, results=False)
    path = Path(settings.data_dir) / "jobs.db"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return SqliteHuey("lipservice", filename=str(path), results=False)


def _guarded(runtime: Runtime, work: Callable[[Runtime], object]) -> None:
    """A failed piece of work is told and tried again at its next time; it never ends the worker."""
    try:
        with patience(_PATIENCE):
            result = work(runtime)
        _log.info("%s: %s", work.__name__, result)
    except ServerError as error:
        _log.warning("%s: %s", work.__name__, error.message)


def _regenerate_one(runtime: Runtime, service: Row) -> bool:
    try:
        generate_policy(runtime, service["team_id"], service["name"], Wish(), actor=_ACTOR)
    except (ConflictError, InvalidError) as error:
        _log.info("no policy for %s: %s", service["name"], error.message)
        return False
    return True
