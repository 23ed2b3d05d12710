"""
How an adapter opens, carries and ends the request of a unit of work.

An adapter knows where a unit begins, so it begins a request of its own (a root), whatever is left
of a unit before it. Only where the framework's own carrier (a WSGI `environ`, an ASGI `scope`)
holds the request that is going on, an adapter has opened it already: then this one joins. So two
adapters around one another make one request.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextvars import copy_context
from typing import Any, Final, TypeVar

from lipservice.scope import RecorderLimits, RequestScope, current_scope, request

_Result = TypeVar("_Result")

#: Where a WSGI `environ` or an ASGI `scope` holds the `RequestScope` that an adapter has opened.
CARRIED: Final = "lipservice.request"

_END: Final = object()
_LONGEST_NAME: Final = 200


def carried(carrier: MutableMapping[str, Any]) -> RequestScope | None:
    """The request of *carrier*, if it is the one that is going on here."""
    scope: RequestScope | None = carrier.get(CARRIED)
    return scope if scope is not None and scope is current_scope() else None


def name_of(method: str, route: str) -> str:
    """What a web request is called: "GET /cart/<int:number>"."""
    return f"{method} {route}"[:_LONGEST_NAME]


def leave(unit: request) -> None:
    """
    End *unit*, also from a context that it was not begun in: a coroutine may be thrown away
    anywhere, in the middle of somebody else's request, which then goes on.
    """
    if current_scope() is unit.scope:
        unit.__exit__(None, None, None)
    else:
        copy_context().run(unit.__exit__, None, None, None)


class Unit:
    """
    A unit of work in a context (`contextvars`) of its own, which is current only while `run` runs.

    So nothing is left behind in a server's thread between two steps of an answer, nor when the
    server never ends it, and the steps may come from several threads.

    Args:
        name: What it is called.
        carrier: The framework's own dictionary of the request; it holds the scope until the end.
        trace_id: As of `request`.
        limits: As of `request`.
    """

    __slots__ = ("_carrier", "_context", "_is_free", "_request", "scope")

    def __init__(
        self,
        name: str,
        carrier: MutableMapping[str, Any],
        *,
        trace_id: str | None = None,
        limits: RecorderLimits | None = None,
    ) -> None:
        self._carrier = carrier
        self._context = copy_context()
        self._is_free = threading.Lock()
        self._request = request(name, trace_id=trace_id, limits=limits, root=True)
        self.scope: RequestScope = self._context.run(self._request.__enter__)
        carrier[CARRIED] = self.scope

    def run(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """Call *function* within the unit; what it raises has made the unit fail."""
        try:
            # A context can be entered once at a time. A server that closes an answer while another
            # thread is at its next part (to wake it up) gets a copy.
            if not self._is_free.acquire(blocking=False):
                return self._context.copy().run(function, *args)
            try:
                return self._context.run(function, *args)
            finally:
                self._is_free.release()
        except BaseException:  # a worker that is stopped by its time limit exits, for one
            self.scope.keep()
            raise

    def end(self) -> None:
        """End the unit; a second time nothing happens."""
        self._carrier.pop(CARRIED, None)
        if self._is_free.acquire(blocking=False):
            try:
                self._context.run(self._request.__exit__, None, None, None)
            finally:
                self._is_free.release()
        else:
            leave(self._request)


class Steps:
    """
    An answer's body, each step of which runs within *unit*; its end is the end of the unit.

    The end is what comes first: `close()`, the last part of a body that cannot be closed, or that
    the server has thrown the body away.
    """

    __slots__ = ("_body", "_close", "_iterator", "_unit")

    def __init__(self, body: Iterable[Any], unit: Unit) -> None:
        self._unit = unit
        self._body: Iterable[Any] | None = body
        self._close: Callable[[], object] | None = getattr(body, "close", None)
        self._iterator: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = self._unit.run(iter, self._body)
        part = self._unit.run(next, self._iterator, _END)
        if part is _END:
            if self._close is None:
                self._unit.end()
            raise StopIteration
        return part

    def close(self) -> None:
        """Close the body and end the unit."""
        try:
            if self._close is not None:
                self._unit.run(self._close)
        finally:
            self._unit.end()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the end of the interpreter, say
            # What a generator does when it is thrown away belongs to its own request as well.
            self._unit.run(self._forget)
            self._unit.end()

    def _forget(self) -> None:
        self._iterator = self._close = self._body = None
