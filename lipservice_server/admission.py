"""
What is taken in at one time, decided before a body is read.

Gates of each worker. A report passes `reports` before its body is read, and `writers` before it is
written; a generation passes `generations`; everything else that needs the database, `database`. A
gate never queues without bound: what does not pass is answered 503 at once. So a database that
hangs holds a few threads, slow bodies hold a few more, and policies are served by the rest.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lipservice_server.errors import BusyError


class Gate:
    """At most *most* inside at one time. Safe to share between threads."""

    def __init__(self, most: int) -> None:
        self._slots = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._inside = 0
        self.refused = 0

    @property
    def inside(self) -> int:
        """How many are inside."""
        return self._inside

    @contextmanager
    def passing(self, *, wait: float = 0.0) -> Iterator[None]:
        """
        Be inside for the length of the block.

        Args:
            wait: Longest wait for a place, in seconds.

        Raises:
            BusyError: There is no place.
        """
        if not self._slots.acquire(timeout=wait) if wait > 0 else not self._slots.acquire(False):
            self.refused += 1
            raise BusyError
        with self._lock:
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
            self._slots.release()


class Admission:
    """The gates of one worker."""

    def __init__(self, *, threads: int, writers: int, body_seconds: float) -> None:
        self.reports = Gate(max(2, threads // 2))
        self.writers = Gate(writers)
        self.database = Gate(max(2, threads // 8))
        #: A generation may wait half a minute for a model; other requests must not wait for it.
        self.generations = Gate(2)
        self.bodies = BodyDeadlines(body_seconds)
        #: Bodies of refused requests are read away, by so many threads and for so long at most.
        self.drains = Gate(max(2, threads // 4))
        self.drained = BodyDeadlines(min(2.0, body_seconds))


class BodyDeadlines:
    """
    Ends the reading of bodies that take too long.

    A read waits on its socket as long as some byte comes now and then; closing the socket's
    reading half from outside ends it, and leaves the writing half for the answer.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._reading: dict[int, tuple[float, socket.socket]] = {}
        self._late: set[int] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def reading(self, sock: object) -> Iterator[list[bool]]:
        """Read a body from *sock* within the block; the list is `[True]` where it was too slow."""
        slow = [False]
        if not isinstance(sock, socket.socket):
            yield slow  # no server that gives its socket away: nothing to end
            return
        token = id(slow)
        with self._lock:
            self._reading[token] = (time.monotonic() + self._seconds, sock)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._watch, name="lipservice-bodies", daemon=True
                )
                self._thread.start()
        try:
            yield slow
        finally:
            with self._lock:
                self._reading.pop(token, None)
                slow[0] = token in self._late
                self._late.discard(token)

    def is_late(self, slow: list[bool]) -> bool:
        """Whether the reading was ended, asked inside the block."""
        with self._lock:
            return id(slow) in self._late

    def _watch(self) -> None:
        while True:
            time.sleep(0.25)
            now = time.monotonic()
            with self._lock:
                if not self._reading:
                    self._thread = None
                    return
                late = [token for token, (ends, _) in self._reading.items() if ends <= now]
                for token in late:
                    _, sock = self._reading.pop(token)
                    self._late.add(token)
                    _shut(sock)


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):  # it is gone already
        sock.shutdown(socket.SHUT_RD)
