"""
Tenancy and scopes for every route, made from the url map: a route that nobody thought of fails.
"""

from __future__ import annotations

import re

import pytest

from lipservice_server.app import create_app
from lipservice_server.config import Settings
from tests.server.conftest import Caller
from tests.server.harness import a_pattern, a_report, make_team

PUBLIC = {"/healthz", "/readyz", "/metrics", "/api/v1/openapi.json"}
#: How a route is called rightly, and which scope is the least that may call it. What is not here fails.
ROUTES = {
    ("GET", "/api/v1/policies/active"): ("ingest", None),
    ("POST", "/api/v1/patterns/report"): ("ingest", a_report(1)),
    ("POST", "/api/v1/policies/generate"): ("admin", {"service_name": "shop"}),
    ("GET", "/api/v1/policies"): ("read", None),
    ("POST", "/api/v1/policies"): ("admin", {"sampling_rate": 0.5}),
    ("GET", "/api/v1/policies/1"): ("read", None),
    ("GET", "/api/v1/policies/diff"): ("read", None),
    ("POST", "/api/v1/policies/1/activate"): ("admin", None),
    ("POST", "/api/v1/policies/1/approve"): ("admin", None),
    ("POST", "/api/v1/policies/1/reject"): ("admin", None),
    ("GET", "/api/v1/patterns"): ("read", None),
    ("GET", "/api/v1/patterns/rising"): ("read", None),
    ("GET", "/api/v1/patterns/0000000000000000"): ("read", None),
    ("GET", "/api/v1/patterns/0000000000000000/volume"): ("read", None),
    ("GET", "/api/v1/pins"): ("read", None),
    ("PUT", "/api/v1/patterns/0000000000000000/pin"): ("admin", {"rate": 0.5}),
    ("DELETE", "/api/v1/patterns/0000000000000000/pin"): ("admin", None),
    ("GET", "/api/v1/boosts"): ("read", None),
    ("POST", "/api/v1/boosts"): ("admin", {"minutes": 1, "reason": "did thing 1"}),
    ("DELETE", "/api/v1/boosts/1"): ("admin", None),
    ("GET", "/api/v1/services"): ("read", None),
    ("GET", "/api/v1/service"): ("read", None),
    ("PATCH", "/api/v1/service"): ("admin", {"mode": "shadow"}),
    ("DELETE", "/api/v1/service"): ("admin", None),
    ("GET", "/api/v1/instances"): ("read", None),
    ("GET", "/api/v1/savings"): ("read", None),
    ("GET", "/api/v1/team"): ("read", None),
    ("PATCH", "/api/v1/team"): ("admin", {"price_per_gb": 2.0}),
    ("GET", "/api/v1/keys"): ("admin", None),
    ("POST", "/api/v1/keys"): ("admin", {"name": "x", "scopes": ["ingest"]}),
    ("POST", "/api/v1/keys/1/rotate"): ("admin", {}),
    ("DELETE", "/api/v1/keys/1"): ("admin", None),
    ("POST", "/api/v1/auth/token"): ("ingest", None),
    ("GET", "/api/v1/audit"): ("admin", None),
}
#: Routes about the caller's own team as a whole: another team's key sees its own.
OWN = {
    "/api/v1/services",
    "/api/v1/team",
    "/api/v1/keys",
    "/api/v1/auth/token",
    "/api/v1/audit",
}
#: Routes that make a service of the caller's own where it has none of that name.
MAKING = {"/api/v1/patterns/report", "/api/v1/policies/generate", "/api/v1/policies/active"}
_NAMED = {("GET", "/api/v1/policies/diff"): "&from_version=1&to_version=1"}


def url_of(method, path):
    whole_team = path in OWN or path.startswith("/api/v1/keys")
    if whole_team:
        return path
    return f"{path}?service_name=shop{_NAMED.get((method, path), '')}"


def routes(app):
    """Every (method, path) of the url map, with example values for its parts."""
    found = set()
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<int[^>]*>", "1", rule.rule)
        path = path.replace("<signature>", f"{0:016x}")
        found |= {(method, path) for method in rule.methods - {"HEAD", "OPTIONS"}}
    return found


def test_every_route_of_the_server_is_in_this_matrix(tmp_path):
    app = create_app(Settings(data_dir=str(tmp_path)))
    known = set(ROUTES) | {("GET", path) for path in PUBLIC}
    assert {route for route in routes(app) if "/dashboard" not in route[1]} == known


