"""Policies: generation, versions, activation, drafts, pins, shadow mode, shares, ETags."""

from __future__ import annotations

import gzip
import json

import pytest

from lipservice.policy import SamplingPolicy
from tests.server.harness import a_pattern, a_report, wait_for

ACTIVE = "/api/v1/policies/active?service_name=shop"
GENERATE = "/api/v1/policies/generate"


@pytest.fixture
def shop(admin):
    admin.post("/api/v1/patterns/report", json=a_report(50))
    return admin


def generate(admin, **body):
    answer = admin.post(GENERATE, json={"service_name": "shop", **body})
    assert answer.status_code == 200, answer.text
    return answer.json


def versions(admin):
    return [
        (row["version"], row["state"])
        for row in admin.get("/api/v1/policies?service_name=shop").json["policies"]
    ]


def test_before_a_first_policy_everything_is_kept(admin):
    policy = SamplingPolicy.from_dict(admin.get(ACTIVE).json)
    assert policy.rate_for("x", "DEBUG") == 1.0
    assert policy.version == 0


def test_generation_from_reports_alone_is_active_at_once(shop):
    made = generate(shop, cost_target=0.2)
    assert (made["version"], made["state"], made["llm_provider"]) == (1, "active", "builtin")
    assert made["cost_reduction"] == pytest.approx(0.8, abs=0.02)
    served = shop.get(ACTIVE).json
    assert {name: made[name] for name in served} == served
    assert SamplingPolicy.from_dict(served).rate_for("x", "ERROR") == 1.0


def test_generation_needs_no_body_where_the_key_names_the_service(shop, caller):
    assert caller("a", service="shop").post(GENERATE).status_code == 200


def test_generation_without_patterns_is_refused_and_makes_no_version(admin):
    answer = admin.post(GENERATE, json={"service_name": "shop"})
    assert answer.status_code == 422
    assert versions(admin) == []


def test_a_provider_without_a_key_falls_back_and_says_so(shop):
    made = generate(shop, llm_provider="anthropic")
    assert made["llm_provider"] == "builtin"
    assert "ANTHROPIC_API_KEY" in made["fallback_reason"]


def test_the_history_activation_and_roll_back(shop):
    for target in (0.5, 0.2, 0.1):
        generate(shop, cost_target=target)
    assert versions(shop) == [(3, "active"), (2, "superseded"), (1, "superseded")]
    answer = shop.post("/api/v1/policies/1/activate?service_name=shop")
    assert (answer.status_code, answer.json["state"]) == (200, "active")
    assert versions(shop) == [(3, "superseded"), (2, "superseded"), (1, "active")]
    assert shop.get(ACTIVE).json["version"] == 1
    assert generate(shop)["version"] == 4


def test_a_draft_waits_for_approval(shop):
    generate(shop)
    draft = generate(shop, activate=False)
    assert (draft["version"], draft["state"]) == (2, "draft")
    assert shop.get(ACTIVE).json["version"] == 1
    assert shop.post("/api/v1/policies/2/approve?service_name=shop").json["state"] == "active"
    assert shop.post("/api/v1/policies/2/approve?service_name=shop").status_code == 409
    assert shop.get(ACTIVE).json["version"] == 2


def test_a_rejected_draft_can_never_become_active(shop):
    generate(shop, activate=False)
    assert shop.post("/api/v1/policies/1/reject?service_name=shop").json["state"] == "rejected"
    assert shop.post("/api/v1/policies/1/activate?service_name=shop").status_code == 409
    assert shop.post("/api/v1/policies/1/reject?service_name=shop").status_code == 409


def test_a_service_that_wants_approval_generates_drafts(shop):
    shop("PATCH", "/api/v1/service?service_name=shop", json={"auto_apply": False})
    assert generate(shop)["state"] == "draft"


def test_a_policy_by_hand_and_its_difference(shop):
    generate(shop)
    hand = {
        "sampling_rate": 0.5,
        "patterns": ["payment"],
        "severity_rates": {"INFO": 0.25},
        "pattern_rates": {"abc": 0.125},
        "activate": True,
    }
    made = shop.post("/api/v1/policies?service_name=shop", json=hand)
    assert (made.status_code, made.json["state"], made.json["generated_by"]) == (
        201,
        "active",
        "hand",
    )
    diff = shop.get("/api/v1/policies/diff?service_name=shop&from_version=1&to_version=2").json
    assert {"name": "abc", "before": None, "after": 0.125} in diff["pattern_rates"]
    assert diff["words_added"] == ["payment"]
    assert diff["severity_rates"][-1]["name"] in ("TRACE", "WARNING", "INFO")


