"""
The bounded queue between the application's threads and the worker.

Rule: `put` is made of single C calls on deques and counters, takes no lock and so may interrupt
itself anywhere (signal handlers, `__del__`, garbage collection inside another `put`). When the
queue is full the least severe entries go first, the oldest of them, and each is counted.

A large entry takes several places: it is followed by fillers, so that the number of items bounds
the memory too.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from lipservice.export.capture import Entry
from lipservice.severity import SEVERITIES

_LOW, _MIDDLE, _HIGH = range(3)
_WARNING: Final = 13
_ERROR: Final = 17


class Tally:
    """A counter whose `add` is one C call: exact under threads, and re-entrant."""

    __slots__ = ("_count", "_lock", "_reads", "add")

    def __init__(self) -> None:
        self._count = itertools.count()
        #: Count one.
        self.add = self._count.__next__
        self._reads = 0
        self._lock = threading.Lock()

    def value(self) -> int:
        """How often `add` was called. Not for a logging call: it takes a lock."""
        with self._lock:  # each look takes one number from the counter itself
            self._reads += 1
            return next(self._count) - self._reads + 1


#: The severity of what is not known to have one.
UNKNOWN_SEVERITY: Final = "UNKNOWN"


def severity_of_number(number: int) -> str:
    """Canonical name for OpenTelemetry's SeverityNumber; "UNKNOWN" outside of 1 to 24."""
    return SEVERITIES[(number - 1) // 4] if 1 <= number <= 24 else UNKNOWN_SEVERITY


class _Adders(dict[Any, Callable[[], object]]):
    """What counts one, by SeverityNumber."""

    __slots__ = ("unknown",)

    unknown: Callable[[], object]

    def __missing__(self, _number: object) -> Callable[[], object]:
        return self.unknown


class Tallies:
    """A `Tally` for each severity: `add[severity_number]()` counts one, in one C call."""

    __slots__ = ("_lock", "_tallies", "add")

    def __init__(self) -> None:
        self._tallies = {name: Tally() for name in (*SEVERITIES, UNKNOWN_SEVERITY)}
        self._lock = threading.Lock()
        #: What counts one, by OpenTelemetry's SeverityNumber, whatever that is.
        self.add = _Adders(
            {number: self._tallies[severity_of_number(number)].add for number in range(1, 25)}
        )
        self.add.unknown = self._tallies[UNKNOWN_SEVERITY].add

    def by_severity(self) -> dict[str, int]:
        """How often each was called. Not for a logging call: it takes locks."""
        with self._lock:
            return {name: tally.value() for name, tally in self._tallies.items()}

    def value(self) -> int:
        """The sum of all severities."""
        return sum(self.by_severity().values())


class Lanes:
    """
    Entries by severity: below WARNING, WARNING, and ERROR or above.

    Thread-safe for any number of writers and one reader.

    Args:
        places: Bound on all entries, each counted once for every `SLOT_CHARS` characters.
        overflowed: Where to count what a full queue drops; default: a new one.
    """

    def __init__(self, places: int, overflowed: Tallies | None = None) -> None:
        self._places = places
        self._lanes: tuple[deque[Entry | None], ...] = (deque(), deque(), deque())
        #: Entries that a full queue dropped.
        self.overflowed = Tallies() if overflowed is None else overflowed

    def put(self, entry: Entry, places: int = 1) -> int:
        """Take *entry*; what it pushes out is counted. Returns the places in use before it."""
        low, middle, high = self._lanes
        used = len(low) + len(middle) + len(high)
        severity = entry[1]
        lane = low if severity < _WARNING else middle if severity < _ERROR else high
        if places > 1:
            return self._put_large(entry, places, lane)
        if used >= self._places and not self._make_room(lane, used + 1 - self._places):
            self.overflowed.add[severity]()
            return used
        lane.append(entry)
        return used

    def _put_large(self, entry: Entry, places: int, lane: deque[Entry | None]) -> int:
        places = min(places, self._places)
        used = self.places_used()
        excess = used + places - self._places
        if excess > 0 and not self._make_room(lane, excess):
            self.overflowed.add[entry[1]]()
            return used
        lane.extend((entry, *[None] * (places - 1)))  # one C call: stays together
        return used

    def _make_room(self, lane: deque[Entry | None], places: int) -> bool:
        """Free *places* from the least severe lanes up to *lane* itself; False: not possible."""
        for candidate in self._lanes:
            while places > 0:
                try:
                    oldest = candidate.popleft()
                except IndexError:
                    break
                places -= 1
                if oldest is not None:
                    self.overflowed.add[oldest[1]]()
            if places <= 0:
                return True
            if candidate is lane:
                return False
        return False

    def take(self, most: int) -> list[Entry]:
        """Up to *most* entries, the most severe first, each severity in its order."""
        taken: list[Entry] = []
        for lane in reversed(self._lanes):
            while len(taken) < most:
                try:
                    entry = lane.popleft()
                except IndexError:
                    break
                if entry is not None:
                    taken.append(entry)
        return taken

    def places_used(self) -> int:
        """Places in use, each of the bound's unit."""
        low, middle, high = self._lanes
        return len(low) + len(middle) + len(high)

    def __len__(self) -> int:
        """Entries that wait (walks the queue: for health reports, not for a logging call)."""
        return sum(sum(entry is not None for entry in list(lane)) for lane in self._lanes)
