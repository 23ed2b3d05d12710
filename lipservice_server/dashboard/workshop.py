"""
Long computations of pages, done once, in one thread beside the requests.

With 100,000 patterns a comparison of two policies takes a second or two. A page waits a moment for
it; if it is not there by then, the page says so and comes again, so that none holds a thread of the
server for long. Results are kept for a while, the oldest go first.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from typing import Any, Final, TypeVar

_T = TypeVar("_T")
_MOST_RESULTS: Final = 24
_KEPT_SECONDS: Final = 120.0


class Kept:
    """
    The last few values that were made, by their keys. Safe to share between threads.

    Two threads may make the same value at once; the later one is kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """What *make* answers for *key*, asked once while the value is kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                found: _T = self._values[key]
                return found
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


class PendingError(Exception):
    """The computation is under way; ask again in a second."""


class Workshop:
    """Computes and remembers. Safe to share between threads, and after a fork."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._results: OrderedDict[Hashable, tuple[float, Future[Any]]] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._pid = 0

    def get(self, key: Hashable, make: Callable[[], _T], *, wait: float = 0.2) -> _T:
        """
        What *make* computed for *key*, now or up to two minutes ago.

        It waits at most *wait* seconds.

        Raises:
            PendingError: It takes longer; it goes on meanwhile.
        """
        future = self._start(key, make)
        try:
            result: _T = future.result(timeout=wait)
        except NotYetError:
            raise PendingError from None
        except BaseException:
            with self._lock:
                self._results.pop(key, None)
            raise
        return result

    def _start(self, key: Hashable, make: Callable[[], Any]) -> Future[Any]:
        with self._lock:
            now = self._clock()
            made_at, future = self._results.get(key, (0.0, None))
            if self._pool is None or self._pid != os.getpid():
                self._results.clear()
                future = None
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="lipservice-workshop")
                self._pid = os.getpid()
            if future is None or (future.done() and now - made_at > _KEPT_SECONDS):
                future = self._pool.submit(make)
                self._results[key] = (now, future)
                self._results.move_to_end(key)
                while len(self._results) > _MOST_RESULTS:
                    self._results.popitem(last=False)
            return future
