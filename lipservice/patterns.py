"""
Patterns and their exact counts.

A `Cell` is one pattern at one severity; it carries the countdown that decides and, with it, the
counts. A `SeverityTable` finds the cell of a message. Nothing here knows policies or time: the
rules that arm a cell are in `lipservice._engine`.

Invariants of a cell (docs/explanation/exact-counts.md says why they hold under threads):

- `seen == base - left`, always.
- `left > 0`: that many more records are dropped. `left <= KEEP_ALL`: every record is kept.
  Otherwise the next record takes the slow path, under the engine's lock.
- Outside the slow path only `left` changes, and only by 1 in one straight line of bytecode that
  holds no call and no backward jump, so that CPython with a GIL cannot switch threads within it.
- What was dropped is not stored, it follows.

The ledger of a cell says under which policy and by which rule its records were kept and dropped. It
costs nothing while records come: a `Row` is closed when a cell's `Terms` change, with what was
counted since the last one; what has been counted since then belongs to the terms in force. Only
records that a rule decides one by one (in a request, at the limit) are counted in open rows.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from lipservice._fork import on_fork
from lipservice.severity import PROTECTED_SEVERITIES

if TYPE_CHECKING:
    from lipservice.decision import Decision

#: `left` at or below this keeps every record. Small enough that a countdown never gets there,
#: large enough that half a thousand million decrements stay one-digit integers of CPython.
KEEP_ALL: Final = -(1 << 29)

#: Signature and template under which a report shows what did not fit into the pattern table.
OVERFLOW_SIGNATURE: Final = "overflow"
OVERFLOW_TEMPLATE: Final = "<overflow>"

#: Bytes of a key that are stored for people and for the policy's words.
MAX_STORED_KEY: Final = 1024

# Bounds of the look-up caches of one severity. They hold texts that lead to a cell; what is
# dropped from them is found again through its signature.
_MAX_TEXTS: Final = 8192
_MAX_TEXT_LENGTH: Final = 512
_MAX_TEXT_BYTES: Final = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class PatternStats:
    """Counts of one pattern; a snapshot, safe to share."""

    #: 16 hex digits (LSIG-1), or "overflow".
    signature: str
    #: The message with its variables replaced by `<*>`; holds no value of a variable.
    template: str
    #: Records seen, exact.
    count: int
    #: Records kept, exact.
    kept: int
    #: Bytes of the records seen: `count` times the mean size of those that were measured.
    bytes: int
    #: When the first record came (aware, UTC).
    first_seen: datetime
    #: When the last record came, to the resolution of the background thread's tick.
    last_seen: datetime
    #: The rate in force, 0 to 1; the lowest, if the pattern comes at several severities.
    sampling_rate: float
    #: Records seen of each severity; they add up to `count`.
    severity_distribution: Mapping[str, int]


class _Holding:
    """The one lock of all rings: each of them may hold records of any sampler."""

    def __init__(self) -> None:
        self._reset_after_fork()
        on_fork(self)

    def _reset_after_fork(self) -> None:
        self.lock = threading.RLock()  # re-entrant: a signal handler may log in the middle


HOLDING: Final = _Holding()


class Terms(NamedTuple):
    """Under which policy and by which rule records are decided. Shared by cells."""

    #: Version (or id) of the policy; None: there is none.
    policy: str | None
    #: As `Decision.rule`, and "limit".
    rule: str
    #: Whether the policy drops nothing.
    shadow: bool = False


#: The policy under which the ledger sums up what came under policies of long ago.
EARLIER: Final = "earlier"
#: The terms of a cell that has left the table.
RETIRED: Final = Terms(None, "retired")


class Row:
    """
    What became of records of one cell under the same terms.

    A closed row never changes and may be shared by cells. An open one is counted in: `seen` and
    `kept` under the engine's lock, `held` and `released` under `HOLDING`. When rows are summed up,
    what a request still holds of one of them is counted in the sum from then on.
    """

    __slots__ = ("held", "into", "is_open", "kept", "released", "seen", "terms")

    def __init__(
        self, terms: Terms, seen: int = 0, kept: int = 0, *, is_open: bool = False
    ) -> None:
        self.terms = terms
        self.seen = seen
        self.kept = kept  # by the decision; what is released later does not count here
        self.held = 0
        self.released = 0
        self.is_open = is_open
        self.into: Row | None = None

    def sum_up(self, rows: Iterable[Row]) -> None:
        """Take over what *rows* have counted, and what they will. Under the engine's lock."""
        with HOLDING.lock:
            for row in rows:
                if row.is_open:
                    row.into = self  # first: from here on nobody counts in it
                self.seen += row.seen
                self.kept += row.kept
                self.held += row.held
                self.released += row.released

    def count(self, held: int = 0, released: int = 0) -> None:
        """Count what becomes of a record that a request holds. Under `HOLDING`."""
        row = self
        while row.into is not None:
            row = row.into
        row.held += held
        row.released += released

    def gone(self) -> int:
        """Records that were dropped for good."""
        return self.seen - self.kept - self.held - self.released


