"""
Caches for those who compute signatures themselves, and what the process's memory is spent on.

The sampler has caches of its own, which `AdaptiveSampler.health()` and `memory_profile` show;
those of this module stand alone.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from typing import Any, Final

from lipservice._settings import default_sampler_quietly
from lipservice.exceptions import ConfigurationError
from lipservice.sampler import AdaptiveSampler
from lipservice.signature import compute_signature, fold

# What an entry costs beside its two strings: its place in an OrderedDict, measured with
# tracemalloc on CPython 3.11 over 50,000 entries as 91.
_ENTRY_BYTES: Final = 96


class LRUSignatureCache:
    """
    Message -> signature, least recently used out first. Thread-safe.

    Args:
        max_size: Entries, at least 1.
        max_memory_mb: Mebibytes that the entries may take, above 0: the measured sizes of both
            strings and what an entry costs beside them.

    Raises:
        ConfigurationError: A bound is out of range; the message names it.
    """

    def __init__(self, max_size: int = 10_000, max_memory_mb: float = 50) -> None:
        _check_bounds(max_size, max_memory_mb)
        self._max_size = max_size
        self._max_bytes = int(max_memory_mb * 1024 * 1024)
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, str] = OrderedDict()
        self._bytes = 0
        self._hits = self._misses = self._evictions = 0

    def get(self, message: str) -> str | None:
        """The signature that was put for *message*, or None."""
        with self._lock:
            signature = self._entries.get(message)
            if signature is None:
                self._misses += 1
                return None
            self._entries.move_to_end(message)
            self._hits += 1
            return signature

    def put(self, message: str, signature: str) -> None:
        """Remember *signature*; older entries go if that passes a bound, or this one if it must."""
        with self._lock:
            self._remove(message)
            self._entries[message] = signature
            self._bytes += _entry_bytes(message, signature)
            while len(self._entries) > self._max_size or self._bytes > self._max_bytes:
                oldest = next(iter(self._entries))
                self._remove(oldest)
                self._evictions += 1

    def get_stats(self) -> dict[str, Any]:
        """Entries, bytes, their bounds, hits, misses, evictions and the hit rate (0 to 1)."""
        with self._lock:
            asked = self._hits + self._misses
            return {
                "size": len(self._entries),
                "max_size": self._max_size,
                "memory_bytes": self._bytes,
                "max_memory_bytes": self._max_bytes,
                "hits": self._hits,
                "misses": self._misses,
                "evictions": self._evictions,
                "hit_rate": self._hits / asked if asked else 0.0,
            }

    def clear(self) -> None:
        """Forget all entries and start counting anew."""
        with self._lock:
            self._entries.clear()
            self._bytes = self._hits = self._misses = self._evictions = 0

    def __len__(self) -> int:
        return len(self._entries)

    def _remove(self, message: str) -> None:
        signature = self._entries.pop(message, None)
        if signature is not None:
            self._bytes -= _entry_bytes(message, signature)


class OptimizedSignatureComputer:
    """
    Computes LSIG-1 signatures through a cache. Thread-safe.

    The cache's key is the message with its digits made equal, so that messages which differ in
    numbers alone share an entry (docs/reference/signature.md).

    Args:
        cache_size: Entries, at least 1.

    Raises:
        ConfigurationError: *cache_size* is out of range.
    """

    def __init__(self, cache_size: int = 10_000) -> None:
        self._cache = LRUSignatureCache(max_size=cache_size)

    def compute_signature(self, message: str) -> str:
        """The signature of *message*, 16 hex digits."""
        key = fold(message).decode("latin-1")
        signature = self._cache.get(key)
        if signature is None:
            signature = compute_signature(message)
            self._cache.put(key, signature)
        return signature

    def get_stats(self) -> dict[str, Any]:
        """As `LRUSignatureCache.get_stats`."""
        return self._cache.get_stats()


def memory_profile(sampler: AdaptiveSampler | None = None) -> dict[str, int]:
    """
    What LipService holds in this process, in bytes and entries.

    Args:
        sampler: What to look at; default: the default sampler.

    Returns:
        `patterns` and `pattern_bytes` (with their look-up tables), `cached_texts` and
        `cached_text_bytes`, and `process_bytes`: the resident memory of the whole process
        (0 where the system does not tell).
    """
    looked_at = sampler or default_sampler_quietly()
    return {**looked_at.memory(), "process_bytes": _resident_bytes()}


def _check_bounds(max_size: object, max_memory_mb: object) -> None:
    if isinstance(max_size, bool) or not isinstance(max_size, int) or max_size < 1:
        raise ConfigurationError(f"max_size is a whole number of at least 1, not {max_size!r}")
    number = isinstance(max_memory_mb, (int, float)) and not isinstance(max_memory_mb, bool)
    if not number or not 0 < max_memory_mb < 2**40:  # type: ignore[operator]  # number says so
        raise ConfigurationError(f"max_memory_mb is a number above 0, not {max_memory_mb!r}")


def _entry_bytes(message: str, signature: str) -> int:
    return sys.getsizeof(message) + sys.getsizeof(signature) + _ENTRY_BYTES


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - a proc file
            pages = int(statm.read().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    import resource  # noqa: PLC0415 - only where /proc is

    return pages * resource.getpagesize()
