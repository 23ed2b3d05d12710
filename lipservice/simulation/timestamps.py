"""
Seconds since 1970 from the timestamps of log lines.

Whole seconds are enough for rates and spans, so a fraction is dropped. A time without a zone is
taken as UTC: only differences within one log matter here. Nothing raises: what is no time is None.
"""

from __future__ import annotations

import calendar
import re
import time
from functools import lru_cache
from typing import Final

# Shapes of the text before fraction and zone; the name of a group says what it holds.
_DATE_SHAPES: Final = tuple(
    re.compile(shape, re.ASCII)
    for shape in (
        r"(?P<Y>\d{4})[-/.](?P<m>\d\d?)[-/.](?P<d>\d\d?)[T ,_-]{1,2}"
        r"(?P<H>\d\d?)[:.](?P<M>\d\d)(?:[:.](?P<S>\d\d))?",
        r"(?P<Y>\d{4})(?P<m>\d\d)(?P<d>\d\d)[T _-]?(?P<H>\d\d):?(?P<M>\d\d):?(?P<S>\d\d)",
        r"(?P<y>\d\d)(?P<m>\d\d)(?P<d>\d\d) (?P<H>\d\d):?(?P<M>\d\d):?(?P<S>\d\d)",
        r"(?:[A-Z][a-z]{2},? )?(?P<b>[A-Z][a-z]{2}) +(?P<d>\d\d?),? (?:(?P<Y>\d{4}),? )?"
        r"(?P<H>\d\d?):(?P<M>\d\d):(?P<S>\d\d)(?:\.\d+)?(?: (?P<p>[AP]M))?(?: (?P<Y2>\d{4}))?",
        r"(?:[A-Z][a-z]{2},? )?(?P<d>\d\d?)[ /-](?P<b>[A-Z][a-z]{2})[ /-](?P<Y>\d{4})[: ]"
        r"(?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d)",
        r"(?P<m>\d\d)[-.](?P<d>\d\d) (?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d)",
        r"(?P<m>\d\d)(?P<d>\d\d) (?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d)",
        r"(?P<m>\d\d?)/(?P<d>\d\d?)/(?P<Y>\d{4}),? "
        r"(?P<H>\d\d?):(?P<M>\d\d):(?P<S>\d\d)(?: (?P<p>[AP]M))?",
        r"(?P<d>\d\d?)\.(?P<m>\d\d?)\.(?P<Y>\d{4}),? (?P<H>\d\d?):(?P<M>\d\d):(?P<S>\d\d)",
        r"(?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d)",
    )
)
_MONTHS: Final = {name: number for number, name in enumerate(calendar.month_abbr) if name}
_ZONE: Final = re.compile(r"(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)?")
_FRACTION: Final = re.compile(r"(?<=:\d\d)[.,]\d+")
_TRAILING_ZONE: Final = re.compile(r"\s?(Z|UTC|GMT|[+-]\d\d:?\d\d)$")
_NUMBER: Final = re.compile(r"\d{9,19}(?:\.\d+)?")

#: What a number must be below to be seconds, milliseconds, microseconds, nanoseconds.
_EPOCH_UNITS: Final = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9))


class Years:
    """
    The year of timestamps that have none, such as those of syslog.

    Starts with the last year in which the first timestamp is not later than *latest* and goes
    on to the next when the months fall from December to January.
    """

    def __init__(self, latest: float) -> None:
        self._latest = latest
        self._year: int | None = None
        self._seconds = 0.0

    def date(self, text: str) -> float | None:
        """Seconds since 1970 of *text*; the year is added where it has none."""
        year = self._year
        seconds = _seconds(text, self._first_year(text) if year is None else year)
        if seconds is None or names_year(text):
            return seconds
        if year is not None and abs(seconds - self._seconds) > 200 * 86_400:
            self._year = year + (1 if seconds < self._seconds else -1)
            seconds = _seconds(text, self._year) or seconds
        self._seconds = seconds
        return seconds

    def _first_year(self, text: str) -> int:
        year = time.gmtime(self._latest).tm_year
        seconds = _seconds(text, year)
        if seconds is None or names_year(text):
            return year
        # A day of grace, because the log's zone is not known.
        self._year = year - (seconds > self._latest + 86_400)
        return self._year