class Cell:
    """One pattern at one severity: its countdown and its counts."""

    __slots__ = (
        "base",
        "first_seen",
        "if_dropped",
        "if_kept",
        "kept",
        "key",
        "last_seen",
        "left",
        "protected",
        "rate",
        "reported",
        "reported_kept",
        "requested",
        "rows",
        "signature",
        "sized",
        "sized_bytes",
        "steady",
        "table",
        "terms",
        "ticked",
        "volume",
    )

    def __init__(self, table: SeverityTable, signature: str, key: bytes, now: float) -> None:
        self.left = 0
        self.base = 0
        self.kept = 0  # up to the last arming, by the rules (whatever shadow mode let pass)
        self.rate = 1.0  # the probability under which the running gap was drawn
        self.terms = _NEW
        self.steady = 0.0  # 1 / ln(1 - rate) while nothing but the rate decides, else 0
        self.if_dropped: Decision | None = None  # the hot path's answers; shadow lets pass
        self.if_kept: Decision | None = None
        self.rows: tuple[Row, ...] = ()
        # The open row of what requests decide now, where they may count in it without a lock.
        self.requested: Row | None = None
        self.sized = 0  # records measured, and their bytes
        self.sized_bytes = 0
        self.reported = 0  # seen and let pass, at the last drain
        self.reported_kept = 0
        self.ticked = 0  # seen at the last tick
        self.volume = 0.0  # decayed count, see lipservice._anomaly
        self.protected = False
        self.signature = signature
        self.key = key
        self.table = table
        self.first_seen = now  # monotonic seconds
        self.last_seen = now

    @property
    def rule(self) -> str:
        """The rule in force."""
        return self.terms.rule

    @property
    def retired(self) -> bool:
        """Whether the cell has left the table."""
        return self.terms is RETIRED

    def mean_size(self) -> float:
        """Mean bytes of the records measured so far; the key's length before the first."""
        return self.sized_bytes / self.sized if self.sized else float(len(self.key) + 1)


def counts_of(cell: Cell) -> tuple[int, int]:
    """Seen and kept by the rules, as one consistent snapshot (under the engine's lock)."""
    # One straight line: between two, the hot path could change all three.
    left, base, kept = cell.left, cell.base, cell.kept
    running = KEEP_ALL - left if left <= KEEP_ALL else 0
    return base - left, kept + running


def running_of(cell: Cell, seen: int, kept: int) -> tuple[int, int]:
    """Of what a cell has seen and kept, what came under the terms in force and stands in no row."""
    for row in cell.rows:
        seen -= row.seen
        kept -= row.kept
    return seen, kept


def shadowed_of(cell: Cell, seen: int, kept: int) -> int:
    """How many records of a cell passed only because of shadow mode."""
    shadowed = 0
    if cell.terms.shadow:
        running_seen, running_kept = running_of(cell, seen, kept)
        shadowed = running_seen - running_kept
    return shadowed + sum(row.seen - row.kept for row in cell.rows if row.terms.shadow)


