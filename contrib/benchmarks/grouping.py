"""
How well signatures find the true statements of the LogHub samples.

    python contrib/benchmarks/grouping.py [--loghub FOLDER] [--json FILE]

GA      share of messages whose group is exactly the messages of one true statement
        (Zhu et al. 2019, "Tools and Benchmarks for Automated Log Parsing")
FGA     F1 of the groups that are exactly one true statement, each counting once
        (Jiang et al. 2024, "A Large-Scale Evaluation for Log Parsing Techniques", Loghub-2.0)
merged  share of messages in a group that mixes true statements: what matters most, because a
        split group costs a little budget and a merged one hides a statement
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

from loghub import DEFAULT, read_samples

from lipservice.signature import compute_signature, compute_template

try:
    from lipservice.families import merge_families
except ImportError:  # the merge is a part of its own; signatures can be judged without it
    merge_families = None

FIGURES = ("GA", "FGA", "merged")


def by_signature(messages):
    return [compute_signature(message) for message in messages]


def by_family(messages):
    templates = [compute_template(message) for message in messages]
    family_of = merge_families(set(templates))
    return [family_of[template] for template in templates]


GROUPINGS = {"signature": by_signature} | ({"family": by_family} if merge_families else {})


def run(loghub=DEFAULT):
    """Judge. The answer maps each grouping to its mean figures and to those of each sample."""
    samples = {
        name: tuple(zip(*pairs, strict=True)) for name, pairs in read_samples(loghub).items()
    }
    return {
        "benchmark": "grouping",
        "samples": len(samples),
        **{name: _judge(grouping, samples) for name, grouping in GROUPINGS.items()},
    }


def _judge(grouping, samples):
    by_sample = {
        name: figures(grouping(messages), statements)
        for name, (messages, statements) in samples.items()
    }
    mean = {
        figure: statistics.mean(sample[figure] for sample in by_sample.values())
        for figure in FIGURES
    }
    return {"mean": mean, "by_sample": by_sample}


def figures(groups, statements):
    """GA, FGA and merged of one sample: the group and the true statement of each message."""
    found, true = _members(groups), _members(statements)
    true_sets = set(true.values())
    right = [members for members in found.values() if members in true_sets]
    mixed = [members for members in found.values() if len({statements[at] for at in members}) > 1]
    return {
        "GA": sum(map(len, right)) / len(groups),
        # 2PR / (P + R), where P is right / found and R is right / true
        "FGA": 2 * len(right) / (len(found) + len(true)),
        "merged": sum(map(len, mixed)) / len(groups),
        "groups": len(found),
        "statements": len(true),
    }


def _members(labels):
    members = defaultdict(list)
    for at, label in enumerate(labels):
        members[label].append(at)
    return {label: frozenset(places) for label, places in members.items()}


def table(result):
    names = [name for name in GROUPINGS if name in result]
    yield f"{'':14}" + "".join(f"{name + ' ' + figure:>18}" for name in names for figure in FIGURES)
    for sample in [*result[names[0]]["by_sample"], "mean"]:
        rows = [
            result[name]["mean"] if sample == "mean" else result[name]["by_sample"][sample]
            for name in names
        ]
        yield f"{sample:14}" + "".join(f"{row[figure]:18.3f}" for row in rows for figure in FIGURES)


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--loghub", type=Path, default=DEFAULT, help="folder of the samples")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    result = run(arguments.loghub)
    print(*table(result), sep="\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
