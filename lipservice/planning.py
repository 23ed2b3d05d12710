"""
From counted patterns to a policy, and from a policy to what it is expected to keep.

    plan_policy        patterns, cost target -> SamplingPolicy
    expected_outcome   patterns, policy -> Outcome
    uniform_outcome    patterns, one rate for every record -> Outcome, for comparison
    rate_reason        why a pattern has its rate, in one sentence

Planning is for the steady state: a policy is expected to keep its share of one more window like
the one that was counted. The first `keep_first` records of a pattern, which every process keeps
whatever the rate, come on top. They are not planned for: a process that has run for a while has
spent them.

Rule of this module: pure. No clock, no randomness, no logging; the time is handed in.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import compress
from operator import not_
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from lipservice.families import merge_families
from lipservice.importance import (
    LEAST_IMPORTANCE,
    MOST_IMPORTANCE,
    builtin_importance,
    importance_reason,
)
from lipservice.optimizer import (
    Columns,
    PatternVolume,
    check_number,
    columns_of,
    dot,
    fill,
    pool,
    sum_bytes,
)
from lipservice.patterns import OVERFLOW_SIGNATURE
from lipservice.policy import DEFAULT_ANOMALY_BOOST, DEFAULT_KEEP_FIRST, Mode, SamplingPolicy
from lipservice.severity import PROTECTED_SEVERITIES, SEVERITIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

#: Rates that a policy says by name, at most: gzipped, so many stay below 200 kB.
MAX_PATTERN_RATES: Final = 14_000

#: Significant digits of a rate. Rounding down by them leaves at most 0.1 % of the budget unspent.
_DIGITS: Final = 4
_STEP: Final = 1.0 + 1e-12
#: Below this a rate is 0. (The sampler itself gives up much earlier.)
_LEAST_RATE: Final = 1e-100
#: Share of the unprotected budget that may go into keeping every pattern visible.
_VISIBLE_SHARE: Final = 0.5
#: Share of the target that is left to unprotected patterns even where protected ones exceed it:
#: a storm of errors must not silence what explains it.
_RESERVED_SHARE: Final = 0.1
#: Variance of a binomial variable above which the normal approximation is good to 0.4 %.
_NORMAL_VARIANCE: Final = 20.0
#: A name that no policy gives a rate.
_NO_SIGNATURE: Final = "\0"
#: Severities that rates apply to, least severe first.
_RATED: Final = tuple(s for s in SEVERITIES if s not in PROTECTED_SEVERITIES)


def plan_policy(
    patterns: Sequence[PatternVolume],
    cost_target: float,
    *,
    policy_id: str,
    importance: Mapping[str, float] | None = None,
    families: Mapping[str, str] | None = None,
    pinned: Mapping[str, float] | None = None,
    patterns_words: Sequence[str] = (),
    keep_visible: float = 1.0,
    max_pattern_rates: int = MAX_PATTERN_RATES,
    version: int | None = None,
    keep_first: int = DEFAULT_KEEP_FIRST,
    max_logs_per_minute: int | None = None,
    anomaly_boost: float = DEFAULT_ANOMALY_BOOST,
    mode: Mode = "active",
    generated_by: str = "builtin",
    summary: str = "",
    created_at: str | None = None,
) -> SamplingPolicy:
    """
    Make the policy that keeps a share of the bytes and tells the most about the patterns.

    What is kept whatever the rate (ERROR and above, protected patterns) and what a person has
    pinned is paid for first; the optimizer spends the rest (see `lipservice.optimizer`).

    - **Families** (see `lipservice.families`) share one rate, so far as their members are of like
      importance (within a factor of two): "state is now failed" is not thinned at the rate that
      "state is now ready" has earned.
    - **Floors** keep every family visible: *keep_visible* records expected in a window, scaled
      down together if that would cost more than half of what is there to spend. Even where
      protected records alone exceed the target, a tenth of the target goes to the others.
    - **A severity's rate** is for patterns that the policy does not name, above all for those
      not seen yet. It is the share of the severity's bytes that is kept on average, so a new
      pattern leaves the kept share as it is (its first records are kept by `keep_first`), and
      never lower than that of a less severe one. A severity without any records gets the average
      over all, WARNING 1.
    - **Size.** At most *max_pattern_rates* signatures are named. If there are more, those are
      named for which it matters most, and the severity's rate becomes the best one for the
      rest. The same is done for the overflow bucket (signature "overflow"), which is taken for as
      many equal patterns as the severity has names.
    - Rates are rounded down, hence keep within the budget, but never below a pattern's own floor.

    Args:
        patterns: What was counted in a window; the same signature may come once per severity.
        cost_target: Share of the bytes to keep, 0 to 1.
        policy_id: Name of the policy.
        importance: Importance by signature, bounded to 0.1 to 10; the built-in rules for those
            that are not named. A pattern's own `importance` (normally 1) multiplies it.
        families: What `merge_families` answers for the templates; None: it is asked.
        pinned: Rates by signature that a person has set, 0 to 1; they win over everything but
            ERROR and protecting words.
        patterns_words: Words that protect a pattern whose template holds one of them.
        keep_visible: Records of every family that should be kept in a window, at least 0.
        max_pattern_rates: Signatures that the policy may name.
        version: Of the policy.
        keep_first: Of the policy.
        max_logs_per_minute: Of the policy.
        anomaly_boost: Of the policy.
        mode: Of the policy.
        generated_by: Of the policy.
        summary: What to say first in the reasoning, for instance an LLM's own summary.
        created_at: ISO 8601 time, of the policy.

    Raises:
        ConfigurationError: *cost_target*, *keep_visible* or a pinned rate is out of its range.

    Thread-safe: pure, and the same for the same set of patterns. 100,000 patterns take about a
    second, and most of another if their families have yet to be merged
    (contrib/benchmarks/optimizer.py).
    """
    check_number(cost_target, "cost_target", most=1.0)
    check_number(keep_visible, "keep_visible")
    words = tuple(patterns_words)
    draft = SamplingPolicy(
        policy_id=policy_id,
        version=version,
        patterns=words,
        max_logs_per_minute=max_logs_per_minute,
        pattern_rates=_set_by_hand(patterns, pinned or {}, SamplingPolicy(patterns=words)),
        anomaly_boost=anomaly_boost,
        keep_first=keep_first,
        mode=mode,
        generated_by=generated_by,
        created_at=created_at,
    )
    target = cost_target * sum_bytes(patterns)
    fixed, rated = _split(patterns, draft)
    paid = dot([pattern.total_bytes for pattern in fixed], _rates_under(draft, fixed))
    groups = _group(rated, importance or {}, families)
    budget = max(target - paid, _RESERVED_SHARE * target)
    groups = _keep_visible(groups, keep_visible, _VISIBLE_SHARE * budget)
    solution = _solve_within(groups, budget, max_pattern_rates)
    severity_rates = _severity_rates(groups, solution, cost_target)
    pattern_rates = _pattern_rates(groups, solution, severity_rates)
    policy = replace(
        draft,
        severity_rates=MappingProxyType(severity_rates),
        pattern_rates=MappingProxyType({**pattern_rates, **draft.pattern_rates}),
    )
    outcome = expected_outcome(patterns, policy)
    return replace(
        policy,
        sampling_rate=_round_down(outcome.kept_share if outcome.bytes else cost_target),
        reasoning=f"{summary.strip()} {_reasoning(outcome, policy, target, paid)}".strip(),
    )


def _set_by_hand(
    patterns: Sequence[PatternVolume], pinned: Mapping[str, float], words: SamplingPolicy
) -> Mapping[str, float]:
    """Pins, and the protected patterns that no word protects anyway."""
    for signature, rate in pinned.items():
        check_number(rate, f"the pinned rate of {signature!r:.40}", most=1.0)
    protected = {
        pattern.signature: 1.0
        for pattern in patterns
        if pattern.protected
        and pattern.severity not in PROTECTED_SEVERITIES
        # The overflow bucket holds many patterns; that some are protected says nothing of others.
        and pattern.signature != OVERFLOW_SIGNATURE
        and not words.protects(pattern.template)
    }
    return MappingProxyType({**pinned, **protected})


def _split(
    patterns: Sequence[PatternVolume], draft: SamplingPolicy
) -> tuple[list[PatternVolume], list[PatternVolume]]:
    """What has its rate already, and what the optimizer finds one for."""
    by_hand = draft.pattern_rates
    has_words = bool(draft.patterns)
    is_fixed = [
        pattern.severity in PROTECTED_SEVERITIES
        or pattern.protected
        or pattern.signature in by_hand
        or (has_words and draft.protects(pattern.template))
        for pattern in patterns
    ]
    fixed = list(compress(patterns, is_fixed))
    rated = list(compress(patterns, map(not_, is_fixed)))
    return fixed, [pattern for pattern in rated if pattern.count or pattern.floor]


def _rates_under(policy: SamplingPolicy, patterns: Sequence[PatternVolume]) -> list[float]:
    """The rate of each of *patterns*, words and severities reckoned with."""
    if policy.patterns:
        return [_rate_under(policy, pattern) for pattern in patterns]
    named = policy.pattern_rates
    unnamed = {severity: policy.rate_for(_NO_SIGNATURE, severity) for severity in SEVERITIES}
    return [
        policy.rate_for(pattern.signature, pattern.severity)
        if pattern.signature in named
        else unnamed[pattern.severity]
        for pattern in patterns
    ]


def _rate_under(policy: SamplingPolicy, pattern: PatternVolume) -> float:
    if policy.protects(pattern.template):
        return 1.0
    if pattern.protected and pattern.signature == OVERFLOW_SIGNATURE:
        return 1.0  # protected one by one, when they were seen
    return policy.rate_for(pattern.signature, pattern.severity)


class _Cells(NamedTuple):
    """The records of one severity in columns; a row is one signature."""

    signatures: list[str]
    #: Number of the row's group.
    groups: list[int]
    bytes: list[float]
    #: Of the stake of its group the part that is this row's.
    stakes: list[float]


class _Groups(NamedTuple):
    """What is to get a rate: groups of signatures that share one."""

    columns: Columns
    stakes: list[float]
    #: Number of signatures of each group.
    sizes: list[int]
    #: Least rates that the caller has asked for; those in `columns` may be higher.
    floors: list[float]
    #: The same volumes by severity.
    cells: dict[str, _Cells]
    #: What the overflow bucket of each severity holds.
    overflow: dict[str, _Crowd]


def _group(
    rated: Sequence[PatternVolume],
    importance: Mapping[str, float],
    families: Mapping[str, str] | None,
) -> _Groups:
    known = [pattern for pattern in rated if pattern.signature != OVERFLOW_SIGNATURE]
    signatures = [pattern.signature for pattern in known]
    cells = columns_of(known, [_weight(pattern, importance) for pattern in known])
    rows, pools = pool(cells, signatures)
    # In the order of the pools, as a dict's order is that of the first insertions.
    templates = dict(zip(signatures, (pattern.template for pattern in known), strict=True))
    keys = _group_keys(templates, pools, families)
    group_of_row, columns = pool(pools, keys)
    groups = [group_of_row[row] for row in rows]
    sizes = Counter(group_of_row)
    stakes = columns.stakes()
    shares = [
        stakes[group] * size / columns.bytes[group] if size else 0.0
        for group, size in zip(groups, cells.bytes, strict=True)
    ]
    by_severity = _by_severity(known, _Cells(signatures, groups, cells.bytes, shares))
    return _Groups(
        columns=columns,
        stakes=stakes,
        sizes=[sizes[group] for group in range(len(sizes))],
        floors=columns.floors,
        cells=by_severity,
        overflow=_overflow(rated, by_severity),
    )


def _weight(pattern: PatternVolume, importance: Mapping[str, float]) -> float:
    weight = importance.get(pattern.signature) if importance else None
    if weight is None:
        return builtin_importance(pattern.template, pattern.severity) * pattern.importance
    return min(max(weight, LEAST_IMPORTANCE), MOST_IMPORTANCE) * pattern.importance


def _group_keys(
    templates: Mapping[str, str], signatures: Columns, families: Mapping[str, str] | None
) -> list[int]:
    """For each signature a number that stands for its family and its importance's power of two."""
    if families is None:
        families = merge_families(templates.values())
    numbers: dict[str, int] = {}
    keys = []
    for (signature, template), weight, count in zip(
        templates.items(), signatures.weights, signatures.counts, strict=True
    ):
        family = families.get(template, template) if template else signature
        power = math.frexp(weight / count * _STEP if count else 1.0)[1]  # within +-1100
        keys.append(4096 * numbers.setdefault(family, len(numbers)) + power)
    return keys


