"""
What LipService has to say of itself: the logger `lipservice`, at most once an hour and kind.

Rule: nothing else in the package complains, and nothing complains once a record. A logger that
raises is ignored. Records come from the worker thread, which the integrations ignore (see
`lipservice._worker.is_own_thread`), so that a complaint never feeds the sampler.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final

#: Seconds between two records of one kind.
REPEAT_AFTER: Final = 3600.0

_logger: Final = logging.getLogger("lipservice")
if not _logger.handlers:
    # Without any handler, logging prints warnings to stderr by itself.
    _logger.addHandler(logging.NullHandler())

Log = Callable[[int, str], None]


def _log(level: int, text: str) -> None:
    _logger.log(level, "%s", text)


class Complaints:
    """
    Says what is wrong, once, and when it is right again.

    Args:
        log: Takes (level, text); default: the logger `lipservice`.
        clock: Monotonic seconds.
        repeat_after: Seconds during which a kind is not repeated.
    """

    def __init__(
        self,
        log: Log = _log,
        *,
        clock: Callable[[], float] = time.monotonic,
        repeat_after: float = REPEAT_AFTER,
    ) -> None:
        self._log = log
        self._clock = clock
        self._repeat_after = repeat_after
        self._said: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def warn(self, kind: str, text: str) -> None:
        """Log *text* as a WARNING, unless *kind* was said lately; never raises."""
        now = self._clock()
        said = self._said.get(kind)
        if said is not None and now - said < self._repeat_after:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        self._said[kind] = now
        self._write(logging.WARNING, text + _times(self._unsaid.pop(kind, 0)))

    def resolve(self, kind: str, text: str) -> None:
        """Log *text* as INFO if *kind* was complained of and not resolved since; never raises."""
        if self._said.pop(kind, None) is not None:
            self._write(logging.INFO, text + _times(self._unsaid.pop(kind, 0)))

    def _write(self, level: int, text: str) -> None:
        with contextlib.suppress(Exception):  # the application's logging is broken: nobody to tell
            self._log(level, text)


def _times(unsaid: int) -> str:
    return f" ({unsaid:,} more times since)" if unsaid else ""
