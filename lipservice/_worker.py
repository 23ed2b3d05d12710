"""
The one background thread of a sampler: runs tasks when they are due, and nothing else.

Rules. The caller's thread never waits here: starting takes a lock only if it is free. The thread
holds its worker weakly while it sleeps, so that an abandoned sampler is collected and the thread
ends. Waking goes through a `queue.SimpleQueue`, whose `put` is reentrant (signal handlers,
`__del__`, garbage collection); it and the thread class are looked up when used, so that gevent's
replacements serve where gevent is in. A fork only replaces objects; the child's first
`ensure_started()` starts its own thread. Nothing is started once the interpreter exits.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from lipservice._fork import on_fork, reset_if_forked

#: Seconds that `stop` waits, where nothing else is said.
EXIT_SECONDS: Final = 2.0

#: Seconds that the interpreter's exit waits for all workers together: with the interpreter's own
#: work it stays within 2 s.
_AT_EXIT_SECONDS: Final = 1.8

_LONGEST_PAUSE: Final = 3600.0
_SHORTEST_PAUSE: Final = 0.01
_FIRST_RETRY: Final = 1.0
_LONGEST_RETRY: Final = 60.0

Pause = Callable[["queue.SimpleQueue[str]", float], str]


class _Idents(set[int]):
    """A set that a fork empties: the child has none of the parent's threads."""

    def _reset_after_fork(self) -> None:
        self.clear()


#: Idents of the LipService threads that are at work; empty while all of them wait.
OWN_THREADS: Final = _Idents()


def is_own_thread() -> bool:
    """Whether the caller is a LipService thread, whose log records every integration ignores."""
    return bool(OWN_THREADS) and threading.get_ident() in OWN_THREADS


@contextlib.contextmanager
def own_thread() -> Iterator[None]:
    """Count the calling thread as a LipService thread while the block runs."""
    ident = threading.get_ident()
    on_fork(OWN_THREADS)
    OWN_THREADS.add(ident)
    try:
        yield
    finally:
        OWN_THREADS.discard(ident)


@dataclass(frozen=True, slots=True)
class Task:
    """Something to do again and again."""

    #: What `wake` and `health` call it.
    name: str
    #: Does it once and returns the seconds until the next time.
    run: Callable[[], float]
    #: Seconds until the first time, asked when the thread starts.
    first: Callable[[], float]
    #: Most seconds until the next time after `run` raised.
    interval: float


def pause(inbox: queue.SimpleQueue[str], seconds: float) -> str:
    """Wait for a message, at most *seconds*; the message, or "" if none came."""
    try:
        return inbox.get(timeout=min(seconds, _LONGEST_PAUSE))
    except queue.Empty:
        return ""


