"""What the pages say: sentences, numbers, hidden characters, effects; and how much they weigh."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace

import pytest
import requests

from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from lipservice.signature import compute_signature, compute_template
from lipservice_server.app import runtime_of
from lipservice_server.config import Settings
from lipservice_server.dashboard import numbers, sentences, text
from lipservice_server.dashboard.assets import all_assets
from lipservice_server.dashboard.outcomes import WELL, compare, read_counts, well_counted
from lipservice_server.dashboard.workshop import Kept, PendingError, Workshop
from lipservice_server.store.overview import Overview
from lipservice_server.store.sessions import Sessions
from tests.dashboard.conftest import PAGES
from tests.dashboard.shop import seed_many
from tests.dashboard.test_dashboard_access import Person
from tests.server.harness import a_pattern, a_report, key_in


def a_row(**fields):
    return {
        "signature": f"{1:016x}", "template": "order <*> paid", "severity": "INFO", "count": 1_000, "mean_bytes": 200.0,
        "pinned_rate": None, "protected": False, "pin_reason": None, "pinned_by": None, **fields,
    }  # fmt: skip


POLICY = SamplingPolicy(
    version=3,
    sampling_rate=0.1,
    severity_rates={"INFO": 0.2},
    pattern_rates={f"{2:016x}": 0.05},
    patterns=("refund",),
)


@pytest.mark.parametrize(
    ("row", "policy", "said"),
    [
        (a_row(severity="ERROR"), POLICY, "Kept: ERROR and above always is."),
        (a_row(protected=True, pinned_rate=1.0, pinned_by="key Ab"), POLICY, "Kept: protected by key Ab."),
        (a_row(template="refund <*> booked", pinned_rate=0.1, pinned_by="key Ab"), POLICY, "holds a word that the policy protects"),
        (a_row(pinned_rate=0.05, pinned_by="key Ab", pin_reason="noise"), POLICY, "5\u202f%, pinned by key Ab (“noise”)."),
        (a_row(), None, "no policy has been made"),
        (a_row(), POLICY, "20\u202f%, the rate of INFO: the policy does not name it."),
        (a_row(signature=f"{2:016x}"), POLICY, "5\u202f% is its part of the budget: importance 3, as INFO that speaks of"),
    ],
)  # fmt: skip
def test_one_sentence_says_why_a_pattern_has_its_rate(row, policy, said):
    sentence = sentences.why_rate(row, policy, {})
    assert said in sentence
    assert sentence.count("\n") == 0


def test_a_models_reason_is_told_with_the_importance_that_it_gave():
    details = {"judgements": {f"{2:016x}": {"importance": 4.0, "reason": "money moves"}}}
    sentence = sentences.why_rate(a_row(signature=f"{2:016x}"), POLICY, details)
    assert "importance 4" in sentence
    assert sentence.endswith("says the model: money moves.")


def test_the_steps_of_a_decision_name_one_that_decides():
    for row, severity, rule in (
        (a_row(), "INFO", "Rate"),
        (a_row(), "CRITICAL", "Errors"),
        (a_row(template="refund <*>"), "INFO", "Protected words"),
    ):
        steps = sentences.decide(row, POLICY, severity)
        assert [step.rule for step in steps if step.decides] == [rule]
    shadow = sentences.decide(a_row(), replace(POLICY, mode="shadow"), "INFO")
    assert shadow[-1].rule == "Shadow mode"


@pytest.mark.parametrize("severity", ["DEBUG", "INFO", "WARNING", "ERROR"])
@pytest.mark.parametrize("message", ["order 17 paid", "refund 3 booked", "user 5 gone"])
def test_the_step_that_decides_is_the_one_that_the_command_line_names(message, severity):
    named = compute_signature("order 17 paid")
    policy = replace(POLICY, pattern_rates={named: 0.05}, keep_first=0)
    sampler = AdaptiveSampler(policy=policy, notices=False)
    told = sampler.explain(message, severity)
    sampler.shutdown()
    row = a_row(signature=compute_signature(message), template=compute_template(message))
    decides = next(step for step in sentences.decide(row, policy, severity) if step.decides)
    rules = {"Errors": "error", "Protected words": "protected", "Rate": "rate"}
    assert (told.signature, told.rule) == (row["signature"], rules[decides.rule])
    if decides.rule == "Rate":
        assert numbers.share(told.rate) in decides.text


def a_boost(**fields):
    return {"signature": None, "severity": None, "logger": None, "until": 1_800_000_060, **fields}


@pytest.mark.parametrize(
    ("boost", "decides", "said"),
    [
        (a_boost(), "Full fidelity", "Everything of the whole service is kept until 2027-01-15 08:01 UTC."),
        (a_boost(signature=f"{1:016x}", severity="INFO"), "Full fidelity", f"pattern {1:016x} at INFO"),
        (a_boost(severity="INFO"), "Full fidelity", "severity INFO"),
        (a_boost(severity="DEBUG"), "Rate", "something else: go on."),
        (a_boost(signature=f"{2:016x}"), "Rate", "something else: go on."),
        (a_boost(logger="shop.cart"), "Rate", "logger shop.cart is kept for a while; for records of others"),
    ],
)  # fmt: skip
def test_full_fidelity_decides_where_it_covers_the_record(boost, decides, said):
    steps = sentences.decide(a_row(), POLICY, "INFO", [boost])
    assert [step.rule for step in steps if step.decides] == [decides]
    assert said in next(step.text for step in steps if step.rule == "Full fidelity")
    for row, severity, rule in (
        (a_row(), "ERROR", "Errors"),
        (a_row(template="refund <*>"), "INFO", "Protected words"),
    ):
        steps = sentences.decide(row, POLICY, severity, [boost])
        assert [step.rule for step in steps if step.decides] == [rule]


def test_full_fidelity_stands_where_the_sampler_decides_about_it():
    """After the protected words, before the rate: the order that `AdaptiveSampler` keeps to."""
    policy = replace(POLICY, keep_first=0)
    sampler = AdaptiveSampler(policy=policy, notices=False)
    sampler.boost("order 17 paid", minutes=5)
    signature = compute_signature("order 17 paid")
    for message, severity in (("order 17 paid", "INFO"), ("order 17 paid", "ERROR"), ("user 5 gone", "INFO")):  # fmt: skip
        told = sampler.explain(message, severity)
        row = a_row(signature=compute_signature(message), template=compute_template(message))
        steps = sentences.decide(row, policy, severity, [a_boost(signature=signature)])
        rules = {"Errors": "error", "Full fidelity": "boosted", "Rate": "rate"}
        assert rules[next(step.rule for step in steps if step.decides)] == told.rule
    sampler.shutdown()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 minute left"), (60, "1 minute left"), (89, "1 minute left"), (1_500.9, "25 minutes left"), (5_940, "99 minutes left"), (6_000, "1 h 40 min left"), (86_400, "24 h 0 min left")],
)  # fmt: skip
def test_the_time_left_is_told_to_the_minute(seconds, said):
    assert numbers.left(seconds) == said


def test_expected_and_achieved_are_held_against_each_other():
    assert "as planned" in sentences.achieved(0.92, 0.91)
    assert "12 points short" in sentences.achieved(0.92, 0.80)
    assert "more than planned" in sentences.achieved(0.5, 0.8)
    assert "Too early" in sentences.achieved(0.9, None)


@pytest.mark.parametrize(
    ("given", "shown"),
    [(0, "0"), (9_999, "9,999"), (12_345, "12.3\u202fk"), (999_960, "1.00\u202fM"), (4.56e6, "4.56\u202fM"), (7e9, "7.00\u202fbn")],
)  # fmt: skip
def test_counts_keep_three_digits(given, shown):
    assert numbers.count(given) == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [(0, "0"), (1, "100"), (0.9996, "99.96"), (0.9999999, "100"), (0.5, "50"), (0.0312, "3.1"), (0.0004, "0.04"), (1e-7, "<0.001")],
)  # fmt: skip
def test_a_share_is_never_shown_as_nothing_or_as_all_where_it_is_not(given, shown):
    assert numbers.share(given) == f"{shown}\u202f%"


def test_hidden_characters_are_shown_by_their_code_point_and_variables_apart():
    found = text.pieces("a\u202eb <*> \x1b[31m\u200b<b>")
    assert [piece.kind for piece in found] == [
        "text", "hidden", "text", "variable", "text", "hidden", "text", "hidden", "text",
    ]  # fmt: skip
    assert [piece.text for piece in found if piece.kind == "hidden"] == [
        "U+202E",
        "U+001B",
        "U+200B",
    ]
    for character in "\u2066\u2028\x00\x85\ufeff\ud800":
        assert all(character not in piece.text for piece in text.pieces(f"x{character}y"))
    assert text.plain("a\u202eb") == "a[U+202E]b"


def counted(*counts):
    rows = [
        {"signature": f"{number:016x}", "template": f"t{number}", "severity": "INFO", "first_seen": 1, "count": count, "bytes": 100 * count, "errors": 0}
        for number, count in enumerate(counts)
    ]  # fmt: skip
    return read_counts(rows, 7.0)


def test_a_comparison_counts_who_gets_rarer_who_is_lost_and_who_is_well_counted():
    counts = counted(1_000_000, 1_000, 10)
    before = SamplingPolicy(sampling_rate=0.5)
    after = SamplingPolicy(sampling_rate=0.5, pattern_rates={f"{0:016x}": 0.01, f"{2:016x}": 0.0})
    found = compare(counts, before, after)
    assert found.changed == 2
    assert "2 patterns get rarer" in found.summary
    assert "1 pattern disappears" in found.summary
    assert [change.signature for change in found.changes] == [f"{0:016x}", f"{2:016x}"]
    assert found.well == well_counted(counts, after)[0] == 2
    assert well_counted(counts, SamplingPolicy(sampling_rate=1.0)) == (3, 3)
    assert WELL == 0.1


def test_a_comparison_knows_errors_of_a_pattern_of_another_severity():
    row = {"signature": "a", "template": "t", "severity": "INFO", "first_seen": 1, "count": 100, "bytes": 1000, "errors": 40}  # fmt: skip
    found = compare(read_counts([row], 1.0), SamplingPolicy(), SamplingPolicy(sampling_rate=0.0))
    assert found.changes[0].after == pytest.approx(0.4)
    assert found.severities == {"a": "ERROR"}


def test_the_workshop_answers_late_once_and_for_all(clock):
    workshop, free, made = Workshop(clock=clock), threading.Event(), []

    def make():
        free.wait(10)
        made.append(1)
        return 7

    with pytest.raises(PendingError):
        workshop.get("a", make, wait=0.01)
    free.set()
    assert workshop.get("a", make, wait=10) == 7
    assert workshop.get("a", make, wait=10) == 7
    assert made == [1]
    clock.forward(200)
    assert workshop.get("a", make, wait=10) == 7
    assert made == [1, 1]


def test_what_failed_in_the_workshop_is_tried_again():
    workshop, calls = Workshop(), []

    def make():
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("no")
        return "yes"

    with pytest.raises(ValueError, match="no"):
        workshop.get("a", make, wait=10)
    assert workshop.get("a", make, wait=10) == "yes"


def test_kept_values_are_few_and_the_least_used_go():
    kept, made = Kept(2), []
    for name in "abaca":
        kept.get(name, lambda name=name: made.append(name))
    kept.get("b", lambda: made.append("b"))
    assert made == ["a", "b", "c", "b"]


@pytest.fixture
def two_teams(app, clock):
    """The same names in two teams, on either database."""
    runtime = runtime_of(app)
    for team in ("a", "b"):
        key = key_in(runtime, team)
        for ago, first in ((40, 0), (1, 3)):
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock.now - ago * 86_400))
            patterns = [
                a_pattern(
                    first + i, first_seen=stamp, last_seen=stamp, template=f"{team} {first + i}"
                )
                for i in range(3)
            ]
            answer = app.test_client().post(
                "/api/v1/patterns/report",
                json=a_report(0) | {"service_name": "shop", "patterns": patterns},
                headers={"Authorization": f"Bearer {key}"},
            )
            assert answer.status_code == 200
    runtime.store.db.execute("UPDATE service SET created_at = ?", int(clock.now) - 40 * 86_400)
    return runtime


def test_the_overviews_questions_stay_within_the_team(two_teams, clock):
    store = two_teams.store
    overview, team_id = Overview(store.db, store.services), store.teams.named("a")["id"]
    since = clock.now - 7 * 86_400
    for name in ("shop", None):
        rows, total = overview.newest(team_id, name, since=since, limit=2)
        assert (len(rows), total) == (2, 3)
        assert {row["template"][0] for row in rows} == {"a"}
        assert overview.live_instances(team_id, name, now=clock.now) == 1
    assert overview.live_instances(team_id, "shop", now=clock.now + 10**6) == 0
    assert overview.service_names(team_id, limit=9) == ["shop"]
    assert set(overview.templates(team_id, "shop", limit=9)) == {f"a {i}" for i in range(6)}
    signatures = [f"{number:016x}" for number in (0, 99)]
    assert overview.templates_of(team_id, "shop", signatures) == {f"{0:016x}": "a 0"}
    assert overview.templates_of(team_id, "shop", []) == {}
    found = overview.beginning_with(team_id, "shop", "a ", limit=4)
    assert [row["count"] for row in found] == [105, 104, 103, 102]
    assert overview.beginning_with(team_id, "shop", "b ", limit=4) == []


def test_sessions_live_on_either_database(two_teams, clock):
    store = two_teams.store
    sessions, team = Sessions(store.db), store.teams.named("a")
    key_id = store.keys.all(team["id"])[0]["id"]
    sessions.begin("h1", team_id=team["id"], key_id=key_id, now=clock.now, ends_at=clock.now + 60)
    assert sessions.find("h1", now=clock.now)["team_id"] == team["id"]
    sessions.leave_notice("h1", "done")
    assert sessions.find("h1", now=clock.now)["notice"] == "done"
    assert sessions.find("h1", now=clock.now + 61) is None
    assert sessions.find("h2", now=clock.now) is None
    other = store.teams.named("b")
    sessions.begin("h3", team_id=other["id"], key_id=key_id, now=clock.now, ends_at=clock.now + 60)
    assert sessions.find("h3", now=clock.now) is None, "a key of another team"
    sessions.end("h1")
    sessions.end("h1")
    assert sessions.find("h1", now=clock.now) is None
    sessions.begin(
        "h4", team_id=team["id"], key_id=None, now=clock.now + 99, ends_at=clock.now + 999
    )
    assert [row["hash"] for row in store.db.rows("SELECT hash FROM dashboard_session")] == ["h4"]


def test_every_page_answers_on_either_database(two_teams, app):
    key = key_in(two_teams, "a")
    person = Person(app)
    assert person.sign_in(key).status_code == 303
    for number in (1, 2):
        form = {"service": "shop", "target": str(9 * number)}
        assert person.post("policy/generate", form).status_code == 303
        assert person.post("policy/activate", {"service": "shop", "version": str(number)}).location
    paths = {
        path.replace("checkout", "shop").replace("version=4", "version=1").replace("from=2&to=3", "from=1&to=2")
        for path in PAGES.values()
        if not path.startswith("pattern?") and not path.startswith("keys/ask")
    }  # fmt: skip
    for path in (
        *paths,
        f"pattern?service=shop&signature={1:016x}",
        "policy/effect?service=shop&target=5",
    ):
        answer = person.get(path)
        assert answer.status_code == 200, (path, answer.text)
        assert "b 1" not in answer.text
    form = {"service": "shop", "signature": f"{1:016x}", "rate": "protect", "reason": "<b>"}
    assert person.post("pattern/pin", form).status_code == 303
    shown = person.get(f"pattern?service=shop&signature={1:016x}").text
    assert "protected by key" in shown
    assert "&lt;b&gt;" in shown


def boosts_on(page):
    """The lines of full fidelity on a page, as one reads them."""
    part = re.search(r'<section class="card boosts".*?</section>', page, re.DOTALL)
    lines = re.findall(r"<li><div>(.*?)</div>", part[0], re.DOTALL) if part else []
    return [" ".join(re.sub(r"<[^>]+>", " ", line).split()) for line in lines]


def end_forms_on(page):
    """The fields of each form that ends a boost."""
    forms = re.findall(r'action="/dashboard/boost/end"[^>]*>(.*?)</form>', page, re.DOTALL)
    return [dict(re.findall(r'name="(\w+)" value="([^"]*)"', form)) for form in forms]


def test_a_message_whose_values_are_words_is_explained_by_the_pattern_that_it_fits(two_teams, app):
    login = {"template": "user <*> logged in", "signature": compute_signature("user 0 logged in")}
    two = [
        {"template": each, "signature": compute_signature(each.replace("<*>", "0"))}
        for each in ("copy <*> sent", "<*> file sent")
    ]
    body = a_report(0) | {"patterns": [a_pattern(0, **fields) for fields in (login, *two)]}
    post = app.test_client().post
    for team, patterns in (("a", body), ("b", a_report(1))):
        headers = {"Authorization": f"Bearer {key_in(two_teams, team)}"}
        assert post("/api/v1/patterns/report", json=patterns, headers=headers).status_code == 200
    person, stranger = Person(app), Person(app)
    person.sign_in(key_in(two_teams, "a"))
    stranger.sign_in(key_in(two_teams, "b"))

    told = person.get("explain?service=shop&q=user+bob+logged+in").text
    assert f"<code>{login['signature']}</code>" in told
    assert "the message fits best" in told
    told = person.get("explain?service=shop&q=copy+file+sent").text
    assert all(fields["signature"] in told for fields in two)
    assert f"<code>{compute_signature('copy file sent')}</code>" in told
    told = stranger.get("explain?service=shop&q=user+bob+logged+in").text
    assert login["signature"] not in told
    assert person.get("explain?service=shop&q=%00%3C*%3E%00+%ff").status_code == 200


def test_boosts_are_begun_shown_and_ended_on_their_pages(two_teams, app, clock):
    person = Person(app)
    key = key_in(two_teams, "a")
    person.sign_in(key)
    overview, pattern = "?service=shop", f"pattern?service=shop&signature={1:016x}"
    assert boosts_on(person.get(overview).text) == []

    form = {"service": "shop", "signature": f"{1:016x}", "minutes": "2,6", "reason": "<b>why"}
    answer = person.post("boost/begin", form)
    assert (answer.status_code, answer.location.split("/")[-1]) == (303, pattern)
    page = person.get(pattern).text
    assert "It holds from the instances&#39; next poll on" in page
    assert boosts_on(page)[0].startswith(
        "Everything of this pattern is kept until 2027-01-15 08:02 UTC"
    )
    assert "3 minutes left, begun just now by key" in boosts_on(page)[0]
    assert "&lt;b&gt;why" in boosts_on(page)[0]
    assert end_forms_on(page)[0]["undo"] == "1", "the notice's, first on the page"

    for fields in ({"severity": "DEBUG"}, {"logger": "shop.cart"}, {}):
        answer = person.post("boost/begin", {"service": "shop", "minutes": "10", **fields})
        assert (answer.status_code, answer.location) == (303, "/dashboard/?service=shop")
    shown = boosts_on(person.get(overview).text)
    assert [line.split(" is kept")[0] for line in shown] == [
        "Everything of the whole service",
        "Everything of the logger shop.cart",
        "Everything of severity DEBUG",
        "Everything of a 1",
    ]
    assert len(boosts_on(person.get(pattern).text)) == 2, "its own and the whole service's"
    everywhere = boosts_on(person.get("").text)
    assert len(everywhere) == 4
    assert all(line.startswith("shop : Everything of") for line in everywhere)
    assert "Full fidelity" in person.get(f"explain?service=shop&q={2:016x}").text

    ends = end_forms_on(person.get("").text)
    answer = person.post("boost/end", ends[0])
    assert (answer.status_code, answer.location) == (303, "/dashboard/")
    ends = [form for form in end_forms_on(person.get(pattern).text) if "undo" not in form]
    assert person.post("boost/end", ends[0]).location.endswith(pattern)
    assert boosts_on(person.get(pattern).text) == []
    clock.forward(601)
    assert boosts_on(person.get(overview).text) == []
    audit = person.get("audit?kind=boost.").text
    assert (audit.count("<code>boost.begin</code>"), audit.count("<code>boost.end</code>")) == (
        4,
        2,
    )
    assert "logger: shop.cart" in audit


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"minutes": ""}, 422, "minutes"),
        ({"minutes": "soon"}, 422, "minutes"),
        ({"minutes": "0"}, 422, "minutes"),
        ({"minutes": "nan"}, 422, "minutes"),
        ({"minutes": "1441"}, 422, "minutes"),
        ({"severity": "LOUD"}, 422, "severity"),
        ({"logger": "x" * 201}, 422, "logger"),
        ({"logger": "a", "severity": "INFO"}, 422, "not both"),
        ({"signature": "abc123"}, 422, "16 hex digits"),
        ({"reason": "x" * 501}, 422, "reason"),
        ({"service": ""}, 400, "choose a service"),
        ({"service": "none"}, 404, "no service"),
    ],
)  # fmt: skip
def test_a_wrong_boost_is_told_and_not_begun(two_teams, app, fields, status, said):
    person = Person(app)
    person.sign_in(key_in(two_teams, "a"))
    answer = person.post("boost/begin", {"service": "shop", "minutes": "10", **fields})
    assert (answer.status_code, said in answer.text.lower()) == (status, True), answer.text
    assert two_teams.store.db.rows("SELECT * FROM boost") == []
    for number in ("", "x", "-1", "9" * 30):
        assert person.post("boost/end", {"service": "shop", "boost": number}).status_code == 422


def test_a_pattern_whose_signature_no_instance_computes_has_no_boost_form(two_teams, app):
    key = key_in(two_teams, "a")
    report = a_report(0) | {"service_name": "shop", "patterns": [a_pattern(0, signature="abc123")]}
    headers = {"Authorization": f"Bearer {key}"}
    assert app.test_client().post("/api/v1/patterns/report", json=report, headers=headers).status_code == 200  # fmt: skip
    person = Person(app)
    person.sign_in(key)
    assert "boost/begin" not in person.get("pattern?service=shop&signature=abc123").text
    assert "boost/begin" in person.get(f"pattern?service=shop&signature={1:016x}").text


def weigh(session, base, path):
    """Status, bytes of the page with everything that it loads, uncompressed."""
    answer = session.get(base + path, timeout=30)
    loaded = re.findall(r'(?:src|href)="/dashboard/(static/[^"?]+)', answer.text)
    return answer.status_code, len(answer.content) + sum(
        len(all_assets()[name.removeprefix("static/")].plain) for name in set(loaded)
    )


def test_no_page_weighs_200_kb_even_uncompressed(shop):
    session = requests.Session()
    headers = {"Origin": shop.url}
    session.post(shop.base + "sign-in", data={"key": shop.key}, headers=headers, timeout=30)
    for name, path in {**PAGES, "90 days": "?service=checkout&period=90d"}.items():
        status, size = weigh(session, shop.base, path)
        assert status == 200, name
        assert size < 200_000, (name, size)
    session.close()


def test_a_service_of_many_patterns_is_shown_by_the_page_and_compared_in_the_background(
    make_app, tmp_path
):
    """The short form of tests/dashboard/pages.py, which measures 100,000 patterns and 90 days."""
    app = make_app(
        Settings(data_dir=str(tmp_path), dashboard="loopback", requests_per_minute=10**6)
    )
    runtime = runtime_of(app)
    team_id = runtime.store.teams.create("default", now=runtime.clock())
    seed_many(runtime, team_id, "large", runtime.clock(), patterns=3_000, days=12, every=3)
    client, headers = app.test_client(), {"Host": "127.0.0.1", "Origin": "http://127.0.0.1"}
    first = client.get("/dashboard/patterns?service=large", headers=headers)
    assert "3,000 patterns" in first.text
    assert first.text.count("<tr role") == 51
    assert len(first.data) < 200_000
    last = client.get("/dashboard/patterns?service=large&page=60&sort=template", headers=headers)
    assert last.text.count("<tr role") == 51
    csrf = re.search(
        r'name="csrf" value="(\w+)"', client.get("/dashboard/keys", headers=headers).text
    )[1]
    form = {"csrf": csrf, "service": "large", "target": "10"}
    made = client.post("/dashboard/policy/generate", data=form, headers=headers)
    assert made.location.endswith("version=1")
    ends = time.monotonic() + 60
    while "http-equiv" in (page := client.get(made.location, headers=headers).text):
        assert time.monotonic() < ends
        time.sleep(0.2)
    assert "against keeping everything" in " ".join(page.split()).lower()
    assert "Patterns that change" in page