def _by_severity(known: Sequence[PatternVolume], cells: _Cells) -> dict[str, _Cells]:
    rows: dict[str, list[int]] = {severity: [] for severity in _RATED}
    for row, pattern in enumerate(known):
        rows[pattern.severity].append(row)
    return {
        severity: _Cells(
            [cells.signatures[row] for row in chosen],
            [cells.groups[row] for row in chosen],
            [cells.bytes[row] for row in chosen],
            [cells.stakes[row] for row in chosen],
        )
        for severity, chosen in rows.items()
    }


class _Crowd(NamedTuple):
    """All records of one severity whose rate is the severity's, as one row of `fill`."""

    bytes: float
    stake: float
    floor: float
    #: The highest rate that a caller has asked for as the least one.
    asked: float


def _overflow(rated: Sequence[PatternVolume], cells: Mapping[str, _Cells]) -> dict[str, _Crowd]:
    """
    The overflow buckets, each taken for as many equal patterns as its severity has names.

    Of *m* patterns with n / m records each has the stake w m / n; together they have w m^2 / n.
    """
    overflow = {}
    for pattern in rated:
        if pattern.signature == OVERFLOW_SIGNATURE and pattern.count:
            many = max(len(cells[pattern.severity].bytes), 1)
            # The template of the bucket says nothing of what is in it.
            weight = builtin_importance("", pattern.severity) * pattern.importance
            overflow[pattern.severity] = _Crowd(
                bytes=pattern.total_bytes,
                stake=weight * many * many / pattern.count,
                floor=pattern.floor,
                asked=pattern.floor,
            )
    return overflow


