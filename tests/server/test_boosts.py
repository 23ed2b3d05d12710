"""Boosts: served until they end, over every version, to every worker, with or without a database."""

from __future__ import annotations

import json
import threading
from datetime import datetime

import pytest

from lipservice.sampler import AdaptiveSampler
from lipservice.signature import compute_signature
from lipservice_server import jobs
from lipservice_server.app import create_app, runtime_of
from lipservice_server.config import Settings
from lipservice_server.db import Database
from lipservice_server.errors import ConflictError
from lipservice_server.policy_cache import PolicyCache, default_document, make_entry
from lipservice_server.store import Store
from lipservice_server.store.boosts import MAX_RUNNING
from tests.server.conftest import Clock
from tests.server.harness import a_pattern, a_report, make_team, wait_for

ACTIVE = "/api/v1/policies/active?service_name=shop"
BOOSTS = "/api/v1/boosts?service_name=shop"
SIGNATURE = f"{3:016x}"


@pytest.fixture
def shop(admin):
    admin.post("/api/v1/patterns/report", json=a_report(5))
    admin.post("/api/v1/policies/generate", json={"service_name": "shop"})
    return admin


def begin(admin, **body):
    answer = admin.post(BOOSTS, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json


def served(admin):
    answer = admin.get(ACTIVE)
    assert answer.status_code == 200
    return answer.json.get("boosts", []), answer.headers["ETag"]


def unix(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def test_a_boost_is_served_as_the_contract_has_it_and_ends_by_itself(shop, clock):
    clock.forward(0.75)
    _, before = served(shop)
    plain = shop.get(ACTIVE).json
    begin(shop, pattern=SIGNATURE, severity="DEBUG", minutes=2, reason="INC-1")
    boosts, etag = served(shop)
    assert boosts == [
        {"signature": SIGNATURE, "severity": "DEBUG", "logger": None, "until": "2027-01-15T08:02:01Z"}
    ]  # fmt: skip
    assert etag != before
    assert shop.get(ACTIVE, headers={"If-None-Match": before}).status_code == 200
    assert shop.get(ACTIVE, headers={"If-None-Match": etag}).status_code == 304
    assert {**shop.get(ACTIVE).json, "boosts": None} == {**plain, "boosts": None}
    clock.now = unix(boosts[0]["until"]) - 0.25
    assert served(shop) == (boosts, etag)
    clock.now = unix(boosts[0]["until"])
    assert shop.get(ACTIVE, headers={"If-None-Match": etag}).status_code == 200
    assert served(shop) == ([], before), "the document is the one from before"
    assert shop.get(ACTIVE).json == plain


def test_a_boost_that_is_ended_is_no_longer_served(shop, clock):
    _, before = served(shop)
    boost = begin(shop, minutes=60)
    assert served(shop)[1] != before
    clock.forward(60)
    answer = shop("DELETE", f"/api/v1/boosts/{boost['id']}?service_name=shop")
    assert (answer.status_code, unix(answer.json["until"])) == (200, clock.now)
    assert answer.json["ended_by"].startswith("key ")
    assert served(shop) == ([], before)
    clock.forward(60)
    again = shop("DELETE", f"/api/v1/boosts/{boost['id']}")
    assert (again.status_code, again.json) == (200, answer.json), "it stays as it was ended"


def test_each_selector_is_served_and_no_selector_is_the_whole_service(shop):
    for body in ({}, {"severity": "INFO"}, {"logger": "shop.cart"}, {"pattern": SIGNATURE}):
        begin(shop, **body)
    assert [
        (boost["signature"], boost["severity"], boost["logger"]) for boost in served(shop)[0]
    ] == [
        (None, None, None),
        (None, "INFO", None),
        (None, None, "shop.cart"),
        (SIGNATURE, None, None),
    ]


def test_boosts_end_one_after_another(shop, clock):
    for minutes in (3, 1, 2):
        begin(shop, logger=f"l{minutes}", minutes=minutes)
    seen = []
    for _ in range(4):
        boosts, etag = served(shop)
        seen.append(([boost["logger"] for boost in boosts], etag))
        clock.forward(60)
    assert [loggers for loggers, _ in seen] == [["l3", "l1", "l2"], ["l3", "l2"], ["l3"], []]
    assert len({etag for _, etag in seen}) == 4


def test_of_several_of_the_same_the_last_to_end_is_served(shop, clock):
    long = begin(shop, severity="DEBUG", minutes=60)
    begin(shop, severity="DEBUG", minutes=5)
    assert [unix(boost["until"]) for boost in served(shop)[0]] == [clock.now + 3600]
    shop("DELETE", f"/api/v1/boosts/{long['id']}")
    assert [unix(boost["until"]) for boost in served(shop)[0]] == [clock.now + 300]


def test_an_end_needs_neither_a_write_nor_the_database(shop, runtime, clock):
    begin(shop, minutes=1)
    boosts, etag = served(shop)
    serials = runtime.store.db.rows("SELECT * FROM change ORDER BY name")
    runtime.store.db.execute("DROP TABLE boost")  # whoever asks for it now gets an error
    assert served(shop) == (boosts, etag)
    clock.forward(60)
    ended, other = served(shop)
    assert (ended, other == etag) == ([], False)
    assert runtime.store.db.rows("SELECT * FROM change ORDER BY name") == serials


def test_a_boost_holds_through_new_versions_and_roll_backs_and_makes_none(shop):
    begin(shop, pattern=SIGNATURE, minutes=60)
    boosts = served(shop)[0]
    assert shop.get("/api/v1/policies?service_name=shop").json["policies"][0]["version"] == 1
    shop.post("/api/v1/policies/generate", json={"service_name": "shop", "cost_target": 0.2})
    assert (served(shop)[0], shop.get(ACTIVE).json["version"]) == (boosts, 2)
    shop.post("/api/v1/policies/1/activate?service_name=shop")
    assert (served(shop)[0], shop.get(ACTIVE).json["version"]) == (boosts, 1)
    assert "boosts" not in shop.get("/api/v1/policies/1?service_name=shop").json["document"]


def test_a_service_without_a_policy_can_be_boosted_too(admin):
    admin.post("/api/v1/patterns/report", json=a_report(1))
    begin(admin)
    assert (len(served(admin)[0]), admin.get(ACTIVE).json["version"]) == (1, 0)


def test_every_instances_share_stands_beside_the_boosts(shop, clock):
    shop("PATCH", "/api/v1/service?service_name=shop", json={"max_logs_per_minute": 1000})
    begin(shop, minutes=1)
    for instance, left in (("host-1:1", 1), ("new", 1), ("host-1:1", 0), ("new", 0)):
        clock.forward(0 if left else 61)
        found = shop.get(f"{ACTIVE}&instance_id={instance}").json
        assert (found["max_logs_per_minute"], len(found.get("boosts", []))) == (
            1000 if instance == "host-1:1" else 500,
            left,
        )


def test_another_worker_learns_of_a_boost_and_of_both_its_ends(make_app, settings, shop, clock):
    second = make_app(settings)
    client = second.test_client()
    headers = {"Authorization": f"Bearer {shop.key}"}

    def there():
        answer = client.get(ACTIVE, headers=headers)
        return len(answer.json.get("boosts", [])), answer.headers["ETag"]

    nothing = there()
    boost = begin(shop, minutes=5)
    wait_for(lambda: there()[0] == 1, seconds=5)
    shop("DELETE", f"/api/v1/boosts/{boost['id']}")
    wait_for(lambda: there() == nothing, seconds=5)
    begin(shop, minutes=5)
    wait_for(lambda: there()[0] == 1, seconds=5)
    clock.forward(300)
    assert there() == nothing, "the end is in its memory: there is nothing to wait for"


def test_an_entry_that_was_read_anew_is_not_replaced_by_an_older_one(tmp_path):
    """A refresh comes in between the look at the clock and the end of a boost."""
    key = (1, "shop")
    boost = {"signature": None, "severity": None, "logger": None, "until": "1970-01-01T00:01:00Z"}
    old = make_entry(1, {**default_document(), "boosts": [boost]}, None)
    new = make_entry(1, {**default_document(), "version": 7}, None)
    db = Database(f"sqlite:///{tmp_path}/none.db")

    def clock():
        cache.put(key, new)
        return 60.0

    cache = PolicyCache(Store(db), most_bytes=10**6, clock=clock)
    cache.put(key, old)
    assert b"boosts" not in cache.peek(key).body(None).plain
    assert cache.peek(key) is new
    db.close()


def test_threads_that_meet_an_end_all_see_it(shop, runtime, clock):
    begin(shop, minutes=1)
    team_id = runtime.store.teams.named("a")["id"]
    assert runtime.cache.peek((team_id, "shop")).document["boosts"]
    clock.forward(60)
    start, found = threading.Barrier(8), []

    def poll():
        start.wait()
        found.append(runtime.cache.peek((team_id, "shop")).body(None))

    threads = [threading.Thread(target=poll) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({body.etag for body in found}) == 1
    assert all(b"boosts" not in body.plain for body in found)


def test_a_snapshot_does_not_bring_an_ended_boost_back(tmp_path, clock):
    """The database is away at the start: what the snapshot holds ends in its time all the same."""
    settings = Settings(data_dir=str(tmp_path), cache_seconds=0.05)
    first = create_app(settings, clock=clock)
    runtime = runtime_of(first)
    runtime.watcher.prepare()
    headers = {"Authorization": f"Bearer {make_team(first, 'a')}"}
    client = first.test_client()
    client.post("/api/v1/patterns/report", json=a_report(2), headers=headers)
    client.post("/api/v1/policies/generate", json={"service_name": "shop"}, headers=headers)
    plain = client.get(ACTIVE, headers=headers)
    for body in ({"logger": "a", "minutes": 10}, {"logger": "b", "minutes": 60}):
        assert client.post(BOOSTS, json=body, headers=headers).status_code == 201
    runtime.watcher.stop()
    runtime.watcher._snapshot_at = -1e9
    runtime.watcher.look()
    runtime.store.db.close()

    away = Settings(
        data_dir=str(tmp_path),
        database_url="postgresql://postgres@127.0.0.1:1/none",
        database_timeout=0.5,
        cache_seconds=0.05,
    )
    second = create_app(away, clock=clock)
    client = second.test_client()

    def loggers():
        answer = client.get(ACTIVE, headers=headers)
        assert answer.status_code == 200
        return [boost["logger"] for boost in answer.json.get("boosts", [])]

    assert loggers() == ["a", "b"]
    clock.forward(600)
    assert loggers() == ["b"]
    clock.forward(3600)
    assert loggers() == []
    assert client.get(ACTIVE, headers=headers).headers["ETag"] == plain.headers["ETag"]
    runtime_of(second).watcher.stop()

    third = create_app(away, clock=clock)  # started when all is over
    assert third.test_client().get(ACTIVE, headers=headers).json == plain.json
    runtime_of(third).watcher.stop()


def test_a_pattern_is_named_by_its_signature_a_message_or_a_reported_template(admin):
    message = "order 17 of ada@example.org paid"
    patterns = [
        a_pattern(0, signature=compute_signature(message), template="order <*> of <*> paid"),
        a_pattern(1, template="same <*>"),
        a_pattern(2, template="same <*>"),
    ]
    admin.post("/api/v1/patterns/report", json=a_report(0) | {"patterns": patterns})
    named = begin(admin, pattern=message)
    assert (named["signature"], named["template"]) == (
        compute_signature(message),
        "order <*> of <*> paid",
    )
    assert begin(admin, pattern="order <*> of <*> paid")["signature"] == named["signature"]
    unheard = begin(admin, pattern="user 5 vanished")
    assert (unheard["signature"], unheard["template"]) == (
        compute_signature("user 5 vanished"),
        None,
    )
    missing = admin.post(BOOSTS, json={"pattern": "no such <*> here"})
    assert (missing.status_code, "template" in missing.json["error"]["message"]) == (404, True)
    several = admin.post(BOOSTS, json={"pattern": "same <*>"})
    assert (several.status_code, "signature" in several.json["error"]["message"]) == (409, True)
    audit = json.dumps(admin.get("/api/v1/audit?action=boost.").json)
    assert "ada@example.org" not in audit, "no value of a variable is stored"


LOGIN = "user <*> logged in"
NOON = "2026-01-01T12:00:00Z"


def reported(admin, *templates, service_name="shop", **fields):
    """Patterns that an instance has reported, as it computes them."""
    patterns = [
        a_pattern(0, signature=signature_of(template), template=template, **fields)
        for template in templates
    ]
    body = a_report(0, service_name=service_name) | {"patterns": patterns}
    assert admin.post("/api/v1/patterns/report", json=body).status_code == 200


def signature_of(template):
    return compute_signature(template.replace("<*>", "0"))


@pytest.mark.parametrize(
    ("message", "template"),
    [
        ("user bob logged in", LOGIN),
        ("user bob van dyk logged in", LOGIN),
        ("user 17 logged in", LOGIN),
        ("user bob logged in.", "user bob logged in."),
        ("user logged in", "user logged in"),
        ("bob waits", "<*> waits"),
        ("a%_ bob", "a%_ <*>"),
        ("héllo bob", "héllo <*>"),
        ("took: long time", "took: <*> time"),
    ],
)
def test_a_message_whose_values_are_words_names_the_known_pattern_that_it_fits(
    admin, message, template
):
    reported(admin, LOGIN, "user <*> <*> in", "<*> waits", "a%_ <*>", "abc <*>", "héllo <*>",
             "took: <*> time", "USER bob <*> in", "user bob <*> out")  # fmt: skip
    boost = begin(admin, pattern=message)
    known = "<*>" in template
    assert boost["signature"] == signature_of(template)
    assert boost["template"] == (template if known else None)
    assert [line["signature"] for line in served(admin)[0]] == [signature_of(template)]


def test_a_message_names_what_the_same_message_names_in_a_process(admin):
    templates = ["user <*> logged in", "user <*> <*> in", "<*> bob logged in", "user bob <*>",
                 "user <*>", "job <*> of <*> done in <*>", "job <*> done in <*>"]  # fmt: skip
    reported(admin, *templates)
    process = AdaptiveSampler(notices=False)
    for template in templates:
        process.should_sample(template.replace("<*>", "0"), "INFO")
    for message in ("user eve logged in", "user eve van dyk logged in", "user bob", "user eve x",
                    "job import of shop done in time", "job a done in b"):  # fmt: skip
        found = admin.post(BOOSTS, json={"pattern": message}).json
        assert found["signature"] == process.explain(message).signature, message
    process.shutdown()


def test_a_message_that_fits_two_equally_is_asked_about(admin):
    fits = ["copy <*> sent", "<*> file sent"]
    reported(admin, *fits, "<*> sent")
    answer = admin.post(BOOSTS, json={"pattern": "copy file sent"})
    assert (answer.status_code, served(admin)[0]) == (409, [])
    told = answer.json["error"]["message"]
    assert all(f"{signature_of(template)} ({template})" in told for template in fits)
    assert "(<*> sent)" not in told
    assert begin(admin, pattern=signature_of(fits[0]))["template"] == fits[0]


@pytest.mark.parametrize(("minutes", "template"), [(0, "user bob logged in"), (5, LOGIN)])
def test_a_message_from_before_its_call_site_was_known_names_the_pattern_of_today(
    admin, minutes, template
):
    reported(admin, "user bob logged in", first_seen=NOON, last_seen=NOON)
    reported(admin, LOGIN, first_seen=NOON, last_seen=f"2026-01-01T12:{minutes:02d}:01Z")
    assert begin(admin, pattern="user bob logged in")["template"] == template


def test_a_message_never_names_a_pattern_of_another_service_or_team(admin, caller):
    stranger = caller("b")
    reported(stranger, LOGIN)
    reported(admin, LOGIN, service_name="other")
    reported(admin, "started")
    own = compute_signature("user bob logged in")
    boost = begin(admin, pattern="user bob logged in")
    assert (boost["signature"], boost["template"]) == (own, None)
    missing = admin.post("/api/v1/boosts?service_name=none", json={"pattern": "user bob logged in"})
    assert missing.status_code == 404


def test_a_template_that_was_cut_off_fits_no_message(admin):
    fields = {"signature": "00000000000000aa", "template": "user <*> logged in"}
    body = a_report(0) | {"patterns": [a_pattern(0, **fields)]}
    admin.post("/api/v1/patterns/report", json=body)
    assert begin(admin, pattern="user bob logged in")["template"] is None


def test_no_word_of_the_message_is_stored_or_served(admin, runtime):
    reported(admin, LOGIN)
    begin(admin, pattern="user bob logged in")
    begin(admin, pattern="bob vanished", reason="INC-1")
    for table in ("boost", "audit", "pattern"):
        assert "bob" not in json.dumps(runtime.store.db.rows(f"SELECT * FROM {table}"), default=str)
    assert b"bob" not in admin.get(ACTIVE).data


def add(runtime, team_id, now):
    return runtime.store.boosts.begin(
        team_id, "shop", signature=None, severity=None, logger="x", minutes=1.0, reason="",
        actor="test", now=now,
    )  # fmt: skip


def test_a_service_runs_so_many_at_once_and_no_more(shop, runtime, clock):
    team_id = runtime.store.teams.named("a")["id"]
    with runtime.store.db.transaction():
        last = [add(runtime, team_id, clock.now) for _ in range(MAX_RUNNING)][-1]
    answer = shop.post(BOOSTS, json={})
    assert (answer.status_code, "100" in answer.json["error"]["message"]) == (409, True)
    shop("DELETE", f"/api/v1/boosts/{last['id']}")
    begin(shop)
    assert shop.post(BOOSTS, json={}).status_code == 409
    clock.forward(60)
    begin(shop)


def test_several_at_once_do_not_pass_the_bound_together(shop, runtime, clock):
    team_id = runtime.store.teams.named("a")["id"]
    with runtime.store.db.transaction():
        for _ in range(MAX_RUNNING - 3):
            add(runtime, team_id, clock.now)
    refused, start = [], threading.Barrier(8)

    def run():
        start.wait()
        try:
            add(runtime, team_id, clock.now)
        except ConflictError as error:
            refused.append(error)
        finally:
            runtime.store.db.close()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    running = runtime.store.boosts.running(team_id, "shop", now=clock.now)
    assert (len(running), len(refused)) == (MAX_RUNNING, 5)


def test_what_runs_and_what_has_ended_is_listed_by_the_page(shop, clock):
    shop.post("/api/v1/patterns/report", json=a_report(1, service_name="other"))
    ids = [begin(shop, logger=f"l{number}", minutes=number + 1)["id"] for number in range(5)]
    other = shop.post("/api/v1/boosts", json={"service_name": "other", "minutes": 9}).json["id"]

    def listed(query="", base=BOOSTS):
        return [line["id"] for line in shop.get(f"{base}{query}").json["boosts"]]

    assert listed() == ids[::-1]
    assert listed(base="/api/v1/boosts") == [other, *ids[::-1]]
    assert listed("&limit=2") == [ids[4], ids[3]]
    assert listed(f"&limit=2&before={ids[3]}") == [ids[2], ids[1]]
    assert listed("&ended=true") == []
    clock.forward(181)
    shop("DELETE", f"/api/v1/boosts/{ids[4]}")
    assert listed() == [ids[3]]
    assert listed("&ended=true") == [ids[4], ids[2], ids[1], ids[0]]
    assert listed(f"&ended=true&before={ids[2]}") == [ids[1], ids[0]]
    lines = {line["id"]: line for line in shop.get(f"{BOOSTS}&ended=true").json["boosts"]}
    assert (lines[ids[4]]["ended_by"] is None, lines[ids[2]]["ended_by"]) == (False, None)
    assert unix(lines[ids[4]]["until"]) == clock.now
    assert (lines[ids[4]]["minutes"], lines[ids[4]]["reason"]) == (5.0, "")


def test_who_began_and_who_ended_what_is_in_the_audit_log(shop, caller, clock):
    other = caller("a")
    one = begin(shop, pattern=SIGNATURE, severity="INFO", minutes=30, reason="INC-7")
    two = begin(shop)
    clock.forward(90)
    other("DELETE", f"/api/v1/boosts/{one['id']}")
    other("DELETE", f"/api/v1/boosts/{one['id']}")
    lines = shop.get("/api/v1/audit?action=boost.").json["lines"]
    assert [(line["action"], line["target"], line["actor"]) for line in lines] == [
        ("boost.end", f"shop/{one['id']}", f"key {other.key.split('_')[2]}"),
        ("boost.begin", f"shop/{two['id']}", f"key {shop.key.split('_')[2]}"),
        ("boost.begin", f"shop/{one['id']}", f"key {shop.key.split('_')[2]}"),
    ]
    what = {"signature": SIGNATURE, "severity": "INFO"}
    assert lines[2]["detail"] == what | {
        "minutes": 30.0,
        "until": "2027-01-15T08:30:00Z",
        "reason": "INC-7",
    }
    assert lines[1]["detail"] == {
        "of": "the whole service",
        "minutes": 10.0,
        "until": "2027-01-15T08:10:00Z",
    }
    assert lines[0]["detail"] == what | {
        "was_to_end": "2027-01-15T08:30:00Z",
        "ended": "2027-01-15T08:01:30Z",
    }


def test_an_id_alone_reaches_no_boost_of_another_team_or_service(shop, caller):
    shop.post("/api/v1/patterns/report", json=a_report(1, service_name="other"))
    boost = begin(shop, reason="ours")
    stranger, bound = caller("b"), caller("a", service="other")
    for held, path in (
        (stranger, f"/api/v1/boosts/{boost['id']}"),
        (bound, f"/api/v1/boosts/{boost['id']}"),
        (shop, f"/api/v1/boosts/{boost['id']}?service_name=other"),
    ):
        assert held("DELETE", path).status_code == 404
    for held in (stranger, bound):
        assert held.get("/api/v1/boosts").json == {"boosts": []}
        assert held.get("/api/v1/boosts?ended=true").json == {"boosts": []}
    assert len(served(shop)[0]) == 1
    assert bound.post("/api/v1/boosts", json={"service_name": "shop"}).status_code == 403
    assert bound.post("/api/v1/boosts").json["service_name"] == "other"


def test_the_history_is_kept_for_30_days_and_goes_with_its_service(shop, runtime, clock):
    begin(shop, minutes=10)
    begin(shop, minutes=1440)
    clock.forward(30 * 86_400 + 599)
    assert jobs.prune(runtime)["boosts"] == 0
    clock.forward(2)
    assert jobs.prune(runtime)["boosts"] == 1
    assert len(shop.get(f"{BOOSTS}&ended=true").json["boosts"]) == 1
    begin(shop)
    shop("DELETE", "/api/v1/service?service_name=shop")
    assert runtime.store.db.rows("SELECT * FROM boost") == []
    assert served(shop)[0] == []


@pytest.mark.parametrize("minutes", [1e-9, 0.01, 0.5, 1, 59.99, 1440])
def test_any_length_ends_on_a_whole_second_that_is_not_too_early(shop, clock, minutes):
    clock.now += 0.4
    until = unix(begin(shop, minutes=minutes)["until"])
    assert 0 <= until - (clock.now + 60 * minutes) <= 1
    assert [unix(boost["until"]) for boost in served(shop)[0]] == [until]


def test_a_clock_that_stands_still_serves_the_same_bytes():
    clock = Clock()
    boost = {"signature": None, "severity": None, "logger": 'ä"</b>', "until": "2027-01-15T09:00:00Z"}  # fmt: skip
    document = {**default_document(), "boosts": [boost], "reasoning": "x" * 700}
    entry = make_entry(1, document, 100)
    body = entry.body(None)
    assert json.loads(body.plain) == {**document, "max_logs_per_minute": 100}
    assert entry.without_ended(clock.now).body(None).plain == body.plain
    assert make_entry(1, document, 100).body(None).etag == body.etag
