"""
How much of a log's information is left at 10 % of its bytes: patterns against uniform sampling.

    python contrib/benchmarks/quality.py [--data DIRECTORY] [--json FILE]

Data: the LogHub 2k samples, which hold for each record the true log statement behind it
(`EventId`). Their licence forbids copying them into the project; they are read from --data.

For each sample a policy is made from the records, then the same records are sampled with it
many times (seeded). Reported, as means over all true statements of all samples:

- visible: share of the statements of which at least one record was kept;
- error: |estimate - n| / n of a statement's count n, where the estimate is the sum of the weights
  1 / rate of its kept records (Horvitz and Thompson), and 0 if none was kept.

Ways to choose rates, all at the same expected share of the bytes:

- uniform: every record at one rate;
- statements: the optimizer, with the true statements as patterns (what a perfect grouping gives);
- signatures: the optimizer, with LSIG-1 signatures as patterns, in families;
- built-in: the same, with the built-in importance instead of equal weights;
- as shipped: the same, with the records' own severities, ERROR and above always kept.

The first records of a pattern, which a process keeps whatever the rate, are left out: this is the
steady state.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from lipservice.optimizer import PatternVolume
from lipservice.planning import plan_policy
from lipservice.severity import severity_name
from lipservice.signature import compute_signature, compute_template

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "loghub"
COST_TARGET = 0.1
REPETITIONS = 200
_LETTERS = {"D": "DEBUG", "I": "INFO", "W": "WARNING", "E": "ERROR", "V": "TRACE", "F": "FATAL"}


class Record(NamedTuple):
    statement: str
    signature: str
    template: str
    severity: str
    size: int


class Quality(NamedTuple):
    """Sums over the statements of one sample, means over the repetitions."""

    statements: int
    visible: float
    error: float
    kept_bytes: float


def run(data: Path = DATA, repetitions: int = REPETITIONS) -> dict:
    """Measure all samples; the answer holds the table's numbers by way, then by sample."""
    names = sorted(path.name for path in data.iterdir() if path.is_dir())
    samples = {name: read_sample(data / name / f"{name}_2k.log_structured.csv") for name in names}
    ways = {
        "uniform": uniform_rates,
        "statements": statement_rates,
        "signatures": signature_rates,
        "built-in": builtin_rates,
        "as shipped": shipped_rates,
    }
    results: dict = {"cost_target": COST_TARGET, "repetitions": repetitions, "ways": {}}
    for way, rates_of in ways.items():
        measured = {
            name: measure(records, rates_of(records), repetitions, random.Random(f"{way} {name}"))
            for name, records in samples.items()
        }
        results["ways"][way] = summary(measured, samples)
    return results


def read_sample(path: Path) -> list[Record]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Record(
                statement=row["EventId"],
                signature=compute_signature(row["Content"]),
                template=compute_template(row["Content"]),
                severity=severity_name(_LETTERS.get(row.get("Level", ""), row.get("Level", ""))),
                size=len(row["Content"].encode()) + 1,
            )
            for row in csv.DictReader(file)
        ]


def uniform_rates(records: list[Record]) -> list[float]:
    return [COST_TARGET] * len(records)


def statement_rates(records: list[Record]) -> list[float]:
    return planned(
        [r._replace(signature=r.statement, template="", severity="INFO") for r in records]
    )


def signature_rates(records: list[Record]) -> list[float]:
    return planned([record._replace(severity="INFO") for record in records])


def builtin_rates(records: list[Record]) -> list[float]:
    return planned([record._replace(severity="INFO") for record in records], builtin=True)


def shipped_rates(records: list[Record]) -> list[float]:
    return planned(records, builtin=True)


def planned(records: list[Record], *, builtin: bool = False) -> list[float]:
    """The rate of each record under the policy that is planned for all of them."""
    counts: Counter[tuple[str, str, str]] = Counter()
    sizes: Counter[tuple[str, str, str]] = Counter()
    for record in records:
        key = (record.signature, record.template, record.severity)
        counts[key] += 1
        sizes[key] += record.size
    patterns = [PatternVolume(*key, count, sizes[key] / count) for key, count in counts.items()]
    importance = None if builtin else {pattern.signature: 1.0 for pattern in patterns}
    policy = plan_policy(patterns, COST_TARGET, policy_id="quality", importance=importance)
    return [policy.rate_for(record.signature, record.severity) for record in records]


def measure(
    records: list[Record], rates: list[float], repetitions: int, rng: random.Random
) -> Quality:
    counts = Counter(record.statement for record in records)
    visible = error = 0.0
    for _ in range(repetitions):
        estimates: defaultdict[str, float] = defaultdict(float)
        for record, rate in zip(records, rates, strict=True):
            if rng.random() < rate:
                estimates[record.statement] += 1.0 / rate
        visible += len(estimates)
        error += sum(abs(estimates.get(s, 0.0) - count) / count for s, count in counts.items())
    kept = sum(record.size * rate for record, rate in zip(records, rates, strict=True))
    return Quality(len(counts), visible / repetitions, error / repetitions, kept)


def summary(measured: dict[str, Quality], samples: dict[str, list[Record]]) -> dict:
    statements = sum(quality.statements for quality in measured.values())
    sizes = {name: sum(record.size for record in records) for name, records in samples.items()}
    return {
        "visible": sum(quality.visible for quality in measured.values()) / statements,
        "error": sum(quality.error for quality in measured.values()) / statements,
        "kept": sum(q.kept_bytes for q in measured.values()) / sum(sizes.values()),
        "samples": {
            name: {
                "statements": quality.statements,
                "visible": quality.visible / quality.statements,
                "error": quality.error / quality.statements,
                "kept": quality.kept_bytes / sizes[name],
            }
            for name, quality in measured.items()
        },
    }


def print_table(results: dict) -> None:
    print(f"{'way':12} {'kept':>7} {'visible':>8} {'error':>7}   mean over samples: visible, error")
    for way, numbers in results["ways"].items():
        samples = list(numbers["samples"].values())
        visible = sum(sample["visible"] for sample in samples) / len(samples)
        error = sum(sample["error"] for sample in samples) / len(samples)
        print(
            f"{way:12} {numbers['kept']:7.2%} {numbers['visible']:8.1%} {numbers['error']:7.1%}"
            f"   {visible:.1%}, {error:.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--data", type=Path, default=DATA, help="directory of the LogHub samples")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    results = run(options.data)
    print_table(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