def _keep_visible(groups: _Groups, records: float, affordable: float) -> _Groups:
    """Raise the floors so that *records* of every group are kept, for *affordable* bytes in all."""
    columns = groups.columns
    wanted = [min(1.0, records / count) if count else 0.0 for count in columns.counts]
    cost = dot(columns.bytes, wanted)
    scale = min(1.0, affordable / cost) if cost else 0.0
    floors = [max(f, scale * w) for f, w in zip(columns.floors, wanted, strict=True)]
    return groups._replace(columns=columns._replace(floors=floors))


class _Solution(NamedTuple):
    #: Rate of each group; None: it is not named, and has the rate of its severity.
    rates: list[float | None]
    #: Rate of each severity at which something is not named.
    crowds: dict[str, float]
    #: By how much one more byte of budget would lower the objective.
    price: float


def _solve_within(groups: _Groups, budget: float, limit: int) -> _Solution:
    """
    Solve with at most *limit* signatures that have a rate of their own.

    Which groups are best named depends on the price of a byte and on the rates of the severities,
    and these on what is named. So the largest are named first, then those that would lose most;
    naming once more was found to change little.
    """
    if sum(groups.sizes) <= limit:
        return _solve(groups, [True] * len(groups.sizes), budget)
    largest = _most_valuable(groups.columns.bytes, groups.sizes, limit)
    losses = _losses(groups, _solve(groups, largest, budget))
    return _solve(groups, _most_valuable(losses, groups.sizes, limit), budget)


