"""
What a logging call pays: one immutable entry of what the record said at that moment.

Rule: this runs in the application's threads, so it takes no lock, does no I/O and raises nothing.
A message is formatted here unless its arguments are all numbers, strings, bytes or None: others
may change after the call, and an object's own `__str__` may need the caller's thread (sessions,
locals). For the same reasons attributes that can change are copied, and tracebacks become text at
once: an entry that kept the frames would keep every local variable alive until the batch is sent.
Everything else (formatting of what cannot change, encoding, redaction, compression) is the
worker's.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Container, Mapping
from datetime import date, datetime, time
from enum import Enum
from itertools import islice
from logging import LogRecord
from typing import Any, Final, NamedTuple

from lipservice.export.config import CURRENT_CONTEXT, LogContext
from lipservice.severity import OTEL_NUMBERS, severity_of_level

#: Names and values in turn. A flat tuple of plain values, because the garbage collector stops
#: tracking those at its first visit; a queue full of lists or pairs it would visit again and again.
Fields = tuple[Any, ...]


class Entry(NamedTuple):
    """One record on its way to the worker. The adapters make plain tuples, which cost a tenth."""

    #: Seconds since the epoch.
    time: float
    #: OpenTelemetry's SeverityNumber.
    severity: int
    #: The level's own name where it is none of the usual ones, else "".
    severity_text: str
    #: Name of the logger, sent as the instrumentation scope.
    logger: str
    #: The message; with *args* not None the format string that it is yet to be made from.
    message: str
    #: Arguments of the format string, all of types that do not change.
    args: tuple[Any, ...] | None
    #: The format string that *message* was made from, where it has been made.
    format: str | None
    #: What the application attached: names and frozen values in turn.
    attributes: Fields
    #: Where in the code; the path is "" where unknown.
    path: str
    line: int
    function: str
    #: (trace id, span id, trace flags), or None outside a span.
    trace: tuple[int, int, int] | None
    context: LogContext | None
    #: (type, message, stack trace), or None.
    exception: tuple[str, str, str] | None


#: A record takes one place in the queue for each of these.
SLOT_CHARS: Final = 2048

_SCALARS: Final = frozenset({str, int, float, bool, bytes, type(None)})
_MAX_DEPTH: Final = 4
_MAX_ITEMS: Final = 64
_MAX_TEXT: Final = 16_384

# Attributes that every LogRecord of this interpreter has, in the order in which it sets them:
# what comes after the last of them in a record's `__dict__` was added by the application.
_STANDARD: Final = tuple(vars(LogRecord("", 0, "", 0, "", None, None)))
_STANDARD_SET: Final = frozenset({*_STANDARD, "message", "asctime"})
_LAST_STANDARD: Final = _STANDARD[-1]
_STANDARD_COUNT: Final = len(_STANDARD)
_modules: Final = sys.modules

_LEVELS: Final = {10: 5, 20: 9, 30: 13, 40: 17, 50: 21}


def otel_number(level: object) -> int:
    """OpenTelemetry's SeverityNumber for a level number of logging, structlog or loguru."""
    if not isinstance(level, int):  # a record made from a dict may say nothing
        return OTEL_NUMBERS["INFO"]
    return _LEVELS.get(level) or OTEL_NUMBERS[severity_of_level(level)]


