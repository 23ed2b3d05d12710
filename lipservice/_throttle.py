"""
The guard behind `max_logs_per_minute`: a window of the last minute that thins before it shuts.

A plain token bucket keeps everything until it is empty and nothing afterwards: whatever it drops
is lost to every estimate, and a burst on a full bucket passes twice the limit within a minute.
This guard counts the kept records of the last 60 seconds, so that no window of that length ever
holds more than the limit, and lets a record pass with a probability that is known before the draw,
`q = min(1, (2 * room / limit) ** 3)`: the weight `1 / (rate * q)` of a kept record stays true. Only
where there is no room at all a record is dropped for certain, and lost to the estimates. The third
power makes that rare: the last of the room would need about `limit ** 3 / 7` records within a
minute, while the engine's tick has long since scaled the rates down.
"""

from __future__ import annotations

from collections.abc import Callable

# The running second and the 60 full ones before it.
_SLOTS = 61


class MinuteWindow:
    """Kept records of the last 60 seconds. Not thread-safe: the engine calls it under its lock."""

    __slots__ = ("_clock", "_kept", "_second", "_total", "limit")

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        #: Most records in 60 seconds; may change while the window lives on.
        self.limit = limit
        self._clock = clock
        self._kept = [0] * _SLOTS
        self._total = 0
        self._second = int(clock())

    def chance(self) -> float:
        """The probability with which the next record may be kept, 0 to 1."""
        self._advance()
        room = self.limit - self._total
        return min(1.0, (2.0 * room / self.limit) ** 3) if room > 0 else 0.0

    def is_full(self) -> bool:
        """Whether the last 60 seconds hold all that the limit allows."""
        self._advance()
        return self._total >= self.limit

    def take(self) -> None:
        """Count one kept record; first records count although nothing here can drop them."""
        self._advance()
        self._kept[self._second % _SLOTS] += 1
        self._total += 1

    def _advance(self) -> None:
        second = int(self._clock())
        for passed in range(min(second - self._second, _SLOTS)):
            slot = (self._second + 1 + passed) % _SLOTS
            self._total -= self._kept[slot]
            self._kept[slot] = 0
        self._second = max(self._second, second)
