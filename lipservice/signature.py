"""
LSIG-1: which statement of the program a log message comes from.

    message -> fold -> key_of_folded -> signature_of_key
                                     -> template_of_key

The specification and its test vectors are in tests/conformance; tests/reference holds the plain
implementation that this one must equal. Rule of this module: every function is pure. What is
remembered between calls changes the speed and never the answer, is bounded, and is read without
a lock.

Why it is fast: digits are interchangeable, `key(m) == key(m with every digit changed to 0)`.
So one `bytes.translate` maps almost every message of a statement to the same *folded* bytes,
a sound key for any cache; and the items of a folded chunk depend on that chunk alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

from xxhash import xxh64_hexdigest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_Text = TypeVar("_Text", bound=str | bytes)
_Answer = TypeVar("_Answer", bound=str | bytes)

#: Bytes of a message that are read.
_READ: Final = 4096
#: So many characters never take more than `_READ` bytes of UTF-8.
_SHORT: Final = _READ // 4

# Single bytes are numbers here: `number in bytes` is one memchr, while `bytes in bytes` first
# raises and drops an exception inside CPython, which costs more than the rest of a look-up.
_DIGIT: Final = ord("0")
_EQUALS: Final = ord("=")
_COLON: Final = ord(":")
_AT: Final = ord("@")
_DOT: Final = ord(".")
_SLASH: Final = ord("/")
_BACKSLASH: Final = ord("\\")

_TRAILING: Final = b".:!?"
_PATH_STARTS: Final = b"/\\~."
_VARIABLE: Final = b" \x00"
_LOWER: Final = b"abcdefghijklmnopqrstuvwxyz"
_HEX_LETTERS: Final = b"abcdefABCDEF"
_KEY_BYTES: Final = _LOWER + _LOWER.upper() + b"_-" + bytes(range(0x80, 0x100))
_HOST_BYTES: Final = _LOWER + b"-."

_FROZEN_WORDS: Final = frozenset(
    b"Mon Tue Wed Thu Fri Sat Sun "
    b"Monday Tuesday Wednesday Thursday Friday Saturday Sunday "
    b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec "
    b"January February March April May June July August September October November December "
    b"AM PM B kB KB MB GB TB PB KiB MiB GiB TiB byte bytes "
    b"ns us ms s sec secs second seconds min mins minute minutes hour hours day days".split()
)
_HOST_ENDINGS: Final = frozenset(
    b"com net org edu gov mil int info biz io dev app cloud "
    b"local localdomain internal intranet lan home corp svc arpa".split()
)

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_PARENTHESIS: Final = re.compile("[()]")
# A width does not begin with 0, which is a flag: so a long row of zeros is matched in one way
# only, and a malformed conversion is refused in linear time.
_CONVERSION: Final = re.compile(
    r"[-+ #0]*(?:\*|[1-9][0-9]*)?(?:\.(?:\*|[0-9]*))?[hlL]?[diouxXcrsaeEfFgG]"
)


def _fold_table() -> bytes:
    separators = bytes(range(0x21)) + b"\x7f()[]{}<>\"'`,;|"
    folded = {**dict.fromkeys(separators, ord(" ")), **dict.fromkeys(b"0123456789", ord("0"))}
    return bytes(folded.get(byte, byte) for byte in range(0x100))


_FOLD: Final = _fold_table()


class _Memo(dict[_Text, _Answer]):
    """
    Remembers what a pure function answered: about twice `room` texts of at most `longest`.

    Reading (`memo[text]`, `memo.__getitem__`) is one C call where the answer is known. When the
    young generation is full it becomes the old one; an answer found there moves to the young.
    There is no lock, because each step is one atomic dict operation and the worst that a race
    can do is to forget an answer; a lock could be left held in a forked child.
    """

    __slots__ = ("_answer", "_longest", "_old", "_room")

    def __init__(self, answer: Callable[[_Text], _Answer], *, room: int, longest: int) -> None:
        super().__init__()
        self._answer = answer
        self._room = room
        self._longest = longest
        self._old: dict[_Text, _Answer] = {}

    def __missing__(self, text: _Text) -> _Answer:
        answer = self._old.get(text)
        if answer is None:
            answer = self._answer(text)
            # An instance of a subclass could keep anything of the application alive.
            if len(text) > self._longest or type(text) not in (bytes, str):
                return answer
        if len(self) >= self._room:
            self._old = self.copy()
            self.clear()
        self[text] = answer
        return answer


def compute_signature(message: str) -> str:
    """
    Signature of a log message: 16 lower-case hexadecimal digits.

    Messages of one statement of the program share it; see LSIG-1 (tests/conformance). Never
    raises, whatever the text. Safe to call from any thread.

    Args:
        message: the formatted message; only its first 4,096 UTF-8 bytes are read.
    """
    if len(message) > _SHORT:
        return _signatures_of_long[fold(message)]
    try:
        folded = message.encode().translate(_FOLD)  # fold(), without the cost of a call
    except UnicodeEncodeError:
        folded = fold(message)
    return _signatures[folded]


def compute_template(message: str) -> str:
    """
    Template of a log message: its constants, with `<*>` for each variable.

    Never raises, whatever the text. Safe to call from any thread.

    Args:
        message: the formatted message; only its first 4,096 UTF-8 bytes are read.
    """
    return template_of_key(key_of_folded(fold(message)))


def compute_format_signature(format_string: str) -> str:
    """
    Signature of a percent-style format string, as `logging` takes it beside its arguments.

    It equals that of the messages that the format string makes, where its arguments are numbers:
    `user %s logged in` and `user 17 logged in` share one. Never raises, even where the format
    string is malformed. Safe to call from any thread.

    Args:
        format_string: `record.msg` of a record that has arguments. (A `record.msg` without
            arguments is a message, in which `%` has no meaning: `compute_signature`.)
    """
    return _format_signatures[format_string]


def percent_format_to_message(format_string: str) -> str:
    """
    The message that stands for a format string: `0` for each conversion, `%` for `%%`.

    What is a conversion is what CPython's `%` operator takes for one: `%(name (x))s`, `%-5.*f`,
    `%ld`. From the first malformed conversion on, which the operator refuses, the text is left
    as it is. Never raises. Linear in the length of the text.
    """
    pieces: list[str] = []
    done = 0
    while (percent := format_string.find("%", done)) >= 0:
        if format_string.startswith("%", percent + 1):
            replacement, end = "%", percent + 2
        else:
            replacement, end = "0", _end_of_conversion(format_string, percent + 1)
            if not end:
                break
        pieces += format_string[done:percent], replacement
        done = end
    pieces.append(format_string[done:])
    return "".join(pieces)


def fold(message: str) -> bytes:
    """
    What LSIG-1 reads of a message: its first 4,096 UTF-8 bytes, digits as `0`, separators as blank.

    Messages that fold to the same bytes have the same key, so this is the key for caches.
    Never raises: a lone surrogate is read as U+FFFD.
    """
    if len(message) > _SHORT:
        return _encode(message[:_READ])[:_READ].translate(_FOLD)
    try:
        return message.encode().translate(_FOLD)
    except UnicodeEncodeError:
        return _encode(message).translate(_FOLD)


def key_of_folded(folded: bytes) -> bytes:
    """
    LSIG-1 key of what `fold` returned: 0x20 and an item, for each item; a variable is 0x00.

    Remembers the items of chunks, within bounds. Safe to call from any thread.
    """
    key = b"".join(map(_items, folded.split()))
    while True:  # variables in a row count once
        shorter = key.replace(b"\x00 \x00", b"\x00")
        if len(shorter) == len(key):
            return key
        key = shorter


def signature_of_key(key: bytes) -> str:
    """XXH64 (seed 0) of an LSIG-1 key, as 16 lower-case hexadecimal digits."""
    return xxh64_hexdigest(key)


def template_of_key(key: bytes) -> str:
    """
    The text that people see for an LSIG-1 key: without its first blank, variables as `<*>`.

    Bytes that are not UTF-8, such as a character cut at 4,096 bytes, become U+FFFD.
    """
    return key[1:].replace(b"\x00", b"<*>").decode(errors="replace")


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text).encode()


def _end_of_conversion(format_string: str, start: int) -> int:
    """Where the conversion whose `%` stands before `start` ends; 0 if it is malformed."""
    if format_string.startswith("(", start):
        start = _end_of_mapping_key(format_string, start)
        if not start:
            return 0
    conversion = _CONVERSION.match(format_string, start)
    return conversion.end() if conversion else 0


def _end_of_mapping_key(format_string: str, start: int) -> int:
    depth = 0
    for parenthesis in _PARENTHESIS.finditer(format_string, start):
        depth += 1 if parenthesis[0] == "(" else -1
        if not depth:
            return parenthesis.end()
    return 0


def _items_of_chunk(chunk: bytes) -> bytes:
    """Items of a folded chunk, 0x20 before each; variables in a row are still several."""
    if _EQUALS in chunk:
        return b"".join(map(_items_of_part, _parts(chunk)))
    return _items_of_part(chunk)


def _parts(chunk: bytes) -> Iterable[bytes]:
    """Cut a folded chunk at every `=` that has no digit and no slash before it in its part."""
    pieces = chunk.split(b"=")
    for index, piece in enumerate(pieces):
        if _DIGIT in piece or _SLASH in piece or _BACKSLASH in piece:
            pieces[index:] = [b"=".join(pieces[index:])]
            break
    return filter(None, pieces)


def _items_of_part(part: bytes) -> bytes:
    core = part.rstrip(_TRAILING)
    start = _end_of_key_prefixes(core) if _COLON in core else 0
    if not start:
        return _VARIABLE if _is_variable(core) else b" " + part
    prefixes = b" " + part[:start].replace(b":", b": ")
    return prefixes + (b"\x00" if _is_variable(core[start:]) else part[start:])


def _end_of_key_prefixes(core: bytes) -> int:
    """Where the last `k:` at the front of a part ends; 0 if there is none."""
    start = 0
    # The byte after a colon exists, because a core ends in none of the trailing bytes.
    while (colon := core.find(_COLON, start)) >= 0:
        if core[colon + 1] in (_SLASH, _BACKSLASH) or not _is_key(core[start:colon]):
            break
        start = colon + 1
    return start


def _is_key(prefix: bytes) -> bool:
    """Whether a prefix names what stands behind its colon: `user_id`, but not `fe`, a number."""
    return (
        len(prefix) >= 2
        and not prefix.translate(None, _KEY_BYTES)
        and bool(prefix.translate(None, _HEX_LETTERS))
    )


def _is_variable(core: bytes) -> bool:
    return (
        _DIGIT in core
        or core in _FROZEN_WORDS
        or (len(core) >= 8 and not core.translate(None, _HEX_LETTERS))
        or _AT in core[1:-1]
        or _is_path(core)
        or _is_host(core)
    )


def _is_path(core: bytes) -> bool:
    slashes = core.count(_SLASH) + core.count(_BACKSLASH)
    return slashes >= 2 or (slashes == 1 and len(core) > 1 and core[0] in _PATH_STARTS)


def _is_host(core: bytes) -> bool:
    if _DOT not in core or core.translate(None, _HOST_BYTES):
        return False
    labels = core.split(b".")
    return labels[-1] in _HOST_ENDINGS and all(labels)


def _signature_of_folded(folded: bytes) -> str:
    return xxh64_hexdigest(key_of_folded(folded))


def _signature_of_format(format_string: str) -> str:
    return compute_signature(percent_format_to_message(format_string))


_items: Final = _Memo(_items_of_chunk, room=8192, longest=256).__getitem__
_signatures: Final = _Memo(_signature_of_folded, room=4096, longest=1024)
_signatures_of_long: Final = _Memo(_signature_of_folded, room=256, longest=_READ)
_format_signatures: Final = _Memo(_signature_of_format, room=2048, longest=1024)
