"""
Local mode: the process makes its own policies from its own counts, for a share of bytes.

The optimizer is the server's (`lipservice.planning`); what is added here is when to plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Final

from lipservice.optimizer import PatternVolume
from lipservice.patterns import OVERFLOW_SIGNATURE, OVERFLOW_TEMPLATE, Cell
from lipservice.planning import plan_policy
from lipservice.policy import SamplingPolicy
from lipservice.signature import template_of_key

#: Records that must have been seen before rates are made of them.
LEAST_RECORDS: Final = 100

_FIRST_PAUSE: Final = 1.0


class LocalPlanner:
    """
    Plans soon after the start, then less and less often, at last every *interval* seconds.

    Args:
        cost_target: Share of the bytes to keep, above 0, at most 1.
        like: What the policies say besides rates: words, keep_first, limit, mode, boost.
        interval: Most seconds between two plans.
        now: Seconds since the epoch.
    """

    def __init__(
        self,
        cost_target: float,
        like: SamplingPolicy,
        interval: float,
        now: Callable[[], float],
    ) -> None:
        self._cost_target = cost_target
        self._like = like
        self._interval = interval
        self._now = now
        self._pause = min(_FIRST_PAUSE, interval)
        self._plans = 0

    def plan(self, volumes: Sequence[tuple[Cell, float]]) -> SamplingPolicy | None:
        """A policy for what was counted; None while that is too little."""
        if sum(volume for _, volume in volumes) < LEAST_RECORDS:
            return None
        self._plans += 1
        like = self._like
        return plan_policy(
            [_volume_of(cell, volume) for cell, volume in volumes],
            self._cost_target,
            policy_id="local",
            version=self._plans,
            patterns_words=like.patterns,
            keep_first=like.keep_first,
            max_logs_per_minute=like.max_logs_per_minute,
            anomaly_boost=like.anomaly_boost,
            mode=like.mode,
            created_at=datetime.fromtimestamp(self._now(), timezone.utc).isoformat(),
        )

    def next_pause(self) -> float:
        """Seconds until the next plan; doubles up to the interval."""
        pause, self._pause = self._pause, min(self._interval, 2.0 * self._pause)
        return pause


def _volume_of(cell: Cell, volume: float) -> PatternVolume:
    overflow = cell.signature == OVERFLOW_SIGNATURE
    return PatternVolume(
        signature=cell.signature,
        template=OVERFLOW_TEMPLATE if overflow else template_of_key(cell.key),
        severity=cell.table.severity,
        count=volume,
        mean_bytes=max(1.0, cell.mean_size()),
        protected=cell.protected,
    )