def _solve(groups: _Groups, named: Sequence[bool], budget: float) -> _Solution:
    """Solve with one rate for each group that is *named* and one a severity for all others."""
    columns = groups.columns
    crowds = _crowds(groups, named)
    filling = fill(
        [*compress(columns.bytes, named), *(crowd.bytes for crowd in crowds.values())],
        [*compress(groups.stakes, named), *(crowd.stake for crowd in crowds.values())],
        [*compress(columns.floors, named), *(crowd.floor for crowd in crowds.values())],
        budget,
    )
    found = iter(filling.rates)
    rates = [next(found) if is_named else None for is_named in named]
    crowd_rates = {
        severity: max(_round_down(rate), crowd.asked)
        for (severity, crowd), rate in zip(crowds.items(), found, strict=True)
    }
    return _Solution(rates, crowd_rates, filling.multiplier)


def _crowds(groups: _Groups, named: Sequence[bool]) -> dict[str, _Crowd]:
    crowds = {}
    for severity, cells in groups.cells.items():
        nameless = [not named[group] for group in cells.groups]
        overflow = groups.overflow.get(severity)
        if overflow or any(nameless):
            crowds[severity] = _crowd(
                groups, cells, nameless, overflow or _Crowd(0.0, 0.0, 0.0, 0.0)
            )
    return crowds


