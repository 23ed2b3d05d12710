"""
How many requests of a kind one key may make a minute.

With Redis the count is the fleet's; without it, or while it does not answer, each worker counts
for itself. Losing Redis never refuses a report or a poll; kinds that cost money or could be used to
guess keys are bounded by their share of one worker instead, so that the loss opens no door.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from lipservice_server.errors import LimitedError

Kind = Literal["poll", "report", "request", "generate", "failure"]
_STRICT: Final = frozenset({"generate", "failure"})
#: Kinds that are never counted in Redis: a round trip would cost more than the answer.
_LOCAL: Final = frozenset({"poll", "failure"})
_MOST_BUCKETS: Final = 20_000
_REDIS_TIMEOUT: Final = 0.1
_REDIS_PAUSE: Final = 5.0

_log = logging.getLogger(__name__)


class Limits:
    """
    Limits by kind and key. Safe to share between threads.

    Args:
        per_minute: Requests of each kind that a key may make a minute.
        redis: A client with short time-outs, or None.
        workers: Worker processes, among which strict kinds are shared without Redis.
    """

    def __init__(
        self,
        per_minute: Mapping[Kind, int],
        *,
        redis: Any = None,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_minute = dict(per_minute)
        self._redis = redis
        self._workers = max(1, workers)
        self._clock = clock
        self._buckets: OrderedDict[tuple[Kind, object], tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._redis_again = 0.0

    def take(self, kind: Kind, who: object) -> None:
        """
        Count one request.

        Raises:
            LimitedError: It is one too many; `retry_after` says when to come again.
        """
        if self._redis is not None and kind not in _LOCAL:
            allowed = self._take_redis(kind, who)
            if allowed is not None:
                if not allowed:
                    raise _refused(kind, 60.0 - time.time() % 60)
                return
        wait = self._take_local(kind, who)
        if wait > 0:
            raise _refused(kind, wait)

    def check(self, kind: Kind, who: object) -> None:
        """Raise where the limit is reached, and count nothing."""
        with self._lock:
            left, at = self._buckets.get((kind, who), (1.0, self._clock()))
            rate = self._rate(kind)
            if left + (self._clock() - at) * rate < 1:
                raise _refused(kind, (1 - left) / rate)

    def _take_local(self, kind: Kind, who: object) -> float:
        """A token bucket that holds a minute's worth; the seconds to wait, 0 where there is one."""
        rate = self._rate(kind)
        now = self._clock()
        with self._lock:
            left, at = self._buckets.get((kind, who), (rate * 60, now))
            left = min(rate * 60, left + (now - at) * rate)
            wait = 0.0 if left >= 1 else (1 - left) / rate
            self._buckets[kind, who] = (left if wait else left - 1, now)
            if len(self._buckets) > _MOST_BUCKETS:
                self._buckets.popitem(last=False)
        return wait

    def _rate(self, kind: Kind) -> float:
        limit = self._per_minute[kind]
        if kind in _STRICT:
            limit = max(1, limit // self._workers)
        return max(1, limit) / 60

    def _take_redis(self, kind: Kind, who: object) -> bool | None:
        """Whether Redis allows it; None where Redis does not say."""
        if self._clock() < self._redis_again:
            return None
        name = f"lipservice:limit:{kind}:{who}:{int(time.time() // 60)}"
        try:
            pipe = self._redis.pipeline(transaction=False)
            pipe.incr(name)
            pipe.expire(name, 120)
            count = pipe.execute()[0]
        except Exception as error:  # whatever the client raises, a limit must not stop a report
            self._redis_again = self._clock() + _REDIS_PAUSE
            _log.warning("Redis does not answer, limits are counted here: %s", type(error).__name__)
            return None
        return int(count) <= self._per_minute[kind]


def connect_redis(url: str) -> Any:
    """A Redis client that never waits long; None for an empty *url*."""
    if not url:
        return None
    import redis  # noqa: PLC0415  only where it is configured
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    return redis.Redis.from_url(
        url,
        socket_timeout=_REDIS_TIMEOUT,
        socket_connect_timeout=_REDIS_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )


def _refused(kind: Kind, wait: float) -> LimitedError:
    noun = {"poll": "policy requests", "report": "reports", "generate": "generations"}.get(
        kind, "requests" if kind == "request" else "refused keys"
    )
    return LimitedError(f"too many {noun}; try again later", retry_after=max(1.0, wait))
