"""`lipservice explain` asks a real server what became of a pattern in all instances."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest

from lipservice.cli.main import main
from lipservice.client import LipServiceClient
from lipservice.signature import compute_signature
from tests.server.harness import a_report, start_server

LOGIN = "user <*> logged in"
OLD = "user bob logged in"
CUT_OFF = "a template that was cut off in the mid"
HOSTILE = "cart \u202e\x1b[31m <*>\nin a second line"
NOW = datetime.now(timezone.utc).replace(microsecond=0)


def signature_of(template):
    return compute_signature(template.replace("<*>", "0"))


def a_pattern(template, count, kept, severity="INFO", **fields):
    first, last = NOW - timedelta(minutes=10), NOW
    return {
        "signature": signature_of(template),
        "template": template,
        "count": count,
        "kept": kept,
        "bytes": 100 * count,
        "severity_distribution": {severity: count},
        "first_seen": first.isoformat(),
        "last_seen": last.isoformat(),
        "sampling_rate": 0.5,
        **fields,
    }


def admin_key(server):
    done = subprocess.run(
        [sys.executable, "-m", "lipservice_server.cli", "keys", "create", "--scope", "admin"],
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return next(word for word in done.stdout.split() if word.startswith("lip_"))


class Shop:
    """A server that two instances of the service `shop` have reported to."""

    def __init__(self, server):
        self.server = server
        self.admin = admin_key(server)
        self.key, self.ingest = self.make_key("read"), self.make_key("ingest")
        for instance in ("host-1:1", "host-2:1"):
            self.post(
                "patterns/report", {**a_report(0, instance_id=instance), "patterns": _PATTERNS}
            )
        policy = {
            "sampling_rate": 0.05,
            "pattern_rates": {signature_of(LOGIN): 0.25, "00000000000000aa": 0.125},
            "activate": True,
        }
        self.post("policies", policy)

    def make_key(self, scope):
        wanted = {"name": scope, "scopes": [scope], "service_name": "shop"}
        return self.server.post("/api/v1/keys", self.admin, json=wanted).json()["key"]

    def post(self, path, body):
        answer = self.server.post(f"/api/v1/{path}?service_name=shop", self.admin, json=body)
        assert answer.ok, answer.text
        return answer.json()


_PATTERNS = [
    a_pattern(LOGIN, 1500, 30, "DEBUG"),
    a_pattern(OLD, 1, 1, "DEBUG", last_seen=(NOW - timedelta(minutes=2)).isoformat()),
    a_pattern("user <*> <*> in", 9000, 9, "DEBUG"),
    a_pattern("session of user <*> ended", 40, 4),
    a_pattern("payment <*> failed", 3, 3, "ERROR"),
    a_pattern(CUT_OFF, 10, 10, signature="00000000000000aa"),
    a_pattern(HOSTILE, 10, 10, signature="00000000000000bb"),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    server = start_server(tmp_path_factory.mktemp("explain"), {}, workers=1)
    try:
        yield Shop(server)
    finally:
        server.stop()


@pytest.fixture
def explain(shop, capsys):
    def explain(*arguments, key=None, service="shop"):
        given = ["--url", shop.server.url, "--api-key", key or shop.key, "--service-name", service]
        code = main(["explain", *arguments, *given])
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        return out

    return explain


def test_what_became_of_a_pattern_in_all_instances_is_told(explain):
    out = explain("user 17 logged in")

    assert out.splitlines() == [
        f"DEBUG {LOGIN}",
        f"signature {signature_of(LOGIN)}, policy 1",
        "kept with probability 0.25",
        "each process keeps its first 10 records whatever the rate",
        "in all instances, by their reports:",
        "  last 24 hours    3,000 seen, 60 kept",
        "  last 7 days      3,000 seen, 60 kept",
        f"  since {NOW - timedelta(minutes=10):%Y-%m-%d} 3,000 seen, 60 kept",
        f"  last seen at {NOW:%Y-%m-%d %H:%M:%S} UTC, mostly at DEBUG",
    ]


def test_a_severity_that_is_named_wins_over_the_server_s(explain):
    assert explain("user 17 logged in", "--severity", "warn").startswith("WARNING ")


def test_for_machines_it_is_one_document(explain):
    told = json.loads(explain("payment 7 failed", "--json"))

    counts = {"seen": 6, "kept": 6, "errors": 6}
    assert (told["rule"], told["rate"], told["why_no_fleet"]) == ("error", 1.0, None)
    assert told["fleet"] == {
        "signature": signature_of("payment <*> failed"),
        "template": "payment <*> failed",
        "severity": "ERROR",
        "first_seen": (NOW - timedelta(minutes=10)).isoformat(),
        "last_seen": NOW.isoformat(),
        "last_24_hours": counts,
        "last_7_days": counts,
        "ever": counts,
        "pin": None,
        "by_template": False,
    }


@pytest.mark.parametrize("message", ["user eve logged in", "user eve van dyk logged in"])
def test_words_as_a_value_lead_to_the_most_literal_template_that_fits(explain, message):
    told = json.loads(explain(message, "--json"))

    assert compute_signature(message) != told["signature"] == signature_of(LOGIN)
    assert (told["rate"], told["fleet"]["by_template"]) == (0.25, True)
    assert "of those that it fits" in explain(message).splitlines()[0]


def test_a_message_from_before_its_call_site_was_known_is_explained_by_the_pattern_of_today(
    explain,
):
    told = json.loads(explain(OLD, "--json"))

    assert (told["signature"], told["fleet"]["by_template"]) == (signature_of(LOGIN), True)
    assert "reports this message's own pattern now" in explain(OLD).splitlines()[0]
    own = json.loads(explain(signature_of(OLD), "--json"))
    assert (own["template"], own["fleet"]["by_template"]) == (OLD, False)


@pytest.mark.parametrize("message", ["users eve logged in", "17 29", "", "\udcff", "%_\\", "%"])
def test_a_message_that_fits_no_template_is_explained_by_itself(explain, message):
    told = json.loads(explain(message, "--json"))

    assert (told["rate"], told["fleet"]) == (0.05, None)
    assert told["signature"] == compute_signature(message)
    assert "no instance has reported this pattern" in told["why_no_fleet"]


def test_a_signature_is_enough(explain):
    assert explain(signature_of(LOGIN)) == explain("user 17 logged in")


@pytest.mark.parametrize(
    ("signature", "rate"), [("00000000000000aa", 0.125), ("00000000000000cc", 0.05)]
)
def test_a_signature_whose_template_is_cut_off_or_unknown_has_its_rate(explain, signature, rate):
    told = json.loads(explain(signature, "--json"))

    assert (told["signature"], told["rate"], told["rule"]) == (signature, rate, "rate")


def test_a_template_cannot_move_the_cursor_or_make_lines(explain):
    out = explain("00000000000000bb")

    assert not {"\u202e", "\x1b"} & set(out)
    assert "in a second line" in out.splitlines()[0]


@pytest.mark.parametrize("which", ["ingest", "of no report"])
def test_a_key_that_may_not_read_is_one_line_and_no_error(explain, shop, which):
    if which == "ingest":
        out = explain("user 17 logged in", "--severity", "debug", key=shop.ingest)
        assert "kept with probability 0.25" in out
    else:
        out = explain("user 17 logged in", key=shop.admin, service="nobody")

    assert "need a key that may read" in out.splitlines()[-1]
    assert "in all instances" not in out


def test_a_pin_and_running_boosts_are_named(explain, shop):
    session = signature_of("session of user <*> ended")
    path = f"/api/v1/patterns/{session}/pin?service_name=shop"
    headers = {"Authorization": f"Bearer {shop.admin}"}
    pin = {"rate": 0.5, "reason": "INC-7"}
    put = shop.server.session.put(shop.server.url + path, json=pin, headers=headers, timeout=15)
    assert put.ok, put.text
    begun = [
        shop.post("boosts", {"pattern": session, "minutes": 5}),
        shop.post("boosts", {"logger": "shop.cart", "minutes": 5}),
        shop.post("boosts", {"severity": "TRACE", "minutes": 5}),
    ]

    try:
        out = explain("session of user 4 ended")
        told = json.loads(explain(session, "--json"))
    finally:
        for each in begun:
            shop.server.session.delete(
                f"{shop.server.url}/api/v1/boosts/{each['id']}", headers=headers, timeout=15
            )

    assert "kept: full fidelity is on for it" in out
    assert f"kept whole until {begun[0]['until']}: this pattern" in out
    assert f"kept whole until {begun[1]['until']}: logger shop.cart" in out
    assert "TRACE" not in out
    assert "its rate is pinned to 0.5 by hand (key " in out
    assert "): INC-7" in out
    assert (told["rule"], len(told["boosts"])) == ("boosted", 2)
    assert told["fleet"]["pin"] == {
        "rate": 0.5, "protected": False, "reason": "INC-7", "by": told["fleet"]["pin"]["by"]
    }  # fmt: skip


def test_the_client_reads_patterns_and_says_what_is_wrong(shop):
    client = LipServiceClient(shop.server.url, shop.key)

    assert client.fetch_pattern(signature_of(LOGIN)).document["count"] == 3000
    assert client.search_patterns("SESSION", limit=1).document["total"] == 1
    volume = client.fetch_volume(signature_of(LOGIN), step="day", periods=3).document
    assert (len(volume["points"]), sum(each["count"] for each in volume["points"])) == (3, 3000)
    assert client.fetch_pattern("absent/../x").problem.status in {404, 422}
    assert client.fetch_volume("absent", step="hour", periods=0).problem.status == 404
    refused = LipServiceClient(shop.server.url, shop.ingest).search_patterns("x")
    assert (refused.document, refused.problem.status) == (None, 403)