def _crowd(groups: _Groups, cells: _Cells, nameless: Sequence[bool], overflow: _Crowd) -> _Crowd:
    sizes = list(compress(cells.bytes, nameless))
    numbers = list(compress(cells.groups, nameless))
    total = math.fsum(sizes) + overflow.bytes
    # As many bytes as the floors would keep, and no rate below one that a caller has asked for.
    visible = dot(sizes, [groups.columns.floors[number] for number in numbers])
    asked = max([overflow.asked, *(groups.floors[number] for number in numbers)])
    return _Crowd(
        bytes=total,
        stake=math.fsum(compress(cells.stakes, nameless)) + overflow.stake,
        floor=min(1.0, max(visible / total if total else 0.0, asked)),
        asked=asked,
    )


def _losses(groups: _Groups, solution: _Solution) -> list[float]:
    """
    What every group, for each of its signatures, loses by having no name.

    At the price k of a byte a group of cost c and stake a would best have the rate
    r = sqrt(a / (c k)) within its bounds. By its severity's rate d it loses
    a/d + k c d - (a/r + k c r).
    """
    price = solution.price
    if not 0.0 < price < math.inf:
        return list(groups.columns.bytes)  # all rates are bounds; the large groups matter most
    return [
        0.0
        if not c
        else math.inf
        if d < floor
        else (a / d - a / r + price * c * (d - r)) / size
        if d and (r := min(1.0, max(floor, math.sqrt(a / c / price))))
        else c / size
        for c, a, floor, size, d in zip(
            groups.columns.bytes,
            groups.stakes,
            groups.floors,
            groups.sizes,
            _nameless_rates(groups, solution),
            strict=True,
        )
    ]


def _nameless_rates(groups: _Groups, solution: _Solution) -> list[float]:
    """The rate that each group has without a name, by the largest of its cells."""
    rates = [1.0] * len(groups.sizes)
    most = [0.0] * len(groups.sizes)
    for severity, cells in groups.cells.items():
        rate = solution.crowds.get(severity, 1.0)
        for group, size in zip(cells.groups, cells.bytes, strict=True):
            if size > most[group]:
                most[group], rates[group] = size, rate
    return rates


def _most_valuable(values: Sequence[float], sizes: Sequence[int], limit: int) -> list[bool]:
    """The groups of the highest values, as many as have *limit* signatures in all."""
    chosen = [False] * len(values)
    for group in sorted(range(len(values)), key=values.__getitem__, reverse=True):
        if limit <= 0 or values[group] <= 0.0:
            break
        if sizes[group] <= limit:
            limit -= sizes[group]
            chosen[group] = True
    return chosen


def _severity_rates(groups: _Groups, solution: _Solution, cost_target: float) -> dict[str, float]:
    """The rates of patterns that are not named, by severity."""
    volumes = {severity: _volume(groups, solution, severity) for severity in _RATED}
    total = sum(size for size, _ in volumes.values())
    average = sum(kept for _, kept in volumes.values()) / total if total else cost_target
    rates: dict[str, float] = {}
    least = 0.0
    for severity, (size, kept) in volumes.items():
        if severity in solution.crowds:
            rate = solution.crowds[severity]
        elif size:
            rate = max(least, _round_down(kept / size))
        else:  # a warning where there were none is news
            rate = 1.0 if severity == "WARNING" else max(least, _round_down(average))
        rates[severity] = rate
        least = max(least, rate)
    return {**rates, **dict.fromkeys(sorted(PROTECTED_SEVERITIES), 1.0)}


def _volume(groups: _Groups, solution: _Solution, severity: str) -> tuple[float, float]:
    """Bytes of a severity, and those that are kept."""
    cells = groups.cells[severity]
    crowd = solution.crowds.get(severity, 0.0)
    rates = [solution.rates[group] for group in cells.groups]
    overflow = groups.overflow[severity].bytes if severity in groups.overflow else 0.0
    kept = dot(cells.bytes, [crowd if rate is None else rate for rate in rates])
    return math.fsum(cells.bytes) + overflow, kept + crowd * overflow


def _pattern_rates(
    groups: _Groups, solution: _Solution, severity_rates: Mapping[str, float]
) -> dict[str, float]:
    """The rates that differ from their severity's."""
    rates = {}
    for severity, cells in groups.cells.items():
        default = severity_rates[severity]
        for signature, group in zip(cells.signatures, cells.groups, strict=True):
            exact = solution.rates[group]
            if exact is not None:
                rate = max(_round_down(exact), groups.floors[group])
                if rate != default:
                    rates[signature] = rate
    return dict(sorted(rates.items()))


