"""Who may see and change what: sessions, cookies, CSRF, tenancy, headers, the loopback mode."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from lipservice.exceptions import ConfigurationError
from lipservice_server.app import create_app, runtime_of
from lipservice_server.config import Settings, load_settings
from lipservice_server.dashboard.guard import SESSION_SECONDS, hash_session_id
from tests.server.harness import a_report, key_in

HERE = {"Host": "127.0.0.1:8000"}
FORM = {**HERE, "Origin": "http://127.0.0.1:8000"}
SECURE = {
    "Host": "lip.example.org",
    "Origin": "https://lip.example.org",
    "X-Forwarded-Proto": "https",
}


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=str(tmp_path / "data"), cache_seconds=0.05, trusted_proxies=1)


class Person:
    """Somebody with a browser, as far as cookies go."""

    def __init__(self, app, headers=None):
        self.app, self.client = app, app.test_client()
        self.headers = FORM if headers is None else headers

    def get(self, path, **headers):
        return self.client.get(f"/dashboard/{path}", headers={**self.headers, **headers})

    def post(self, path, data=None, headers=None, csrf=None):
        token = self.csrf() if csrf is None else csrf
        return self.client.post(
            f"/dashboard/{path}",
            data={"csrf": token, **(data or {})},
            headers=self.headers if headers is None else headers,
        )

    def csrf(self, page=""):
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.get(page).text)
        return found[1] if found else ""

    def sign_in(self, key, **kwargs):
        return self.client.post(
            "/dashboard/sign-in", data={"key": key}, headers=self.headers, **kwargs
        )


def report(app, key, name="shop", **fields):
    answer = app.test_client().post(
        "/api/v1/patterns/report",
        json=a_report(3, service_name=name, **fields),
        headers={"Authorization": f"Bearer {key}"},
    )
    assert answer.status_code == 200


@pytest.fixture
def key(app):
    return key_in(runtime_of(app), "a")


@pytest.fixture
def person(app, key):
    report(app, key)
    found = Person(app)
    assert found.sign_in(key).status_code == 303
    return found


def pages(app):
    """Every (method, path) of the dashboard, from the url map."""
    found = set()
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("dashboard.") and "<" not in rule.rule:
            found |= {
                (method, rule.rule.removeprefix("/dashboard/"))
                for method in rule.methods - {"HEAD", "OPTIONS"}
            }
    return sorted(found)


def test_every_page_asks_who_is_there(app, key):
    report(app, key)
    for method, path in pages(app):
        answer = app.test_client().open(
            f"/dashboard/{path}?service=shop", method=method, headers=FORM
        )
        if path == "sign-in":
            assert answer.status_code in (200, 401)
        else:
            assert answer.status_code == 303, (method, path)
            assert answer.location.startswith("/dashboard/sign-in"), (method, path)


def test_every_answer_is_hardened(app, person):
    paths = [path for method, path in pages(app) if method == "GET"]
    for path in (*paths, "pattern?service=no", "static/style.css", "static/../app.py", "static/no"):
        joined = path if "?" in path else f"{path}?service=shop"
        answer = person.get(joined)
        policy = answer.headers["Content-Security-Policy"]
        assert policy == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
            "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
        ), path
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        if answer.mimetype == "text/html":
            assert answer.headers["Cache-Control"] == "no-store", path
            inline = re.search(
                r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", answer.text
            )
            assert inline is None, (path, inline)


def test_the_cookie_cannot_be_read_sent_from_elsewhere_or_sent_in_the_open(app, key):
    answer = Person(app, SECURE).sign_in(key)
    parts = answer.headers["Set-Cookie"].split("; ")
    assert parts[0].startswith("__Host-lipservice=")
    assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= set(parts)
    assert not any(part.startswith("Domain") for part in parts)
    assert answer.headers["Strict-Transport-Security"]
    local = Person(app).sign_in(key).headers["Set-Cookie"]
    assert local.startswith("lipservice-loopback=")
    assert "Secure" not in local
    assert {"HttpOnly", "SameSite=Strict"} <= set(local.split("; "))


def test_a_key_is_not_taken_over_a_line_that_others_can_read(app, key):
    for headers in (
        {"Host": "lip.example.org", "Origin": "http://lip.example.org"},
        {**FORM, "X-Forwarded-For": "192.0.2.9"},
    ):
        answer = Person(app, headers).sign_in(key)
        assert answer.status_code == 403
        assert "HTTPS" in answer.text
        assert "Set-Cookie" not in answer.headers


def test_only_a_live_admin_key_signs_in(app, clock):
    runtime = runtime_of(app)
    ends = int(clock.now) + 60
    late = key_in(runtime, "a", expires_at=ends)
    for wrong, status in (
        ("", 401),
        ("lip_live_nothing", 401),
        (key_in(runtime, "a", scopes=("ingest",)), 403),
        (key_in(runtime, "a", scopes=("read", "ingest")), 403),
    ):
        answer = Person(app).sign_in(wrong)
        assert (answer.status_code, "Set-Cookie" in answer.headers) == (status, False)
        assert not wrong or wrong not in answer.text
    clock.forward(61)
    assert Person(app).sign_in(late).status_code == 401


def test_attempts_to_sign_in_are_limited(app, key):
    person = Person(app)
    answers = [person.sign_in("lip_live_guess").status_code for _ in range(14)]
    assert answers[:10] == [401] * 10
    assert answers[-1] == 429
    assert person.sign_in(key).status_code == 429


def test_signing_out_ends_the_session_and_not_just_the_cookie(app, person):
    stolen = person.client.get_cookie("lipservice-loopback", "127.0.0.1").value
    assert person.get("").status_code == 200
    assert person.post("sign-out").status_code == 303
    thief = Person(app)
    thief.client.set_cookie("lipservice-loopback", stolen, domain="127.0.0.1")
    assert thief.get("").status_code == 303
    assert person.get("").status_code == 303


def test_the_session_ends_with_its_key_and_with_its_time(app, person, key, clock):
    runtime = runtime_of(app)
    other = Person(app)
    successor = key_in(runtime, "a")
    other.sign_in(successor)
    row = runtime.store.keys.live_one(key.split("_")[2])
    runtime.store.keys.revoke(row["team_id"], row["id"], actor="test", now=clock.now)
    assert person.get("").status_code == 303
    assert other.get("").status_code == 200
    clock.forward(SESSION_SECONDS + 1)
    assert other.get("").status_code == 303


def test_the_database_holds_only_the_hash_of_a_session(app, person):
    session_id = person.client.get_cookie("lipservice-loopback", "127.0.0.1").value
    rows = runtime_of(app).store.db.rows("SELECT * FROM dashboard_session")
    assert [row["hash"] for row in rows] == [hash_session_id(session_id)]
    assert session_id not in str(rows)


def test_signing_in_again_makes_another_session_and_ends_the_first(app, person, key):
    first = person.client.get_cookie("lipservice-loopback", "127.0.0.1").value
    person.sign_in(key)
    assert person.client.get_cookie("lipservice-loopback", "127.0.0.1").value != first
    rows = runtime_of(app).store.db.rows("SELECT hash FROM dashboard_session")
    assert hash_session_id(first) not in {row["hash"] for row in rows}


FORMS = {
    "pattern/pin": {"service": "shop", "signature": f"{1:016x}", "rate": "5"},
    "pattern/release": {"service": "shop", "signature": f"{2:016x}"},
    "boost/begin": {"service": "shop", "signature": f"{1:016x}", "minutes": "10"},
    "boost/end": {"service": "shop", "boost": "1"},
    "policy/generate": {"service": "shop", "target": "10"},
    "policy/activate": {"service": "shop", "version": "2"},
    "policy/reject": {"service": "shop", "version": "2"},
    "policy/mode": {"service": "shop", "mode": "shadow"},
    "keys/make": {"name": "x", "scope": "ingest"},
    "keys/rotate": {"key": "1"},
    "keys/revoke": {"key": "1"},
    "sign-out": {},
}


@pytest.fixture
def full(app, person):
    """What the forms above change is there to be changed."""
    for number in (1, 2):
        assert (
            person.post(
                "policy/generate", {"service": "shop", "target": str(number * 5)}
            ).status_code
            == 303
        )
    person.post("policy/activate", {"service": "shop", "version": "1"})
    person.post("pattern/pin", {**FORMS["pattern/release"], "rate": "7"})
    person.post("boost/begin", {"service": "shop", "minutes": "10"})
    return person


def state(app):
    db = runtime_of(app).store.db
    tables = ("api_key", "service", "policy", "override", "boost", "audit")
    return [db.rows(f"SELECT * FROM {table}") for table in tables]


def test_no_form_is_taken_from_elsewhere(app, full):
    posts = {path for method, path in pages(app) if method == "POST"} - {"sign-in"}
    assert posts == set(FORMS)
    before = state(app)
    token = full.csrf()
    other = Person(app)
    other.sign_in(key_in(runtime_of(app), "a"))
    before = state(app)
    for path, data in FORMS.items():
        for name, csrf, headers in (
            ("no token", "", FORM),
            ("a wrong token", "0" * 40, FORM),
            ("another session's token", other.csrf(), FORM),
            ("another origin", token, {**HERE, "Origin": "https://evil.example"}),
            ("a null origin", token, {**HERE, "Origin": "null"}),
            ("no origin", token, HERE),
            ("another port", token, {**HERE, "Origin": "http://127.0.0.1:8001"}),
            ("a cross-site fetch", token, {**FORM, "Sec-Fetch-Site": "cross-site"}),
            ("a sibling site", token, {**FORM, "Sec-Fetch-Site": "same-site"}),
        ):
            answer = full.post(path, data, headers=headers, csrf=csrf)
            assert answer.status_code == 403, (path, name)
    assert state(app) == before
    assert full.get("").status_code == 200


def test_every_form_works_and_is_audited_under_the_key(app, full, key):
    store = runtime_of(app).store
    team_id = store.teams.named("a")["id"]
    ours = [row["id"] for row in store.keys.all(team_id) if row["prefix"] == key.split("_")[2]]
    spare = key_in(runtime_of(app), "a")
    spare_id = store.keys.live_one(spare.split("_")[2])["id"]
    done = []
    for path, data in FORMS.items():
        used = {**data, "key": str(spare_id)} if path.startswith("keys/r") else data
        if path == "policy/reject":
            full.post("policy/generate", {"service": "shop", "target": "3"})
            used = {
                "service": "shop",
                "version": str(store.services.require(team_id, "shop")["last_version"]),
            }
        answer = full.post(path, used)
        assert answer.status_code in (200, 303), (path, answer.text)
        done.append(path)
    actions = {line["action"]: line["actor"] for line in store.audit.page(team_id, limit=200)}
    actor = f"key {key.split('_')[2]}"
    for action in (
        "pattern.pin", "pattern.release", "boost.begin", "boost.end", "policy.create", "policy.activate", "policy.reject",
        "service.update", "key.rotate", "key.revoke",
    ):  # fmt: skip
        assert actions[action] == actor, action
    assert ours


def test_another_team_sees_and_changes_nothing(app, full):
    stranger = Person(app)
    theirs = key_in(runtime_of(app), "b")
    report(app, theirs, "their-shop")
    stranger.sign_in(theirs)
    before = state(app)
    for path in (
        "", "patterns", "changes", f"pattern?signature={1:016x}", "policy", "policy/version?version=1",
        "policy/compare?from=1&to=2", "policy/replay?version=1", "policy/new", "policy/effect?target=5",
        "explain?q=x", "instances", "keys/ask?key=1",
    ):  # fmt: skip
        joined = f"{path}{'&' if '?' in path else '?'}service=shop"
        answer = stranger.get(joined)
        assert answer.status_code == 404, path
        assert "did thing" not in answer.text
    for path in ("", "keys", "audit"):
        text = stranger.get(path).text
        assert not re.search(r"(?<!their-)\bshop\b", text), path
        assert "a's" not in text.replace("&#39;", "'"), path
    for path, data in FORMS.items():
        if path in ("sign-out", "keys/make"):
            continue
        answer = stranger.post(path, data)
        assert answer.status_code == 404, path
    assert state(app) == before


def test_a_key_of_one_service_sees_that_service_only(app, person, key):
    report(app, key, "books")
    bound = Person(app)
    bound.sign_in(key_in(runtime_of(app), "a", service="books"))
    assert bound.get("").status_code == 200
    assert "shop" not in bound.get("").text
    assert bound.get("patterns").status_code == 200
    for path in ("patterns?service=shop", "?service=shop"):
        assert bound.get(path).status_code == 404
    for path in ("keys", "audit", "keys/ask?key=1"):
        assert bound.get(path).status_code == 403
    assert bound.post("keys/make", FORMS["keys/make"]).status_code == 403
    for path in ("pattern/pin", "boost/begin", "boost/end"):
        assert bound.post(path, FORMS[path]).status_code == 404


def test_after_signing_in_one_comes_back_to_a_page_of_ours_only(app, person, key):
    asked = Person(app).get("patterns?service=shop").location
    assert asked.startswith("/dashboard/sign-in?next=%2Fdashboard%2Fpatterns%3Fservice%3Dshop")
    for wanted, back in (
        ("/dashboard/patterns?service=shop", "/dashboard/patterns?service=shop"),
        ("https://evil.example/", "/dashboard/"),
        ("//evil.example/dashboard/", "/dashboard/"),
        ("/dashboard/\\evil.example", "/dashboard/"),
        ("/dashboard/\r\nSet-Cookie: a=b", "/dashboard/"),
        ("/api/v1/keys", "/dashboard/"),
    ):
        answer = Person(app).client.post(
            "/dashboard/sign-in", data={"key": key, "next": wanted}, headers=FORM
        )
        assert answer.location == back, wanted


def test_without_sign_in_the_server_starts_on_the_loopback_interface_only(tmp_path):
    for host in ("0.0.0.0", "::", "192.0.2.7", "lip.example.org", ""):
        with pytest.raises(ConfigurationError, match="LIPSERVICE_DASHBOARD=loopback"):
            create_app(Settings(data_dir=str(tmp_path), host=host, dashboard="loopback"))
    with pytest.raises(ConfigurationError, match="LIPSERVICE_HOST"):
        load_settings({"LIPSERVICE_DASHBOARD": "loopback", "LIPSERVICE_HOST": "0.0.0.0"})
    for host in ("127.0.0.1", "localhost", "::1", "127.3.2.1"):
        create_app(Settings(data_dir=str(tmp_path), host=host, dashboard="loopback"))


@pytest.fixture
def open_app(make_app, settings):
    return make_app(replace(settings, dashboard="loopback", trusted_proxies=0))


def test_without_sign_in_only_this_machine_is_answered_and_by_its_own_name(open_app):
    person = Person(open_app)
    for host in ("127.0.0.1:8000", "localhost:8000", "[::1]:8000", "localhost"):
        assert person.get("", Host=host).status_code == 200, host
    for host in (
        "evil.example",
        "127.0.0.1.evil.example:8000",
        "localhost.evil.example",
        "192.0.2.1",
    ):
        assert person.get("", Host=host).status_code == 403, host
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host"):
        assert person.get("", **{header: "127.0.0.1"}).status_code == 403, header
    far = open_app.test_client().get(
        "/dashboard/", headers=HERE, environ_base={"REMOTE_ADDR": "192.0.2.4"}
    )
    assert far.status_code == 403


def test_without_sign_in_forms_need_their_token_all_the_same(open_app):
    report(open_app, key_in(runtime_of(open_app), "default"))
    person = Person(open_app)
    assert person.post("policy/mode", FORMS["policy/mode"], csrf="").status_code == 403
    token = person.csrf("keys")
    assert person.post("policy/mode", FORMS["policy/mode"], csrf=token).status_code == 303
    line = runtime_of(open_app).store.audit.page(1, limit=1)[0]
    assert (line["action"], line["actor"]) == ("service.update", "dashboard (loopback)")


def test_a_session_of_the_loopback_mode_opens_no_other_mode(open_app, make_app, settings):
    person = Person(open_app)
    person.get("")
    cookie = person.client.get_cookie("lipservice-loopback", "127.0.0.1").value
    closed = Person(make_app(settings))
    closed.client.set_cookie("lipservice-loopback", cookie, domain="127.0.0.1")
    assert closed.get("").status_code == 303


def test_the_dashboard_can_be_turned_off(make_app, settings):
    off = make_app(replace(settings, dashboard="off"))
    assert pages(off) == []
    assert off.test_client().get("/dashboard/").status_code == 404
    assert off.test_client().get("/").status_code == 404


def test_the_bare_address_leads_to_the_dashboard(app):
    assert app.test_client().get("/").location == "/dashboard/"


def test_a_form_larger_than_any_of_ours_is_refused(person):
    answer = person.post("pattern/pin", {"reason": "x" * 300_000}, csrf="0")
    assert answer.status_code == 413
