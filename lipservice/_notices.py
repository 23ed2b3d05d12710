"""
Sampling never comes by surprise: what the logger `lipservice` tells at INFO.

The first drop, every policy change, each boost's begin and end, and a summary each report interval
are one record each. They are written by the background thread, never in the application's calls.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Final

from lipservice.decision import Totals
from lipservice.policy import Boost, SamplingPolicy

_logger: Final = logging.getLogger("lipservice")
#: Boosts between two looks that are told.
_MOST_HEARD: Final = 1000


class Notices:
    """
    Compares what it is shown with what it was shown before. Used by one thread, but for `heard`.

    Args:
        service_name: What is sampled.
        clock: Monotonic seconds.
    """

    def __init__(self, service_name: str | None, clock: Callable[[], float]) -> None:
        self._of = f" of {service_name}" if service_name else ""
        self._clock = clock
        self._policy: SamplingPolicy | None = None
        self._dropped = False
        self._boosts: dict[str, float] = {}
        self._heard: deque[Boost] = deque(maxlen=_MOST_HEARD)
        self.begin()

    def begin(self) -> None:
        """Start counting an interval anew (also in a forked child)."""
        self._since = self._clock()
        self._told = Totals()

    def heard(self, boosts: tuple[Boost, ...]) -> None:
        """Remember what is boosted now, should it be over at the next look. From any thread."""
        self._heard.extend(boosts)

    def look(
        self, policy: SamplingPolicy | None, totals: Totals, boosts: tuple[Boost, ...] = ()
    ) -> None:
        """Tell a new policy, the first drop, and what boosts began and ended."""
        before, self._policy = self._policy, policy
        if policy is not before and not _differ_in_boosts_only(policy, before):
            _tell("sampling%s by policy %s", self._of, _describe(policy))
        if not self._dropped and totals.dropped + totals.capped > totals.shadowed:
            self._dropped = True
            _tell(
                "first records%s are dropped: kept %s of %s so far; every ERROR is kept",
                self._of,
                f"{totals.kept:,}",
                f"{totals.seen:,}",
            )

        self._tell_boosts(boosts)

    def _tell_boosts(self, boosts: tuple[Boost, ...]) -> None:
        heard = [self._heard.popleft() for _ in range(len(self._heard))]
        before, self._boosts = self._boosts, _last_ends(boosts)
        for whom, end in self._boosts.items():
            if end > before.get(whom, end - 1.0):
                _tell("everything of %s%s is kept until %s", whom, self._of, _time(end))
        for whom in before:
            if whom not in self._boosts:
                _tell("%s%s is sampled again", whom, self._of)
        for whom in _last_ends(tuple(heard)):
            if whom not in self._boosts and whom not in before:
                again = "and is sampled again"
                _tell("everything of %s%s was kept for a moment, %s", whom, self._of, again)

    def summarise(self, policy: SamplingPolicy | None, totals: Totals) -> None:
        """Tell what happened since the last summary, if anything did."""
        told, self._told = self._told, totals
        since, self._since = self._since, self._clock()
        seen = totals.seen - told.seen
        if seen <= 0:
            return
        capped = totals.capped - told.capped
        released = totals.released - told.released
        let_pass = totals.shadowed - told.shadowed
        _tell(
            "kept %s of %s records%s in %.0f s by policy %s%s%s%s%s",
            f"{totals.kept - told.kept:,}",
            f"{seen:,}",
            self._of,
            self._since - since,
            _name(policy),
            f"; released {released:,} of failed requests" if released else "",
            f"; holding {totals.held:,}" if totals.held else "",
            f"; the limit dropped {capped:,}" if capped else "",
            f"; shadow mode let {let_pass:,} others pass" if let_pass else "",
        )


def _tell(text: str, *args: object) -> None:
    with contextlib.suppress(Exception):  # the application's logging is broken: nobody to tell
        _logger.info(text, *args)


def _name(policy: SamplingPolicy | None) -> str:
    """As on the records that it keeps."""
    if policy is None:
        return "none"
    return policy.policy_id if policy.version is None else str(policy.version)


def _describe(policy: SamplingPolicy | None) -> str:
    if policy is None:
        return "none: everything is kept"
    named = "" if policy.version is None else f"{policy.policy_id}: "
    shadow = ", in shadow: nothing is dropped" if policy.mode == "shadow" else ""
    rate = "everything is kept" if _keeps_all(policy) else f"rate {policy.sampling_rate:.3g}"
    own = len(policy.pattern_rates)
    others = f", others for {own:,} pattern{'' if own == 1 else 's'}" if own else ""
    return f"{_name(policy)} ({named}{rate}{others}{shadow})"


def _keeps_all(policy: SamplingPolicy) -> bool:
    rates = (policy.sampling_rate, *policy.severity_rates.values(), *policy.pattern_rates.values())
    return min(rates) >= 1 and policy.max_logs_per_minute is None


def _differ_in_boosts_only(a: SamplingPolicy | None, b: SamplingPolicy | None) -> bool:
    """Boosts are told by themselves, whatever the policy that brings them."""
    return a is not None and b is not None and replace(a, boosts=()) == replace(b, boosts=())


def _whom(boost: Boost) -> str:
    if boost.logger is not None:
        return f"logger {boost.logger}"
    parts = [
        f"pattern {boost.signature}" if boost.signature else "",
        f"severity {boost.severity}" if boost.severity else "",
    ]
    return " at ".join(filter(None, parts)) or "all patterns"


def _last_ends(boosts: tuple[Boost, ...]) -> dict[str, float]:
    """Until when each is kept: what two boosts name is sampled again when both are over."""
    ends: dict[str, float] = {}
    for boost in boosts:
        whom = _whom(boost)
        ends[whom] = max(boost.until, ends.get(whom, boost.until))
    return ends


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%H:%M:%S UTC")