def rows_of(cell: Cell) -> list[Row]:
    """
    All that a cell counted, as rows; the last one is made up for the terms in force.

    Under the engine's lock. The row of requests is counted in without it.
    """
    rows, row = list(cell.rows), cell.requested
    if row is None:
        (seen, kept), now = counts_of(cell), None
    else:
        # One straight line: between two of them a request may change all of these.
        left, base, kept, of_requests, kept_by_them = cell.left, cell.base, cell.kept, row.seen, row.kept  # noqa: E501  # fmt: skip
        seen, kept = base - left, kept + (KEEP_ALL - left if left <= KEEP_ALL else 0)
        now = Row(row.terms, of_requests, kept_by_them, is_open=True)
        with HOLDING.lock:  # what is released is not held any more
            now.held, now.released = row.held, row.released
        rows[rows.index(row)] = now
    for each in rows:
        seen -= each.seen
        kept -= each.kept
    return [*rows, Row(cell.terms, seen, kept)] if seen else rows


class SeverityTable:
    """
    The cells of one severity, by signature, and bounded caches from texts to them.

    Only plain strings are remembered: one of a class of the application's may hold anything alive,
    and compare itself in any way.
    """

    __slots__ = (
        "formats",
        "index",
        "messages",
        "overflow",
        "overflow_protected",
        "protected",
        "severity",
        "texts",
        "texts_bytes",
    )

    def __init__(self, severity: str, now: float) -> None:
        self.severity = severity
        self.protected = severity in PROTECTED_SEVERITIES
        self.index: dict[str, Cell] = {}
        #: Messages without a digit, as they come.
        self.messages: dict[str, Cell] = {}
        #: Format strings of calls that had arguments.
        self.formats: dict[str, Cell] = {}
        #: Folded messages (lipservice.signature.fold).
        self.texts: dict[bytes, Cell] = {}
        self.texts_bytes = 0
        self.overflow = Cell(self, OVERFLOW_SIGNATURE, b"", now)
        self.overflow_protected = Cell(self, OVERFLOW_SIGNATURE, b"", now)
        self.overflow_protected.protected = True

    def remember_message(self, message: str, cell: Cell) -> None:
        """Let the hot path find *cell* by this very message."""
        if type(message) is str and len(message) <= _MAX_TEXT_LENGTH:
            if len(self.messages) >= _MAX_TEXTS:
                self.messages.clear()
            self.messages[message] = cell

    def remember_format(self, format_string: str, cell: Cell) -> None:
        """Let the hot path find *cell* by this very format string."""
        if type(format_string) is str and len(format_string) <= _MAX_TEXT_LENGTH:
            if len(self.formats) >= _MAX_TEXTS:
                self.formats.clear()
            self.formats[format_string] = cell

    def remember_text(self, folded: bytes, cell: Cell) -> None:
        """Find *cell* by this folded message without computing its key again."""
        if len(folded) <= _MAX_TEXT_LENGTH:
            if len(self.texts) >= _MAX_TEXTS or self.texts_bytes >= _MAX_TEXT_BYTES:
                self.forget_texts()
            self.texts[folded] = cell
            self.texts_bytes += len(folded)

    def forget_texts(self) -> None:
        """Empty the caches; the index stays."""
        self.messages.clear()
        self.formats.clear()
        self.texts.clear()
        self.texts_bytes = 0

    def every_cell(self) -> list[Cell]:
        """All cells with the overflow buckets, as a list of its own."""
        return [*self.index.values(), self.overflow, self.overflow_protected]


def memory_of(table: SeverityTable) -> tuple[int, int, int, int]:
    """Patterns and their bytes, cached texts and theirs, as `sys.getsizeof` measures."""
    cells = table.every_cell()
    pattern_bytes = sys.getsizeof(table.index) + sum(map(_bytes_of, cells))
    caches: tuple[dict[Any, Cell], ...] = (table.messages, table.formats, table.texts)
    texts = [text for cache in caches for text in list(cache)]
    text_bytes = sum(map(sys.getsizeof, caches)) + sum(map(sys.getsizeof, texts))
    return len(table.index), pattern_bytes, len(texts), text_bytes


def _bytes_of(cell: Cell) -> int:
    # The rest is shared, by far the most of closed rows too.
    rows = [row for row in cell.rows if row.is_open]
    own = (cell.key, cell.signature, cell.left, cell.base, cell.volume, *rows)
    return sys.getsizeof(cell) + sum(map(sys.getsizeof, own))


_NEW: Final = Terms(None, "first")
