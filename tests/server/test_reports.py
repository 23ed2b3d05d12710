"""Reports: counted exactly once, summed, and refused when wrong."""

from __future__ import annotations

import gzip
import json
import threading

import pytest

from tests.server.harness import a_pattern, a_report

REPORT = "/api/v1/patterns/report"


def counts(admin, service="shop"):
    rows = admin.get(
        f"/api/v1/patterns?service_name={service}&limit=500&sort=signature&order=asc"
    ).json["patterns"]
    return {row["signature"]: row["count"] for row in rows}


def test_counts_of_several_reports_are_added(admin):
    for _ in range(3):
        assert admin.post(REPORT, json=a_report(2)).status_code == 200
    assert counts(admin) == {f"{0:016x}": 300, f"{1:016x}": 303}


def test_a_report_sent_again_is_answered_but_not_counted_again(admin):
    report = a_report(2)
    first, second = admin.post(REPORT, json=report), admin.post(REPORT, json=report)
    assert first.json == {"status": "success", "patterns_processed": 2}
    assert second.json == {"status": "success", "patterns_processed": 2, "duplicate": True}
    assert counts(admin) == {f"{0:016x}": 100, f"{1:016x}": 101}


def test_the_same_id_with_another_body_is_a_conflict(admin):
    report = a_report(2)
    admin.post(REPORT, json=report)
    answer = admin.post(REPORT, json=report | {"patterns": [a_pattern(0, count=5, kept=1)]})
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "conflict")
    assert counts(admin) == {f"{0:016x}": 100, f"{1:016x}": 101}


def test_the_same_id_in_another_service_is_another_report(admin):
    report = a_report(1)
    admin.post(REPORT, json=report)
    answer = admin.post(REPORT, json=report | {"service_name": "other"})
    assert "duplicate" not in answer.json


def test_reports_without_an_id_are_all_counted(admin):
    body = {"service_name": "shop", "patterns": [a_pattern(0)]}
    for _ in range(2):
        assert admin.post(REPORT, json=body).status_code == 200
    assert counts(admin) == {f"{0:016x}": 200}


def test_a_pattern_named_twice_in_one_report_is_summed(admin):
    admin.post(
        REPORT, json=a_report(patterns=0) | {"patterns": [a_pattern(0), a_pattern(1), a_pattern(0)]}
    )
    assert counts(admin) == {f"{0:016x}": 200, f"{1:016x}": 101}


def test_a_gzip_body_is_the_same_report(admin):
    raw = json.dumps(a_report(2)).encode()
    headers = {"Content-Type": "application/json"}
    packed = gzip.compress(raw)
    answer = admin.post(REPORT, data=packed, headers=headers | {"Content-Encoding": "gzip"})
    assert answer.json == {"status": "success", "patterns_processed": 2}
    assert admin.post(REPORT, data=raw, headers=headers).json["duplicate"]


def test_a_key_of_one_service_need_not_name_it(caller):
    key = caller("a", service="shop", scopes=("ingest",))
    body = {"patterns": [a_pattern(0)]}
    assert key.post(REPORT, json=body).status_code == 200
    assert key.post(REPORT, json=body | {"service_name": "shop"}).status_code == 200
    assert key.post(REPORT, json=body | {"service_name": "other"}).status_code == 403


def test_a_key_of_no_service_must_name_one(admin):
    answer = admin.post(REPORT, json={"patterns": [a_pattern(0)]})
    assert answer.status_code == 422
    assert "service_name" in answer.json["error"]["message"]


def test_what_a_report_does_not_say_is_worked_out(admin, clock):
    """kept from the rate, bytes from a usual size, times not later than the server's clock."""
    bare = {
        "signature": "abc123",
        "count": 100,
        "last_seen": "2200-01-01T12:00:00Z",
        "sampling_rate": 0.25,
    }
    admin.post(REPORT, json={"service_name": "shop", "patterns": [bare]})
    row = admin.get("/api/v1/patterns/abc123?service_name=shop").json
    assert (row["kept"], row["bytes"], row["kept_bytes"]) == (25, 20_000, 5_000)
    assert row["last_seen"] == row["first_seen"] == "2027-01-15T08:00:00Z"


def test_severities_decide_the_patterns_severity_and_its_errors(admin):
    mixed = a_pattern(0, count=100, severity_distribution={"INFO": 60, "ERROR": 30, "fatal": 10})
    admin.post(REPORT, json=a_report(0) | {"patterns": [mixed]})
    row = admin.get(f"/api/v1/patterns/{0:016x}?service_name=shop").json
    assert (row["severity"], row["errors"]) == ("INFO", 40)


def test_reports_at_one_time_from_many_threads_are_counted_once_each(app, admin):
    """Each of 40 reports is sent by 4 threads at once; every count is there once."""
    reports = [a_report(5, instance_id=f"i{i % 4}") for i in range(40)]
    failures = []

    def send(offset):
        client = app.test_client()
        headers = {"Authorization": f"Bearer {admin.key}"}
        for i in range(40):
            report = reports[(i + offset * 10) % 40]
            for _ in range(100):
                answer = client.post(REPORT, json=report, headers=headers)
                if answer.status_code != 503:
                    break
            if answer.status_code != 200:
                failures.append(answer.text)

    threads = [threading.Thread(target=send, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert counts(admin) == {f"{i:016x}": 40 * (100 + i) for i in range(5)}


def test_a_service_that_was_deleted_begins_anew_with_the_next_report(admin):
    """The id of a deleted service must not linger in a worker's memory."""
    admin.post(REPORT, json=a_report(2))
    assert admin("DELETE", "/api/v1/service?service_name=shop").status_code == 200
    assert admin.get("/api/v1/service?service_name=shop").status_code == 404
    admin.post(REPORT, json=a_report(1))
    assert counts(admin) == {f"{0:016x}": 100}
    assert admin.get("/api/v1/instances?service_name=shop").json["total"] == 1


@pytest.mark.parametrize("gone", ["signature", "count", "last_seen", "sampling_rate"])
def test_the_documented_fields_of_a_pattern_are_needed(admin, gone):
    pattern = a_pattern(0)
    del pattern[gone]
    answer = admin.post(REPORT, json=a_report(0) | {"patterns": [pattern]})
    assert answer.status_code == 422
    assert gone in answer.json["error"]["message"]
