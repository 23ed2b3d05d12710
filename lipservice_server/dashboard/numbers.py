"""Numbers and times, written for people: few digits, the unit beside them, never a bare float."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Final

#: What is shown for a number that is not there.
_NONE: Final = "\N{EN DASH}"
_THIN: Final = "\N{NARROW NO-BREAK SPACE}"
_STEPS: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_AGES: Final = ((86_400.0, "day"), (3_600.0, "hour"), (60.0, "minute"))


def count(number: float) -> str:
    """A count in three digits or so: 0, 812, 12.3 k, 4.56 M."""
    if abs(number) < 10_000:
        return f"{number:,.0f}"
    return _scaled(number, {"G": "bn", "T": "tn"})


def exact(number: float) -> str:
    """A count with all its digits."""
    return f"{number:,.0f}"


def size(number: float) -> str:
    """Bytes, in powers of 1,000, as log stores bill them."""
    if abs(number) < 1_000:
        return f"{number:.0f}{_THIN}B"
    return f"{_scaled(number, {})}B"


def share(fraction: float | None) -> str:
    """A share of 1 in percent, in two or three digits; a small one is never shown as 0."""
    if fraction is None:
        return _NONE
    percent = 100.0 * fraction
    if percent == 0 or percent >= 99.995:
        return f"{percent:.0f}{_THIN}%"
    if percent > 99:
        return f"{percent:.2f}{_THIN}%"
    if abs(percent) >= 10:
        return f"{percent:.0f}{_THIN}%"
    if abs(percent) >= 0.1:
        return f"{percent:.2g}{_THIN}%"
    return f"{percent:.1g}{_THIN}%" if abs(percent) >= 0.001 else f"<0.001{_THIN}%"


def money(amount: float) -> str:
    """An amount in the currency of the team's price."""
    digits = 0 if abs(amount) >= 1_000 else 2
    sign = "-" if amount < 0 else ""
    return f"{sign}${abs(amount):,.{digits}f}"


def weight(number: float | None) -> str:
    """How many records a kept one stands for."""
    if number is None or not math.isfinite(number):
        return _NONE
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def moment(at: float | None) -> str:
    """A time to the minute, in UTC."""
    return _NONE if at is None else _utc(at).strftime("%Y-%m-%d %H:%M UTC")


def iso(at: float) -> str:
    """A time for the `datetime` attribute."""
    return _utc(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def day(at: float) -> str:
    """A day, such as Mon 7 Sep."""
    found = _utc(at)
    return f"{found:%a} {found.day} {found:%b}"


def hour(at: float) -> str:
    """An hour of a day, such as Mon 14:00."""
    return _utc(at).strftime("%a %H:00")


def age(seconds: float) -> str:
    """How long ago, in words."""
    for length, unit in _AGES:
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {unit}{'s' if number != 1 else ''} ago"
    return "just now"


def left(seconds: float) -> str:
    """How long until then, to the nearest minute."""
    minutes = max(1, round(seconds / 60))
    if minutes < 100:
        return f"{plural(minutes, 'minute')} left"
    return f"{minutes // 60} h {minutes % 60} min left"


def plural(number: float, one: str, many: str | None = None) -> str:
    """A count and its noun."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"


def spark(values: list[float], width: int = 96, height: int = 22) -> str:
    """The path of a sparkline over *values*, from 0 up, for an SVG of this size."""
    most = max(values, default=0) or 1
    step = (width - 2) / max(1, len(values) - 1)
    points = [
        f"{1 + number * step:.1f} {height - 1.5 - value / most * (height - 3):.1f}"
        for number, value in enumerate(values)
    ]
    return "M" + " L".join(points) if points else ""


def _scaled(number: float, names: dict[str, str]) -> str:
    for step, name in _STEPS:
        if abs(number) >= step * 0.9995:
            value = number / step
            digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
            return f"{value:,.{digits}f}{_THIN}{names.get(name, name)}"
    return f"{number:.0f}"


def _utc(at: float) -> datetime:
    return datetime.fromtimestamp(at, timezone.utc)


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "n": count,
    "exact": exact,
    "size": size,
    "share": share,
    "money": money,
    "weight": weight,
    "moment": moment,
    "iso": iso,
    "day": day,
    "hour": hour,
    "age": age,
    "left": left,
    "plural": plural,
    "spark": spark,
}