def test_a_pin_is_served_at_once_survives_generation_and_roll_back_and_can_be_undone(shop):
    generate(shop, cost_target=0.5)
    pin = f"/api/v1/patterns/{3:016x}/pin?service_name=shop"
    assert (
        shop("PUT", pin, json={"rate": 0.03125, "reason": "noise"}).json["pinned_rate"] == 0.03125
    )

    def rate():
        return shop.get(ACTIVE).json["pattern_rates"].get(f"{3:016x}")

    assert rate() == 0.03125
    generate(shop, cost_target=0.3)
    assert rate() == 0.03125
    shop.post("/api/v1/policies/1/activate?service_name=shop")
    assert rate() == 0.03125
    assert shop("PUT", pin, json={"protected": True}).json["protected"] is True
    assert rate() == 1.0
    assert [
        row["protected"] for row in shop.get("/api/v1/pins?service_name=shop").json["pins"]
    ] == [True]
    assert shop("DELETE", pin).status_code == 200
    assert rate() != 0.03125
    assert shop("DELETE", pin).status_code == 404


@pytest.mark.parametrize(
    "body", [{}, {"rate": 0.5, "protected": True}, {"rate": 1.5}, {"rate": True}, {"rate": "0.5"}]
)
def test_a_pin_is_a_rate_or_a_protection(shop, body):
    assert (
        shop("PUT", f"/api/v1/patterns/{3:016x}/pin?service_name=shop", json=body).status_code
        == 422
    )


def test_shadow_mode_belongs_to_the_service(shop):
    generate(shop)
    shop("PATCH", "/api/v1/service?service_name=shop", json={"mode": "shadow"})
    assert shop.get(ACTIVE).json["mode"] == "shadow"
    generate(shop)
    assert shop.get(ACTIVE).json["mode"] == "shadow"
    shop("PATCH", "/api/v1/service?service_name=shop", json={"mode": "active"})
    assert shop.get(ACTIVE).json["mode"] == "active"


def test_words_of_the_service_protect_in_every_version(shop):
    shop("PATCH", "/api/v1/service?service_name=shop", json={"words": ["payment"]})
    assert "payment" in shop.get(ACTIVE).json["patterns"]


def test_an_etag_spares_the_body_until_something_changes(shop):
    generate(shop)
    first = shop.get(ACTIVE)
    etag = first.headers["ETag"]
    for header in (etag, f'"x", {etag}', "*", etag.removeprefix("W/")):
        same = shop.get(ACTIVE, headers={"If-None-Match": header})
        assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", etag)
    generate(shop, cost_target=0.9)
    assert shop.get(ACTIVE, headers={"If-None-Match": etag}).status_code == 200


