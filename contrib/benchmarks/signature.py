"""
What a signature costs, on the LogHub samples, beside yardsticks of the same run.

    python contrib/benchmarks/signature.py [--loghub FOLDER] [--rounds N] [--json FILE]

In every round each contender runs once over the 2,000 messages of a sample, whose numbers were
redrawn for that round, so that no message comes twice. A figure is the mean over the samples of
the median over the rounds, in CPU time of the thread, so that a busy machine does not count as
cost. Read the ratios: nanoseconds belong to the machine and its mood.
"""

import argparse
import json
import random
import re
import statistics
import time
import uuid
from collections import deque
from pathlib import Path

import xxhash
from loghub import DEFAULT, read_samples

from lipservice import signature

NUMBER = re.compile("[0-9]+")

#: The usual way: one expression for each kind of variable, the most particular first.
CHAIN = [
    re.compile(pattern)
    for pattern in (
        r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b",
        r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?",
        r"\bhttps?://\S+",
        r"\b[\w.+-]+@[\w-]+\.[\w.-]+\b",
        r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b",
        r"(?:/[\w.-]+){2,}",
        r"\b0[xX][0-9a-fA-F]+\b",
        r"\b[0-9a-fA-F]{16,}\b",
        r"\b\d+(?:\.\d+)?\b",
    )
]

FORMAT_STRINGS = [
    "user %s logged in",
    "%s %s -> %d in %.1f ms",
    "cache miss for key %r, loading from %s",
    "retry %d of %d after %s: %s",
]


def nothing(message):
    """The cost of the loop and of a call."""


def regex_chain(message):
    for expression in CHAIN:
        message = expression.sub("<*>", message)
    return xxhash.xxh64_hexdigest(message.encode())


def xxh64_of_message(message):
    return xxhash.xxh64_hexdigest(message.encode())


def without_message_cache(message):
    return signature.signature_of_key(signature.key_of_folded(signature.fold(message)))


def same_lengths(message, rng):
    return NUMBER.sub(lambda n: str(rng.randrange(10 ** len(n[0]))).zfill(len(n[0])), message)


def numbers_redrawn(message, rng):
    return NUMBER.sub(lambda n: str(rng.randrange(10 ** len(n[0]))), message)


def with_new_id(message, rng):
    return f"{numbers_redrawn(message, rng)} {uuid.UUID(int=rng.getrandbits(128))}"


def format_string(_message, rng):
    return rng.choice(FORMAT_STRINGS)


#: name -> (function, how its messages are drawn for each round)
CONTENDERS = {
    "an empty function": (nothing, numbers_redrawn),
    "xxh64 of the message": (xxh64_of_message, numbers_redrawn),
    "chain of nine regexes": (regex_chain, numbers_redrawn),
    "fold": (signature.fold, numbers_redrawn),
    "signature, numbers of other values": (signature.compute_signature, same_lengths),
    "signature, numbers redrawn": (signature.compute_signature, numbers_redrawn),
    "signature, no message known, chunks known": (without_message_cache, numbers_redrawn),
    "signature, a new UUID in each message": (signature.compute_signature, with_new_id),
    "signature of a known format string": (signature.compute_format_signature, format_string),
}
YARDSTICKS = ("an empty function", "xxh64 of the message", "chain of nine regexes")


def run(loghub=DEFAULT, rounds=9, seed=1):
    """Measure. "ns" maps a contender to ns a message, "ratio" to its ratio to each yardstick."""
    rng = random.Random(seed)
    samples = {
        name: _medians([message for message, _ in pairs], rounds, rng)
        for name, pairs in read_samples(loghub).items()
    }
    ns = {name: statistics.mean(sample[name] for sample in samples.values()) for name in CONTENDERS}
    return {
        "benchmark": "signature",
        "samples": len(samples),
        "rounds": rounds,
        "ns": ns,
        "ratio": {name: {yard: ns[name] / ns[yard] for yard in YARDSTICKS} for name in ns},
        "ns_by_sample": samples,
    }


def _medians(messages, rounds, rng):
    times = {name: [] for name in CONTENDERS}
    for round_ in range(rounds + 1):
        for name in rng.sample(list(CONTENDERS), len(CONTENDERS)):
            function, draw = CONTENDERS[name]
            took = _time(function, [draw(message, rng) for message in messages])
            if round_:  # the first round is for warming up
                times[name].append(took)
    return {name: statistics.median(taken) for name, taken in times.items()}


def _time(function, messages):
    start = time.thread_time_ns()
    deque(map(function, messages), maxlen=0)
    return (time.thread_time_ns() - start) / len(messages)


def table(result):
    yield f"{'':44}{'ns':>8}" + "".join(f"{'/ ' + yard:>24}" for yard in YARDSTICKS)
    for name, ns in result["ns"].items():
        ratios = "".join(f"{result['ratio'][name][yard]:24.3f}" for yard in YARDSTICKS)
        yield f"{name:44}{ns:8.0f}{ratios}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--loghub", type=Path, default=DEFAULT, help="folder of the samples")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    result = run(arguments.loghub, arguments.rounds)
    print(*table(result), sep="\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
