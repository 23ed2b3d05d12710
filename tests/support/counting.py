"""The least engine that a refresher can serve: counts by signature, exactly, and keeps a policy."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from lipservice._fork import on_fork
from lipservice.policy import SamplingPolicy

SEEN = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Counts:
    """One pattern's counts; the same fields as lipservice.patterns.PatternStats."""

    signature: str
    count: int
    template: str = "user <*> logged in"
    kept: int = 1
    bytes: int = 100
    severity_distribution: Mapping[str, int] = field(default_factory=lambda: {"INFO": 1})
    first_seen: datetime = SEEN
    last_seen: datetime = SEEN
    sampling_rate: float = 0.1


class CountingEngine:
    """Thread-safe; a forked child starts from nothing."""

    def __init__(self) -> None:
        self.policies: list[SamplingPolicy] = []
        self.drains = 0
        self._reset_after_fork()
        on_fork(self)

    def _reset_after_fork(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    @property
    def policy(self) -> SamplingPolicy | None:
        return self.policies[-1] if self.policies else None

    def count(self, signature: str, times: int = 1) -> None:
        with self._lock:
            self._counts[signature] = self._counts.get(signature, 0) + times

    def waiting(self) -> int:
        return sum(self._counts.values())

    def apply_policy(self, policy: SamplingPolicy) -> None:
        self.policies.append(policy)

    def drain(self) -> list[Counts]:
        self.drains += 1
        with self._lock:
            counts, self._counts = self._counts, {}
        return [Counts(signature, count) for signature, count in counts.items()]
