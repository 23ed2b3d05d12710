"""Background work: roll-ups, retention, generation by itself, savings; and the process that does it."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from typing import ClassVar

import pytest

from lipservice_server import jobs
from lipservice_server.app import runtime_of
from tests.server.conftest import Caller
from tests.server.harness import a_pattern, a_report, make_team, wait_for

REPORT = "/api/v1/patterns/report"
HOUR, DAY = 3600, 86_400


def volume(admin, step, periods, signature=0):
    answer = admin.get(
        f"/api/v1/patterns/{signature:016x}/volume?service_name=shop&step={step}&periods={periods}"
    )
    return [point["count"] for point in answer.json["points"]]


def test_counts_are_rolled_up_into_hours_and_days_exactly_once(admin, runtime, clock):
    for hour in range(3):
        for _ in range(hour + 1):
            admin.post(REPORT, json=a_report(2))
        jobs.roll_up(runtime)
        jobs.roll_up(runtime)
        clock.forward(HOUR)
    assert volume(admin, "hour", 4) == [100, 200, 300, 0]
    assert volume(admin, "day", 2)[-1] == 600
    admin.post(REPORT, json=a_report(2))
    assert volume(admin, "hour", 4) == [100, 200, 300, 100]


def test_roll_ups_beside_reports_lose_and_double_nothing(app, admin, runtime):
    """Two roll-ups at a time while reports come in: hours add up to the counts."""
    stop = threading.Event()
    failures = []

    def roll():
        while not stop.is_set():
            try:
                jobs.roll_up(runtime)
            except Exception as error:
                failures.append(error)
        runtime.store.db.close()

    threads = [threading.Thread(target=roll) for _ in range(2)]
    for thread in threads:
        thread.start()
    taken = 0
    for n in range(40):
        report = a_report(0) | {"patterns": [a_pattern(i, count=1, kept=1) for i in range(30 + n)]}
        taken += admin.post(REPORT, json=report).status_code == 200
    stop.set()
    for thread in threads:
        thread.join()
    jobs.roll_up(runtime)
    assert failures == []
    assert taken > 0
    rolled = runtime.store.db.row("SELECT sum(count) AS n FROM pattern_hour")["n"]
    counted = runtime.store.db.row("SELECT sum(count) AS n FROM pattern")["n"]
    assert int(rolled) == int(counted) > 0


def test_more_patterns_than_a_chunk_are_rolled_up(admin, runtime):
    for start in range(0, 5000, 1000):
        admin.post(
            REPORT, json=a_report(0) | {"patterns": [a_pattern(start + i) for i in range(1000)]}
        )
    assert jobs.roll_up(runtime) == 5000
    assert jobs.roll_up(runtime) == 0


def test_what_is_old_is_forgotten_and_what_is_not_stays(admin, runtime, clock):
    admin.post(REPORT, json=a_report(2))
    jobs.roll_up(runtime)
    admin("PUT", f"/api/v1/patterns/{1:016x}/pin?service_name=shop", json={"rate": 0.5})
    clock.forward(3 * DAY + HOUR)
    assert jobs.prune(runtime)["report ids"] == 1
    assert runtime.store.db.rows("SELECT * FROM pattern_hour") == []
    assert volume(admin, "day", 5)[1] == 100
    clock.forward(91 * DAY)
    gone = jobs.prune(runtime)
    assert gone["instances"] == 1
    left = admin.get("/api/v1/patterns?service_name=shop").json["patterns"]
    assert [row["signature"] for row in left] == [f"{1:016x}"]  # pinned
    assert runtime.store.db.rows("SELECT * FROM pattern_day") == []
    assert admin.get("/api/v1/savings?days=120").json["records"] == 201


def test_only_so_many_versions_are_kept_and_the_active_one_always(make_app, settings):
    app = make_app(replace(settings, versions_kept=2))
    admin = Caller(app, make_team(app, "a"))
    admin.post(REPORT, json=a_report(2))
    for _ in range(5):
        admin.post("/api/v1/policies/generate", json={"service_name": "shop"})
    admin.post("/api/v1/policies/1/activate?service_name=shop")
    assert jobs.prune(runtime_of(app))["versions"] == 2
    rows = admin.get("/api/v1/policies?service_name=shop").json["policies"]
    assert [row["version"] for row in rows] == [5, 4, 1]


def test_a_service_is_generated_by_itself_when_enough_new_counts_have_come(
    make_app, settings, clock
):
    app = make_app(replace(settings, regenerate_minutes=30, regenerate_records=1000))
    admin, runtime = Caller(app, make_team(app, "a")), runtime_of(app)
    admin.post(REPORT, json=a_report(3))
    assert jobs.regenerate(runtime) == []  # 303 records: too few
    admin.post(REPORT, json=a_report(9))
    assert jobs.regenerate(runtime) == ["shop"]
    admin.post(REPORT, json=a_report(30))
    assert jobs.regenerate(runtime) == []  # too soon
    clock.forward(31 * 60)
    assert jobs.regenerate(runtime) == ["shop"]
    clock.forward(31 * 60)
    assert jobs.regenerate(runtime) == []  # nothing new
    admin("PATCH", "/api/v1/service?service_name=shop", json={"auto_generate": False})
    admin.post(REPORT, json=a_report(30))
    assert jobs.regenerate(runtime) == []
    assert admin.get("/api/v1/policies/active?service_name=shop").json["version"] == 2


def test_patterns_that_jumped_are_found(admin, runtime, clock):
    for _ in range(8):
        admin.post(REPORT, json=a_report(3))
        jobs.roll_up(runtime)
        clock.forward(DAY)
    admin.post(
        REPORT,
        json=a_report(0)
        | {"patterns": [a_pattern(1, count=50_000, kept=1), a_pattern(9, count=500, kept=1)]},
    )
    jobs.roll_up(runtime)
    assert jobs.find_risers(runtime) == 2
    assert jobs.find_risers(runtime) == 2
    rising = admin.get("/api/v1/patterns/rising?service_name=shop").json["patterns"]
    assert {row["signature"] for row in rising} == {f"{1:016x}", f"{9:016x}"}
    assert rising[0]["factor"] > rising[1]["factor"] > 2


class _PostHog(http.server.BaseHTTPRequestHandler):
    received: ClassVar[list] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        self.received.append(json.loads(body))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args):
        pass


def test_policies_and_savings_are_told_to_posthog(make_app, settings, clock):
    """Through the real library to a local server; no template and no signature goes with them."""
    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _PostHog)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    _PostHog.received.clear()
    app = make_app(
        replace(
            settings,
            posthog_api_key="phc_test",
            posthog_host=f"http://127.0.0.1:{receiver.server_port}",
        )
    )
    admin, runtime = Caller(app, make_team(app, "a")), runtime_of(app)
    admin.post(REPORT, json=a_report(3))
    admin.post("/api/v1/policies/generate", json={"service_name": "shop"})
    clock.forward(DAY)
    assert jobs.tell_savings(runtime) == 1
    runtime.events.flush()
    events = [event for body in _PostHog.received for event in body["batch"]]
    receiver.shutdown()
    receiver.server_close()
    runtime.events._client.shutdown()
    assert {event["event"] for event in events} == {
        "lipservice policy activated",
        "lipservice daily savings",
    }
    savings = next(event for event in events if event["event"] == "lipservice daily savings")
    assert savings["properties"]["records"] == 303
    assert "did thing" not in json.dumps(events)


@pytest.mark.parametrize("with_redis", [False, True])
def test_the_worker_process_works_off_its_queue_and_ends_when_told(tmp_path, with_redis, request):
    environ = os.environ | {"LIPSERVICE_DATA_DIR": str(tmp_path)}
    if with_redis:
        environ["REDIS_URL"] = request.getfixturevalue("redis_server").url
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "lipservice_server.cli", "worker"],
            env=environ,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: (tmp_path / "lipservice.db").exists())
        assert wait_for(lambda: with_redis or (tmp_path / "jobs.db").exists())
        wait_for(lambda: worker.poll() is None)
        threading.Event().wait(1.5)
        assert worker.poll() is None, (tmp_path / "log").read_text()
    finally:
        worker.send_signal(signal.SIGINT)
        assert worker.wait(20) == 0, (tmp_path / "log").read_text()


def test_every_periodic_task_is_known_to_the_queue(runtime):
    huey = jobs.make_jobs(runtime)
    names = {task.name for task in huey._registry.periodic_tasks}
    assert names == {"roll_up", "find_risers", "regenerate", "prune", "tell_savings"}
    for task in huey._registry.periodic_tasks:
        task.execute()  # each does its work on an empty store
