"""
What a policy costs to make, for 1,000, 10,000 and 100,000 patterns.

    python contrib/benchmarks/optimizer.py [--json FILE]

Processor time (medians, interleaved), and as a ratio to sorting the same list by count:

- optimize: `optimize_rates`, the rates alone;
- plan: `plan_policy` with the families known, as the server calls it;
- merge: `merge_families` on the templates;
- outcome: `expected_outcome` of the planned policy.

Counts are log-normal (a few patterns make most of the volume), and half of the templates belong to
families of 25. The gzipped size of the policy stands beside.
"""

import argparse
import gzip
import json
import random
from pathlib import Path

from measuring import interleaved, print_table

from lipservice.families import merge_families
from lipservice.optimizer import PatternVolume, optimize_rates
from lipservice.planning import expected_outcome, plan_policy

NUMBERS = (1_000, 10_000, 100_000)
COST_TARGET = 0.1
#: Patterns that are handled for one figure: more rounds where a round is short.
_WORK = 500_000


def run(numbers=NUMBERS):
    """Measure. The answer maps each number of patterns to seconds, ratios and the policy's size."""
    return {
        "benchmark": "optimizer",
        "cost_target": COST_TARGET,
        "patterns": {number: measure(service(number)) for number in numbers},
    }


def service(number, seed=1):
    """Patterns of a service: log-normal counts, few errors, half of them in families."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(3000)]
    words += ["failed", "started", "payment", "ping"] * 8
    statement: list[str] = []
    patterns = []
    for i in range(number):
        if i % 2 or i % 50 == 0:
            statement = rng.choices(words, k=rng.randint(4, 12))
        if i % 2 == 0:
            template = " ".join(["family", str(i // 50), rng.choice(words), "of", "siblings"])
        else:
            template = " ".join(statement)
        severity = rng.choices(["DEBUG", "INFO", "WARNING", "ERROR"], [25, 60, 13, 2])[0]
        count = rng.randint(1, 3) if severity == "ERROR" else int(rng.lognormvariate(4, 2)) + 1
        name = f"{rng.getrandbits(64):016x}"
        patterns.append(PatternVolume(name, template, severity, count, rng.uniform(40, 400)))
    return patterns


def measure(patterns):
    templates = [pattern.template for pattern in patterns]
    families = merge_families(templates)

    def plan():
        return plan_policy(patterns, COST_TARGET, policy_id="benchmark", families=families)

    policy = plan()
    taken = interleaved(
        {
            "sort": lambda: sorted(patterns, key=lambda pattern: pattern.count),
            "optimize": lambda: optimize_rates(patterns, COST_TARGET),
            "plan": plan,
            "merge": lambda: merge_families(templates),
            "outcome": lambda: expected_outcome(patterns, policy),
        },
        calls=1,
        rounds=max(5, _WORK // len(patterns) // 10),
    )
    return {
        "seconds": {name: nanoseconds / 1e9 for name, nanoseconds in taken.items()},
        "ratio to sort": {name: value / taken["sort"] for name, value in taken.items()},
        "policy bytes gzipped": len(gzip.compress(json.dumps(policy.to_dict()).encode(), mtime=0)),
        "rates named": len(policy.pattern_rates),
        "families": len(set(families.values())),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    results = run()
    columns = ("sort", "optimize", "plan", "merge", "outcome")
    rows = [
        [
            f"{number:,}",
            *(f"{1e3 * r['seconds'][c]:.1f} ({r['ratio to sort'][c]:.0f} x)" for c in columns),
            f"{r['policy bytes gzipped']:,}",
            f"{r['rates named']:,}",
        ]
        for number, r in results["patterns"].items()
    ]
    header = ["patterns", *columns, "gzipped", "named"]
    print_table("Making a policy: ms of processor time (ratio to sorting)", header, rows)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
