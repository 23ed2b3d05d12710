"""
The server's figures, measured: `python contrib/benchmarks/server_load.py [what ...]`.

    get        GET active policy against a bare Flask route, in turn, by wrk where it is installed
    reports    patterns a second through HTTP, on SQLite and (with --postgres) on PostgreSQL
    fleet      an open loop of instances that poll and report (--instances, --seconds)
    policy     a policy for 100,000 patterns: seconds to make, bytes to send
    pages      the store's page queries with 100,000 patterns and 90 days of counts
    kill       kill -9 of all workers at random moments while reports are sent again (--trials)
    slow       32 clients of 1 byte a second beside polls

Everything runs on this machine, generator and server on the same cores; ratios to the bare route
of the same run mean more than the numbers. PostgreSQL is one of its own in a temporary directory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lipservice_server.config import Settings, load_settings  # noqa: E402
from lipservice_server.runtime import make_runtime  # noqa: E402
from tests.server.harness import Postgres, Server, free_port, key_in, start_server, wait_for  # noqa: E402

BARE = """
from flask import Flask
app = Flask(__name__)
BODY = {body!r}
@app.get("/bare")
def bare():
    return app.response_class(BODY, mimetype="application/json")
"""


def a_body(patterns: int, offset: int = 0, *, full: bool = True, **fields) -> bytes:
    rows = []
    for i in range(offset, offset + patterns):
        row = {
            "signature": f"{(i * 2654435761) % 2**64:016x}",
            "count": 100,
            "last_seen": "2026-01-01T12:00:00Z",
            "sampling_rate": 0.1,
        }
        if full:
            row |= {
                "template": f"user <*> did thing {i} after <*> ms",
                "kept": 10,
                "bytes": 12000,
                "severity_distribution": {"INFO": 100},
                "first_seen": "2026-01-01T11:50:00Z",
            }
        rows.append(row)
    return json.dumps(
        {
            "report_id": secrets.token_hex(8),
            "service_name": "shop",
            "instance_id": "i1",
            "interval": 600,
            "patterns": rows,
            **fields,
        },
        separators=(",", ":"),
    ).encode()


def a_key(server: Server) -> str:
    runtime = make_runtime(load_settings(server.environ))
    runtime.watcher.look()
    key = key_in(runtime, "bench")
    runtime.store.db.close()
    return key


def request_bytes(method: str, path: str, key: str, body: bytes = b"", **headers) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    for name, value in headers.items():
        head += f"{name.replace('_', '-')}: {value}\r\n"
    if body or method == "POST":
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def read_answer(file) -> int:
    """Read one answer; its status."""
    status = int(file.readline().split()[1])
    length = 0
    while (line := file.readline()) not in (b"\r\n", b""):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    file.read(length)
    return status


def _spread(latencies: list[float]) -> str:
    ordered = sorted(latencies)
    middle, high = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return f"p50 {middle * 1e3:.1f} ms, p99 {high * 1e3:.1f} ms"


def cpu_seconds(server: Server) -> float:
    """CPU time of the server's workers so far: it means the same on a busy machine."""
    ticks = 0
    for pid in server.workers():
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def closed_loop(
    url: str, make_request, *, connections: int, seconds: float
) -> tuple[int, dict[int, int], list[float]]:
    """Requests one after another over kept-alive connections; number, statuses, latencies."""
    parts = urlsplit(url)
    ends = time.monotonic() + seconds
    statuses: dict[int, int] = {}
    latencies: list[float] = []
    lock = threading.Lock()

    def one() -> None:
        sock = socket.create_connection((parts.hostname, parts.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        file = sock.makefile("rb")
        mine: dict[int, int] = {}
        times = []
        while time.monotonic() < ends:
            data = make_request()
            started = time.perf_counter()
            sock.sendall(data)
            status = read_answer(file)
            times.append(time.perf_counter() - started)
            mine[status] = mine.get(status, 0) + 1
        sock.close()
        with lock:
            latencies.extend(times)
            for status, count in mine.items():
                statuses[status] = statuses.get(status, 0) + count

    threads = [threading.Thread(target=one) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(statuses.values()), statuses, latencies


def wrk(url: str, seconds: float, headers: dict[str, str]) -> float:
    """Requests a second over 16 kept-alive connections."""
    if shutil.which("wrk"):
        arguments = [f"-H{name}: {value}" for name, value in headers.items()]
        done = subprocess.run(
            ["wrk", "-t1", "-c16", f"-d{seconds:.0f}s", *arguments, url],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "Non-2xx" not in done.stdout, done.stdout
        return float(done.stdout.split("Requests/sec:")[1].split()[0])
    parts = urlsplit(url)
    head = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\n" + "".join(
        f"{n}: {v}\r\n" for n, v in headers.items()
    )
    data = head.encode() + b"\r\n"
    started = time.monotonic()
    number, _, _ = closed_loop(url, lambda: data, connections=16, seconds=seconds)
    return number / (time.monotonic() - started)


def start_bare(directory: Path, body: bytes, settings: Settings) -> tuple[subprocess.Popen, str]:
    (directory / "bare_app.py").write_text(BARE.format(body=body))
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "gunicorn",
            "-k",
            "gthread",
            "-w",
            str(settings.workers),
            "--threads",
            "16",
            "--reuse-port",
            "--keep-alive",
            "75",
            "--no-control-socket",
            "-b",
            f"127.0.0.1:{port}",
            "bare_app:app",
        ],
        cwd=directory,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: socket.create_connection(("127.0.0.1", port), 1).close() or True)
    return process, f"http://127.0.0.1:{port}/bare"


def measure_get(given, directory: Path, environ: dict[str, str]) -> None:
    server = start_server(directory, environ)
    key = a_key(server)
    for offset in range(0, 2000, 1000):
        assert (
            server.post(
                "/api/v1/patterns/report",
                key,
                data=a_body(1000, offset),
                headers={"Content-Type": "application/json"},
            ).status_code
            == 200
        )
    made = server.post("/api/v1/policies/generate", key, json={"service_name": "shop"})
    assert made.status_code == 200, (made.text, server.log.read_text())
    path = "/api/v1/policies/active?service_name=shop&instance_id=i1"
    answer = server.get(path, key, headers={"Accept-Encoding": "identity"})
    bare, bare_url = start_bare(directory, answer.content, Settings())
    auth = {"Authorization": f"Bearer {key}"}
    cases = {
        "bare 200": (bare_url, auth),
        "policy 200": (server.url + path, auth),
        "policy 200 gzip": (server.url + path, {**auth, "Accept-Encoding": "gzip"}),
        "policy 304": (server.url + path, {**auth, "If-None-Match": answer.headers["ETag"]}),
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    for url, headers in cases.values():
        wrk(url, 1, headers)
    for _ in range(given.rounds):
        for name, (url, headers) in cases.items():
            found[name].append(wrk(url, given.seconds or 4, headers))
    bare.terminate()
    bare.wait()
    server.stop()
    base = statistics.median(found["bare 200"])
    print(f"GET, body {len(answer.content):,} bytes, median of {given.rounds}:")
    for name, rates in found.items():
        rate = statistics.median(rates)
        print(f"  {name:<16} {rate:>8,.0f} requests/s   {rate / base:.2f} x bare")


def measure_reports(given, directory: Path, environ: dict[str, str]) -> None:
    for size, full in ((1000, True), (1000, False), (100, True)):
        server = start_server(directory / f"{size}{full}", environ, threads=32)
        key = a_key(server)
        bodies = [a_body(size, offset, full=full) for offset in range(0, 10 * size, size)]
        for body in bodies:
            assert (
                server.post(
                    "/api/v1/patterns/report",
                    key,
                    data=body,
                    headers={"Content-Type": "application/json"},
                ).status_code
                == 200
            )

        def fresh(bodies=bodies, key=key) -> bytes:
            body = random.choice(bodies)
            body = body.replace(body[14:30], secrets.token_hex(8).encode(), 1)
            return request_bytes("POST", "/api/v1/patterns/report", key, body)

        closed_loop(server.url, fresh, connections=4, seconds=2)
        seconds = given.seconds or 6
        used = cpu_seconds(server)
        _, statuses, latencies = closed_loop(
            server.url, fresh, connections=given.connections, seconds=seconds
        )
        good = statuses.get(200, 0)
        used = (cpu_seconds(server) - used) / max(1, good * size) * 1e6
        kind = "all fields" if full else "documented fields"
        print(
            f"reports of {size} patterns ({kind}, {len(bodies[0]):,} bytes): "
            f"{good * size / seconds:>9,.0f} patterns/s; "
            f"{used:.1f} us of CPU each; {_spread(latencies)}; {statuses}"
        )
        server.stop()


async def open_loop(
    server: Server, key: str, *, instances: int, seconds: float, patterns: int
) -> dict[str, list[float]]:
    """Poisson arrivals on new connections; an instance polls each 300 s, reports each 600 s."""
    parts = urlsplit(server.url)
    rates = {"poll": instances / 300, "report": instances / 600}
    bodies = [a_body(patterns, offset) for offset in range(0, 20 * patterns, patterns)]
    found: dict[str, list[float]] = {"poll": [], "report": [], "failed": []}
    rng = random.Random(1)

    async def one(kind: str) -> None:
        number = rng.randrange(instances)
        if kind == "poll":
            data = request_bytes(
                "GET",
                f"/api/v1/policies/active?service_name=shop&instance_id=i{number}",
                key,
                Connection="close",
            )
        else:
            body = rng.choice(bodies)
            body = body.replace(body[14:30], secrets.token_hex(8).encode(), 1).replace(
                b'"i1"', f'"i{number}"'.encode(), 1
            )
            data = request_bytes("POST", "/api/v1/patterns/report", key, body, Connection="close")
        started = time.perf_counter()
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(parts.hostname, parts.port), 10
            )
            writer.write(data)
            await writer.drain()
            answer = await asyncio.wait_for(reader.read(-1), 10)
            writer.close()
        except (OSError, asyncio.TimeoutError):
            answer = b""
        took = time.perf_counter() - started
        found[kind if answer[9:12] == b"200" else "failed"].append(took)

    tasks: set[asyncio.Task] = set()

    async def arrivals(kind: str) -> None:
        ends = time.monotonic() + seconds
        at = time.monotonic()
        while at < ends:
            at += rng.expovariate(rates[kind])
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            task = asyncio.create_task(one(kind))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    await asyncio.gather(arrivals("poll"), arrivals("report"))
    await asyncio.gather(*tasks)
    return found


def measure_fleet(given, directory: Path, environ: dict[str, str]) -> None:
    server = start_server(directory, environ, threads=32)
    key = a_key(server)
    for offset in range(0, 20_000, 1000):
        assert (
            server.post(
                "/api/v1/patterns/report",
                key,
                data=a_body(1000, offset),
                headers={"Content-Type": "application/json"},
            ).status_code
            == 200
        )
    server.post("/api/v1/policies/generate", key, json={"service_name": "shop"})
    seconds = given.seconds or 30
    found = asyncio.run(
        open_loop(server, key, instances=given.instances, seconds=seconds, patterns=1000)
    )
    print(f"open loop of {given.instances:,} instances, {seconds:.0f} s:")
    for kind in ("poll", "report"):
        times = sorted(found[kind])
        print(f"  {kind:<6} {len(times):>7,} answered; {_spread(times)}")
    print(f"  failed {len(found['failed'])}")
    server.stop()


def measure_policy(given, directory: Path, environ: dict[str, str]) -> None:
    from lipservice_server.generation import Wish, generate_policy
    from lipservice_server.intake import take_in

    runtime = make_runtime(
        load_settings(environ | {"LIPSERVICE_DATA_DIR": str(directory / "policy")})
    )
    runtime.watcher.look()
    team = runtime.store.teams.create("bench", now=time.time())
    rng = random.Random(1)
    from datetime import datetime, timezone

    moment = datetime.now(timezone.utc)
    for start in range(0, given.patterns, 1000):
        rows = [
            {
                "signature": f"{rng.getrandbits(64):016x}",
                "template": f"{rng.choice('abcdefgh')} thing {i} of <*> took <*> ms",
                "count": max(1, int(rng.paretovariate(0.9))),
                "kept": 0,
                "bytes": 100,
                "severity_distribution": {
                    rng.choice(["DEBUG", "INFO", "INFO", "WARNING", "ERROR"]): 1
                },
                "first_seen": moment,
                "last_seen": moment,
                "sampling_rate": 1.0,
            }
            for i in range(start, start + 1000)
        ]
        for row in rows:
            row["bytes"] = row["count"] * rng.randrange(60, 400)
        runtime.store.reports.accept(team, "shop", take_in(rows, now=time.time()), now=time.time())
    started = time.perf_counter()
    made = generate_policy(runtime, team, "shop", Wish(cost_target=0.1), actor="bench")
    whole = time.perf_counter() - started
    body = runtime.cache.load((team, "shop")).body(None)
    print(
        f"a policy for {given.patterns:,} patterns: {whole:.2f} s "
        "from the store's rows to the stored version; "
        f"{len(made.row['document']['pattern_rates']):,} rates; "
        f"{len(body.plain):,} bytes, {len(body.gzipped or b''):,} gzipped"
    )
    runtime.store.db.close()


def measure_pages(given, directory: Path, environ: dict[str, str]) -> None:
    runtime = make_runtime(
        load_settings(environ | {"LIPSERVICE_DATA_DIR": str(directory / "pages")})
    )
    runtime.watcher.look()
    store, now = runtime.store, time.time()
    team = store.teams.create("bench", now=now)
    service = store.services.ensure(team, "shop", now=now - 90 * 86_400)
    fill(store, service, patterns=given.patterns, days=90, now=now)
    names = [row["signature"] for row in store.patterns.search(team, "shop", limit=50)[0]]
    queries = {
        "patterns by volume": lambda: store.patterns.search(team, "shop", limit=50),
        "patterns, page 1,500": lambda: store.patterns.search(
            team, "shop", limit=50, offset=75_000
        ),
        "patterns, searched": lambda: store.patterns.search(
            team, "shop", search="thing 777", limit=50
        ),
        "volume of 50, 30 days": lambda: store.patterns.volumes(
            team, "shop", names, step="day", periods=30, now=now
        ),
        "volume of 1, 90 days": lambda: store.patterns.volumes(
            team, "shop", names[:1], step="day", periods=90, now=now
        ),
        "rising": lambda: store.patterns.risers(team, "shop"),
        "totals by day, 90 days": lambda: store.savings.over_time(
            team, None, step="day", since=now - 90 * 86_400, until=now
        ),
        "totals by hour, 7 days": lambda: store.savings.over_time(
            team, "shop", step="hour", since=now - 7 * 86_400, until=now
        ),
        "by service": lambda: store.savings.by_service(team, since=now - 30 * 86_400, until=now),
        "rows for generation": lambda: store.patterns.for_generation(team, "shop", now=now),
    }
    print(f"pages with {given.patterns:,} patterns and 90 days:")
    for name, query in queries.items():
        query()
        times = []
        for _ in range(5):
            started = time.perf_counter()
            query()
            times.append(time.perf_counter() - started)
        print(f"  {name:<24} {statistics.median(times) * 1e3:>8.1f} ms")
    store.db.close()


def fill(store, service_id: int, *, patterns: int, days: int, now: float) -> None:
    """Counts as months of reports would have left them; a pattern is seen on some days."""
    rng = random.Random(1)
    today = int(now) // 86_400
    from lipservice_server.store.rollups import _DAYS

    names = sorted(f"{(i * 2654435761) % 2**64:016x}" for i in range(patterns))
    with store.db.transaction():
        rows = [
            (
                service_id,
                name,
                f"user <*> did thing {i} after <*> ms",
                rng.choice(["DEBUG", "INFO", "WARNING"]),
                int(now) - 90 * 86_400,
                int(now),
                max(1, int(rng.paretovariate(0.8))),
                1,
                100,
                10,
                0,
                0.1,
                int(now),
            )
            for i, name in enumerate(names)
        ]
        from lipservice_server.store.reports import _PATTERNS

        for start in range(0, patterns, 10_000):
            _PATTERNS.apply(store.db, rows[start : start + 10_000])
    for day in range(today - days + 1, today + 1):
        seen = names if day > today - 8 else rng.sample(names, patterns // 10)
        with store.db.transaction():
            rows = [(service_id, day, name, 100, 10, 10_000, 1_000, 0) for name in sorted(seen)]
            for start in range(0, len(rows), 10_000):
                _DAYS.apply(store.db, rows[start : start + 10_000])
    with store.db.transaction():
        for hour in range(int(now) // 3600 - days * 24, int(now) // 3600 + 1):
            store.db.execute(
                "INSERT INTO service_hour VALUES (?, ?, 1000, 100, 100000, 10000, 1, 1)",
                service_id,
                hour,
            )


def measure_kill(given, directory: Path, environ: dict[str, str]) -> None:
    wrong = hits = 0
    server = start_server(directory, environ)
    key = a_key(server)
    rng = random.Random(given.seed)
    for sent in range(1, given.trials + 1):
        body = a_body(1000)
        done = threading.Event()
        failures = []

        def send(body=body, done=done, failures=failures) -> None:
            while True:
                try:
                    if (
                        server.post(
                            "/api/v1/patterns/report",
                            key,
                            data=body,
                            headers={"Content-Type": "application/json"},
                            timeout=10,
                        ).status_code
                        == 200
                    ):
                        break
                except OSError as error:
                    failures.append(error)
                    time.sleep(0.05)
            done.set()

        thread = threading.Thread(target=send)
        thread.start()
        time.sleep(rng.uniform(0, 0.012))
        for pid in server.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        done.wait(60)
        thread.join()
        hits += "refused" not in str(failures[0]) if failures else 0
        url = "/api/v1/patterns?service_name=shop&limit=500"
        rows = wait_for(lambda url=url: server.get(url, key).json()["patterns"])
        wrong += any(row["count"] != 100 * sent for row in rows)
    print(f"kill -9: {given.trials} trials, {hits} hit a request, {wrong} left a wrong count")
    server.stop()


def measure_slow(given, directory: Path, environ: dict[str, str]) -> None:
    server = start_server(directory, environ, threads=32)
    key = a_key(server)
    parts = urlsplit(server.url)
    stop = threading.Event()

    def drip(number: int) -> None:
        data = (
            request_bytes("POST", "/api/v1/patterns/report", key, a_body(100))
            if number % 2
            else request_bytes("GET", "/api/v1/policies/active?service_name=shop", key)
        )
        try:
            with socket.create_connection((parts.hostname, parts.port)) as sock:
                head = data.find(b"\r\n\r\n") + 4 if number % 2 else 0
                sock.sendall(data[:head])
                for i in range(head, len(data)):
                    if stop.wait(1):
                        return
                    sock.sendall(data[i : i + 1])
        except OSError:
            pass

    threads = [threading.Thread(target=drip, args=(i,)) for i in range(32)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    latencies = []
    ends = time.monotonic() + (given.seconds or 15)
    while time.monotonic() < ends:
        started = time.perf_counter()
        assert server.get("/api/v1/policies/active?service_name=shop", key).status_code == 200
        latencies.append(time.perf_counter() - started)
        time.sleep(0.02)
    stop.set()
    latencies.sort()
    print(f"32 slow clients: {len(latencies)} polls, {_spread(latencies)}")
    for thread in threads:
        thread.join()
    server.stop()


MEASURES = {
    name.removeprefix("measure_"): value
    for name, value in list(globals().items())
    if name.startswith("measure_")
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=[*MEASURES, []], help="all where none is named")
    parser.add_argument(
        "--postgres", action="store_true", help="on a PostgreSQL of its own, else SQLite"
    )
    parser.add_argument("--instances", type=int, default=20_000)
    parser.add_argument("--patterns", type=int, default=100_000)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        cluster = Postgres() if given.postgres else None
        try:
            for what in given.what or MEASURES:
                place = directory / what
                place.mkdir()
                environ = {"LIPSERVICE_SECRET_KEY": "b" * 40}
                if cluster:
                    environ["DATABASE_URL"] = cluster.new_database()
                print(f"-- {what}, {'PostgreSQL' if cluster else 'SQLite'}", flush=True)
                MEASURES[what](given, place, environ)
        finally:
            if cluster:
                cluster.end()


if __name__ == "__main__":
    main()