def test_a_long_body_is_compressed_for_those_who_ask(shop):
    generate(shop)
    plain = shop.get(ACTIVE)
    packed = shop.get(ACTIVE, headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert "Accept-Encoding" in packed.headers["Vary"]


def test_the_fleets_limit_is_dealt_out_by_volume(shop, clock, runtime):
    """Three instances, one of them ten times as loud: shares follow, and sum up to no more."""
    loud = [a_pattern(0, count=10_000, kept=10)]
    shop.post("/api/v1/patterns/report", json=a_report(1, instance_id="quiet-1"))
    shop.post("/api/v1/patterns/report", json=a_report(1, instance_id="quiet-2"))
    shop.post("/api/v1/patterns/report", json=a_report(0, instance_id="loud") | {"patterns": loud})
    generate(shop)
    shop("PATCH", "/api/v1/service?service_name=shop", json={"max_logs_per_minute": 6000})

    def share(instance):
        answer = shop.get(f"{ACTIVE}&instance_id={instance}")
        return answer.json["max_logs_per_minute"], answer.headers["ETag"]

    shares = {name: share(name)[0] for name in ("loud", "quiet-1", "quiet-2", "host-1:1")}
    assert shares["loud"] > 5 * shares["quiet-1"] > 0
    assert shares["quiet-1"] == shares["quiet-2"]
    assert 0.85 * 6000 <= sum(shares.values()) <= 6000
    assert share("newcomer")[0] == 6000 / 5
    assert len({share(name)[1] for name in shares}) == len(set(shares.values()))
    listed = shop.get("/api/v1/instances?service_name=shop").json["instances"]
    assert {row["instance_id"]: row["share"] for row in listed} == shares


def test_an_instance_that_falls_silent_leaves_its_share_to_the_others(shop, clock, runtime):
    shop.post("/api/v1/patterns/report", json=a_report(1, instance_id="old", interval=60.0))
    shop("PATCH", "/api/v1/service?service_name=shop", json={"max_logs_per_minute": 1000})
    clock.forward(4 * 600)
    shop.post("/api/v1/patterns/report", json=a_report(1, instance_id="new", interval=60.0))
    wait_for(lambda: shop.get(f"{ACTIVE}&instance_id=new").json["max_logs_per_minute"] == 1000)
    assert shop.get("/api/v1/instances?service_name=shop&live=true").json["total"] == 1


def test_another_workers_policy_is_served_without_being_told(make_app, settings, shop):
    second = make_app(settings)
    headers = {"Authorization": f"Bearer {shop.key}"}
    client = second.test_client()
    assert client.get(ACTIVE, headers=headers).json["version"] == 0
    generate(shop)
    wait_for(lambda: client.get(ACTIVE, headers=headers).json["version"] == 1, seconds=5)
    shop("DELETE", "/api/v1/service?service_name=shop")
    wait_for(lambda: client.get(ACTIVE, headers=headers).json["version"] == 0, seconds=5)


def test_two_generations_at_once_are_one(shop, runtime, clock):
    with runtime.store.leases.hold("generate 1/shop", seconds=60, now=clock.now):
        answer = shop.post(GENERATE, json={"service_name": "shop"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (409, "10")
    generate(shop)


def test_a_lease_that_was_left_behind_ends_by_itself(shop, runtime, clock):
    runtime.store.db.execute(
        "INSERT INTO lease VALUES ('generate 1/shop', 'dead', ?)", clock.now + 5
    )
    assert shop.post(GENERATE, json={"service_name": "shop"}).status_code == 409
    clock.forward(6)
    generate(shop)


def test_every_change_is_in_the_audit_log_and_no_key_is(shop):
    generate(shop)
    shop("PUT", f"/api/v1/patterns/{3:016x}/pin?service_name=shop", json={"rate": 0.5})
    shop("PATCH", "/api/v1/service?service_name=shop", json={"mode": "shadow"})
    made = shop.post("/api/v1/keys", json={"name": "ci", "scopes": ["read"]}).json
    lines = shop.get("/api/v1/audit").json["lines"]
    assert [line["action"] for line in lines[:6]] == [
        "key.create",
        "service.update",
        "pattern.pin",
        "policy.activate",
        "policy.create",
        "key.create",
    ]
    assert lines[1]["detail"] == {"before": {"mode": "active"}, "after": {"mode": "shadow"}}
    assert {line["actor"] for line in lines[:5]} == {f"key {shop.key.split('_')[2]}"}
    assert made["key"] not in json.dumps(lines)


def test_savings_are_what_was_not_kept_at_the_teams_price(shop):
    shop("PATCH", "/api/v1/team", json={"price_per_gb": 1000.0})
    found = shop.get("/api/v1/savings?days=2&step=hour").json
    assert found["records"] == sum(100 + i for i in range(50))
    assert found["bytes"] == 50 * 10_000
    assert found["saved_bytes"] == found["bytes"] - found["kept_bytes"]
    assert found["saved_money"] == pytest.approx(found["saved_bytes"] / 1e6)
    assert sum(point["bytes"] for point in found["points"]) == found["bytes"]
    assert shop.get("/api/v1/savings?service_name=shop").json["records"] == found["records"]


def test_a_team_may_lower_its_budget_for_models_and_not_raise_it(admin):
    assert admin("PATCH", "/api/v1/team", json={"llm_daily_calls": 3}).json["llm_daily_calls"] == 3
    assert admin("PATCH", "/api/v1/team", json={"llm_daily_tokens": 10**11}).status_code == 422
    assert (
        admin("PATCH", "/api/v1/team", json={"llm_daily_calls": None}).json["llm_daily_calls"]
        == 200
    )


def test_patterns_are_searched_sorted_and_paged(admin):
    patterns = [
        a_pattern(i, template=t, count=c, kept=0)
        for i, (t, c) in enumerate(
            [
                ("Login of <*> failed", 5),
                ("login ok", 50),
                ("100% done", 500),
                ("a_b", 7),
                ("a\\b", 1),
            ]
        )
    ]
    admin.post("/api/v1/patterns/report", json=a_report(0) | {"patterns": patterns})

    def found(query):
        page = admin.get(f"/api/v1/patterns?service_name=shop&{query}").json
        return [row["template"] for row in page["patterns"]], page["total"]

    assert found("limit=2") == (["100% done", "login ok"], 5)
    assert found("limit=2&offset=4") == (["a\\b"], 5)
    assert found("search=LOGIN&sort=count&order=asc") == (["Login of <*> failed", "login ok"], 2)
    assert found("search=100%25") == (["100% done"], 1)
    assert found("search=a_b") == (["a_b"], 1)
    assert found("search=a%5Cb") == (["a\\b"], 1)
    assert found(f"search={2:016x}") == (["100% done"], 1)
    assert found("severity=ERROR") == ([], 0)
    assert found("pinned=true") == ([], 0)
