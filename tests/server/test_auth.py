"""Keys and tokens: what is stored, what is accepted, how they end."""

from __future__ import annotations

import time

import jwt
import pytest
import redis

from lipservice_server.config import Settings
from lipservice_server.errors import UnauthorizedError
from lipservice_server.keys import make_key, prefix_of
from lipservice_server.secret import derive, load_secret
from tests.server.harness import wait_for

ACTIVE = "/api/v1/policies/active?service_name=shop"


def test_a_key_holds_its_id_and_a_check():
    key, prefix = make_key("live")
    assert key.startswith(f"lip_live_{prefix}_")
    assert prefix_of(key) == prefix
    mistyped = key[:-1] + ("0" if key[-1] != "0" else "1")
    assert prefix_of(mistyped) is None


def test_the_database_holds_no_key_and_a_stolen_hash_is_refused(admin, runtime, caller):
    (row,) = runtime.store.keys.live()
    dump = repr([runtime.store.db.rows(f"SELECT * FROM {t}") for t in ("api_key", "audit", "meta")])
    assert admin.key not in dump
    assert admin.key.split("_")[3] not in dump
    assert row["hash"] in dump
    for stolen in (row["hash"], f"lip_test_{row['prefix']}_{row['hash'][:43]}_000000"):
        with pytest.raises(UnauthorizedError):
            runtime.ring.authenticate(f"Bearer {stolen}")


def test_a_new_key_is_shown_once_and_works_at_once(admin, app, caller):
    made = admin.post(
        "/api/v1/keys", json={"name": "ci", "scopes": ["ingest"], "service_name": "shop"}
    )
    assert made.status_code == 201
    key = made.json["key"]
    headers = {"Authorization": f"Bearer {key}"}
    assert app.test_client().get("/api/v1/policies/active", headers=headers).status_code == 200
    listed = admin.get("/api/v1/keys")
    assert key not in listed.text
    assert "hash" not in listed.text


def test_rotation_lets_both_keys_live_and_then_one(admin, app, clock):
    made = admin.post(
        "/api/v1/keys", json={"name": "ci", "scopes": ["ingest"], "service_name": "shop"}
    ).json
    successor = admin.post(f"/api/v1/keys/{made['id']}/rotate", json={"overlap_seconds": 60}).json

    def works(key):
        return (
            app.test_client()
            .get("/api/v1/policies/active", headers={"Authorization": f"Bearer {key}"})
            .status_code
        )

    assert [works(made["key"]), works(successor["key"])] == [200, 200]
    assert (successor["scopes"], successor["service_name"]) == (["ingest"], "shop")
    clock.forward(61)
    assert [works(made["key"]), works(successor["key"])] == [401, 200]
    again = admin.post(f"/api/v1/keys/{made['id']}/rotate", json={})
    assert again.status_code == 409


def test_a_token_stands_for_its_key_for_a_while(admin, app, clock, caller):
    reader = caller("a", scopes=("read",))
    token = reader.post("/api/v1/auth/token").json
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    client = app.test_client()
    assert client.get("/api/v1/team", headers=headers).status_code == 200
    assert client.patch("/api/v1/team", headers=headers, json={}).status_code == 403
    assert client.post("/api/v1/auth/token", headers=headers).status_code == 422
    clock.forward(token["expires_in"] + 1)
    assert client.get("/api/v1/team", headers=headers).status_code == 401


def test_a_token_dies_with_its_key(admin, app, caller):
    reader = caller("a", scopes=("read",))
    token = reader.post("/api/v1/auth/token").json["access_token"]
    rows = admin.get("/api/v1/keys").json["keys"]
    key_id = next(row["id"] for row in rows if row["prefix"] == reader.key.split("_")[2])
    admin("DELETE", f"/api/v1/keys/{key_id}")
    assert (
        app.test_client()
        .get("/api/v1/team", headers={"Authorization": f"Bearer {token}"})
        .status_code
        == 401
    )


