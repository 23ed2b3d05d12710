"""
Measures every page with 100,000 patterns and 90 days of counts: `python -m tests.dashboard.pages`.

Seeds 9 million counts (once, in the directory that is given or a new one), then asks each page of
the application five times, in process. Told are the least time of the clock, the processor time of
the same request (what a quiet machine would take; the clock counts other programs too), the page as
it is sent (gzip), and the page with all that it loads, uncompressed.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path

from lipservice_server.app import create_app, runtime_of
from lipservice_server.config import Settings
from lipservice_server.dashboard.assets import all_assets
from lipservice_server.generation import Wish, generate_policy
from tests.dashboard.shop import seed_many, seed_shop

_NAME = "monolith"
_HEADERS = {"Host": "127.0.0.1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--directory", type=Path, help="kept for the next time")
    parser.add_argument("--patterns", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=90)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = given.directory or Path(temporary)
        app = create_app(
            Settings(data_dir=str(directory), dashboard="loopback", requests_per_minute=10**6)
        )
        runtime = runtime_of(app)
        runtime.watcher.prepare()
        if not runtime.store.teams.every():
            _seed(runtime, given)
        _measure(app)
        runtime.watcher.stop()


def _seed(runtime, given) -> None:
    now = time.time()
    team_id, _ = seed_shop(runtime, now)
    seed_many(runtime, team_id, _NAME, now, patterns=given.patterns, days=given.days)
    for target, activate in ((0.1, True), (0.05, False)):
        wish = Wish(cost_target=target, activate=activate)
        generate_policy(runtime, team_id, _NAME, wish, actor="benchmark")


def _paths(app) -> list[str]:
    store = runtime_of(app).store
    row = store.patterns.search(store.teams.every()[0]["id"], _NAME, limit=1)[0][0]
    query = f"service={_NAME}"
    return [
        "", f"?{query}", f"?{query}&period=48h", f"?{query}&period=90d", f"patterns?{query}",
        f"patterns?{query}&page=2000", f"patterns?{query}&sort=template&order=asc&page=900",
        f"patterns?{query}&q=token", f"patterns?{query}&q=nothing+like+this", f"patterns?{query}&severity=WARNING&sort=bytes",
        f"patterns?{query}&only=pinned", f"changes?{query}", f"pattern?{query}&signature={row['signature']}",
        f"policy?{query}", f"policy/new?{query}", f"policy/version?{query}&version=2", f"policy/replay?{query}&version=2",
        f"policy/compare?{query}&from=1&to=2", f"explain?{query}&q={row['template'].replace('<*>', '7').replace(' ', '+')}",
        f"instances?{query}", "keys", "audit",
    ]  # fmt: skip


def _measure(app) -> None:
    client = app.test_client()
    print(f"{'clock ms':>9}{'cpu ms':>8}{'sent kB':>9}{'whole kB':>10}{'ready after s':>15}  page")
    worst = [0.0, 0.0, 0.0]
    for path in _paths(app):
        ready = _wait_until_ready(client, path)
        clock, cpu, plain = _best(client, path)
        sent = len(
            client.get(f"/dashboard/{path}", headers={**_HEADERS, "Accept-Encoding": "gzip"}).data
        )
        whole = len(plain) + sum(
            len(all_assets()[name].plain)
            for name in set(re.findall(r'"/dashboard/static/([^"?]+)', plain.decode()))
        )
        print(
            f"{clock * 1e3:9.0f}{cpu * 1e3:8.0f}{sent / 1e3:9.1f}{whole / 1e3:10.1f}{ready:15.1f}  /dashboard/{path}"
        )
        worst = [
            max(a, b) for a, b in zip(worst, (clock * 1e3, cpu * 1e3, whole / 1e3), strict=True)
        ]
    print(
        f"worst: {worst[0]:.0f} ms by the clock, {worst[1]:.0f} ms of processor, {worst[2]:.0f} kB"
    )


def _wait_until_ready(client, path: str) -> float:
    """Seconds until a comparison that is made in the background is there; its page waits 0.2 s."""
    started = time.monotonic()
    while b"http-equiv" in client.get(f"/dashboard/{path}", headers=_HEADERS).data:
        time.sleep(0.2)
    return time.monotonic() - started


def _best(client, path: str) -> tuple[float, float, bytes]:
    clock, cpu, body = 1e9, 1e9, b""
    for _ in range(5):
        began, used = time.perf_counter(), time.thread_time()
        answer = client.get(f"/dashboard/{path}", headers=_HEADERS)
        clock, cpu = min(clock, time.perf_counter() - began), min(cpu, time.thread_time() - used)
        assert answer.status_code == 200, (path, answer.status_code)
        body = answer.data
    return clock, cpu, body


if __name__ == "__main__":
    main()
