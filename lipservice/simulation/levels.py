"""Severities from what logs of many kinds write: words, letters, numbers, HTTP statuses."""

from __future__ import annotations

from typing import Final

from lipservice.severity import severity_name

_WORDS: Final = [
    "TRACE",
    "DEBUG",
    "INFO",
    "NOTICE",
    "WARN",
    "WARNING",
    "ERROR",
    "ERR",
    "CRITICAL",
    "CRIT",
    "FATAL",
    "ALERT",
    "EMERG",
    "EMERGENCY",
    "PANIC",
    "SEVERE",
    "FINE",
    "VERBOSE",
    "SUCCESS",
    "INFORMATION",
    "EXCEPTION",
    "FAILURE",
]
# Words that the frameworks' own table has no name for.
_OTHER_WORDS: Final = {
    "FINER": "TRACE",
    "FINEST": "TRACE",
    "VRB": "TRACE",
    "TRC": "TRACE",
    "DBG": "DEBUG",
    "DEBG": "DEBUG",
    "INF": "INFO",
    "WRN": "WARNING",
    "EROR": "ERROR",
    "FTL": "CRITICAL",
    "CONFIG": "DEBUG",
    "NOTE": "INFO",
    "LOG": "INFO",
    "SYSTEM": "INFO",
    "DEPRECATED": "WARNING",
    "FATAL ERROR": "CRITICAL",
    "PARSE ERROR": "ERROR",
    "DEBU": "DEBUG",
    "ERRO": "ERROR",
    "FATA": "CRITICAL",
    "PANI": "CRITICAL",
    "TRAC": "TRACE",
    **{f"DEBUG{number}": "DEBUG" for number in range(1, 6)},
}
# One letter, as in logcat, klog, tornado, Redis and MongoDB ("D1" to "D5").
_LETTERS: Final = {
    "V": "TRACE",
    "T": "TRACE",
    "D": "DEBUG",
    "I": "INFO",
    "N": "INFO",
    "W": "WARNING",
    "E": "ERROR",
    "F": "CRITICAL",
    "C": "CRITICAL",
    "A": "CRITICAL",
    ".": "DEBUG",
    "-": "DEBUG",
    "*": "INFO",
    "#": "WARNING",
    **{f"D{number}": "DEBUG" for number in range(1, 6)},
}

_UPPER: Final = {
    **{word: severity_name(word) for word in _WORDS},
    **_OTHER_WORDS,
    **_LETTERS,
}
#: Severity of each level that a line can hold, in the three ways to write it.
SEVERITY_OF_WORD: Final = {
    written: severity
    for word, severity in _UPPER.items()
    for written in (word, word.lower(), word.capitalize())
}

_LONG: Final = sorted((word for word in _UPPER if len(word) > 2), key=len, reverse=True)
#: Level words as they are shouted; safe to look for behind a timestamp.
UPPER_LEVEL: Final = "(?:" + "|".join(_LONG) + ")"
#: Level words in any of the three ways; only where brackets or columns mark the place.
ANY_LEVEL: Final = (
    "(?:" + "|".join(w for word in _LONG for w in (word, word.lower(), word.capitalize())) + ")"
)
#: Level words in small letters, as structlog writes them.
LOWER_LEVEL: Final = UPPER_LEVEL.lower()

# RFC 5424, section 6.2.1, table 2.
_SYSLOG: Final = (
    "CRITICAL", "CRITICAL", "CRITICAL", "ERROR", "WARNING", "INFO", "INFO", "DEBUG"
)  # fmt: skip
# OpenTelemetry logs data model, "Field: SeverityNumber": four numbers a name.
_OTEL: Final = ("TRACE", "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def severity_of_text(text: str) -> str | None:
    """Severity of a level as written, or None if it is no level."""
    text = text.strip()
    return SEVERITY_OF_WORD.get(text) or _UPPER.get(text.upper())


def severity_of_status(status: str) -> str:
    """Severity of an HTTP answer: 5xx is an error of ours, 4xx a warning."""
    return {"5": "ERROR", "4": "WARNING"}.get(status[:1], "INFO")


def severity_of_priority(priority: int) -> str:
    """Severity of a syslog priority (facility times 8 plus severity) or of a severity alone."""
    return _SYSLOG[priority & 7]


def severity_of_otel(number: int) -> str | None:
    """Severity of an OpenTelemetry SeverityNumber, 1 to 24."""
    return _OTEL[(number - 1) // 4] if 1 <= number <= 24 else None


def severity_of_number(number: int) -> str | None:
    """
    Severity of a bare number under the key `level`.

    0 to 7 is syslog's (GELF), 10 to 60 bunyan's and pino's, 100 to 600 Monolog's.
    """
    if 0 <= number < 8:
        return severity_of_priority(number)
    if 10 <= number <= 69:
        return _OTEL[number // 10 - 1]
    if 100 <= number <= 699:
        monolog = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "CRITICAL")
        return monolog[number // 100 - 1]
    return None
