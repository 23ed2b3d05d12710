"""
The one fork hook of the package.

Rule: a reset runs in a child that may have inherited any lock locked and any structure half
changed. So it only replaces objects: it takes no lock, writes no log record, starts no thread.
Objects are held weakly; one that was collected is simply no longer there.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Final, Protocol


class Resettable(Protocol):
    """What `on_fork` accepts."""

    def _reset_after_fork(self) -> None:
        """Replace whatever the parent's threads were using."""


# Keyed by id and changed by single C-level operations only, so that a fork in the middle of a
# change cannot leave it broken for the child (a WeakSet could be).
_live: Final[dict[int, weakref.ref[Resettable]]] = {}
_hooked: Final[dict[str, object]] = {}
_claims: Final[dict[int, object]] = {}
_pid = os.getpid()


def on_fork(obj: Resettable) -> None:
    """Have `obj._reset_after_fork()` called in every later fork's child, as long as *obj* lives."""
    key = id(obj)

    def forget(_dead: object) -> None:
        _live.pop(key, None)

    _live[key] = weakref.ref(obj, forget)
    _hook_once()


def reset_if_forked() -> None:
    """
    Do in a forked child what its host did not.

    A host that forks in C (uWSGI without its fork hooks) runs none of Python's hooks; then the
    first thread that comes here does the resets, the others go on without waiting.
    """
    pid = os.getpid()
    if pid != _pid:
        token = object()
        if _claims.setdefault(pid, token) is token:  # atomic, and no lock that could be inherited
            _reset_all()


def _hook_once() -> None:
    token = object()
    if _hooked.setdefault("hook", token) is token and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_reset_all)


def _reset_all() -> None:
    global _pid  # noqa: PLW0603 - the process is a global thing
    pid = os.getpid()
    _claims.setdefault(pid, object())
    for ref in list(_live.values()):
        _reset_one(ref)
    for other in [claimed for claimed in _claims if claimed != pid]:
        _claims.pop(other, None)  # process ids come back: an old claim must not block a new child
    _pid = pid


def _reset_one(ref: weakref.ref[Resettable]) -> None:
    obj = ref()
    if obj is None:
        return
    with contextlib.suppress(Exception):  # a fork must go on, and nothing may be logged here
        obj._reset_after_fork()  # noqa: SLF001 - the protocol above
