"""
Healed call sites: the template of a message that the application formatted itself.

    site_at(path, line) -> CallSite -> format_for(message) -> the percent format, or None: LSIG-1
    analyse_waiting()      in the background: reads the source line of each new site, once

An f-string leaves nothing of its template in the record, so a word used as a value makes a
pattern of its own. The template still stands in the source: `f"user {name} logged in"` is the
format `user %s logged in`, and is counted with it.

Rule of this module: never wrong before often. A template counts only if its constant text is all
in the message, in order, from end to end, and if no other template of the line would do as well.
Whatever is in doubt has no format here, and LSIG-1 decides.

There is no lock: each step is one atomic dict operation or one assignment, and the worst that a
race or a fork can do is to analyse a site twice. Nothing here raises, prints or starts anything.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import tokenize
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from lipservice._syntax_trees import BusyError
from lipservice.source_templates import SourceTemplate, template_of_format, templates_at

#: Call sites that are known at most; what is logged elsewhere is left to LSIG-1.
MOST_SITES: Final = 8_192
#: Sites that wait for their analysis at most; others come in later.
MOST_WAITING: Final = 1_024
#: Characters of the message that a waiting site keeps to check its template with.
_LONGEST_EXAMPLE: Final = 1_024
_LONGEST_PATH: Final = 4_096
#: Bytes of a source file.
_LARGEST_FILE: Final = 2 * 1024 * 1024
#: Files whose lines are held while sites wait.
_MOST_FILES: Final = 8
#: Records of a site whose messages are compared with all of the template, not just its ends.
_DISTRUSTED: Final = 32
#: Messages in a row that are not the template's, after which the source must have changed.
_MOST_MISSES: Final = 8

HEALED: Final = "healed"
WAITING: Final = "waiting"
NOT_HEALED: Final = "not healed"

# Reasons, as people read them (docs/how-to/call-sites.md).
NO_SOURCE: Final = "no source"
NO_CALL: Final = "no call found"
NO_TEMPLATE: Final = "not a template"
CONSTANT: Final = "constant"
NO_WORDS: Final = "no constant text"
WRAPPER: Final = "passes a message on"
AMBIGUOUS: Final = "ambiguous"
MISMATCH: Final = "source does not match"
FAILED: Final = "unreadable source"


class CallSiteState(NamedTuple):
    """A call site, as people see it."""

    path: str
    line: int
    #: "healed", "waiting" or "not healed".
    state: str
    #: Why it is not healed; "" where it is, or waits.
    reason: str
    #: Its template with `<*>` for each variable; those of a line with several, ` | ` between.
    template: str
    #: Records that were decided by the format, about.
    healed: int


class CallSite:
    """
    One line of a source that logs. Made by `site_at`; safe to use from any thread.

    Attributes:
        path: The file, as the record names it.
        line: The line of the call, from 1.
        braces: Whether the logger formats `{}` itself (loguru).
        percent: Whether its texts are format strings of records that have arguments.
        healed: Records that `format_for` had a format for, about.
    """

    __slots__ = (
        "_example",
        "_format",
        "_head",
        "_healable",
        "_healed_before",
        "_least",
        "_middle",
        "_misses",
        "_open",
        "_reason",
        "_tail",
        "_templates",
        "_trusted_after",
        "braces",
        "healed",
        "line",
        "path",
        "percent",
    )

    def __init__(
        self, path: str, line: int, *, braces: bool = False, percent: bool = False
    ) -> None:
        self.path = path
        self.line = line
        self.braces = braces
        self.percent = percent
        self.healed = 0
        # The one format of this site, and what its messages begin with, hold and end with. These
        # are set once, before the format: who sees the format sees them too.
        self._format: str | None = None
        self._head = self._middle = self._tail = ""
        self._least = 0
        self._templates: tuple[SourceTemplate, ...] = ()
        self._healable: frozenset[str] = frozenset()
        #: Whether a message is still of interest where there is no one format.
        self._open = True
        self._example: str | None = None
        #: Messages that did not fit since so many were healed.
        self._misses = 0
        self._healed_before = 0
        self._reason = WAITING
        # A format string is never trusted: a variable that holds a `%` has to be seen.
        self._trusted_after = sys.maxsize if percent else _DISTRUSTED

    def format_for(self, message: str) -> str | None:
        """
        The percent format that made *message*, for `DecisionEngine.decide_format`.

        Args:
            message: The finished message of a record of this line, which had no arguments. Of a
                site with `percent`: the format string of a record that has some.

        Returns:
            None where that is not known, or not sure: LSIG-1 decides. Never raises.
        """
        try:
            only = self._format
            if only is None:
                return self._look_up(message) if self._open else None
            # A call costs more than a look: the ends are asked for only where there is something.
            if (
                self._middle in message
                and (not self._least or message.startswith(self._head))
                and (not self._tail or message.endswith(self._tail, self._least))
            ):
                count = self.healed
                if count > self._trusted_after or self._templates[0].matches(message):
                    self.healed = count + 1
                    return only
            self._miss()
        except Exception:  # noqa: S110 - a message that is no text
            pass
        return None

    def _look_up(self, message: str) -> str | None:
        """Of a site that waits, or whose line has several templates."""
        templates = self._templates
        if not templates:
            if self._example is None:
                if len(message) <= _LONGEST_EXAMPLE:
                    self._example = message
                    if not self._open:  # it was analysed meanwhile
                        self._example = None
            elif self.percent and message != self._example:
                _let_wait(self)
            return None
        fitting = [template for template in templates if template.matches(message)]
        if len(fitting) != 1:  # none, or several: each is of another format
            self._miss()
            return None
        found = fitting[0].format
        if found not in self._healable:
            return None
        self.healed += 1
        return found

    def _miss(self) -> None:
        if self._healed_before != self.healed:
            self._healed_before = self.healed
            self._misses = 0
        self._misses += 1
        if self._misses >= _MOST_MISSES:
            self._refuse(MISMATCH)

    def _refuse(self, reason: str) -> None:
        self._open = False
        self._format = None
        self._reason = reason
        self._example = None

    def _settle(self, templates: Sequence[SourceTemplate]) -> None:
        """Take over what the source says, which the example has confirmed."""
        self._reason = ""
        self._example = None
        self._healable = frozenset(each.format for each in templates if each.is_healable)
        self._templates = tuple(templates)
        if len(templates) > 1:
            return
        template = templates[0]
        self._head, self._tail = template.head, template.tail
        self._middle = max(template.middles, key=len, default="")
        self._least = len(template.head)
        self._open = False
        self._format = template.format

    def analyse(self, source: Sequence[str] | None) -> None:
        """Find the template of this line. In the background; *source* is the lines of the file."""
        if source is None:
            return self._refuse(NO_SOURCE)
        found = templates_at(source, self.line, braces=self.braces, percent=self.percent)
        if found is None:
            return self._refuse(NO_CALL)
        if not found:
            return self._refuse(NO_TEMPLATE)
        example = self._example
        fitting = [each for each in found if example is None or each.matches(example)]
        healable = [each for each in found if each.is_healable]
        varies = any(each.varies for each in found)
        if not fitting:  # constants beside a name: `_("user %s") % name`
            self._refuse(MISMATCH if varies else NO_TEMPLATE)
        elif not healable:
            self._refuse(_why_not_healable(found))
        elif len(fitting) > 1 and example is not None:
            self._refuse(AMBIGUOUS)
        else:
            self._settle(found)
        return None

    @property
    def is_waiting(self) -> bool:
        """Whether its line was not looked at yet."""
        return self._reason == WAITING

    @property
    def awaits_source(self) -> bool:
        """Whether the background is about to look at its line: what has no format may get one."""
        return self in _waiting

    def state(self) -> CallSiteState:
        """What is known of it now."""
        reason = self._reason
        templates = self._templates
        return CallSiteState(
            self.path,
            self.line,
            WAITING if reason == WAITING else NOT_HEALED if reason else HEALED,
            "" if reason == WAITING else reason,
            " | ".join(template_of_format(each.format) for each in templates),
            self.healed,
        )


def _why_not_healable(templates: Sequence[SourceTemplate]) -> str:
    if any(each.is_wrapper and each.has_words() for each in templates):
        return WRAPPER
    return NO_WORDS if any(each.varies for each in templates) else CONSTANT


# --- the table ------------------------------------------------------------------------------

_Table = dict[str, dict[int, CallSite]]
_plain: Final[_Table] = {}
_braced: Final[_Table] = {}
_percent: Final[_Table] = {}
# Every site of the first two tables, and of the third, to count and to list them: apart, since
# almost every call has arguments, and hardly one of them is of interest.
_every: Final[dict[tuple[str, int, bool], CallSite]] = {}
_every_percent: Final[dict[tuple[str, int, bool], CallSite]] = {}
# An ordered set. A site leaves it when its analysis is done, not when it begins: a child that is
# forked in between finds it still there.
_waiting: Final[dict[CallSite, None]] = {}
_files: Final[dict[str, list[str] | None]] = {}


def site_at(
    path: str, line: int, *, braces: bool = False, percent: bool = False
) -> CallSite | None:
    """
    The call site at a line of a file; one that is new waits for `analyse_waiting`.

    Args:
        path: The file, as the record (`pathname`) or the frame (`co_filename`) names it.
        line: The line that the record (`lineno`) or the frame names, from 1.
        braces: Whether the logger formats `{}` itself, as loguru does.
        percent: Whether the record has arguments, so that what `format_for` will be given is its
            format string. Hardly any was built from a variable: such a site waits only once a
            second one has come from its line.

    Returns:
        None where it is not known and there is no room for it. Never raises. Safe from any
        thread.
    """
    try:
        return (_percent if percent else _braced if braces else _plain)[path][line]
    except Exception:
        return _new_site(path, line, braces, percent)


def _new_site(path: str, line: int, braces: object, percent: object) -> CallSite | None:
    try:
        return _add_site(path, line, braces=bool(braces), percent=bool(percent))
    except Exception:
        return None


def _add_site(path: str, line: int, *, braces: bool, percent: bool) -> CallSite | None:
    every = _every_percent if percent else _every
    if len(every) >= MOST_SITES or (len(_waiting) >= MOST_WAITING and not percent):
        return None
    if type(path) is not str or type(line) is not int or len(path) > _LONGEST_PATH:
        return None
    key = (path, line, braces)
    new = CallSite(path, line, braces=braces, percent=percent)
    site = every.setdefault(key, new)
    if site is new and len(every) > MOST_SITES:
        every.pop(key, None)
        return None
    # Also for a site that another thread, or a finalizer, was just about to add: a child that was
    # forked in between finds only what is done.
    if site.is_waiting and not percent:
        _waiting[site] = None
    table = _percent if percent else _braced if braces else _plain
    table.setdefault(path, {})[line] = site
    return site


def _let_wait(site: CallSite) -> None:
    if len(_waiting) < MOST_WAITING:
        _waiting[site] = None
        if not site.is_waiting:  # it was analysed meanwhile
            _waiting.pop(site, None)


def has_waiting() -> bool:
    """Whether `analyse_waiting` has something to do."""
    return bool(_waiting)


def analyse_waiting(limit: int = 64) -> int:
    """
    Analyse sites that wait: for the background, since it reads files.

    Args:
        limit: Sites at most. One takes well under a millisecond, and bounded work whatever the
            source is.

    Returns:
        How many are left. Never raises.
    """
    for _ in range(max(limit, 0)):
        site = _first_waiting()
        if site is None:
            break
        try:
            site.analyse(_lines_of(site.path))
        except BusyError:
            break
        except Exception:  # RecursionError and MemoryError of the parser among them
            site._refuse(FAILED)  # noqa: SLF001 - of this module
        _waiting.pop(site, None)
    if not _waiting:
        _files.clear()
    return len(_waiting)


def call_sites() -> list[CallSiteState]:
    """
    What is known of each call site: those that heal the most records first, constants last.

    A call with arguments counts once a second format string came from it. For people; safe from
    any thread.
    """
    suspected = [
        site for site in list(_every_percent.values()) if site.awaits_source or not site.is_waiting
    ]
    states = [site.state() for site in [*list(_every.values()), *suspected]]
    states.sort(key=lambda each: (-each.healed, each.reason == CONSTANT, each.path, each.line))
    return states


def _first_waiting() -> CallSite | None:
    for _ in range(100):
        with contextlib.suppress(RuntimeError):  # a site came in between
            return next(iter(_waiting), None)
    return None


def _forget_all() -> None:
    """Begin with nothing, for tests."""
    for table in (_plain, _braced, _percent, _every, _every_percent, _waiting, _files):
        table.clear()


# --- reading sources ------------------------------------------------------------------------


def _lines_of(path: str) -> list[str] | None:
    if path not in _files:
        if len(_files) >= _MOST_FILES:
            _files.clear()
        _files[path] = read_lines(path)
    return _files.get(path)


def read_lines(path: str) -> list[str] | None:
    """
    The lines of a source file without their ends, or None where it cannot be read as one.

    Reads regular files of at most 2 MiB, modules in zip files, and what `linecache` holds of code
    that was never in a file (notebooks).
    """
    try:
        data = _bytes_of_file(path)
        if data is None:
            return _lines_from_elsewhere(path)
        return decoded(data).split("\n")
    except Exception:
        return None


def _bytes_of_file(path: str) -> bytes | None:
    """The content; None where there is no such file. OSError or ValueError: it is not one."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - bounded and plain
            raise ValueError(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    # It may have become something else by now: nothing here may wait for a pipe.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    with open(os.open(path, flags | getattr(os, "O_BINARY", 0)), "rb") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(path)
        data = file.read(_LARGEST_FILE + 1)
    if len(data) > _LARGEST_FILE:
        raise ValueError(path)
    return data


def decoded(data: bytes) -> str:
    """
    The text of a source file, line ends made one character.

    Raises:
        SyntaxError, UnicodeError: It is not in the encoding that it says.
    """
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def _lines_from_elsewhere(path: str) -> list[str] | None:
    cache = getattr(sys.modules.get("linecache"), "cache", {})
    entry = cache.get(path)
    if entry is not None and len(entry) == 4:
        return [line.rstrip("\n") for line in entry[2]]
    zips = getattr(sys.modules.get("zipimport"), "zipimporter", None)
    if zips is None or ".zip" not in path:
        return None
    for module in list(sys.modules.values()):
        spec: Any = getattr(module, "__spec__", None)
        # Only zipimport's own: another loader's code is not ours to run here.
        if getattr(module, "__file__", None) == path and type(spec.loader) is zips:
            text = spec.loader.get_source(spec.name)
            return text.split("\n") if text and len(text) <= _LARGEST_FILE else None
    return None