class Worker:
    """
    Runs tasks in one daemon thread per process, started by the first `ensure_started()`.

    Thread-safe, and safe to call from signal handlers and finalizers. Keep a strong reference:
    when the worker is collected its thread ends (without the final call).

    Args:
        tasks: What to run; names are unique.
        final: Called once in the thread when it is stopped, with the `clock` time until which it
            may take.
        name: The thread's name.
        clock: Monotonic seconds.
        pause: How the thread waits; see `pause`.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        *,
        final: Callable[[float], None] | None = None,
        name: str = "lipservice",
        clock: Callable[[], float] = time.monotonic,
        pause: Pause = pause,
    ) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._final = final
        self._name = name
        self._clock = clock
        self._pause = pause
        self._stop_by: float | None = None
        self._reset_after_fork()
        on_fork(self)

    def _reset_after_fork(self) -> None:
        self._running_in = 0  # process id while a thread of ours runs, else 0
        self._thread: threading.Thread | None = None
        self._inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._due: dict[str, float] = {}
        self._failures_in_a_row: dict[str, int] = {}
        self._starts = 0
        self._start_failures = 0
        self._retry_at = -math.inf
        self._crashes = 0
        self._last_crash: str | None = None

    # ------------------------------------------------------------------ called by anyone

    def ensure_started(self) -> None:
        """
        Start the thread unless it runs; costs one comparison when it does, and never waits.

        A thread that cannot be started is tried again by a later call, after a growing pause
        (1 to 60 s). After `stop` and while the interpreter exits this does nothing.
        """
        if self._running_in != os.getpid():
            self._start()

    def wake(self, name: str) -> None:
        """Run the task *name* now if the thread runs; unknown names only wake it."""
        self._inbox.put(name)

    def stop(self, timeout: float = EXIT_SECONDS) -> bool:
        """
        Make the final call and end the thread, waiting at most *timeout* seconds.

        Whatever the network does, this returns in time; the thread is then left to end by itself.
        Final: `ensure_started` starts nothing any more, in this process or its children.

        Returns:
            Whether the thread has ended (or never ran).
        """
        self._ask_to_stop(timeout)
        return self._await_end(timeout)

    def health(self) -> dict[str, Any]:
        """A few plain values: whether the thread runs, and what went wrong so far."""
        return {
            "running": self._running_in == os.getpid(),
            "stopped": self._stop_by is not None,
            "starts": self._starts,
            "start_failures": self._start_failures,
            "crashes": self._crashes,
            "last_crash": self._last_crash,
        }

    # ------------------------------------------------------------------ start and stop

    def _start(self) -> None:
        reset_if_forked()
        if self._stop_by is not None or _exiting or sys.is_finalizing():
            return
        lock = self._starting
        if not lock.acquire(blocking=False):
            return  # another thread, or the code that this call interrupted, is starting it
        try:
            if self._running_in != os.getpid() and self._clock() >= self._retry_at:
                self._launch()
        finally:
            lock.release()

    def _launch(self) -> None:
        inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
        ref = weakref.ref(self, lambda _dead: inbox.put(""))
        thread = threading.Thread(
            target=_serve, args=(ref, inbox, self._pause), name=self._name, daemon=True
        )
        self._inbox, self._thread = inbox, thread
        self._running_in = os.getpid()
        try:
            _register_exit(self)
            thread.start()
            self._starts += 1
        except Exception as error:
            self._start_failed(error)
        except BaseException:  # Ctrl-C in this very moment: the next call starts another thread
            self._running_in = 0
            raise

    def _start_failed(self, error: Exception) -> None:
        self._running_in = 0
        self._start_failures += 1
        self._note("start", error)
        self._retry_at = self._clock() + _retry_pause(self._start_failures, _LONGEST_RETRY)

    def _ask_to_stop(self, timeout: float) -> None:
        if self._stop_by is None:
            self._stop_by = self._clock() + timeout
        self._inbox.put("")

    def _await_end(self, timeout: float) -> bool:
        thread = self._thread
        if thread is None or self._running_in != os.getpid():
            return True
        if thread is threading.current_thread():
            return False
        thread.join(max(0.0, timeout))
        return not thread.is_alive()

    # ------------------------------------------------------------------ in the thread

    def run_due(self, woken: str = "") -> float:
        """
        Run the tasks that are due, and the one called *woken*.

        Only the thread calls this, or a test that has none.

        Returns:
            Seconds until the next task is due.
        """
        for name, task in self._tasks.items():
            if self._stop_by is None and (self._is_due(task) or name == woken):
                self._due[name] = self._clock() + self._run(task)
        next_due = min(self._due.values(), default=math.inf)
        return max(0.0, min(_LONGEST_PAUSE, next_due - self._clock()))

    def finish(self) -> None:
        """Make the final call; errors are counted, not raised."""
        try:
            if self._final is not None and self._stop_by is not None:
                self._final(self._stop_by)
        except BaseException as error:
            self._note("final", error)

    def _is_due(self, task: Task) -> bool:
        due = self._due.get(task.name)
        if due is None:
            due = self._due[task.name] = self._clock() + self._first(task)
        return self._clock() >= due

    def _first(self, task: Task) -> float:
        try:
            return _bounded(task.first(), task.interval)
        except BaseException as error:
            return self._crashed(task, error)

    def _run(self, task: Task) -> float:
        try:
            delay = _bounded(task.run(), task.interval)
            self._failures_in_a_row.pop(task.name, None)
        except BaseException as error:  # SystemExit, MemoryError: nothing ends this thread
            return self._crashed(task, error)
        return delay

    def _crashed(self, task: Task, error: BaseException) -> float:
        self._note(task.name, error)
        failures = self._failures_in_a_row.get(task.name, 0) + 1
        self._failures_in_a_row[task.name] = failures
        return _retry_pause(failures, task.interval)

    def _note(self, where: str, error: BaseException) -> None:
        self._crashes += 1
        self._last_crash = f"{where}: {type(error).__name__}"

    def _turn(self, inbox: queue.SimpleQueue[str], woken: str) -> float | None:
        if self._inbox is not inbox:
            return None  # a newer thread has taken over
        if self._stop_by is not None:
            self.finish()
            return None
        return max(_SHORTEST_PAUSE, self.run_due(woken))

    def _ended(self, inbox: queue.SimpleQueue[str], error: BaseException | None) -> None:
        if error is not None:
            self._note("thread", error)
        if self._inbox is inbox:
            self._running_in = 0


def _serve(ref: weakref.ref[Worker], inbox: queue.SimpleQueue[str], pause: Pause) -> None:
    error: BaseException | None = None
    try:
        _serve_until_told(ref, inbox, pause)
    except BaseException as raised:  # outside any task, e.g. an asynchronous exception
        error = raised
    worker = ref()
    if worker is not None:
        worker._ended(inbox, error)  # noqa: SLF001 - the other half of this class


def _serve_until_told(
    ref: weakref.ref[Worker], inbox: queue.SimpleQueue[str], pause: Pause
) -> None:
    woken = ""
    while True:
        worker = ref()
        with own_thread():  # only while it works, so that the set is empty most of the time
            delay = None if worker is None else worker._turn(inbox, woken)  # noqa: SLF001
        del worker  # held only while it works
        if delay is None:
            return
        woken = pause(inbox, delay)


def _bounded(delay: float, interval: float) -> float:
    return interval if math.isnan(delay) else max(0.0, delay)


def _retry_pause(failures: int, longest: float) -> float:
    return min(longest, _LONGEST_RETRY, _FIRST_RETRY * 2.0 ** min(failures - 1, 10))


# ---------------------------------------------------------------------- the interpreter's exit

_exiting = False
_workers: Final[dict[int, weakref.ref[Worker]]] = {}


def _register_exit(worker: Worker) -> None:
    key = id(worker)

    def forget(_dead: object) -> None:
        _workers.pop(key, None)

    _workers[key] = weakref.ref(worker, forget)
    atexit.unregister(_at_exit)  # once, however many workers; a fork of 3.13 clears the list
    atexit.register(_at_exit)
    for library in ("multiprocessing", "billiard"):
        _register_with_parent_library(library)
    _register_with_celery()


def _register_with_parent_library(library: str) -> None:
    """Children of *library* (billiard: celery's) leave by `os._exit`, past atexit."""
    process = sys.modules.get(f"{library}.process")
    util = sys.modules.get(f"{library}.util")
    if process is None or util is None:
        return
    current = getattr(process, "current_process", lambda: None)()
    if getattr(current, "_parent_pid", None) is not None:
        util.Finalize(None, _at_exit, exitpriority=100)


def _register_with_celery() -> None:
    """The children of Celery's pool leave past billiard's finalizers, too; it tells them before."""
    signals = sys.modules.get("celery.signals")
    ending = getattr(signals, "worker_process_shutdown", None)
    if ending is not None:
        ending.connect(_leave_celery, weak=False, dispatch_uid="lipservice._worker")


def _leave_celery(**_: object) -> None:
    _at_exit()


def _at_exit() -> None:
    """Stop all workers within one common deadline; starts no thread, raises nothing."""
    global _exiting  # noqa: PLW0603 - the interpreter exits once
    _exiting = True
    until = time.monotonic() + _AT_EXIT_SECONDS
    running = [worker for ref in list(_workers.values()) if (worker := ref()) is not None]
    unasked = [worker for worker in running if not worker.health()["stopped"]]
    for worker in unasked:
        worker._ask_to_stop(_AT_EXIT_SECONDS)  # noqa: SLF001 - same module
    for worker in unasked:
        worker._await_end(until - time.monotonic())  # noqa: SLF001
