"""Migrations: from every schema that there was, with data, interrupted, and by two workers at once."""

from __future__ import annotations

import threading

import pytest

from lipservice_server import migrations
from lipservice_server.app import create_app, runtime_of
from lipservice_server.db import Database
from tests.server.harness import a_report, make_team

#: Rows as the first schema holds them; later steps must keep them.
FIRST = (
    "INSERT INTO team (id, name, created_at) VALUES (7, 'a', 1)",
    "INSERT INTO service (id, team_id, name, created_at, mode, auto_generate, auto_apply, words, active_version,"
    " last_version, revision, records, generated_records) VALUES (3, 7, 'shop', 1, 'active', 1, 1, '[\"pay\"]', 1, 1, 0, 100, 0)",
    "INSERT INTO pattern (service_id, signature, template, severity, first_seen, last_seen, count, kept, bytes,"
    " kept_bytes, errors, rate, reported_at) VALUES (3, 'abc123', 'a <*>', 'INFO', 1, 2, 100, 10, 2000, 200, 0, 0.1, 2)",
    "INSERT INTO report VALUES (3, 'r1', 'd', 1, 1)",
    "INSERT INTO service_hour VALUES (3, 10, 100, 10, 2000, 200, 0, 1)",
    "INSERT INTO policy (service_id, version, policy_id, state, document, details, generated_by, created_at, created_by)"
    ' VALUES (3, 1, \'shop-1\', \'active\', \'{"policy_id":"shop-1","version":1,"sampling_rate":0.5,"patterns":[],'
    "\"max_logs_per_minute\":null,\"severity_rates\":{}}', '{}', 'builtin', 1, 'x')",
    "INSERT INTO override VALUES (3, 'abc123', 0.25, 0, 'why', 1, 'x')",
)


@pytest.fixture
def db(database_url):
    found = Database(database_url)
    yield found
    found.close()


@pytest.mark.parametrize("start", range(1, migrations.newest() + 1))
def test_data_of_every_earlier_schema_is_served_by_this_server(
    start, db, database_url, settings, make_app
):
    migrations.migrate(db, target=1)
    for statement in FIRST:
        db.execute(statement)
    migrations.migrate(db, target=start)

    app = make_app(settings)

    assert migrations.current(db) == migrations.newest()
    runtime = runtime_of(app)
    assert runtime.store.patterns.get(7, "shop", "abc123")["pinned_rate"] == 0.25
    body = runtime.cache.load((7, "shop")).document
    assert (body["sampling_rate"], body["pattern_rates"], body["patterns"]) == (
        0.5,
        {"abc123": 0.25},
        ["pay"],
    )
    headers = {"Authorization": f"Bearer {make_team(app, 'a')}"}
    assert (
        app.test_client()
        .post("/api/v1/patterns/report", json=a_report(2), headers=headers)
        .status_code
        == 200
    )
    assert runtime.store.services.require(7, "shop")["records"] == 301


def test_migrating_again_does_nothing(db):
    assert migrations.migrate(db) == list(range(1, migrations.newest() + 1))
    assert migrations.migrate(db) == []


def test_two_workers_at_once_make_each_step_once(database_url):
    made, failures = [], []
    start = threading.Barrier(4)

    def run():
        db = Database(database_url)
        start.wait()
        try:
            made.append(migrations.migrate(db))
        except Exception as error:
            failures.append(error)
        finally:
            db.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(step for steps in made for step in steps) == list(
        range(1, migrations.newest() + 1)
    )


def test_workers_that_start_on_a_new_sqlite_file_all_get_to_it(tmp_path):
    """Making it a WAL file takes a lock that SQLite's busy handler does not wait for."""
    failures = []
    start = threading.Barrier(6)

    def run(url):
        db = Database(url)
        start.wait()
        try:
            db.rows("SELECT 1")
        except Exception as error:
            failures.append(error)
        finally:
            db.close()

    for number in range(20):
        url = f"sqlite:///{tmp_path}/{number}.db"
        threads = [threading.Thread(target=run, args=(url,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_an_interrupted_step_leaves_nothing_and_runs_again(db, monkeypatch):
    from lipservice_server.migrations import m0001_first

    whole = m0001_first.STATEMENTS
    monkeypatch.setattr(m0001_first, "STATEMENTS", (*whole[:9], "CREATE TABLE broken ("))
    with pytest.raises(Exception, match=r"syntax|incomplete|away"):
        migrations.migrate(db)
    assert migrations.current(db) == 0
    assert "team" not in db.handle.get_tables()
    monkeypatch.setattr(m0001_first, "STATEMENTS", whole)
    assert migrations.migrate(db)[0] == 1


def test_a_database_of_a_newer_server_is_left_alone(db):
    migrations.migrate(db)
    db.execute("INSERT INTO schema_version VALUES (999, 1)")
    with pytest.raises(migrations.SchemaTooNewError, match="newer"):
        migrations.migrate(db)


def test_a_server_that_may_not_migrate_waits_until_someone_has(
    database_url, settings, db, tmp_path
):
    from dataclasses import replace

    app = create_app(replace(settings, auto_migrate=False))
    client = app.test_client()
    assert client.get("/readyz").status_code == 503
    migrations.migrate(db)
    runtime_of(app).watcher.look()
    assert client.get("/readyz").status_code == 200
    runtime_of(app).watcher.stop()
    runtime_of(app).store.db.close()