def _round_down(rate: float) -> float:
    """
    *rate* to four significant digits, towards zero.

    Rounding errors are stepped over: which way a sum was added up must not show.
    """
    if not _LEAST_RATE < rate < 1.0:
        return 1.0 if rate >= 1.0 else 0.0
    scale = 10.0 ** (_DIGITS - 1 - math.floor(math.log10(rate)))
    return math.floor(rate * scale * _STEP) / scale


@dataclass(frozen=True, slots=True)
class Outcome:
    """What rates are expected to keep of a window like the one that was counted. Immutable."""

    #: Patterns that have records.
    patterns: int
    records: float
    bytes: float
    kept_records: float
    kept_bytes: float
    #: Expected number of patterns of which at least one record is kept: sum of 1 - (1 - r)^n.
    visible_patterns: float
    #: Expected relative error of a pattern's estimated count, |estimate - n| / n, averaged over
    #: the patterns; the estimate is the sum of the kept records' weights.
    mean_error: float

    @property
    def kept_share(self) -> float:
        """Share of the bytes that is kept, 0 to 1; 1 where there are none."""
        return self.kept_bytes / self.bytes if self.bytes else 1.0

    @property
    def visible_share(self) -> float:
        """Share of the patterns that stays visible, 0 to 1; 1 where there are none."""
        return self.visible_patterns / self.patterns if self.patterns else 1.0


def expected_outcome(patterns: Sequence[PatternVolume], policy: SamplingPolicy) -> Outcome:
    """
    What *policy* is expected to keep of *patterns*, in the steady state (see the module's text).

    Every record is kept or dropped by itself, at the rate of the policy for its signature and
    severity; a boost and `max_logs_per_minute` are not reckoned with.

    Thread-safe: pure.
    """
    return _outcome(patterns, _rates_under(policy, patterns))


def uniform_outcome(patterns: Sequence[PatternVolume], rate: float) -> Outcome:
    """
    What keeping every record with the probability *rate* would come to, for comparison.

    With the `kept_share` of an `Outcome` for *rate*, both keep the same volume. No pattern and no
    severity is protected here.

    Raises:
        ConfigurationError: *rate* is not between 0 and 1.

    Thread-safe: pure.
    """
    check_number(rate, "rate", most=1.0)
    return _outcome(patterns, [rate] * len(patterns))


def _outcome(patterns: Sequence[PatternVolume], rates: Sequence[float]) -> Outcome:
    counts = [pattern.count for pattern in patterns]
    sizes = [pattern.count * pattern.mean_bytes for pattern in patterns]
    names = [pattern.signature for pattern in patterns]
    often = {name for name, cells in Counter(names).items() if cells > 1}
    # Most signatures have one severity, and many of them the same few counts and rates.
    alone = Counter(
        cell
        for name, cell in zip(names, zip(counts, rates, strict=True), strict=True)
        if cell[0] and name not in often
    )
    losses = [(number, _loss(*cell)) for cell, number in alone.items()]
    losses += [(1, loss) for loss in _joint_losses(names, counts, rates, often)]
    patterns_seen = sum(number for number, _ in losses)
    error = math.fsum(number * loss.error for number, loss in losses)
    return Outcome(
        patterns=patterns_seen,
        records=math.fsum(counts),
        bytes=math.fsum(sizes),
        kept_records=dot(counts, rates),
        kept_bytes=dot(sizes, rates),
        visible_patterns=patterns_seen - math.fsum(number * loss.missed for number, loss in losses),
        mean_error=error / patterns_seen if patterns_seen else 0.0,
    )


class _Loss(NamedTuple):
    """What sampling does to what is known of one pattern."""

    #: Probability that no record is kept.
    missed: float
    #: Mean relative error of the estimated count.
    error: float


def _loss(count: float, rate: float) -> _Loss:
    if rate >= 1.0:
        return _Loss(0.0, 0.0)
    return _Loss((1.0 - rate) ** count, relative_error(count, rate))


def _joint_losses(
    names: Sequence[str], counts: Sequence[float], rates: Sequence[float], often: AbstractSet[str]
) -> list[_Loss]:
    """
    The losses of the signatures *often*, which have several severities.

    Their severities' errors are added up like standard deviations, which is an approximation.
    """
    totals: dict[str, tuple[float, float, float]] = {}
    for name, count, rate in zip(names, counts, rates, strict=True):
        if name in often and count:
            loss = _loss(count, rate)
            records, missed, square = totals.get(name, (0.0, 1.0, 0.0))
            square += (count * loss.error) ** 2
            totals[name] = (records + count, missed * loss.missed, square)
    return [
        _Loss(missed, math.sqrt(square) / records) for records, missed, square in totals.values()
    ]


