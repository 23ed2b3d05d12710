"""
Pure: entries to the bytes of an OTLP ExportLogsServiceRequest, and back for its answer.

Written by hand after opentelemetry-proto 1.x (collector/logs/v1, logs/v1, common/v1,
resource/v1), because for a record with four attributes it measures less than half of what
protobuf's own C messages cost (contrib/benchmarks/export.py) and needs no dependency; tests
decode everything with opentelemetry-proto and with the Collector's own code.

Rule: what cannot be sent is cut or left out here, never raised. Text is valid UTF-8, numbers
stay numbers, None is left out, attribute names are unique.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final, NamedTuple

from lipservice.export.capture import Entry, formatted
from lipservice.export.config import LogContext, PostHogConfig
from lipservice.export.redaction import FOLD, Redactor
from lipservice.signature import compute_template, percent_format_to_message

#: Scope name and LogRecord, framed as an item of ScopeLogs.log_records.
Item = tuple[str, bytes]

#: Names of LipService's own attributes. They are short because each byte is billed.
SIGNATURE: Final = "lip_sig"
WEIGHT: Final = "lip_weight"
RATE: Final = "lip_rate"
TEMPLATE: Final = "lip_template"
RULE: Final = "lip_rule"
POLICY: Final = "lip_policy"
ORIGINAL_TIME: Final = "lip_time"
CODE: Final = "code.at"

#: What a kept record carries for the exporter, in `extra`, event dict or bound values.
_SAMPLING: Final = frozenset(
    {
        "lipservice_signature",
        "lipservice_weight",
        "lipservice_rate",
        "lipservice_rule",
        "lipservice_policy",
    }
)
_EXCEPTION: Final = ("exception.type", "exception.message", "exception.stacktrace")
#: PostHog links records with persons and session replays by these two names.
PERSON: Final = "posthogDistinctId"
SESSION: Final = "sessionId"
_LINKS: Final = frozenset({PERSON, SESSION})
_IDENTITIES: Final = {
    PERSON: PERSON,
    "distinct_id": PERSON,
    "posthog_distinct_id": PERSON,
    SESSION: SESSION,
    "posthog_session_id": SESSION,
}
# A formatter's leavings, and names that are ours to give.
_LEFT_OUT: Final = frozenset(
    {
        *("message", "asctime", CODE),
        *(SIGNATURE, WEIGHT, RATE, TEMPLATE, RULE, POLICY, ORIGINAL_TIME),
    }
)
_SPECIAL: Final = frozenset({*_SAMPLING, *_IDENTITIES, *_LEFT_OUT, *_EXCEPTION})

_MAX_ATTRIBUTES: Final = 128
_MAX_KEY: Final = 256
_MAX_KNOWN_KEYS: Final = 4096
_MAX_PATTERNS: Final = 10_000
_MAX_KNOWN_TEXTS: Final = 8_000
_MAX_KNOWN_TEXT: Final = 256
_MAX_DEPTH: Final = 8
_INT64: Final = range(-(1 << 63), 1 << 63)

# ---------------------------------------------------------------------- protobuf

_BYTE: Final = tuple(bytes((value,)) for value in range(128))
_time_and_severity: Final = struct.Struct("<BQBB").pack
_flags: Final = struct.Struct("<BI").pack

# Tags are (field number << 3) | wire type: 0 varint, 1 eight bytes, 2 length-delimited, 5 four.
_TRUE: Final = b"\x12\x02\x10\x01"
_FALSE: Final = b"\x12\x02\x10\x00"


def varint(number: int) -> bytes:
    """Protobuf's base-128 encoding of *number*, negative ones as 64-bit two's complement."""
    if 0 <= number < 128:
        return _BYTE[number]
    if number < 0:
        number += 1 << 64
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)


# Heads of what is short, by its size: of a text as KeyValue.value, and as LogRecord.body; of an
# attribute of a LogRecord.
_SHORT: Final = 126
_TEXT: Final = tuple(bytes((0x12, size + 2, 0x0A, size)) for size in range(_SHORT))
_BODY: Final = tuple(bytes((0x2A, size + 2, 0x0A, size)) for size in range(_SHORT))
_ATTRIBUTE: Final = tuple(bytes((0x32, size)) for size in range(128))
_double: Final = struct.Struct("<d").pack

#: What an attribute's name gives: the start of its KeyValue; whole attributes but for the digits of
#: a double and of an int below 128; true; false. Empty where the value needs a closer look.
_Name = tuple[bytes, ...]


def _name_of(key: str) -> _Name:
    prefix = _key_field(key)
    size = len(prefix)
    return (
        prefix,
        _framed(size + 11) + prefix + b"\x12\x09\x21",
        _framed(size + 4) + prefix + b"\x12\x02\x18",
        _framed(size + 4) + prefix + _TRUE,
        _framed(size + 4) + prefix + _FALSE,
    )


_RECORD: Final = tuple(b"\x12" + varint(size) for size in range(1024))


def _text_head(size: int) -> bytes:
    """What stands before a text of *size* bytes in an AnyValue that is framed."""
    inner = b"\x0a" + varint(size)
    return varint(size + len(inner)) + inner


def _framed(size: int) -> bytes:
    return b"\x32" + varint(size)


def _cut(text: str, longest: int) -> str:
    return f"{text[:longest]}... [{len(text) - longest} more]"


def _field(tag: bytes, content: bytes) -> bytes:
    return b"".join((tag, varint(len(content)), content))


def _utf8(text: str, longest: int) -> bytes:
    if len(text) > longest:
        text = _cut(text, longest)
    return text.encode("utf-8", "replace")  # a lone surrogate would make the whole batch invalid


def _text_value(text: str, longest: int) -> bytes:
    """AnyValue with a string, framed as field 2 (KeyValue.value)."""
    content = _utf8(text, longest)
    size = len(content)
    return (_TEXT[size] if size < _SHORT else b"\x12" + _text_head(size)) + content


def _double_value(number: float) -> bytes:
    if number != number or number in {math.inf, -math.inf}:  # noqa: PLR0124 - NaN
        # JSON back ends have no number for these; the names are those of PostHog's sdk-specs.
        name = "NaN" if number != number else "Infinity" if number > 0 else "-Infinity"  # noqa: PLR0124
        return _text_value(name, 16)
    return b"\x12\x09\x21" + _double(number)


def _int_value(number: int) -> bytes:
    if number not in _INT64:
        return _text_value(str(number) if number.bit_length() < 10_000 else "huge int", 4096)
    digits = varint(number)
    return b"".join((b"\x12", _BYTE[len(digits) + 1], b"\x18", digits))


class _Scrub(NamedTuple):
    """How secrets are taken out of a record; `clean` is None where it holds none in its texts."""

    clean: Callable[[str], str] | None
    is_secret: Callable[[str], bool]
    is_card: Callable[[int], bool]


def _any_value(value: Any, longest: int, scrub: _Scrub, depth: int = 0) -> bytes:
    """AnyValue of a frozen value, framed as field 2; None: empty, as OTLP says null."""
    kind = type(value)
    if kind is str:
        return _text_value(scrub.clean(value) if scrub.clean else value, longest)
    if kind is bool:
        return _TRUE if value else _FALSE
    if kind is int:
        if value >= _CARD_FROM and value.bit_length() < 64 and scrub.is_card(value):
            return _text_value("[card]", longest)
        return _int_value(value)
    if kind is float:
        return _double_value(value)
    if kind is bytes:
        return _field(b"\x12", _field(b"\x3a", value[:longest]))
    if depth >= _MAX_DEPTH or value is None:
        return b"\x12\x00"
    if kind is list:
        items = (b"\x0a" + _any_value(item, longest, scrub, depth + 1)[1:] for item in value)
        return _field(b"\x12", _field(b"\x2a", b"".join(items)))
    pairs = (
        _field(b"\x0a", _key_field(key) + _named_value(key, item, longest, scrub, depth + 1))
        for key, item in value.items()
    )
    return _field(b"\x12", _field(b"\x32", b"".join(pairs)))


def _named_value(key: str, value: Any, longest: int, scrub: _Scrub, depth: int) -> bytes:
    if scrub.is_secret(key) and value is not None and type(value) is not bool:
        return _REDACTED
    return _any_value(value, longest, scrub, depth)


_REDACTED: Final = _text_value("[redacted]", 16)


def _key_field(key: str) -> bytes:
    content = key.encode("utf-8", "replace")[:_MAX_KEY]
    if len(content) == _MAX_KEY:
        content = content.decode("utf-8", "ignore").encode()
    return _field(b"\x0a", content)


_AS_IT_IS: Final = _Scrub(None, lambda _key: False, lambda _number: False)


def key_value(key: str, value: Any, longest: int = 16_384) -> bytes:
    """One KeyValue, not framed."""
    return _key_field(key) + _any_value(value, longest, _AS_IT_IS)


# ---------------------------------------------------------------------- records


class RecordEncoder:
    """
    Entries to framed LogRecords. Remembers keys and which patterns' facts were sent.

    Not thread-safe: the worker's own.

    Args:
        config: Which of our attributes are sent, and how long a text may be.
        redactor: What must not leave the process.
        clock: Monotonic seconds.
    """

    def __init__(
        self, config: PostHogConfig, redactor: Redactor, clock: Callable[[], float]
    ) -> None:
        self._wanted = frozenset(config.attributes)
        self._longest = config.max_value_length
        self._facts_interval = config.pattern_facts_interval
        self._redactor = redactor
        self._quick = _Scrub(None, redactor.is_secret, redactor.is_card)
        self._careful = _Scrub(redactor.text, redactor.is_secret, redactor.is_card)
        self._clock = clock
        self._says_severity = "severity_text" in self._wanted
        self._keys: dict[str, _Name] = {}
        # Texts, folded, that hold no form of secret; and what this slice has beyond them, by the
        # index of its entry. Most texts come again with other digits, which the folding removes.
        self._noting = config.redact
        self._clean: set[bytes] = set()
        self._unseen: list[tuple[int, bytes]] = []
        self._index = 0
        # By signature: when its facts are due again, and the rate that was sent last.
        self._facts: dict[str, tuple[float, float]] = {}
        self._places: dict[tuple[str, int], bytes] = {}
        # What was decided about facts for entries of this slice (one may be encoded twice).
        self._decided: dict[int, tuple[bool, bool]] = {}
        self._entry_id = 0

    def forget_facts(self) -> None:
        """Send each pattern's facts again: the records that carried them may be lost."""
        self._facts.clear()

    def encode_slice(self, entries: Sequence[Entry]) -> list[Item]:
        """All *entries*, in their order, free of secrets."""
        self._decided.clear()
        unseen = self._unseen
        unseen.clear()
        items: list[Item] = []
        for index, entry in enumerate(entries):
            self._index = index
            items.append((entry[3], self.encode(entry, self._quick)))
        if unseen:
            for index in self._suspects():
                items[index] = (items[index][0], self.encode(entries[index], self._careful))
        return items

    def _suspects(self) -> set[int]:
        """Which entries of the slice may hold a secret, by the texts that are not known yet."""
        forms = self._redactor.forms_in(b"\n".join([text for _, text in self._unseen]))
        suspects: set[int] = set()
        if len(self._clean) > _MAX_KNOWN_TEXTS:
            self._clean.clear()
        for index, text in self._unseen:
            if forms and self._redactor.has_any(text, forms):
                suspects.add(index)
            elif len(text) <= _MAX_KNOWN_TEXT:
                self._clean.add(text)
        return suspects

    def encode(self, entry: Entry, scrub: _Scrub | None = None) -> bytes:
        """
        The entry as an item of ScopeLogs.log_records.

        Args:
            entry: What the logging call said.
            scrub: Default: texts are searched for secrets. With the quick one they are not, but
                those that are not known to be clean are noted.
        """
        scrub = scrub or self._careful
        (
            time,
            severity,
            severity_text,
            _logger,
            message,
            args,
            _format,
            attributes,
            path,
            line,
            function,
            trace,
            context,
            exception,
        ) = entry
        longest, clean, keys = self._longest, scrub.clean, self._keys
        known, unseen, index = self._clean, self._unseen, self._index
        noting = clean is None and self._noting
        text = message if args is None else formatted(message, args)
        if clean:
            text = clean(text)
        if len(text) > longest:
            text = _cut(text, longest)
        content = text.encode("utf-8", "replace")
        if noting and (folded := content.translate(FOLD)) not in known:
            unseen.append((index, folded))
        size = len(content)
        parts = [
            _time_and_severity(
                0x09,
                # A float has microseconds, not more; 0 is OTLP's "unknown" (also for NaN).
                int(time * 1e6 + 0.5) * 1000 if 0.0 < time < 1.8e10 else 0,
                0x10,
                severity,
            ),
            _BODY[size] if size < _SHORT else b"\x2a" + _text_head(size),
            content,
        ]
        add = parts.append
        if len(attributes) > 2 * _MAX_ATTRIBUTES:
            add(b"\x38" + varint(len(attributes) // 2 - _MAX_ATTRIBUTES))
            attributes = attributes[: 2 * _MAX_ATTRIBUTES]
        special: list[tuple[str, Any]] = []
        whole = exception is not None or context is not None
        in_turn = iter(attributes)
        # The usual kinds in line and from tables: this loop is most of the worker's time.
        for key, value in zip(in_turn, in_turn, strict=True):
            name = keys.get(key)
            if name is None:
                name = self._learn(key)
            if not name:
                special.append((key, value))
                continue
            kind = type(value)
            if kind is str and not clean and len(value) <= longest:
                content = value.encode("utf-8", "replace")
                if noting and (folded := content.translate(FOLD)) not in known:
                    unseen.append((index, folded))
                size = len(content)
                head = _TEXT[size] if size < _SHORT else b"\x12" + _text_head(size)
                prefix = name[0]
                size += len(prefix) + len(head)
                parts += (_ATTRIBUTE[size] if size < 128 else _framed(size), prefix, head, content)
            elif kind is float and value - value == 0.0:  # neither NaN nor infinite
                add(name[1] + _double(value))
            elif kind is int and 0 <= value < 128:
                add(name[2] + _BYTE[value])
            elif kind is bool:
                add(name[3] if value else name[4])
            elif value is not None:
                whole = whole or (kind is not int and kind is not float)
                prefix = name[0]
                encoded = _any_value(value, longest, scrub)
                size = len(prefix) + len(encoded)
                parts += (_ATTRIBUTE[size] if size < 128 else _framed(size), prefix, encoded)
        if special or context is not None:
            self._entry_id = id(entry)
            whole = self._add_special(parts, Entry._make(entry), special, scrub) or whole
        elif path:
            add(self._place(path, line, function))
        if exception is not None and "exception" in self._wanted:
            self._add_exception(parts, exception, scrub)
        if severity_text or self._says_severity:
            text = severity_text or _SEVERITY_TEXTS.get(severity, "")
            add(_field(b"\x1a", _utf8(text, 32)))
        if trace is None and context is not None:
            trace = trace_of(context)
        if trace is not None:
            add(_trace_fields(trace))
        record = b"".join(parts)
        if noting and whole:
            unseen.append((index, record.translate(FOLD)))
        size = len(record)
        return (_RECORD[size] if size < 1024 else b"\x12" + varint(size)) + record

    def _learn(self, key: str) -> _Name:
        if len(self._keys) >= _MAX_KNOWN_KEYS:
            self._keys.clear()  # names made of values: remembering them all would leak
        special = not key or key in _SPECIAL or self._redactor.is_secret(key)
        name = self._keys[key] = () if special else _name_of(key)
        return name

    def _add(self, parts: list[bytes], key: str, encoded: bytes) -> None:
        parts.append(_field(b"\x32", _key_field(key) + encoded))

    def _add_text(self, parts: list[bytes], key: str, text: str) -> None:
        self._add(parts, key, _text_value(text, self._longest))

    def _add_special(
        self, parts: list[bytes], entry: Entry, special: list[tuple[str, Any]], scrub: _Scrub
    ) -> bool:
        """
        Attributes whose names mean something, and those of the context.

        Returns:
            Whether there are some that the application gave.
        """
        sampling: dict[str, Any] = {}
        plain: dict[str, Any] = {}
        for key, value in special:
            if value is None or not key or key in _LEFT_OUT:
                continue
            if key in _SAMPLING:
                sampling[key] = value
            elif key in _IDENTITIES:
                plain[_IDENTITIES[key]] = value
            elif key not in _EXCEPTION or entry.exception is None:
                plain[key] = value
        if entry.context is not None:
            given = {*entry.attributes[::2], *plain}
            plain.update(
                (key, value)
                for key, value in context_fields(entry.context)
                if key not in given and value is not None
            )
        for key, value in plain.items():
            if key in _LINKS:  # an e-mail address may well be the person's id: it has to match
                self._add_text(parts, key, str(value))
            else:
                self._add(parts, key, _named_value(key, value, self._longest, scrub, 0))
        if sampling:
            self._add_sampling(parts, entry, sampling, scrub)
        elif entry.path:
            parts.append(self._place(entry.path, entry.line, entry.function))
        return bool(plain)

    def _add_sampling(
        self, parts: list[bytes], entry: Entry, sampling: Mapping[str, Any], scrub: _Scrub
    ) -> None:
        wanted = self._wanted
        signature = str(sampling.get("lipservice_signature", ""))
        weight = _number(sampling.get("lipservice_weight"))
        rate = _number(sampling.get("lipservice_rate"))
        if signature and "signature" in wanted:
            self._add_text(parts, SIGNATURE, signature)
        if weight != 1.0 and "weight" in wanted:
            self._add(parts, WEIGHT, _double_value(weight))
        for name, key in (("rule", RULE), ("policy", POLICY)):
            value = sampling.get(f"lipservice_{name}")
            if value is not None and name in wanted:
                self._add(parts, key, _any_value(value, 256, _AS_IT_IS))
        due, rate_changed = self._facts_due(signature, rate)
        if "rate" in wanted and (rate_changed or (due and rate != 1.0)):
            self._add(parts, RATE, _double_value(rate))
        if due and signature and "template" in wanted:
            text = _template(entry)
            self._add_text(parts, TEMPLATE, scrub.clean(text) if scrub.clean else text)
        if due and entry.path:
            parts.append(self._place(entry.path, entry.line, entry.function))

    def _facts_due(self, signature: str, rate: float) -> tuple[bool, bool]:
        """Whether the pattern's facts are to be sent, and whether its rate has changed."""
        if not signature or self._facts_interval <= 0.0:
            return True, rate != 1.0
        decided = self._decided.get(self._entry_id)
        if decided is None:
            decided = self._decide_facts(signature, rate)
            if decided != (False, False):  # what was not due then is not due a moment later
                self._decided[self._entry_id] = decided
        return decided

    def _decide_facts(self, signature: str, rate: float) -> tuple[bool, bool]:
        now = self._clock()
        due_at, last_rate = self._facts.get(signature, (now, 1.0))
        due = now >= due_at
        if due or rate != last_rate:
            if len(self._facts) >= _MAX_PATTERNS:
                self._facts.clear()
            self._facts[signature] = (now + self._facts_interval if due else due_at, rate)
        return due, rate != last_rate

    def _place(self, path: str, line: int, function: str) -> bytes:
        """The attributes that say where in the code; a program has few places, so remembered."""
        known = self._places.get((path, line))
        if known is None:
            if len(self._places) >= _MAX_PATTERNS:
                self._places.clear()
            parts: list[bytes] = []
            self._add_place(parts, str(path), line, function)
            known = self._places[path, line] = b"".join(parts)
        return known

    def _add_place(self, parts: list[bytes], path: str, line: int, function: str) -> None:
        if "code" in self._wanted:
            self._add_text(parts, CODE, f"{short_path(path)}:{line}")
        if "code_attributes" in self._wanted:
            self._add_text(parts, "code.file.path", path)
            self._add(parts, "code.line.number", _any_value(line, 32, _AS_IT_IS))
            if function:
                self._add_text(parts, "code.function.name", str(function))

    def _add_exception(
        self, parts: list[bytes], exception: tuple[str, str, str], scrub: _Scrub
    ) -> None:
        for key, text in zip(_EXCEPTION, exception, strict=True):
            if text:
                self._add_text(parts, key, scrub.clean(text) if scrub.clean else text)


#: From here on an int can be a card's number.
_CARD_FROM: Final = 10**12
_SEVERITY_TEXTS: Final = {1: "TRACE", 5: "DEBUG", 9: "INFO", 13: "WARN", 17: "ERROR", 21: "FATAL"}


def _number(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return 1.0


def _template(entry: Entry) -> str:
    source = entry.message if entry.args is not None else entry.format
    if source is not None:
        return compute_template(percent_format_to_message(source))
    return compute_template(entry.message)


def short_path(path: str) -> str:
    """The last folder and the file's name: what people need to find it."""
    return "/".join(path.replace("\\", "/").rsplit("/", 2)[-2:])


def _trace_fields(trace: tuple[int, int, int]) -> bytes:
    trace_id, span_id, flags = trace
    fields = b"\x4a\x10" + trace_id.to_bytes(16, "big")
    if span_id:
        fields += b"\x52\x08" + span_id.to_bytes(8, "big")
    if flags:
        fields += _flags(0x45, flags & 0xFF)
    return fields


def trace_of(context: LogContext) -> tuple[int, int, int] | None:
    """The ids of *context* if its trace id is one; a wrong span id is left out."""
    trace_id = _id(context.trace_id, 16)
    if not trace_id:
        return None
    flags = context.trace_flags
    return trace_id, _id(context.span_id, 8), flags if isinstance(flags, int) else 0


def _id(value: str | bytes | int | None, size: int) -> int:
    try:
        if isinstance(value, str) and len(value) == 2 * size:
            return int.from_bytes(bytes.fromhex(value), "big")
        if isinstance(value, bytes) and len(value) == size:
            return int.from_bytes(value, "big")
    except ValueError:
        return 0
    return value if isinstance(value, int) and 0 < value < 1 << (8 * size) else 0


def context_fields(context: LogContext) -> Iterable[tuple[str, Any]]:
    """The attributes that *context* says, by the names under which they are sent."""
    yield PERSON, context.distinct_id or None
    yield SESSION, context.session_id or None
    yield "user_id", context.user_id
    yield "request_id", context.request_id
    yield from context.attributes.items()


def with_original_time(item: bytes, seconds: float) -> bytes:
    """
    *item* (a framed record) with its time as an attribute too.

    PostHog replaces a time that is more than 24 hours off by its own. Fields of a protobuf
    message may follow in any order, so one more attribute is appended.
    """
    record = _unframed(item)
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat()
    record += _field(b"\x32", key_value(ORIGINAL_TIME, text))
    return _field(b"\x12", record)


def time_of(item: bytes) -> float:
    """The time of a framed record, in seconds."""
    nanoseconds: int = struct.unpack_from("<Q", _unframed(item), 1)[0]
    return (nanoseconds // 1000) / 1e6


def whose(item: bytes) -> tuple[int, str, str | None, str]:
    """
    (SeverityNumber, signature, policy, rule) of a framed record.

    (0, "", None, "") where it cannot be read; "" or None for an attribute that was not sent.
    """
    number, found = 0, dict.fromkeys((SIGNATURE, POLICY, RULE), "")
    try:
        for field, content in _walk(_unframed(item)):
            if field == 2 and isinstance(content, int):
                number = content
            elif field == 6 and isinstance(content, bytes) and content[2:6] == b"lip_":
                name, text = _text_attribute(content)
                if name in found:
                    found[name] = text
    except (IndexError, ValueError):
        return 0, "", None, ""
    return number, found[SIGNATURE], found[POLICY] or None, found[RULE]


def _text_attribute(content: bytes) -> tuple[str, str]:
    """Name and text of a KeyValue; the text is "" where its value is none."""
    fields = dict(_walk(content))
    name, value = fields.get(1, b""), fields.get(2, b"")
    text = dict(_walk(value)).get(1, b"") if isinstance(value, bytes) else b""
    return tuple(  # type: ignore[return-value]
        part.decode("utf-8", "replace") if isinstance(part, bytes) else "" for part in (name, text)
    )


def _unframed(item: bytes) -> bytes:
    index = 1
    while item[index] & 128:
        index += 1
    return item[index + 1 :]


# ---------------------------------------------------------------------- requests


def encode_resource(attributes: Mapping[str, Any]) -> bytes:
    """ResourceLogs.resource, framed."""
    fields = [
        _field(b"\x0a", key_value(key, value))
        for key, value in attributes.items()
        if value is not None
    ]
    return _field(b"\x0a", b"".join(fields))


def assemble(resource: bytes, items: Sequence[Item]) -> bytes:
    """ExportLogsServiceRequest: one resource, a ScopeLogs for each logger."""
    scopes: dict[str, list[bytes]] = {}
    for scope, item in items:
        found = scopes.get(scope)
        if found is None:
            found = scopes[scope] = [_scope(scope)]
        found.append(item)
    logs = b"".join(_field(b"\x12", b"".join(parts)) for parts in scopes.values())
    return _field(b"\x0a", resource + logs)


def _scope(name: str) -> bytes:
    return _field(b"\x0a", _field(b"\x0a", _utf8(name, 256)))


def partial_success(body: bytes) -> tuple[int, str]:
    """
    (rejected records, the receiver's reason) of an ExportLogsServiceResponse.

    (0, "") where it says nothing, or nothing that can be read.
    """
    try:
        details = dict(_walk(body)).get(1)
        inner = dict(_walk(details)) if isinstance(details, bytes) else {}
        rejected, reason = inner.get(1, 0), inner.get(2, b"")
    except (IndexError, ValueError):
        return 0, ""
    if not isinstance(rejected, int) or rejected >= 1 << 63 or not isinstance(reason, bytes):
        return 0, ""
    return rejected, reason.decode("utf-8", "replace")[:300]


def _walk(message: bytes) -> Iterable[tuple[int, int | bytes]]:
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _read_varint(message, position)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, position = _read_varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("not a protobuf message")
        if position + size > len(message):
            raise ValueError("cut short")
        yield tag >> 3, message[position : position + size]
        position += size


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("varint too long")
