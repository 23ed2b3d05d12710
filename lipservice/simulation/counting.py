"""
Log records -> patterns with their volumes, in bounded memory.

At most so many patterns are told apart; what comes after them is counted in one bucket a
severity, as the sampler does it. Volume over time is kept for the patterns that came first and
for all others together, in slices that grow wider as the log turns out to be longer.
"""

from __future__ import annotations

from typing import Final

from lipservice.patterns import OVERFLOW_SIGNATURE, OVERFLOW_TEMPLATE
from lipservice.signature import fold, key_of_folded, signature_of_key, template_of_key
from lipservice.simulation.reading import Record

#: Patterns that are told apart.
MOST_PATTERNS: Final = 100_000
#: Patterns whose volume over time is kept one by one.
_CHARTED: Final = 2_000
#: Slices of time that a chart can have.
_MOST_SLICES: Final = 192
# Folded texts that are remembered for each severity, to find a pattern without its key.
_MOST_TEXTS: Final = 32_768
_LONGEST_TEXT: Final = 1_024


class Pattern:
    """One pattern at one severity, with its volume."""

    __slots__ = ("by_slice", "bytes", "count", "severity", "signature", "template")

    def __init__(
        self, signature: str, template: str, severity: str, by_slice: dict[int, int]
    ) -> None:
        self.signature = signature
        self.template = template
        self.severity = severity
        self.count = 0
        self.bytes = 0
        #: Bytes of each slice of time; shared by the patterns that are not charted.
        self.by_slice = by_slice

    @property
    def overflow(self) -> bool:
        """Whether this is the bucket of what did not fit into the table."""
        return self.signature == OVERFLOW_SIGNATURE


class Timeline:
    """Slices of time of one width, doubled when they become too many."""

    __slots__ = ("_high", "_low", "first", "last", "slices", "timed", "width")

    def __init__(self) -> None:
        #: Seconds of one slice.
        self.width = 1
        #: The histograms that are to be folded when the width doubles.
        self.slices: list[dict[int, int]] = []
        #: Seconds since 1970 of the earliest and the latest record.
        self.first = float("inf")
        self.last = float("-inf")
        #: Records with a time.
        self.timed = 0
        self._low: int | None = None
        self._high = 0

    @property
    def span(self) -> float | None:
        """Seconds from the first record to the last; None if no record has a time."""
        return self.last - self.first if self.timed else None

    def slice_of(self, seconds: float) -> int:
        """The number of the slice of *seconds*, counted from 1970."""
        self.timed += 1
        if seconds < self.first:  # noqa: PLR1730 - a call of min() for every record is dear
            self.first = seconds
        if seconds > self.last:  # noqa: PLR1730
            self.last = seconds
        number = int(seconds) // self.width
        if self._low is not None and self._low <= number <= self._high:
            return number
        return self._reach(seconds)

    def _reach(self, seconds: float) -> int:
        while int(self.last) // self.width - int(self.first) // self.width >= _MOST_SLICES:
            self.width *= 2
            for histogram in self.slices:
                _halve(histogram)
        self._low = int(self.first) // self.width
        self._high = int(self.last) // self.width
        return int(seconds) // self.width


def _halve(histogram: dict[int, int]) -> None:
    old = list(histogram.items())
    histogram.clear()
    for number, amount in old:
        histogram[number // 2] = histogram.get(number // 2, 0) + amount


class PatternCounter:
    """Counts records by pattern and severity. Not for use by several threads."""

    def __init__(self, most_patterns: int = MOST_PATTERNS) -> None:
        self.timeline = Timeline()
        #: Records whose log did not say how severe they are; they count as INFO.
        self.unlevelled = 0
        self._most = most_patterns
        self._patterns: dict[tuple[str, str], Pattern] = {}
        self._overflow: dict[str, Pattern] = {}
        self._texts: dict[str | None, dict[bytes, Pattern]] = {}
        self._others: dict[str, dict[int, int]] = {}

    def add(self, record: Record) -> None:
        """Count one record."""
        seconds, severity, message, size, _ = record
        folded = fold(message)
        texts = self._texts.get(severity)
        pattern = texts.get(folded) if texts is not None else None
        if pattern is None:
            pattern = self._find(severity, folded)
        pattern.count += 1
        pattern.bytes += size
        if severity is None:
            self.unlevelled += 1
        if seconds is not None:
            number = self.timeline.slice_of(seconds)
            by_slice = pattern.by_slice
            by_slice[number] = by_slice.get(number, 0) + size

    def patterns(self) -> list[Pattern]:
        """All patterns, the overflow buckets last."""
        return [*self._patterns.values(), *self._overflow.values()]

    def histograms(self) -> dict[str, dict[int, int]]:
        """Bytes by slice of the patterns that are not charted, by severity."""
        return self._others

    def _find(self, known: str | None, folded: bytes) -> Pattern:
        severity = known or "INFO"
        key = key_of_folded(folded)
        signature = signature_of_key(key)
        pattern = self._patterns.get((signature, severity))
        if pattern is None:
            if len(self._patterns) >= self._most:
                return self._overflowing(severity)
            pattern = self._new(signature, template_of_key(key), severity)
            self._patterns[signature, severity] = pattern
        if len(folded) <= _LONGEST_TEXT:
            texts = self._texts.setdefault(known, {})
            if len(texts) >= _MOST_TEXTS:
                texts.clear()
            texts[folded] = pattern
        return pattern

    def _new(self, signature: str, template: str, severity: str) -> Pattern:
        if len(self._patterns) >= _CHARTED:
            return Pattern(signature, template, severity, self._shared(severity))
        by_slice: dict[int, int] = {}
        self.timeline.slices.append(by_slice)
        return Pattern(signature, template, severity, by_slice)

    def _shared(self, severity: str) -> dict[int, int]:
        shared = self._others.get(severity)
        if shared is None:
            shared = self._others[severity] = {}
            self.timeline.slices.append(shared)
        return shared

    def _overflowing(self, severity: str) -> Pattern:
        bucket = self._overflow.get(severity)
        if bucket is None:
            shared = self._shared(severity)
            bucket = Pattern(OVERFLOW_SIGNATURE, OVERFLOW_TEMPLATE, severity, shared)
            self._overflow[severity] = bucket
        return bucket
