"""
Syntax trees made by a background thread, harmless to the threads of the application.

CPython 3.11.0 to 3.11.7, 3.12.0 and 3.12.1 keep the depth of the tree that is being made in one
place for all threads (issue 106905 of CPython). A thread keeps the GIL while it makes one, unless
a collection of garbage begins in the middle and runs a finalizer. If another thread makes a tree
then, the first one ends with "SystemError: AST constructor recursion depth mismatch". The
application's thread must not be that one: on those versions nothing is parsed while garbage is
collected. (Its stack would tell, too; but looking at the stack of a thread that runs crashes these
interpreters now and then.)
"""

from __future__ import annotations

import ast
import gc
import sys
from typing import Any, Final

#: Whether this interpreter has that bug.
DEPTH_IS_SHARED: Final = (3, 11) <= sys.version_info < (3, 11, 8) or (
    (3, 12) <= sys.version_info < (3, 12, 2)
)

# The phase that a collection is in is the last key of each. `gc` calls with phase and details, and
# what it calls is written in C alone: a thread that enters Python code may have to give up its
# turn. So do callbacks of others; hence one pair of ours before them and one behind them.
_begins: Final[dict[str, Any]] = {}
_ends: Final[dict[str, Any]] = {}
_FIRST: Final[list[Any]] = [_begins.pop, _begins.__setitem__]
_LAST: Final[list[Any]] = [_ends.pop, _ends.__setitem__]


class BusyError(Exception):
    """Another thread may be in the middle of a syntax tree: try again later."""


def expression_of(source: str) -> ast.expr:
    """
    The syntax tree of an expression.

    Args:
        source: Its text, which may go over several lines.

    Raises:
        BusyError: See there.
        SyntaxError, ValueError, RecursionError, MemoryError: As of `ast.parse`.
    """
    return _tree_of(f"(\n{source}\n)", "eval").body  # type: ignore[no-any-return]


def module_of(source: str) -> ast.Module:
    """
    The syntax tree of statements.

    Args:
        source: Their text.

    Raises:
        BusyError: See there.
        SyntaxError, ValueError, RecursionError, MemoryError: As of `ast.parse`.
    """
    return _tree_of(source, "exec")  # type: ignore[no-any-return]


def _tree_of(text: str, mode: str) -> Any:
    if not DEPTH_IS_SHARED:
        return ast.parse(text, mode=mode)
    if gc.callbacks[:2] != _FIRST or gc.callbacks[-2:] != _LAST:
        _watch_collections()
    try:
        # No call between the look and this one, so no other thread gets a turn.
        is_busy = [*_begins][-1] == "start" or [*_ends][-1] == "start"
        tree = None if is_busy else compile(text, "", mode, ast.PyCF_ONLY_AST)
    except SystemError:  # the other way round: it was our tree that was disturbed
        raise BusyError from None
    if tree is None:
        raise BusyError
    return tree


def _watch_collections() -> None:
    for seen in (_begins, _ends):
        seen.pop("start", None)
        seen.update(stop=None, start=None)  # one may have begun, until an end is seen
    ours = [*_FIRST, *_LAST]
    others = [each for each in gc.callbacks if each not in ours]
    gc.callbacks[:] = [*_FIRST, *others, *_LAST]
    gc.collect(0)  # does nothing while another thread collects: that one's end will be seen
