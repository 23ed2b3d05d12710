"""
From the rows of a request to what the optimizer is told of each pattern.

Here what people have set and what is always kept comes before anything that a model says.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from lipservice.families import merge_families
from lipservice.importance import builtin_importance
from lipservice.optimizer import PatternVolume
from lipservice.planning import MAX_PATTERN_RATES
from lipservice.policy import SamplingPolicy
from lipservice.severity import severity_name
from lipservice_server.policy_engine.answer import MOST_FACTOR
from lipservice_server.policy_engine.model import DEFAULT_MEAN_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from lipservice_server.policy_engine.model import GenerationRequest, PatternRow

#: A warning is new for so long, and so long has a service to be known before anything is new in it.
NEW_FOR: Final = timedelta(hours=24)
# Share of the unprotected budget that new warnings may cost together.
_NEW_SHARE: Final = 0.2


def volumes_of(request: GenerationRequest, now: datetime) -> list[PatternVolume]:
    """
    One volume for each pattern and severity, protected where a person or its novelty says so.

    A WARNING of the last 24 hours is kept whole, in a service known for longer than that and for
    at most a fifth of the budget (the smallest first): a new failure shows itself as one.
    """
    volumes = [volume for row in request.patterns for volume in _volumes_of_row(row, request)]
    fresh = _fresh(request, volumes, now)
    return [replace(v, protected=True) if v.signature in fresh else v for v in volumes]


def unprotected_budget(volumes: Iterable[PatternVolume], request: GenerationRequest) -> float:
    """Bytes of the window that the target leaves once what is always kept has been paid for."""
    words = SamplingPolicy(patterns=request.words)
    total, paid = 0.0, 0.0
    for volume in volumes:
        total += volume.total_bytes
        if volume.always_kept or words.protects(volume.template):
            paid += volume.total_bytes
        else:
            paid += volume.total_bytes * request.pins.get(volume.signature, 0.0)
    return max(0.0, request.cost_target * total - paid)


def split_families(rows: Sequence[PatternRow]) -> dict[str, str]:
    """
    Family of each template, siblings of unlike built-in importance apart.

    All patterns have their say in what a family is, those too that need no rate, so that pinning
    one does not change the rates of its siblings.

    A family shares a rate, and so a rare "state is now failed" would get that of a frequent "state
    is now ready" if a model could make the two equally important. It may split a family further,
    but never join what the built-in rules keep apart.
    """
    families = merge_families(row.template for row in rows)
    return {row.template: f"{families[row.template]}\0{_magnitude(row)}" for row in reversed(rows)}


def judged(
    volumes: Sequence[PatternVolume],
    factors: Mapping[str, float],
    builtin: SamplingPolicy,
) -> list[PatternVolume]:
    """
    *volumes* with a model's factors, and with floors that hold it.

    No rate comes to stand below what the *builtin* policy gives it, divided by `MOST_FACTOR`. In
    the simplest case the optimum obeys this by itself (rates go with the square root of the
    weights, over a level that moves as little); the floors hold it where families are split. They
    cost a quarter of the budget, so the optimizer can always pay them.

    Above `MAX_PATTERN_RATES` signatures there are no floors: those that a policy does not name
    share one rate, which would have to be as high as the highest floor among them.
    """
    held = len({volume.signature for volume in volumes}) <= MAX_PATTERN_RATES
    return [
        replace(
            volume,
            importance=factors.get(volume.signature, 1.0),
            floor=_builtin_rate(volume, builtin) / MOST_FACTOR if held else 0.0,
        )
        for volume in volumes
    ]


def _builtin_rate(volume: PatternVolume, builtin: SamplingPolicy) -> float:
    return builtin.rate_for(volume.signature, volume.severity)


def _volumes_of_row(row: PatternRow, request: GenerationRequest) -> Iterator[PatternVolume]:
    protected = row.signature in request.protected
    for severity, share in _severity_shares(row).items():
        yield PatternVolume(
            signature=row.signature,
            template=row.template,
            severity=severity,
            count=row.count * share,
            mean_bytes=row.mean_bytes or DEFAULT_MEAN_BYTES,
            protected=protected,
        )


def _severity_shares(row: PatternRow) -> dict[str, float]:
    if not row.severity_distribution:
        return {row.severity: 1.0}
    counts: Counter[str] = Counter()
    for name, count in row.severity_distribution.items():
        counts[severity_name(name)] += count  # type: ignore[assignment]
    total = math.fsum(counts.values())
    if not total or not math.isfinite(total):
        return {row.severity: 1.0}
    return {severity: count / total for severity, count in counts.items() if count}


def _fresh(
    request: GenerationRequest, volumes: Sequence[PatternVolume], now: datetime
) -> frozenset[str]:
    dated = {row.signature: row.first_seen for row in request.patterns if row.first_seen}
    if not dated or now - min(dated.values()) <= NEW_FOR:
        return frozenset()
    new = {name for name, first_seen in dated.items() if now - first_seen <= NEW_FOR}
    found = [
        v for v in volumes if v.severity == "WARNING" and v.signature in new - set(request.pins)
    ]
    room = _NEW_SHARE * unprotected_budget(volumes, request)
    fresh: set[str] = set()
    for volume in sorted(found, key=_by_size):
        room -= volume.total_bytes
        if room < 0:
            break
        fresh.add(volume.signature)
    return frozenset(fresh)


def _by_size(volume: PatternVolume) -> tuple[float, str]:
    return volume.total_bytes, volume.signature


def _magnitude(row: PatternRow) -> int:
    return math.floor(math.log2(builtin_importance(row.template, row.severity)))
