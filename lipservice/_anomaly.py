"""
When is a count a jump? Pure functions over what the engine counted.

A count is a jump when it is far above what the pattern's own past lets expect: more than four
times that, by more than six standard deviations of a Poisson count, and not tiny.
"""

from __future__ import annotations

import math
from typing import Final

#: Seconds that a boost lasts after the last tick that saw the anomaly.
BOOST_SECONDS: Final = 60.0
#: No boost before the process has a past to compare with.
LEARNING_SECONDS: Final = 60.0
#: A jump of the whole service's volume is answered once, then not again for this long: more
#: traffic is not by itself a reason to pay more for long.
COOL_DOWN_SECONDS: Final = 600.0
#: Time constant of the decayed counts.
VOLUME_SECONDS: Final = 600.0

_LEAST = 20
_FACTOR = 4.0
_DEVIATIONS = 6.0


def is_jump(count: int, expected: float) -> bool:
    """Whether *count* records are a jump where *expected* were due."""
    if count < _LEAST:
        return False
    return count > _FACTOR * expected and count > expected + _DEVIATIONS * math.sqrt(expected)


def decay(elapsed: float) -> float:
    """Factor on a decayed count after *elapsed* seconds."""
    return math.exp(-max(0.0, elapsed) / VOLUME_SECONDS)


def rate_per_second(volume: float, age: float) -> float:
    """Records a second behind the decayed count *volume* of something *age* seconds old."""
    return volume / (VOLUME_SECONDS * -math.expm1(-max(age, 1e-3) / VOLUME_SECONDS))
