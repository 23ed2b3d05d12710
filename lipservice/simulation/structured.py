"""
Records that name their fields: JSON objects and logfmt.

`read_json` and `read_logfmt` answer None where the line is neither, so that the caller can go on
to other formats. Keys are those of structlog, python-json-logger, loguru (`serialize=True`),
bunyan, pino, winston, zap, zerolog, logrus, slog, Monolog, GELF, ECS, journald, Docker's
json-file, Google Cloud and OpenTelemetry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from lipservice.severity import severity_of_level
from lipservice.simulation.levels import (
    SEVERITY_OF_WORD,
    severity_of_number,
    severity_of_otel,
    severity_of_priority,
    severity_of_text,
)
from lipservice.simulation.timestamps import read_any_time

_MESSAGE_KEYS: Final = (
    "message", "msg", "event", "body", "Body", "@message", "MESSAGE", "short_message",
    "textPayload", "text", "@m", "@mt", "Message", "log_message",
)  # fmt: skip
_TIME_KEYS: Final = (
    "timestamp", "time", "@timestamp", "ts", "asctime", "datetime", "t", "date", "@t",
    "timeUnixNano", "observedTimeUnixNano", "Timestamp", "__REALTIME_TIMESTAMP", "eventTime",
    "Time", "created",
)  # fmt: skip
_LEVEL_KEYS: Final = (
    "level", "levelname", "severity", "log.level", "severityText", "severity_text",
    "SeverityText", "level_name", "lvl", "loglevel", "log_level", "@l", "s", "Level", "Severity",
)  # fmt: skip
_OTEL_KEYS: Final = ("severityNumber", "severity_number", "SeverityNumber")

# A key, and a value: bare, or in quotes of either kind with backslash escapes.
_PAIR: Final = re.compile(
    r"""([A-Za-z_@][\w.@/-]*)=("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s"'][^\s]*|)(?=\s|$)\s*"""
)
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}


class Fields(NamedTuple):
    """What a structured record says."""

    seconds: float | None
    severity: str | None
    message: str
    #: "line": the message is a line of another log; "message": it may be one.
    envelope: Literal["", "line", "message"] = ""
    #: Docker cut the line; the next one goes on with it.
    partial: bool = False


def read_json(line: str) -> Fields | None:
    """The fields of a JSON object on one line, or None."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    log = record.get("log")
    if isinstance(log, str):
        return Fields(
            seconds=_time(record),
            severity=_severity(record),
            message=log.rstrip("\r\n"),
            envelope="line",
            partial=bool(log) and not log.endswith("\n") and "stream" in record,
        )
    record = _unwrapped(record)
    message = _message(record)
    return Fields(
        seconds=_time(record),
        severity=_severity(record),
        message=line if message is None else message,
        envelope="message" if "MESSAGE" in record else "",
    )


def read_logfmt(line: str) -> Fields | None:
    """The fields of a line of `key=value` pairs, or None if it is anything else."""
    fields: dict[str, str] = {}
    position = 0
    while position < len(line):
        match = _PAIR.match(line, position)
        if match is None:
            return None
        fields[match[1]] = _unquoted(match[2])
        position = match.end()
    if len(fields) < 2:
        return None
    message = _message(fields)
    return Fields(_time(fields), _severity(fields), line if message is None else message)


def _unquoted(value: str) -> str:
    if value[:1] not in {'"', "'"}:
        return value
    return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[1]), value[1:-1])


def _unwrapped(record: dict[str, Any]) -> dict[str, Any]:
    """The record within the record, where a framework or a cloud wraps it."""
    inner = record.get("record")  # loguru, serialize=True
    if isinstance(inner, dict) and "message" in inner:
        return inner
    payload = record.get("jsonPayload")  # Google Cloud
    if isinstance(payload, dict):
        return {
            **payload,
            **{key: record[key] for key in ("timestamp", "severity") if key in record},
        }
    attributes = record.get("attributes")
    if isinstance(attributes, dict) and "body" not in record and "message" not in record:
        return {**attributes, **record}
    return record


def _message(record: Mapping[str, Any]) -> str | None:
    for key in _MESSAGE_KEYS:
        value = record.get(key)
        if isinstance(value, str):
            return value
        if isinstance(value, dict):
            return _any_value(value)
    return None


def _any_value(value: dict[str, Any]) -> str:
    """Text of an OTLP AnyValue, or of an object that someone logged as the message."""
    text = value.get("stringValue", value.get("message"))
    return text if isinstance(text, str) else json.dumps(value, ensure_ascii=False)


def _time(record: Mapping[str, Any]) -> float | None:
    for key in _TIME_KEYS:
        value = record.get(key)
        if value is None:
            continue
        if isinstance(value, dict):  # MongoDB; loguru
            value = value.get("$date", value.get("timestamp"))
        seconds = read_any_time(value)
        if seconds is not None:
            return seconds
    return None


def _severity(record: Mapping[str, Any]) -> str | None:
    if "levelno" in record:  # only Python's logging has this key
        number = _whole(record["levelno"])
        if number is not None:
            return severity_of_level(number)
    for key in _LEVEL_KEYS:
        value = record.get(key)
        severity = None if value is None else _severity_of_value(value)
        if severity is not None:
            return severity
    for key in _OTEL_KEYS:
        number = _whole(record.get(key))
        if number is not None:
            return severity_of_otel(number)
    number = _whole(record.get("PRIORITY"))
    if number is not None:
        return severity_of_priority(number)
    log = record.get("log")
    return _severity(log) if isinstance(log, dict) else None


def _severity_of_value(value: object) -> str | None:
    if isinstance(value, str) and value in SEVERITY_OF_WORD:
        return SEVERITY_OF_WORD[value]
    if isinstance(value, dict):  # loguru: {"name": "INFO", "no": 20}
        value = value.get("name")
    number = _whole(value)
    if number is not None:
        return severity_of_number(number)
    return severity_of_text(value) if isinstance(value, str) else None


def _whole(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 5:
        return int(value)
    return None
