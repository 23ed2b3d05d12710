"""
The rules of a decision, written down plainly: what DESIGN.md says and nothing that is fast.

Time and random numbers are inputs. Nothing is imported from the product but the signature (it has
a reference of its own) and the policy, which is data. One process, one thread, no bound on memory.

The product keeps or drops by counting down a gap; here every record gets a draw of its own. So
the two can be compared in three ways: exactly, draw by draw, where the product draws for each
record too (its locked path); exactly, where rates are 0 or 1; and record by record in what the
probability is and which rule gave it (`verdict`), whoever drew.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from lipservice.signature import compute_signature, compute_template

PROTECTED = {"ERROR", "CRITICAL"}
LEAST_RATE = 1e-12  # below it a rate is none

BOOST = 60.0  # seconds that a boost lasts
LEARNING = 60.0  # seconds before the first boost
COOL_DOWN = 600.0  # seconds between two boosts for volume alone
MEMORY = 600.0  # time constant of the counts that a jump is measured against


@dataclass(frozen=True)
class Verdict:
    """With what probability the next record is kept, and why."""

    rule: str
    rate: float
    #: A further probability, of the limit's guard; 1 where no limit has a say.
    chance: float = 1.0

    @property
    def probability(self):
        return self.rate * self.chance


@dataclass
class Pattern:
    """What is known of one pattern at one severity."""

    born: float
    message: str
    template: str
    protected: bool = False
    seen: int = 0
    kept: int = 0
    capped: int = 0
    let_pass: int = 0
    at_last_tick: int = 0
    at_last_drain: int = 0
    #: (time of a tick, records counted by it)
    history: list = field(default_factory=list)
    boosted_until: float | None = None


class Reference:
    """Decides as the product should; `clock` gives the time, `draw` numbers in [0, 1)."""

    def __init__(self, policy, clock, draw):
        self.policy = policy
        self.clock = clock
        self.draw = draw
        self.patterns: dict[tuple[str, str], Pattern] = {}
        self.begun = clock()
        self.ticked = clock()
        self.kept_at: list[int] = []  # the seconds of what the limit counts
        self.scale = 1.0
        self.errors: list[tuple[float, int]] = []
        self.others: list[tuple[float, int]] = []
        self.boost_until = -math.inf
        self.cool_until = -math.inf

    # ------------------------------------------------------------------ one record

    def pattern(self, message, severity):
        key = (severity, compute_signature(message))
        if key not in self.patterns:
            self.patterns[key] = Pattern(self.clock(), message, compute_template(message))
            self.patterns[key].protected = self.is_protected(self.patterns[key].template)
        return self.patterns[key]

    def verdict(self, message, severity):
        """Probability and rule for the next record of this message; changes nothing."""
        policy, pattern = self.policy, self.pattern(message, severity)
        if severity in PROTECTED:
            return Verdict("error", 1.0)
        if policy is None:
            return Verdict("rate", 1.0)
        if pattern.protected:
            return Verdict("protected", 1.0)
        if pattern.seen < policy.keep_first:
            return Verdict("first", 1.0)
        signature = compute_signature(message)
        if signature in policy.pattern_rates:
            rate = policy.pattern_rates[signature]
        elif severity in policy.severity_rates:
            rate = policy.severity_rates[severity]
        else:
            rate = policy.sampling_rate
        if self.boost_until > self.ticked or pattern.boosted_until is not None:
            rate = min(1.0, rate * policy.anomaly_boost)
        return Verdict("rate", rate * self.scale, self.chance())

    def is_protected(self, template):
        """Whole word, any case: nothing of a word before it or after it."""
        text = template.lower()
        for word in self.policy.patterns if self.policy else ():
            for found in re.finditer(re.escape(word.lower()), text):
                before = text[found.start() - 1 : found.start()] if found.start() else ""
                after = text[found.end() : found.end() + 1]
                if not re.match(r"\w", before) and not re.match(r"\w", after):
                    return True
        return False

    def chance(self):
        """By the room that is left: below half of the limit, its double's third power."""
        limit = self.policy.max_logs_per_minute
        if limit is None:
            return 1.0
        now = int(self.clock())
        taken = sum(1 for second in self.kept_at if now - second <= 60)
        room = limit - taken
        return min(1.0, (2 * room / limit) ** 3) if room > 0 else 0.0

    def decide(self, message, severity):
        """Decide about one record by drawing, as (passes, verdict, weight)."""
        verdict = self.verdict(message, severity)
        outcome = "kept"
        if verdict.rule == "rate":
            if verdict.rate <= LEAST_RATE or self.draw() >= verdict.rate:
                outcome = "dropped"
            elif verdict.chance < 1.0 and self.draw() >= verdict.chance:
                outcome = "capped"
        return self.note(message, severity, verdict, outcome)

    def note(self, message, severity, verdict, outcome):
        """Count one record with its outcome, whoever decided it."""
        pattern = self.pattern(message, severity)
        pattern.seen += 1
        shadow = self.policy is not None and self.policy.mode == "shadow"
        if outcome == "kept":
            pattern.kept += 1
            self.count_for_the_limit(verdict)
        elif outcome == "capped":
            pattern.capped += 1
        if outcome != "kept" and shadow:
            pattern.let_pass += 1
        weight = 1.0 if shadow or outcome != "kept" else 1.0 / verdict.probability
        return outcome == "kept" or shadow, verdict, weight

    def count_for_the_limit(self, verdict):
        limited = self.policy is not None and self.policy.max_logs_per_minute is not None
        if limited and verdict.rule in {"rate", "first"}:
            now = int(self.clock())
            self.kept_at = [second for second in self.kept_at if now - second <= 60]
            self.kept_at.append(now)

    # ------------------------------------------------------------------ from time to time

    def apply_policy(self, policy):
        self.policy = policy
        for pattern in self.patterns.values():
            pattern.protected = self.is_protected(pattern.template)
        if policy is None or policy.max_logs_per_minute is None:
            self.kept_at.clear()
            self.scale = 1.0

    def tick(self):
        now = self.clock()
        elapsed = now - self.ticked
        if elapsed <= 0:
            return
        age = now - self.begun
        errors = others = 0
        kept_per_second = 0.0
        for (severity, _), pattern in self.patterns.items():
            count = pattern.seen - pattern.at_last_tick
            if severity in PROTECTED:
                errors += count
                self._remember(pattern, now, count)
                continue
            others += count
            if not pattern.protected:
                kept_per_second += self._unscaled_rate(severity, pattern) * count / elapsed
            known_for = now - pattern.born
            due = elapsed * per_second(pattern.history, self.ticked, known_for, elapsed)
            if age >= LEARNING and known_for >= LEARNING and count and is_jump(count, due):
                pattern.boosted_until = now + BOOST
            elif pattern.boosted_until is not None and pattern.boosted_until <= now:
                pattern.boosted_until = None
            self._remember(pattern, now, count)
        self._watch_service(now, elapsed, age, errors, others)
        self.ticked = now
        self._scale_to_limit(60.0 * kept_per_second)

    def _remember(self, pattern, now, count):
        pattern.at_last_tick = pattern.seen
        pattern.history.append((now, count))

    def _unscaled_rate(self, severity, pattern):
        """The rate in force for the pattern's next record, before the limit has its say."""
        verdict = self.verdict(pattern.message, severity)
        return verdict.rate / self.scale if verdict.rule == "rate" else verdict.rate

    def _watch_service(self, now, elapsed, age, errors, others):
        due_errors = elapsed * per_second(self.errors, self.ticked, age, elapsed)
        due_others = elapsed * per_second(self.others, self.ticked, age, elapsed)
        self.errors.append((now, errors))
        self.others.append((now, others))
        if age < LEARNING:
            return
        if is_jump(errors, due_errors):
            self.boost_until = now + BOOST
        elif now >= self.cool_until and is_jump(others, due_others):
            self.boost_until = now + BOOST
            self.cool_until = now + COOL_DOWN

    def _scale_to_limit(self, kept_per_minute):
        limit = self.policy.max_logs_per_minute if self.policy else None
        if limit is None:
            return
        wanted = min(1.0, 0.9 * limit / kept_per_minute) if kept_per_minute > 0 else 1.0
        if not 0.9 <= wanted / max(self.scale, 1e-9) <= 1.1:
            self.scale = max(wanted, 1e-6)

    # ------------------------------------------------------------------ counts

    def totals(self):
        """Seen, kept, dropped, capped, let pass by shadow mode."""
        seen = sum(pattern.seen for pattern in self.patterns.values())
        kept = sum(pattern.kept for pattern in self.patterns.values())
        capped = sum(pattern.capped for pattern in self.patterns.values())
        let_pass = sum(pattern.let_pass for pattern in self.patterns.values())
        return seen, kept, seen - kept - capped, capped, let_pass

    def drain(self):
        """Records since the last drain, by signature; patterns without any are left out."""
        counts: dict[str, int] = {}
        for (_, signature), pattern in self.patterns.items():
            fresh, pattern.at_last_drain = pattern.seen - pattern.at_last_drain, pattern.seen
            if fresh:
                counts[signature] = counts.get(signature, 0) + fresh
        return counts


def per_second(history, as_of, age, elapsed):
    """
    Records a second by the counts of earlier ticks, old ones weighing less.

    *history* is taken as of the tick before; *age* is how long there could have been records, up
    to now (so *elapsed* longer than the history reaches).
    """
    volume = sum(count * math.exp(-(as_of - at) / MEMORY) for at, count in history)
    return volume / (MEMORY * (1.0 - math.exp(-max(age, 1e-3) / MEMORY)))


def is_jump(count, due):
    return count >= 20 and count > 4 * due and count > due + 6 * math.sqrt(due)