def read_time(text: str) -> float | None:
    """Seconds since 1970 of *text*: a time with a year, without fraction and zone."""
    return _seconds(text, 1970)


def read_any_time(value: object) -> float | None:
    """Seconds since 1970 of a field of a structured record: a number or a text of any shape."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _epoch(float(value))
    if not isinstance(value, str) or len(value) > 64:
        return None
    if value[10:11] == "T" and value[-1:] == "Z":  # by far the most frequent shape
        return _seconds(value[: 19 if value[19:20] in ".," else -1], 1970)
    if _NUMBER.fullmatch(value):
        return _epoch(float(value))
    text = _FRACTION.sub("", value.strip(), count=1)
    zone = _TRAILING_ZONE.search(text)
    if zone is None:
        return read_time(text)
    seconds = read_time(text[: zone.start()])
    return None if seconds is None else seconds - read_offset(zone[1])


def _epoch(number: float) -> float | None:
    if not 1e8 <= number < _EPOCH_UNITS[-1][0]:
        return None
    return next(number / unit for limit, unit in _EPOCH_UNITS if number < limit)


@lru_cache(maxsize=1024)
def read_offset(zone: str) -> float:
    """Seconds that *zone* (`Z`, `+02:00`, `-0500`, `UTC`) lies east of UTC."""
    match = _ZONE.match(zone.strip())
    if match is None:
        return 0.0
    seconds = int(match["hours"]) * 3600 + int(match["minutes"] or 0) * 60
    return float(-seconds if match["sign"] == "-" else seconds)


@lru_cache(maxsize=16384)
def names_year(text: str) -> bool:
    """Whether *text* has a year, or is no date at all."""
    if text.isdigit():
        return True
    for shape in _DATE_SHAPES:
        match = shape.fullmatch(text)
        if match is not None:
            found = match.groupdict()
            return bool(found.get("Y") or found.get("Y2") or found.get("y") or "d" not in found)
    return True


@lru_cache(maxsize=16384)
def _seconds(text: str, year: int) -> float | None:
    """Seconds of a text in any shape; *year* is used where the text has none."""
    if len(text) == 19 and text[16] == ":" and text[17:].isdecimal():
        minute = _seconds_of_shape(text[:16], year)  # remembered: most logs stay in one for long
        second = int(text[17:])
        return None if minute is None or second > 60 else minute + second
    return _seconds_of_shape(text, year)


@lru_cache(maxsize=4096)
def _seconds_of_shape(text: str, year: int) -> float | None:
    if _NUMBER.fullmatch(text):
        return _epoch(float(text))
    for shape in _DATE_SHAPES:
        match = shape.fullmatch(text)
        if match is not None:
            return _seconds_of_parts(match.groupdict(), year)
    return None


def _seconds_of_parts(parts: dict[str, str | None], year: int) -> float | None:
    named = parts.get("Y") or parts.get("Y2")
    if named:
        year = int(named)
    elif parts.get("y"):
        year = 2000 + int(parts["y"] or 0)
    month = _MONTHS.get(parts["b"] or "") if "b" in parts else int(parts.get("m") or 1)
    day = int(parts.get("d") or 1)
    hour = (
        int(parts["H"] or 0) % 12 + 12 * (parts["p"] == "PM")
        if parts.get("p")
        else int(parts["H"] or 0)
    )
    minute, second = int(parts["M"] or 0), int(parts.get("S") or 0)
    if "d" not in parts:
        year = 1970  # a time of the day alone: only differences count
    if month is None or not (1 <= month <= 12 and 1 <= day <= 31 and 1970 <= year <= 9999):
        return None
    if hour > 24 or minute > 59 or second > 60:
        return None
    return float(calendar.timegm((year, month, day, hour, minute, second)))