@pytest.fixture
def full(app):
    """Team a with a service, patterns, a policy, a pin and a boost."""
    admin = Caller(app, make_team(app, "a"))
    admin.post("/api/v1/patterns/report", json=a_report(2))
    admin("PUT", f"/api/v1/patterns/{1:016x}/pin?service_name=shop", json={"rate": 0.125})
    assert admin.post("/api/v1/policies/generate", json={"service_name": "shop"}).status_code == 200
    boost = {"service_name": "shop", "reason": "did thing 1"}
    assert admin.post("/api/v1/boosts", json=boost).json["id"] == 1
    return admin


def test_no_route_answers_without_a_key(app, full, caller):
    for method, path in sorted(ROUTES):
        for header in (
            None,
            "",
            "Bearer",
            "Bearer x",
            "Basic YTpi",
            f"Bearer {full.key}x",
            f"bearer lip_{'x' * 80}",
            "Bearer " + "é".encode().decode("latin-1"),
        ):
            headers = {} if header is None else {"Authorization": header}
            answer = app.test_client().open(
                url_of(method, path), method=method, json=ROUTES[method, path][1], headers=headers
            )
            assert answer.status_code == 401, (method, path, header)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_revoked_and_expired_keys_are_refused_on_every_route(app, full, caller, clock, runtime):
    revoked = caller("a")
    expired = caller("a", expires_at=int(clock.now) + 10)
    rows = full.get("/api/v1/keys").json["keys"]
    of_revoked = next(row["id"] for row in rows if row["prefix"] == revoked.key.split("_")[2])
    assert full("DELETE", f"/api/v1/keys/{of_revoked}").status_code == 200
    clock.forward(11)
    for method, path in sorted(ROUTES):
        for held in (revoked, expired):
            answer = held(method, url_of(method, path), json=ROUTES[method, path][1])
            assert answer.status_code == 401, (method, path)


def test_a_weaker_scope_is_forbidden(app, full, caller):
    holders = {scope: caller("a", scopes=(scope,)) for scope in ("ingest", "read")}
    may = {"ingest": {"ingest", "read"}, "read": {"read"}, "admin": set()}
    for method, path in sorted(ROUTES):
        least, body = ROUTES[method, path]
        allowed = may[least] if path != "/api/v1/patterns/report" else {"ingest"}
        for scope, holder in holders.items():
            if scope in allowed:
                continue
            answer = holder(method, url_of(method, path), json=body)
            assert answer.status_code == 403, (method, path, scope)


def test_another_teams_things_are_as_if_they_were_not_there(app, full, caller):
    """404 for what is named, its own emptiness for what is not, and nothing of team a in any answer."""
    other = caller("b")
    seen = ("/api/v1/patterns?service_name=shop", "/api/v1/boosts?service_name=shop")
    before = [full.get(path).json for path in seen]
    for method, path in sorted(ROUTES):
        body = ROUTES[method, path][1]
        answer = other(method, url_of(method, path), json=body)
        if path in OWN or path in MAKING:
            assert answer.status_code in (200, 201, 422), (method, path)
        else:
            assert answer.status_code == 404, (method, path, answer.text)
        for secret in ("0.125", full.key.split("_")[2], "did thing 1"):
            assert secret not in answer.text, (method, path)
        other("DELETE", "/api/v1/service?service_name=shop")
    assert [full.get(path).json for path in seen] == before


def test_the_policy_of_another_teams_service_is_that_of_a_name_nobody_has(app, full, caller):
    other = caller("b")
    theirs = other.get("/api/v1/policies/active?service_name=shop")
    nobodys = other.get("/api/v1/policies/active?service_name=nobody")
    assert (theirs.status_code, theirs.data, theirs.headers["ETag"]) == (
        200,
        nobodys.data,
        nobodys.headers["ETag"],
    )


def test_a_key_of_one_service_sees_no_other_and_nothing_of_the_whole_team(app, full, caller):
    full.post("/api/v1/patterns/report", json=a_report(1, service_name="other"))
    bound = caller("a", service="other")
    for method, path in sorted(ROUTES):
        body = ROUTES[method, path][1]
        answer = bound(method, url_of(method, path), json=body)
        if path == "/api/v1/auth/token":
            assert answer.status_code == 200
        else:
            assert answer.status_code == 403, (method, path, answer.text)


def test_the_same_ids_live_side_by_side_in_two_teams(caller):
    """Same service, same report id, same signature, other counts: none touches the other."""
    a, b = caller("a"), caller("b")
    report = a_report(1, report_id="same")
    a.post("/api/v1/patterns/report", json=report)
    answer = b.post(
        "/api/v1/patterns/report", json=report | {"patterns": [a_pattern(0, count=7, kept=1)]}
    )
    assert "duplicate" not in answer.json
    url = "/api/v1/patterns?service_name=shop"
    assert [held.get(url).json["patterns"][0]["count"] for held in (a, b)] == [100, 7]