def entry_of_record(record: LogRecord) -> tuple[Entry, int]:
    """
    The entry of *record*, and how many places it takes in the queue. Raises nothing that an
    application could cause.

    In line and by the record's dict, since this runs once a record in the caller's time.
    """
    fields = record.__dict__
    message = fields["msg"]
    args = fields["args"] or None
    template = None
    if type(message) is not str:
        message = formatted(message, args) if args else text_of(message)
        args = None
    size = len(message)
    if args is not None:
        if type(args) is tuple and _SCALARS.issuperset(map(type, args)):
            for value in args:
                if type(value) is str:
                    size += len(value)
        else:
            template = message
            message = formatted(message, args)
            size = len(message)
            args = None
    attributes: list[Any] = []
    if len(fields) > _STANDARD_COUNT:
        add = attributes.append
        # What the application added stands last, so it is met first from the end.
        for key, value in reversed(fields.items()):
            if key is _LAST_STANDARD:  # attribute names are interned
                break
            kind = type(value)
            if kind is str:
                size += len(value)
            elif kind is not int and kind is not float and kind is not bool:
                value = freeze(value)  # noqa: PLW2901
                size += _size(value)
            add(key)
            add(value)
        else:  # somebody took that standard attribute out
            attributes = _without_standard(attributes)
    exception = None
    if fields["exc_info"] or fields["exc_text"] or fields["stack_info"]:
        exception, extra_size = _error_fields(record, attributes)
        size += extra_size
    level = fields["levelno"]
    severity = _LEVELS.get(level)
    entry = (
        fields["created"],
        severity or otel_number(level),
        "" if severity else fields["levelname"] or "",
        fields["name"],
        message,
        args,
        template,
        tuple(attributes),
        fields["pathname"],
        fields["lineno"],
        fields["funcName"],
        current_trace() if "opentelemetry.trace" in _modules else None,
        CURRENT_CONTEXT.get() if "posthog.contexts" not in _modules else current_context(),
        exception,
    )
    return entry, 1 + size // SLOT_CHARS  # type: ignore[return-value]  # a plain tuple is cheaper


def _without_standard(attributes: list[Any]) -> list[Any]:
    pairs = zip(attributes[::2], attributes[1::2], strict=True)
    return [part for pair in pairs if pair[0] not in _STANDARD_SET for part in pair]


def fields_of(values: Mapping[Any, Any], leave: Container[str] = ()) -> tuple[Fields, int]:
    """
    Frozen names and values of an event dict, keyword arguments or bound values, without *leave*.

    Returns:
        The fields, and about how many characters they hold.
    """
    fields: list[Any] = []
    size = 0
    for key, value in list(values.items()):
        if key in leave:
            continue
        kind = type(value)
        if kind is str:
            size += len(value)
        elif kind is not int and kind is not float and kind is not bool:
            value = freeze(value)  # noqa: PLW2901
            size += _size(value)
        fields += (key if type(key) is str else text_of(key), value)
    return tuple(fields), size


def freeze(value: Any, depth: int = 0) -> Any:
    """
    A copy of *value* made of str, int, float, bool, bytes, None, list and dict alone.

    Raises nothing; containers are cut at 64 items and 4 levels, and what OpenTelemetry has no
    type for becomes its text.
    """
    kind = type(value)
    if kind in _SCALARS:
        return value
    try:
        return _frozen(value, depth)
    except Exception:
        return f"<unprintable {kind.__name__}>"


def _frozen(value: Any, depth: int) -> Any:
    if isinstance(value, Enum):
        return freeze(value.value, depth)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value[:_MAX_TEXT])
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if depth < _MAX_DEPTH:
        if isinstance(value, Mapping):
            items = islice(list(value.items()), _MAX_ITEMS)
            return {_key(key): freeze(item, depth + 1) for key, item in items}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [freeze(item, depth + 1) for item in islice(list(value), _MAX_ITEMS)]
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"[:_MAX_TEXT]
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return freeze(value.item(), depth)
    return str(value)[:_MAX_TEXT]


def _key(key: object) -> str:
    return key if type(key) is str else text_of(key)


def _size(value: Any) -> int:
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value)
    if kind is list:
        return 16 + sum(map(_size, value))
    if kind is dict:
        return 64 + sum(len(key) + _size(item) for key, item in value.items())
    return 8


def formatted(message: Any, args: Any) -> str:
    """`message % args` as logging does it; where they do not fit, both. Raises nothing."""
    try:
        text: str = str(message) % args
    except Exception:
        return f"{text_of(message)} {text_of(args)}"
    return text


