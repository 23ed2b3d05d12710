"""
What an application notices of a policy server in trouble: nothing, in figures.

    python contrib/benchmarks/reliability.py

init    milliseconds to make a client and a sampler and take the first decision (goal G2: 50)
exit    seconds from the end of the program to the end of the process, with a report waiting,
        beside the same program without LipService (goal G6: 2.1)
resume  intervals from the server's recovery to the next poll it answers (goal G1: 1.1)
polls   standard deviation of the pauses in intervals (goal G5: jitter, others have none), and the
        polls of a forked child (goal G3: others make none)

Each behaviour of the server is real; see tests/support/policy_server.py.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import textwrap
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from measuring import print_table  # noqa: E402 - the path is set above

from lipservice.client import LipServiceClient  # noqa: E402
from lipservice.sampler import AdaptiveSampler  # noqa: E402
from tests.support.policy_server import G1_BEHAVIOURS, PolicyServer, wait_for  # noqa: E402

#: Constructions of which the median is told.
ROUNDS = 15
#: Seconds between polls, and of the outage, where resuming is measured.
INTERVAL, OUTAGE = 1.0, 4.0
#: How other SDKs did on this kind of machine, from the notes of November 2026.
OTHERS = {
    "init, refused (s)": "LaunchDarkly 5.1, Unleash 0.1, Flagsmith 0.7, PostHog 0.1",
    "init, hang (s)": "LaunchDarkly 5.1, Unleash 120.3, Flagsmith 40.8, PostHog 10.1",
    "exit, refused (s)": "OpenTelemetry 7.4, Sentry 0.04",
    "exit, hang (s)": "OpenTelemetry 10.0, Sentry 2.1",
    "sd of the poll (s)": "LaunchDarkly 0.0001, Unleash 0.0011, Flagsmith 0.012, PostHog 0.0003",
    "polls of a forked child": "LaunchDarkly 0, Unleash 0, Flagsmith 0, PostHog 5 in 6 s",
}
EXITS = ("ok", "refused", "hang", "drip", "503")


def run() -> dict[str, Any]:
    """Measure everything, print the tables and return the figures by name."""
    results = {
        "benchmark": "reliability",
        "init_ms": {behaviour: _init(behaviour) for behaviour in G1_BEHAVIOURS},
        "first_import_ms": _first_import(),
        "exit_s": {"without LipService": _exit(None), **{name: _exit(name) for name in EXITS}},
        "resume_intervals": _resume_all(),
        "poll_sd_s": _spread_of_polls(),
        "polls_of_a_forked_child_in_6_s": _polls_of_a_child(),
    }
    _print(results)
    return results


def _sampler(server: PolicyServer, interval: float = 300.0) -> AdaptiveSampler:
    client = LipServiceClient(server.url, "key", "checkout")
    return AdaptiveSampler(client, interval, interval, notices=False)


def _init(behaviour: str) -> float:
    times = []
    with PolicyServer() as server:
        server.behave(behaviour)
        for _ in range(ROUNDS):
            start = time.perf_counter()
            sampler = _sampler(server)
            sampler.should_sample("user 17 logged in", "INFO")
            times.append((time.perf_counter() - start) * 1e3)
            sampler.shutdown(0.0)
    return round(statistics.median(times), 2)


def _first_import() -> dict[str, float]:
    """Once a process, in milliseconds; requests alone is the yardstick."""
    imports = {
        "requests alone": "import requests",
        "client and sampler": "from lipservice.client import LipServiceClient\n"
        "from lipservice.sampler import AdaptiveSampler\n"
        "AdaptiveSampler(LipServiceClient('http://127.0.0.1:9'))",
    }
    times: dict[str, list[float]] = {name: [] for name in imports}
    for _ in range(7):
        for name, script in imports.items():
            timed = f"import time, logging; t = time.perf_counter()\n{script}\n"
            times[name].append(float(_python(timed + "print((time.perf_counter() - t) * 1e3)")))
    return {name: round(statistics.median(taken), 1) for name, taken in times.items()}


def _python(script: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    ).stdout


EXITING = textwrap.dedent("""
    import sys, time, logging
    import requests
    if len(sys.argv) > 1:
        from lipservice.client import LipServiceClient
        from lipservice.sampler import AdaptiveSampler
        sampler = AdaptiveSampler(LipServiceClient(sys.argv[1], "key", "checkout"), notices=False)
        for number in range(3000):
            sampler.should_sample(f"user {number} logged in", "INFO")
    time.sleep(0.2)
    print(time.monotonic())
