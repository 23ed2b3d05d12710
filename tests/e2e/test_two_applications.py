"""
The whole way: two real applications report, the server makes policies of it, and the applications
keep what they should.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.server.harness import free_port, start_server, wait_for

APPLICATIONS = Path(__file__).parent / "applications"
ROOT = Path(__file__).parent.parent.parent
COST_TARGET = 0.1
INTERVAL = 2  # seconds between polls, and between reports


@pytest.fixture
def server(tmp_path):
    server = start_server(tmp_path / "server", {})
    yield server
    server.stop()


def server_command(server, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "lipservice_server.cli", *arguments],
        env=server.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_key(server, *arguments):
    out = server_command(server, "keys", "create", *arguments)
    return next(word for word in out.split() if word.startswith("lip_"))


def environment(server, service):
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{APPLICATIONS}",
        "LIPSERVICE_URL": server.url,
        "LIPSERVICE_API_KEY": make_key(server, "--service", service, "--scope", "ingest"),
        "LIPSERVICE_SERVICE_NAME": service,
        "LIPSERVICE_POLICY_REFRESH_INTERVAL": str(INTERVAL),
        "LIPSERVICE_PATTERN_REPORT_INTERVAL": str(INTERVAL),
    }


@contextlib.contextmanager
def stdlib_application(environ):
    """The address of the application under gunicorn: preloaded, two workers."""
    port = free_port()
    command = [
        sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind",
        f"127.0.0.1:{port}", "--no-control-socket", "stdlib_wsgi:app",
    ]  # fmt: skip
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{port}/"
        wait_for(lambda: requests.get(url, timeout=10).ok, seconds=30)
        yield url
    finally:
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert "Traceback" not in err, err


@contextlib.contextmanager
def structlog_application(environ):
    command = [sys.executable, str(APPLICATIONS / "structlog_worker.py")]
    process = subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def generate(server, admin, service):
    body = {"service_name": service, "cost_target": COST_TARGET, "llm_provider": "builtin"}

    def made():
        answer = server.post("/api/v1/policies/generate", admin, json=body)
        assert answer.status_code in {200, 201}, answer.text
        return answer.json()

    return wait_for(made, seconds=40, pause=1.0)


def drive(url, state, until):
    """Send requests until *until* holds for the latest answer of each worker."""

    def one():
        answer = requests.get(url, timeout=30).json()
        state[answer["pid"]] = answer
        return until(state)

    wait_for(one, seconds=60, pause=0.0)


def totals(answers, which):
    keys = ("records", "bytes", "errors", "weight")
    return {key: sum(answer[which][key] for answer in answers) for key in keys}


def check_volume(answers):
    seen, kept = totals(answers, "seen"), totals(answers, "kept")
    assert seen["errors"] > 0
    assert kept["errors"] == seen["errors"], "every error is kept"
    assert kept["bytes"] / seen["bytes"] == pytest.approx(COST_TARGET, rel=0.1)
    assert kept["weight"] == pytest.approx(seen["records"], rel=0.1)


@pytest.mark.timeout(240)
def test_two_applications_are_sampled_by_policies_made_from_their_own_reports(server):
    admin = make_key(server, "--scope", "admin")
    shop, jobs = environment(server, "shop"), environment(server, "jobs")
    with stdlib_application(shop) as url, structlog_application(jobs) as worker:
        state = {}
        drive(url, state, lambda answers: len(answers) == 2)
        drive(url, state, lambda answers: all(reported(a) for a in answers.values()))
        policy = generate(server, admin, "shop")
        generate(server, admin, "jobs")
        assert 0.85 < policy["cost_reduction"] <= 0.95

        drive(url, state, lambda answers: all(a["policy"] for a in answers.values()))
        drive(
            url, state, lambda answers: all(a["seen"]["records"] > 40_000 for a in answers.values())
        )
        check_volume(state.values())

        worker_out, _ = worker.communicate("", timeout=60)
    told = json.loads(worker_out)
    assert told["policy"]
    check_volume([told])
    assert told["health"]["server"]["report_failures"] == 0


def reported(answer):
    return answer["health"]["server"]["reports_sent"] > 0