def text_of(value: object) -> str:
    """`str(value)`, or what it is when it cannot say."""
    try:
        return str(value)
    except Exception:
        return f"<unprintable {type(value).__name__}>"


# ---------------------------------------------------------------------- exceptions


def _error_fields(
    record: LogRecord, attributes: list[Any]
) -> tuple[tuple[str, str, str] | None, int]:
    """The exception's texts and the size they add; the stack, if asked for, is an attribute."""
    exception = exception_text(record.exc_info)
    if exception is None and record.exc_text:
        exception = ("", "", str(record.exc_text))
    size = len(exception[1]) + len(exception[2]) if exception else 0
    if record.stack_info:
        stack = str(record.stack_info)
        attributes += ("stack_info", stack)
        size += len(stack)
    return exception, size


def exception_text(exc_info: object) -> tuple[str, str, str] | None:
    """(type, message, stack trace) of an exception, an exc_info triple or True; else None."""
    if exc_info is True:
        exc_info = sys.exc_info()
    error = exc_info[1] if isinstance(exc_info, tuple) and len(exc_info) == 3 else exc_info
    if not isinstance(error, BaseException):
        return None
    try:
        stack = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception:
        stack = ""
    return _type_name(type(error)), text_of(error), stack.rstrip("\n")


def _type_name(kind: type[BaseException]) -> str:
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


# ---------------------------------------------------------------------- context


def current_trace() -> tuple[int, int, int] | None:
    """Ids of OpenTelemetry's current span; never imports OpenTelemetry, raises nothing."""
    try:
        api = _modules["opentelemetry.trace"]
        span = api.get_current_span()
        if span is not api.INVALID_SPAN:  # what it answers outside any span
            ids = span.get_span_context()
            if ids.trace_id:
                return ids.trace_id, ids.span_id, int(ids.trace_flags)
    except Exception:  # noqa: S110 - half imported, or another package of that name
        pass
    return None


def current_context() -> LogContext | None:
    """The context of `LogContext.use`, completed from posthog's own where it is in use."""
    context = CURRENT_CONTEXT.get()
    if "posthog.contexts" in _modules:
        return _with_posthog_context(context)
    return context


def _with_posthog_context(context: LogContext | None) -> LogContext | None:
    try:
        module = sys.modules["posthog.contexts"]
        person, session = module.get_context_distinct_id(), module.get_context_session_id()
    except Exception:
        return context
    if not (person or session):
        return context
    base = context or LogContext()
    return LogContext(
        trace_id=base.trace_id,
        span_id=base.span_id,
        trace_flags=base.trace_flags,
        distinct_id=base.distinct_id or text_of(person or "") or None,
        session_id=base.session_id or text_of(session or "") or None,
        user_id=base.user_id,
        request_id=base.request_id,
        attributes=base.attributes,
    )


def merged(first: LogContext | None, second: LogContext | None) -> LogContext | None:
    """*first* with what only *second* knows."""
    if first is None or second is None:
        return first or second
    return LogContext(
        trace_id=first.trace_id or second.trace_id,
        span_id=first.span_id if first.trace_id else second.span_id,
        trace_flags=first.trace_flags if first.trace_id else second.trace_flags,
        distinct_id=first.distinct_id or second.distinct_id,
        session_id=first.session_id or second.session_id,
        user_id=first.user_id if first.user_id is not None else second.user_id,
        request_id=first.request_id if first.request_id is not None else second.request_id,
        attributes={**second.attributes, **first.attributes},
    )


def frozen_context(context: LogContext | None) -> LogContext | None:
    """*context* with attributes that no longer change."""
    if context is None or not context.attributes:
        return context
    fields, _ = fields_of(context.attributes)
    return LogContext(
        trace_id=context.trace_id,
        span_id=context.span_id,
        trace_flags=context.trace_flags,
        distinct_id=context.distinct_id,
        session_id=context.session_id,
        user_id=context.user_id,
        request_id=context.request_id,
        attributes=dict(zip(fields[::2], fields[1::2], strict=True)),
    )