""")


def _exit(behaviour: str | None) -> float:
    times = []
    with PolicyServer() as server:
        if behaviour is not None:
            server.behave(behaviour)
        for _ in range(3):
            ended = float(_python(EXITING, *([server.url] if behaviour is not None else [])))
            times.append(time.monotonic() - ended)
    return round(statistics.median(times), 2)


def _resume_all() -> dict[str, float]:
    """All behaviours at once: each sampler and each server mostly waits."""
    found: dict[str, float] = {}
    threads = [
        threading.Thread(target=lambda name=name: found.update({name: _resume(name)}))
        for name in G1_BEHAVIOURS
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: found[name] for name in G1_BEHAVIOURS}


def _resume(behaviour: str) -> float:
    with PolicyServer() as server:
        sampler = _sampler(server, INTERVAL)
        sampler.should_sample("user 17 logged in", "INFO")
        wait_for(lambda: sampler.get_policy() is not None)
        server.behave(behaviour)
        time.sleep(OUTAGE)
        server.policy = {**server.policy, "version": 2}
        server.behave("ok")
        back = time.monotonic()
        wait_for(lambda: sampler.get_policy().version == 2, 60.0)
        taken = time.monotonic() - back
        sampler.shutdown(1.0)
    return round(taken / INTERVAL, 2)


def _spread_of_polls() -> float:
    with PolicyServer() as server:
        sampler = _sampler(server, INTERVAL)
        sampler.should_sample("user 17 logged in", "INFO")
        wait_for(lambda: len(server.of_kind("policy")) >= 14, 60.0)
        sampler.shutdown(1.0)
        times = [request.at for request in server.of_kind("policy")][2:]
    return round(statistics.stdev(b - a for a, b in pairwise(times)), 4)


FORKING = textwrap.dedent("""
    import os, sys, time
    from lipservice.client import LipServiceClient
    from lipservice.sampler import AdaptiveSampler
    sampler = AdaptiveSampler(LipServiceClient(sys.argv[1], "key"), 1.0, 1.0, notices=False)
    sampler.should_sample("user 1 logged in", "INFO")
    time.sleep(0.5)
    if os.fork():
        os._exit(0)  # the parent is gone
    sampler.should_sample("user 2 logged in", "INFO")
    print(sampler._refresher._client.instance_id, flush=True)
    time.sleep(6)
""")


def _polls_of_a_child() -> int:
    with PolicyServer() as server:
        child = _python(FORKING, server.url).strip()
        polls = server.of_kind("policy")
        return sum(request.target.endswith(f"instance_id={child}") for request in polls)


def _print(results: dict[str, Any]) -> None:
    init, resume = results["init_ms"], results["resume_intervals"]
    print_table(
        "policy server in trouble: ms to start (goal 50), intervals to resume (goal 1.1)",
        ("behaviour", "init ms", "resume"),
        [(name, f"{init[name]:.2f}", f"{resume[name]:.2f}") for name in G1_BEHAVIOURS],
    )
    print_table(
        "seconds from the end of the program to the end of the process (goal 2.1)",
        ("server", "s"),
        [(name, f"{seconds:.2f}") for name, seconds in results["exit_s"].items()],
    )
    rest = ("first_import_ms", "poll_sd_s", "polls_of_a_forked_child_in_6_s")
    print_table("the rest", ("figure", "value"), [(name, str(results[name])) for name in rest])
    print_table("others, then", ("figure", ""), list(OTHERS.items()))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(ROOT))
    print(json.dumps(run(), indent=2))
