"""`lipservice demo`: a real application under load, sampled live, counted twice."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from lipservice.cli.demo_load import LoopbackServer, Visitors
from lipservice.cli.demo_shop import Shop
from lipservice.policy import SamplingPolicy

COMMAND = [sys.executable, "-m", "lipservice.cli.main", "demo"]


def run(*arguments):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
        check=False,
    )


class TestDemo:
    def test_the_report_is_what_both_sides_counted(self, tmp_path):
        policy = tmp_path / "policy.json"
        done = run("--seconds", "3", "--json", "--write-policy", policy)
        report = json.loads(done.stdout)
        proofs = "\n".join(report["proofs"])
        exact = re.search(r"wrote ([\d,]+) records, the sampler counted ([\d,]+)\.", proofs)
        errors = re.search(r"Every error was kept: ([\d,]+) of ([\d,]+)\.", proofs)

        assert (done.returncode, done.stderr) == (0, b"")
        assert exact[1] == exact[2] == f"{report['input']['records']:,}"
        assert errors[1] == errors[2] == f"{report['errors']['records']:,}"
        assert report["input"]["records"] == sum(row["records"] for row in report["patterns"])
        assert report["outcome"]["kept_records"] < report["outcome"]["records"]
        assert report["live_share"] < 0.5
        assert SamplingPolicy.from_dict(json.loads(policy.read_text())).pattern_rates

    def test_in_a_pipe_it_prints_lines_and_the_report(self, tmp_path):
        page = tmp_path / "demo.html"
        done = run("--seconds", "2", "--html", page)
        text = done.stdout.decode()

        assert (done.returncode, done.stderr) == (0, b"")
        assert re.search(r"^ +\d\.\d s +[\d,]+ records seen, +[\d,]+ kept", text, re.MULTILINE)
        assert "LipService kept" in " ".join(text.split())
        assert "\x1b" not in text
        assert "Counted twice" in page.read_text(encoding="utf-8")

    def test_ctrl_c_ends_it_and_gives_the_cursor_back(self):
        control, terminal = pty.openpty()
        process = subprocess.Popen(
            [*COMMAND, "--seconds", "60"],
            stdin=subprocess.DEVNULL, stdout=terminal, stderr=subprocess.PIPE,
            env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
        os.close(terminal)
        shown = b""
        while b"records seen" not in shown:
            shown += os.read(control, 65536)
        process.send_signal(signal.SIGINT)
        try:
            while part := os.read(control, 65536):
                shown += part
        except OSError:  # Linux's way to say that the other end is closed
            pass
        os.close(control)
        errors = process.stderr.read()
        process.stderr.close()

        assert process.wait(timeout=60) == 130
        assert errors.strip() == b"lipservice: interrupted"
        assert shown.rstrip().endswith(b"\x1b[?25h")

    @pytest.mark.parametrize("arguments", [("--seconds", "0"), ("--cost-target", "0"), ("x",)])
    def test_wrong_usage_ends_with_2(self, arguments):
        done = run(*arguments)

        assert done.returncode == 2
        assert b"Traceback" not in done.stderr


@pytest.fixture
def shop_log():
    """What the shop logs, as text."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("shop")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield stream
    logger.removeHandler(handler)
    logger.level, logger.propagate = before


class TestShop:
    def test_it_answers_over_http_and_logs_what_it_did(self, shop_log):
        shop = Shop(random.Random(3))
        server = LoopbackServer(shop)
        server.start()

        def ask(path, data=None):
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{server.port}{path}", data
                ) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read()

        try:
            assert ask("/product/8") == (200, b"red lamp for 108")
            assert ask("/product/8") == (200, b"red lamp for 108")
            assert ask("/product/999")[0] == 404
            assert ask("/nowhere")[0] == 404
            assert ask("/search?q=lamp") == (200, b"20")
            assert {200, 402} == {ask("/buy/7", b"")[0] for _ in range(60)}
            assert ask("/buy/seven", b"")[0] == 500
        finally:
            server.stop()
            shop.close()
        text = shop_log.getvalue()

        for line in (
            "DEBUG shop.cache cache miss for product 8",
            "DEBUG shop.cache cache hit for product 8",
            "WARNING shop.web product 999 does not exist",
            "INFO shop.web search for 'lamp' found 20 products",
            "ERROR shop.payments payment of order",
            "PaymentRefusedError: card of order",
            "ERROR shop.web request POST /buy/seven failed",
        ):
            assert line in text

    def test_nothing_is_left_running(self, shop_log):
        before = threading.active_count()
        shop = Shop(random.Random(1))
        server = LoopbackServer(shop)
        visitors = Visitors(server.port, 2, random.Random(1))
        server.start()
        visitors.start()
        while shop.requests < 20:
            time.sleep(0.01)
        visitors.stop()
        server.stop()
        shop.close()

        assert visitors.failed == 0
        assert before == threading.active_count()
