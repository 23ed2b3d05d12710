"""One table of severities: names, numbers of the logging frameworks, OpenTelemetry numbers."""

from __future__ import annotations

from typing import Final

#: The canonical names, least severe first.
SEVERITIES: Final = ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

#: Records of these are kept whatever a policy says.
PROTECTED_SEVERITIES: Final = frozenset({"ERROR", "CRITICAL"})

#: OpenTelemetry's SeverityNumber of each (logs data model, "Field: SeverityNumber").
OTEL_NUMBERS: Final = {
    "TRACE": 1,
    "DEBUG": 5,
    "INFO": 9,
    "WARNING": 13,
    "ERROR": 17,
    "CRITICAL": 21,
}

_ALIASES: Final = {
    **{name: name for name in SEVERITIES},
    "NOTSET": "DEBUG",
    "FINE": "DEBUG",
    "VERBOSE": "DEBUG",
    "NOTICE": "INFO",
    "INFORMATION": "INFO",
    "INFORMATIONAL": "INFO",
    "SUCCESS": "INFO",
    "WARN": "WARNING",
    "ERR": "ERROR",
    "EXCEPTION": "ERROR",
    "SEVERE": "ERROR",
    "FAILURE": "ERROR",
    "FATAL": "CRITICAL",
    "CRIT": "CRITICAL",
    "ALERT": "CRITICAL",
    "EMERG": "CRITICAL",
    "EMERGENCY": "CRITICAL",
    "PANIC": "CRITICAL",
}


def severity_of_level(level: int) -> str:
    """Canonical name for a number of logging, structlog or loguru; 25 lies in INFO's band."""
    if level >= 50:
        return "CRITICAL"
    if level >= 40:
        return "ERROR"
    if level >= 30:
        return "WARNING"
    if level >= 20:
        return "INFO"
    return "DEBUG" if level >= 10 or level <= 0 else "TRACE"


def is_severity(name: str) -> bool:
    """Whether this is a name of a severity: in any case, also "warn" or "fatal"."""
    return name.strip().upper() in _ALIASES


def severity_name(severity: object) -> str:
    """
    Canonical name for a level number or for a name in any case; what is unknown is INFO.

    An unknown name must never make a record *more* droppable than INFO, nor protected.
    """
    if isinstance(severity, int) and not isinstance(severity, bool):
        return severity_of_level(severity)
    return _ALIASES.get(str(severity).strip().upper(), "INFO")