def _tokens(good, signing):
    """The wrong ones of RELIABILITY B4.8, by name."""
    claims = dict(good)

    def sign(change=(), *, drop=(), key=signing, algorithm="HS256", typ="at+jwt"):
        used = {
            name: value for name, value in {**claims, **dict(change)}.items() if name not in drop
        }
        return jwt.encode(used, key, algorithm=algorithm, headers={"typ": typ})

    yield "none", jwt.encode(claims, None, algorithm="none", headers={"typ": "at+jwt"})
    yield "other key", sign(key=b"x" * 32)
    yield "other algorithm", sign(algorithm="HS512", key=signing + signing)
    yield "no type", sign(typ="JWT")
    for name in ("exp", "iat", "sub", "aud", "iss", "team"):
        yield f"no {name}", sign(drop=(name,))
    yield "other audience", sign({"aud": "x"})
    yield "other issuer", sign({"iss": "x"})
    yield "ten years", sign({"exp": claims["exp"] + 10 * 365 * 86_400})
    yield "expired", sign({"exp": claims["iat"] - 1, "iat": claims["iat"] - 100})
    yield "from the future", sign({"iat": claims["iat"] + 3600, "exp": claims["exp"] + 3600})
    yield "other team", sign({"team": claims["team"] + 1})
    yield "no such key", sign({"sub": "key:999"})
    yield "sub of another kind", sign({"sub": "key:1 or 1=1"})
    yield "exp as text", sign({"exp": str(claims["exp"])})
    yield "unsigned", sign().rsplit(".", 1)[0] + "."
    yield "cut", sign()[:-5]
    yield "endless", "x" * 100_000


def test_only_a_token_of_ours_is_accepted(admin, app, runtime, settings):
    signing = derive(load_secret(settings), "tokens")
    token = admin.post("/api/v1/auth/token").json["access_token"]
    good = jwt.decode(token, options={"verify_signature": False})
    client = app.test_client()
    assert (
        client.get("/api/v1/team", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    )
    for name, wrong in _tokens(good, signing):
        answer = client.get("/api/v1/team", headers={"Authorization": f"Bearer {wrong}"})
        assert answer.status_code == 401, name


def test_refused_keys_of_one_address_are_limited(make_app, settings):
    from dataclasses import replace

    app = make_app(replace(settings, failures_per_minute=6, workers=2))
    client = app.test_client()
    statuses = [
        client.get(ACTIVE, headers={"Authorization": "Bearer x"}).status_code for _ in range(5)
    ]
    assert statuses == [401, 401, 401, 429, 429]


@pytest.mark.parametrize("with_redis", [False, True])
def test_requests_of_one_key_are_limited(make_app, settings, with_redis, request, caller):
    from dataclasses import replace

    from tests.server.conftest import Caller
    from tests.server.harness import make_team

    url = request.getfixturevalue("redis_server").url if with_redis else ""
    if with_redis:
        redis.Redis.from_url(url).flushall()
    app = make_app(replace(settings, requests_per_minute=5, redis_url=url))
    key = make_team(app, "a")
    while with_redis and time.time() % 60 > 55:  # counts in Redis begin anew with each minute
        time.sleep(0.5)
    answers = [Caller(app, key).get("/api/v1/services") for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    other = make_team(app, "b")
    assert Caller(app, other).get("/api/v1/services").status_code == 200


def test_another_workers_change_is_seen_without_being_told(make_app, settings, clock, admin, app):
    """A second worker on the same database learns of new and revoked keys by itself."""
    second = make_app(settings)
    made = admin.post("/api/v1/keys", json={"name": "ci", "scopes": ["read"]}).json
    headers = {"Authorization": f"Bearer {made['key']}"}
    client = second.test_client()
    assert client.get("/api/v1/services", headers=headers).status_code == 200
    admin("DELETE", f"/api/v1/keys/{made['id']}")
    wait_for(lambda: client.get("/api/v1/services", headers=headers).status_code == 401, seconds=5)


def test_a_server_with_another_secret_says_so_and_refuses(settings, app, tmp_path):
    from dataclasses import replace

    from lipservice.exceptions import ConfigurationError
    from lipservice_server.runtime import make_runtime

    stranger = make_runtime(replace(settings, secret_key="x" * 40))
    with pytest.raises(ConfigurationError, match="LIPSERVICE_SECRET_KEY"):
        stranger.watcher.look()
    stranger.store.db.close()


def test_the_secret_is_made_once_and_closed_to_others(tmp_path):
    settings = Settings(data_dir=str(tmp_path / "new"))
    assert load_secret(settings) == load_secret(settings)
    assert (tmp_path / "new" / "secret.key").stat().st_mode & 0o777 == 0o600