def relative_error(count: float, rate: float) -> float:
    """
    Mean of |estimate - count| / count, where *count* records are kept with probability *rate*.

    The estimate is (records kept) / rate. The mean absolute deviation of a binomial variable is
    2 m C(n, m) p^m (1 - p)^(n - m + 1) with m = floor(n p) + 1 (de Moivre 1730; see P. Diaconis and
    S. Zabell, "Closed form summation for classical distributions", Statistical Science 6, 1991).
    Where its variance is large, the normal distribution's sqrt(2 / pi) of the standard deviation
    is used.

    Args:
        count: Records; rounded to a whole number, at least 1.
        rate: 0 to 1; at 0 nothing is kept, the estimate is 0 and the error 1.
    """
    if rate >= 1.0:
        return 0.0
    if rate <= 0.0:
        return 1.0
    n = max(round(count), 1)
    # What is kept is as far off as what is dropped; the rarer of the two keeps m small.
    p = min(rate, 1.0 - rate)
    mean = n * p
    if mean * (1.0 - p) > _NORMAL_VARIANCE:
        return math.sqrt(2.0 / math.pi * mean * (1.0 - p)) / (n * rate)
    m = math.floor(mean) + 1
    if m == 1:
        return 2.0 * mean * math.exp(n * math.log1p(-p)) / (n * rate)
    logarithm = math.log(m * math.comb(n, m)) + m * math.log(p) + (n - m + 1) * math.log1p(-p)
    return 2.0 * math.exp(logarithm) / (n * rate)


def _reasoning(outcome: Outcome, policy: SamplingPolicy, target: float, paid: float) -> str:
    if not outcome.bytes:
        return "Nothing has been counted yet; every pattern has the rate of its severity."
    rates = policy.pattern_rates.values()
    thinned = sum(rate < 1.0 for rate in rates)
    words = [
        f"To keep {_percent(target / outcome.bytes)} of {outcome.bytes:,.0f} bytes "
        f"({outcome.records:,.0f} records, {outcome.patterns:,} patterns).",
        f"ERROR and above, and what is protected or pinned, take "
        f"{_percent(paid / outcome.bytes)} first; the rest is spent so that the counts of the "
        "patterns that matter are known best.",
        f"Of {len(rates):,} named patterns {len(rates) - thinned:,} are kept in full and "
        f"{thinned:,} thinned, the most to {_percent(min(rates, default=1.0))}.",
        f"Expected: {_percent(outcome.kept_share)} of the bytes, "
        f"{_percent(outcome.kept_records / outcome.records)} of the records, "
        f"{_percent(outcome.visible_share)} of the patterns visible, their counts "
        f"{_percent(outcome.mean_error)} off on average.",
    ]
    if outcome.kept_bytes > target * (1.0 + 1e-9):
        words.append(
            "The target cannot be met: what is kept whatever the rate takes too much of it; "
            "the other patterns are at their least rates."
        )
    return " ".join(words)


def rate_reason(
    pattern: PatternVolume, policy: SamplingPolicy, importance: float | None = None
) -> str:
    """
    Why *pattern* has its rate under *policy*, in one sentence for people.

    Args:
        pattern: The pattern at one severity.
        policy: The policy.
        importance: What the pattern was given; None: the built-in importance.

    Thread-safe: pure.
    """
    if pattern.severity in PROTECTED_SEVERITIES:
        return "Kept: ERROR and above always is."
    if policy.protects(pattern.template):
        return "Kept: its template holds a word that the policy protects."
    rate = policy.rate_for(pattern.signature, pattern.severity)
    if pattern.signature not in policy.pattern_rates:
        return f"{_percent(rate)}, the rate of {pattern.severity}: the policy does not name it."
    if importance is None:
        importance = builtin_importance(pattern.template, pattern.severity)
        why = importance_reason(pattern.template, pattern.severity)
    else:
        why = pattern.severity
    return (
        f"{_percent(rate)}, about {pattern.count * rate:,.0f} of {pattern.count:,.0f} records: "
        f"importance {importance:.2g}, as {why}."
    )


def _percent(share: float) -> str:
    return f"{100.0 * share:.3g} %"
