"""Databases, disks and Redis that fail: policies are served on, reports say 503, all recovers by itself."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from dataclasses import replace

import pytest
import requests

from lipservice_server.app import create_app, runtime_of
from lipservice_server.config import Settings, load_settings
from lipservice_server.runtime import make_runtime
from tests.server.harness import (
    Postgres,
    RedisServer,
    a_pattern,
    a_report,
    key_in,
    make_team,
    wait_for,
)

REPORT = "/api/v1/patterns/report"
ACTIVE = "/api/v1/policies/active?service_name=shop"


def open_service(server):
    """A key; a service with counts and an active policy, which every worker has served."""
    runtime = make_runtime(load_settings(server.environ))
    runtime.watcher.look()
    key = key_in(runtime, "a")
    runtime.store.db.close()
    assert server.post(REPORT, key, json=a_report(3)).status_code == 200
    made = server.post("/api/v1/policies/generate", key, json={"service_name": "shop"})
    assert made.status_code == 200, made.text
    for _ in range(30):  # new connections reach all workers
        with requests.Session() as session:
            server.session = session
            wait_for(lambda: server.get(ACTIVE, key).json()["version"] == 1)
    server.session = requests.Session()
    return key


def hammer(server, key, seconds: float, *, reporters: int = 6):
    """Polls one after another beside reporters; statuses of both, and every report that was sent."""
    ends = time.monotonic() + seconds
    polls, statuses, slowest = [], [], [0.0]

    def report():
        with requests.Session() as session:
            while time.monotonic() < ends:
                started = time.monotonic()
                answer = session.post(
                    server.url + REPORT,
                    json=a_report(3),
                    headers={"Authorization": f"Bearer {key}"},
                    timeout=20,
                )
                statuses.append((answer.status_code, answer.headers.get("Retry-After")))
                slowest[0] = max(slowest[0], time.monotonic() - started)
                time.sleep(0.05)

    threads = [threading.Thread(target=report) for _ in range(reporters)]
    for thread in threads:
        thread.start()
    while time.monotonic() < ends:
        polls.append(server.get(ACTIVE, key, timeout=5).status_code)
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    return polls, statuses


def holds(polls, statuses):
    """Every poll is answered; every report that was not taken says when to come again."""
    assert set(polls) == {200}
    assert {status for status, _ in statuses} <= {200, 503}
    assert all(retry is not None for status, retry in statuses if status == 503)


def test_a_locked_sqlite_costs_reports_a_503_and_polls_nothing(live, tmp_path):
    server = live(workers=2)
    key = open_service(server)
    locker = sqlite3.connect(tmp_path / "data" / "lipservice.db", isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    try:
        polls, statuses = hammer(server, key, 3)
    finally:
        locker.execute("ROLLBACK")
        locker.close()
    holds(polls, statuses)
    assert {status for status, _ in statuses} == {503}
    wait_for(lambda: server.post(REPORT, key, json=a_report(3)).status_code == 200, seconds=5)


@pytest.fixture
def own_postgres():
    cluster = Postgres()
    yield cluster
    cluster.end()


def test_a_postgresql_that_stops_or_freezes_costs_reports_a_503_and_polls_nothing(
    live, own_postgres
):
    server = live(
        {"DATABASE_URL": own_postgres.new_database(), "LIPSERVICE_DATABASE_TIMEOUT": "1"}, workers=2
    )
    key = open_service(server)

    with own_postgres.frozen():
        polls, statuses = hammer(server, key, 4)
    holds(polls, statuses)
    assert 503 in {status for status, _ in statuses}
    wait_for(lambda: server.post(REPORT, key, json=a_report(3)).status_code == 200, seconds=10)

    own_postgres.stop()
    polls, statuses = hammer(server, key, 2)
    assert server.get("/healthz").status_code == 200
    assert server.get("/readyz").status_code == 503
    own_postgres.start()
    holds(polls, statuses)
    assert {status for status, _ in statuses} == {503}
    wait_for(lambda: server.post(REPORT, key, json=a_report(3)).status_code == 200, seconds=10)
    wait_for(lambda: server.get("/readyz").status_code == 200, seconds=10)


def test_a_redis_that_freezes_or_stops_costs_nobody_anything(live, tmp_path):
    redis = RedisServer(tmp_path)
    server = live({"REDIS_URL": redis.url}, workers=2)
    try:
        key = open_service(server)
        with redis.frozen():
            polls, statuses = hammer(server, key, 1.5)
        holds(polls, statuses)
        assert 200 in {status for status, _ in statuses}
    finally:
        redis.stop()
    polls, statuses = hammer(server, key, 1.5)
    holds(polls, statuses)
    assert 200 in {status for status, _ in statuses}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here (it needs root)")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def test_a_full_disk_costs_reports_a_503_and_no_count_is_wrong_afterwards(small_disk, tmp_path):
    app = create_app(Settings(data_dir=str(tmp_path), database_url=f"sqlite:///{small_disk}/l.db"))
    runtime = runtime_of(app)
    runtime.watcher.prepare()
    headers = {"Authorization": f"Bearer {make_team(app, 'a')}"}
    client = app.test_client()
    reports = [
        a_report(0) | {"patterns": [a_pattern(1000 * n + i) for i in range(900)]} for n in range(20)
    ]
    first = [client.post(REPORT, json=report, headers=headers).status_code for report in reports]
    assert set(first) == {200, 503}
    assert client.get(ACTIVE, headers=headers).status_code == 200

    subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
    again = [client.post(REPORT, json=report, headers=headers) for report in reports]
    assert {answer.status_code for answer in again} == {200}
    total = client.get("/api/v1/service?service_name=shop", headers=headers).json["records"]
    assert total == sum(pattern["count"] for report in reports for pattern in report["patterns"])
    assert runtime.store.db.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]
    runtime.watcher.stop()
    runtime.store.db.close()


@pytest.mark.timeout(400)
def test_killed_workers_leave_no_count_wrong(live, database_url):
    """kill -9 at random moments of a report; the client sends it again until it is taken (S1)."""
    server = live({"DATABASE_URL": database_url}, workers=2)
    key = open_service(server)
    rng = random.Random(7)
    sent = 0
    for _ in range(4):
        report = a_report(0) | {"patterns": [a_pattern(i) for i in range(400)]}
        done = threading.Event()

        def send(report=report, done=done):
            while not done.is_set():
                try:
                    with requests.Session() as session:
                        answer = session.post(
                            server.url + REPORT,
                            json=report,
                            headers={"Authorization": f"Bearer {key}"},
                            timeout=10,
                        )
                except requests.RequestException:
                    time.sleep(0.05)
                    continue
                if answer.status_code == 200:
                    done.set()

        thread = threading.Thread(target=send)
        thread.start()
        time.sleep(rng.uniform(0.0, 0.03))
        for pid in server.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert done.wait(200)  # workers have to start again, on whatever machine this is
        thread.join()
        sent += 1
    server.session = requests.Session()
    url = "/api/v1/patterns?service_name=shop&limit=500"
    rows = wait_for(
        lambda: server.get(url, key).json()["patterns"]
    )  # a worker may still be starting
    by_signature = {row["signature"]: row["count"] for row in rows}
    first = {f"{i:016x}": 100 + i for i in range(3)}  # from open_service
    assert by_signature == {
        f"{i:016x}": (100 + i) * sent + first.get(f"{i:016x}", 0) for i in range(400)
    }


def test_the_same_report_at_once_in_two_workers_is_counted_once(live, database_url):
    server = live({"DATABASE_URL": database_url}, workers=2)
    key = open_service(server)
    reports = [
        a_report(0, report_id=f"r{n}") | {"patterns": [a_pattern(9, count=1, kept=1)]}
        for n in range(60)
    ]

    def send():
        for report in reports:
            with requests.Session() as session:
                while (
                    session.post(
                        server.url + REPORT,
                        json=report,
                        headers={"Authorization": f"Bearer {key}"},
                        timeout=20,
                    ).status_code
                    == 503
                ):
                    time.sleep(0.05)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.get(f"/api/v1/patterns/{9:016x}?service_name=shop", key).json()["count"] == 60


def test_a_server_that_starts_without_its_database_serves_the_snapshot(tmp_path, own_postgres):
    settings = Settings(
        database_url=own_postgres.new_database(),
        data_dir=str(tmp_path),
        database_timeout=1.0,
        cache_seconds=0.1,
    )
    first = create_app(settings)
    runtime = runtime_of(first)
    runtime.watcher.prepare()
    key = make_team(first, "a")
    runtime.ring.reload()
    gone = make_team(first, "a")
    headers = {"Authorization": f"Bearer {key}"}
    client = first.test_client()
    client.post(REPORT, json=a_report(3), headers=headers)
    version = client.post(
        "/api/v1/policies/generate", json={"service_name": "shop"}, headers=headers
    ).json["version"]
    runtime.watcher._snapshot_at = -1e9
    wait_for(
        lambda: (
            (tmp_path / "snapshot.json").exists()
            and b'"shop"' in (tmp_path / "snapshot.json").read_bytes()
        )
    )
    assert (tmp_path / "snapshot.json").stat().st_mode & 0o777 == 0o600
    assert key.encode() not in (tmp_path / "snapshot.json").read_bytes()
    rows = client.get("/api/v1/keys", headers=headers).json["keys"]
    client.delete(f"/api/v1/keys/{max(row['id'] for row in rows)}", headers=headers)
    runtime.watcher.stop()
    runtime.store.db.close()

    own_postgres.stop()
    second = create_app(settings)
    client = second.test_client()
    answer = client.get(ACTIVE, headers=headers)
    assert (answer.status_code, answer.json["version"]) == (200, version)
    assert client.post(REPORT, json=a_report(3), headers=headers).status_code == 503
    assert client.get("/readyz").status_code == 503

    own_postgres.start()
    wait_for(lambda: client.get("/readyz").status_code == 200, seconds=10)
    assert client.post(REPORT, json=a_report(3), headers=headers).status_code == 200
    # A key that was revoked after the snapshot was written: the revocation wins.
    assert client.get(ACTIVE, headers={"Authorization": f"Bearer {gone}"}).status_code == 401
    runtime_of(second).watcher.stop()
    runtime_of(second).store.db.close()


@pytest.mark.parametrize("damage", [b"", b"{}", b"x" * 100, None])
def test_a_damaged_snapshot_is_as_good_as_none(tmp_path, damage):
    path = tmp_path / "snapshot.json"
    if damage is None:
        path.mkdir()
    else:
        path.write_bytes(damage)
    settings = Settings(
        data_dir=str(tmp_path),
        database_url="postgresql://postgres@127.0.0.1:1/none",
        database_timeout=0.5,
    )
    app = create_app(replace(settings, cache_seconds=5.0))
    answer = app.test_client().get(ACTIVE, headers={"Authorization": "Bearer x"})
    assert answer.status_code == 401
    runtime_of(app).watcher.stop()
