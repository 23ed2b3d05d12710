"""
The whole way of a boost: begun at the server, followed by a real application, ended by itself or by
hand, told to people.
"""

import contextlib
import json
import subprocess
import sys

import pytest

from lipservice.signature import compute_signature
from tests.e2e.test_two_applications import APPLICATIONS, environment, make_key
from tests.server.harness import start_server, wait_for

EACH = 20  # records of each statement in each logger, each time
ITEM, CART = "item %d added", "cart of session %d saved"
SIGNATURE = compute_signature("item 1 added")
PATTERN_KEPT = {f"{name} {ITEM}": EACH for name in ("shop.cart", "shop.cart.items", "shop.search")}
LOGGER_KEPT = {
    f"{name} {text}": EACH for name in ("shop.cart", "shop.cart.items") for text in (ITEM, CART)
}


@pytest.fixture
def server(tmp_path):
    server = start_server(tmp_path / "server", {})
    yield server
    server.stop()


class Application:
    """A process that logs when it is told to."""

    def __init__(self, process):
        self._process = process
        self.asked = 0
        self.boosted = 0

    def log(self):
        """Let it log; what was kept of it."""
        self._process.stdin.write(f"{EACH}\n")
        self._process.stdin.flush()
        self.asked += 1
        answer = json.loads(self._process.stdout.readline())
        if answer["how"] == [["boosted", 1.0]]:
            self.boosted += sum(answer["kept"].values())
        return answer

    def tells(self, start):
        """Whether its logger `lipservice` has said a line that begins so."""
        return any(line.startswith(start) for line in self.log()["told"])


@contextlib.contextmanager
def application(environ):
    command = [sys.executable, str(APPLICATIONS / "asked_shop.py")]
    environ = {**environ, "LIPSERVICE_POLICY_REFRESH_INTERVAL": "0.5"}
    process = subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Application(process)
        process.communicate("", timeout=60)
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


class Boosts:
    """The boosts of the service `shop`, over HTTP."""

    def __init__(self, server, key):
        self._server, self._key = server, key

    def begin(self, **body):
        answer = self._server.post("/api/v1/boosts?service_name=shop", self._key, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def running(self):
        answer = self._server.get("/api/v1/boosts?service_name=shop", self._key)
        return answer.json()["boosts"]

    def end(self, boost):
        self._server.session.delete(
            f"{self._server.url}/api/v1/boosts/{boost['id']}",
            headers={"Authorization": f"Bearer {self._key}"},
            timeout=15,
        ).raise_for_status()


def kept_is(application, kept):
    answer = application.log()
    if answer["kept"] != kept:
        return None
    assert answer["how"] == ([["boosted", 1.0]] if kept else [])
    return answer


@pytest.mark.timeout(240)
def test_a_boost_is_followed_from_its_begin_to_its_end(server):
    admin = make_key(server, "--scope", "admin")
    drop_all = {"sampling_rate": 0.0, "keep_first": 0, "activate": True}
    environ = environment(server, "shop")
    reported = {"service_name": "shop", "patterns": []}  # it makes the service
    assert server.post("/api/v1/patterns/report", admin, json=reported).ok
    made = server.post("/api/v1/policies?service_name=shop", admin, json=drop_all)
    assert made.ok, made.text
    boosts = Boosts(server, admin)
    with application(environ) as shop:
        wait_for(lambda: shop.log()["policy"] == 1, seconds=60)
        shop.boosted = 0
        assert shop.log()["kept"] == {}

        def short_boost_is_followed():
            if not boosts.running():  # also should the machine have slept through one
                boosts.begin(pattern="item 7 added", minutes=0.1, reason="short")
            return kept_is(shop, PATTERN_KEPT)

        wait_for(short_boost_is_followed, seconds=60)
        # Nobody has ended it.
        wait_for(lambda: not boosts.running() and kept_is(shop, {}), seconds=60)
        wait_for(lambda: shop.tells(f"pattern {SIGNATURE} of shop is sampled again"), seconds=60)

        boost = boosts.begin(logger="shop.cart", minutes=60, reason="INC-4711")
        wait_for(lambda: kept_is(shop, LOGGER_KEPT), seconds=60)
        wait_for(
            lambda: shop.tells("everything of logger shop.cart of shop is kept until "), seconds=60
        )
        boosts.end(boost)
        wait_for(lambda: kept_is(shop, {}), seconds=60)
        wait_for(lambda: shop.tells("logger shop.cart of shop is sampled again"), seconds=60)
        assert shop.tells(f"everything of pattern {SIGNATURE} of shop is kept until ")
        last = shop.log()
    seen, kept, dropped = last["totals"]
    assert (seen, kept + dropped) == (shop.asked * EACH * 6, seen)
    assert last["boosted"] >= shop.boosted > 0
    lines = server.get("/api/v1/audit", admin).json()["lines"]
    actions = [line["action"] for line in lines if line["action"].startswith("boost.")]
    assert actions[:2] == ["boost.end", "boost.begin"]
    assert actions.count("boost.begin") == len(actions) - 1
