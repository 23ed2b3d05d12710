"""
The decision itself: `should_sample` beside a call of `random.random()`, memory, import time.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import Any

from measuring import interleaved, print_table

from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler

RATE = 0.1
PATTERNS = 10_000


def run() -> dict[str, Any]:
    """Measure decisions, memory and imports."""
    return {"decision": _decisions(), "memory": _memory(), "import_ms": _imports()}


def _decisions() -> dict[str, Any]:
    draw = random.random

    def yardstick() -> float:
        return draw()

    sampler, whole = _sampler(RATE), _sampler(1.0)
    numbers = iter(range(10**9))
    ids = [f"user {i} did {i * 7} of {i * 13 % 1000} things" for i in range(100_000, 200_000)]
    cases = {
        "random.random() through a function": yardstick,
        "should_sample, known pattern": lambda: sampler.should_sample("User logged in", "INFO"),
        "should_sample, rate 1": lambda: whole.should_sample("User logged in", "INFO"),
        "should_sample, numbers redrawn": lambda: sampler.should_sample(
            ids[next(numbers) % 100_000], "INFO"
        ),
        "decide_format, known": lambda: sampler.decide_format("user %s did %s", 20),
        "an empty call": lambda: None,
    }
    ns = interleaved(cases, calls=20_000, rounds=25)
    # The lambdas are calls of the benchmark, not of the product.
    call = ns.pop("an empty call")
    yard = ns["random.random() through a function"]
    own = {k: v if k.startswith("random") else v - call for k, v in ns.items()}
    print_table(
        "decisions, ns of processor time a call",
        ("case", "ns", "times the yardstick"),
        [(case, f"{value:,.0f}", f"{value / yard:.2f}") for case, value in own.items()],
    )
    return {case: {"ns": round(v), "ratio": round(v / yard, 2)} for case, v in own.items()}


def _sampler(rate: float) -> AdaptiveSampler:
    policy = SamplingPolicy(sampling_rate=rate)
    return AdaptiveSampler(policy=policy, notices=False, rng=random.Random(1))


_MEMORY = """
import gc, json, random, sys, tracemalloc
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from lipservice.performance import memory_profile
words = [f"word{chr(97 + i // 26)}{chr(97 + i %% 26)}" for i in range(400)]
rng = random.Random(1)
templates = {" ".join(rng.choices(words, k=8)) for _ in range(%(patterns)d)}
templates = sorted(templates)
policy = SamplingPolicy(sampling_rate=0.1)
sampler = AdaptiveSampler(policy=policy, notices=False, max_pattern_cache_size=20000)
sampler._worker.stop(0)
gc.collect()
before = memory_profile(sampler)["process_bytes"]
if %(trace)d:
    tracemalloc.start()
for i in range(%(records)d):
    sampler.should_sample(f"{templates[i %% len(templates)]} {i}", "INFO")
    if %(distinct)d:
        sampler.should_sample("".join(rng.choices("abcdefghij", k=12)) + " was here", "INFO")
gc.collect()
profile = memory_profile(sampler)
text = sum(len(t) + 5 for t in templates)
held = tracemalloc.get_traced_memory()[0] if %(trace)d else 0
print(json.dumps({"grown_mb": (profile["process_bytes"] - before) / 1e6,
    "process_mb": profile["process_bytes"] / 1e6,
    "bytes_a_pattern_beyond_text": (profile["pattern_bytes"] - text) / len(templates),
    "traced_bytes_a_pattern": held / len(templates),
    **{k: profile[k] for k in ("patterns", "cached_texts", "cached_text_bytes")}}))
"""


def _memory() -> dict[str, Any]:
    results = {
        "1,000,000 records of 10,000 patterns": _in_a_process(records=1_000_000, trace=0),
        "10,000 patterns, traced": _in_a_process(records=200_000, trace=1),
        "500,000 distinct messages besides": _in_a_process(records=500_000, distinct=1),
    }
    print_table(
        "memory",
        ("case", "MB grown", "MB in all", "bytes a pattern beyond its text"),
        [
            (
                name,
                f"{r['grown_mb']:.1f}",
                f"{r['process_mb']:.1f}",
                f"{r['bytes_a_pattern_beyond_text']:.0f}",
            )
            for name, r in results.items()
        ],
    )
    return results


def _in_a_process(*, records: int, trace: int = 0, distinct: int = 0) -> Any:
    code = _MEMORY % {
        "patterns": PATTERNS,
        "records": records,
        "trace": trace,
        "distinct": distinct,
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _imports() -> dict[str, float]:
    """Milliseconds of processor time that an import adds to an empty interpreter."""
    cases = ("pass", "import logging", "import lipservice", "import lipservice.sampler")
    times: dict[str, list[float]] = {case: [] for case in cases}
    for _ in range(15):
        for case in cases:
            code = f"import time; t = time.process_time(); {case}; print(time.process_time() - t)"
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            )
            times[case].append(1000 * float(done.stdout))
    medians = {case: sorted(values)[len(values) // 2] for case, values in times.items()}
    print_table("imports, ms", ("statement", "ms"), [(k, f"{v:.1f}") for k, v in medians.items()])
    return {case: round(ms, 1) for case, ms in medians.items()}


if __name__ == "__main__":
    json.dump(run(), sys.stdout, indent=1)
