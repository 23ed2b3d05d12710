"""The commands, the settings, and the one-command mode."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
import requests

from lipservice.exceptions import ConfigurationError
from lipservice.signature import compute_signature
from lipservice_server.cli import main
from lipservice_server.config import Settings, load_settings, table
from lipservice_server.intake import take_in
from lipservice_server.logs import _OneLine
from lipservice_server.runtime import make_runtime
from tests.server.harness import a_pattern, a_report, free_port, wait_for


@pytest.fixture
def run(monkeypatch, tmp_path, database_url, capsys):
    monkeypatch.setenv("LIPSERVICE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DATABASE_URL", database_url)

    def run(*arguments):
        status = main(arguments)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_keys_are_made_listed_rotated_and_revoked(run):
    status, out, _ = run("keys", "create", "--scope", "admin", "--name", "first")
    assert status == 0
    key = out.split()[-1]
    assert re.fullmatch(r"lip_live_\w{8}_\w{43}_\w{6}", key)
    _, out, _ = run("keys", "list")
    assert "first" in out
    assert key not in out
    number = out.split()[0]
    status, out, _ = run("keys", "rotate", number, "--overlap-hours", "1")
    assert (status, out.split()[-1].startswith("lip_live_")) == (0, True)
    assert run("keys", "revoke", number)[0] == 0
    assert "revoked" in run("keys", "list")[1]
    status, _, err = run("keys", "revoke", "999")
    assert (status, "no such key" in err) == (1, True)


def test_teams_generate_prune_migrate(run):
    assert run("teams", "create", "web")[0] == 0
    assert run("teams", "create", "web")[0] == 1
    assert "web" in run("teams", "list")[1]
    status, _, err = run("generate", "shop", "--team", "web")
    assert (status, "no service" in err) == (1, True)
    assert "report ids" in run("prune")[1]
    assert "0 step(s)" in run("migrate")[1]


def test_boosts_are_added_listed_and_ended(run, tmp_path, database_url):
    run("teams", "create", "default")
    runtime = make_runtime(Settings(data_dir=str(tmp_path / "data"), database_url=database_url))
    team_id = runtime.store.teams.named("default")["id"]
    runtime.store.services.ensure(team_id, "shop", now=runtime.clock())
    runtime.store.db.close()
    status, out, _ = run(
        "boosts", "add", "shop", "--severity", "debug", "--reason", "a\nb \x1b[31m"
    )
    assert (status, "severity DEBUG is kept until" in out, "300 s" in out) == (0, True, True)
    _, out, _ = run("boosts", "add", "shop", "--pattern", "user 5 gone", "--minutes", "1440")
    assert f"pattern {compute_signature('user 5 gone')}" in out
    assert "No instance has reported" in out
    status, out, _ = run("boosts", "list", "shop")
    lines = out.splitlines()
    assert (status, len(lines)) == (0, 2)
    assert lines[1].endswith("shop: severity DEBUG  by command line: a b \\x1b[31m")
    number = lines[1].split()[0]
    assert run("boosts", "end", number)[0] == 0
    assert len(run("boosts", "list")[1].splitlines()) == 1
    assert "ended by command line" in run("boosts", "list", "--ended")[1]
    for wrong, said in (
        (("add", "nobody"), "no service"),
        (("add", "shop", "--team", "nobody"), "no team"),
        (("add", "shop", "--pattern", "never <*> reported"), "no pattern"),
        (("list", "nobody"), "no service"),
        (("end", "999"), "no boost 999"),
    ):
        status, _, err = run("boosts", *wrong)
        assert (status, said in err, err.count("\n")) == (1, True, 1), wrong


def test_a_boost_by_a_message_says_which_pattern_it_is(run, tmp_path, database_url):
    run("teams", "create", "default")
    runtime = make_runtime(Settings(data_dir=str(tmp_path / "data"), database_url=database_url))
    team_id = runtime.store.teams.named("default")["id"]
    now = runtime.clock()
    templates = ["user <*> logged in", "job a\u202e\x9b31m <*>", "a <*> c", "<*> b c", "long " + "x" * 90 + " <*>"]  # fmt: skip
    noon = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
    patterns = [
        a_pattern(0, signature=compute_signature(each.replace("<*>", "0")), template=each,
                  first_seen=noon, last_seen=noon)
        for each in templates
    ]  # fmt: skip
    intake = take_in(patterns, now=now)
    runtime.store.reports.accept(
        team_id, "shop", intake, report_id=None, digest="", sender=None, now=now, wait=5.0
    )
    runtime.store.db.close()

    def add(message):
        return run("boosts", "add", "shop", "--pattern", message)

    assert (
        f"pattern {patterns[0]['signature']} (user <*> logged in) is"
        in add("user bob logged in")[1]
    )
    assert not {"\u202e", "\x9b"} & set(add("job a\u202e\x9b31m b")[1])
    assert f"(long {'x' * 75}...)" in add("long " + "x" * 90 + " b")[1]
    assert "(user <*> logged in)  by" in run("boosts", "list")[1]
    status, _, err = add("a b c")
    assert (status, err.count("\n"), "give a signature" in err) == (1, 1, True)
    assert "(a <*> c)" in err
    assert "(<*> b c)" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "shop", "--minutes", "0"), "--minutes: "),
        (("add", "shop", "--minutes", "nan"), "--minutes: "),
        (("add", "shop", "--minutes", "1441"), "--minutes: "),
        (("add", "shop", "--minutes", "x"), "--minutes: "),
        (("add", "shop", "--severity", "loud"), "--severity: "),
        (("add", "shop", "--logger", ""), "--logger: "),
        (("add", "shop", "--logger", "a", "--severity", "INFO"), "not both"),
        (("add", "shop", "--pattern", "\udcff"), "--pattern: "),
        (("add", "shop", "--reason", "x" * 501), "--reason: "),
        (("end", "-1"), "id: "),
        (("end", "9" * 30), "id: "),
    ],
)
def test_a_boost_that_is_wrongly_asked_for_is_refused_in_a_line(
    monkeypatch, tmp_path, capsys, arguments, said
):
    monkeypatch.setenv("LIPSERVICE_DATA_DIR", str(tmp_path))
    with pytest.raises(SystemExit) as caught:
        main(["boosts", *arguments])
    last = capsys.readouterr().err.splitlines()[-1]
    assert (caught.value.code, said in last, "Traceback" in last) == (2, True, False), last


def test_a_backup_is_whole_and_never_overwrites(run, database_url, tmp_path):
    run("keys", "create")
    target = tmp_path / "backup"
    if database_url.startswith("postgresql"):
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        os.environ["PATH"] = f"{binaries[-1]}:{os.environ['PATH']}"
    status, out, err = run("backup", str(target))
    assert (status, "secret key" in out) == (0, True), err
    assert target.stat().st_mode & 0o777 == 0o600
    if database_url.startswith("sqlite"):
        copy = sqlite3.connect(target)
        assert copy.execute("SELECT count(*) FROM api_key").fetchone() == (1,)
        copy.close()
    assert run("backup", str(target))[0] == 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LIPSERVICE_PORT", "x"),
        ("LIPSERVICE_PORT", "70000"),
        ("LIPSERVICE_WORKERS", "0"),
        ("LOG_LEVEL", "loud"),
        ("DATABASE_URL", "mysql://x:secret@h/d"),
        ("REDIS_URL", "http://x"),
        ("LIPSERVICE_SECRET_KEY", "short"),
        ("LIPSERVICE_LLM_PROVIDER", "gpt"),
        ("OPENAI_BASE_URL", "file:///etc/passwd"),
        ("LIPSERVICE_AUTO_MIGRATE", "maybe"),
        ("LIPSERVICE_CACHE_SECONDS", "nan"),
        ("LIPSERVICE_COST_TARGET", "inf"),
        ("POSTHOG_HOST", "x"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_is_named(variable, value):
    with pytest.raises(ConfigurationError, match=variable) as caught:
        load_settings({variable: value})
    assert "secret@" not in str(caught.value)


def test_every_setting_is_read_from_its_variable_and_documented():
    page = (Path(__file__).parents[2] / "docs" / "server" / "settings.md").read_text()
    for row in table():
        assert f"`{row['variable']}`" in page, row["variable"]
        assert row["help"] in page, row["variable"]
    assert load_settings(
        {"LIPSERVICE_PORT": "9000", "LOG_LEVEL": "debug", "LIPSERVICE_AUTO_MIGRATE": "no"}
    ) == Settings(port=9000, log_level="DEBUG", auto_migrate=False)


def test_secrets_are_not_in_the_repr_of_the_settings():
    settings = load_settings(
        {
            "DATABASE_URL": "postgresql://u:pa55@h/d",
            "OPENAI_API_KEY": "sk-1",
            "LIPSERVICE_SECRET_KEY": "k" * 40,
        }
    )
    assert not re.search("pa55|sk-1|kkkk", repr(settings))


def test_every_endpoint_is_in_the_reference(monkeypatch, tmp_path):
    from lipservice_server.app import create_app

    page = (Path(__file__).parents[2] / "docs" / "server" / "http.md").read_text()
    app = create_app(Settings(data_dir=str(tmp_path)))
    for endpoint in app.extensions["lipservice_endpoints"]:
        rule = re.sub(r"<(?:int[^>]*:)?(\w+)>", r"{\1}", endpoint.rule)
        assert re.search(rf"`{endpoint.method} (/api/v1)?{re.escape(rule)}`", page), (
            endpoint.method,
            rule,
        )


def test_no_text_from_outside_can_break_a_line_of_the_log():
    import logging

    record = logging.LogRecord(
        "x", logging.INFO, "f", 1, "name %s", ("a\x1b[31m\rb\u2028c\u202e",), None
    )
    assert _OneLine("%(message)s").format(record) == "name a\\x1b[31m\\x0db\\x2028c\\x202e"


def test_one_command_serves_works_and_ends(tmp_path):
    """`lipservice-server` with nothing configured: a database, a first key, a report, a policy, the end."""
    port = free_port()
    environ = os.environ | {
        "LIPSERVICE_DATA_DIR": str(tmp_path),
        "LIPSERVICE_PORT": str(port),
        "LIPSERVICE_THREADS": "8",
    }
    command = [sys.executable, "-m", "lipservice_server.cli"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environ, stdout=log, stderr=log, cwd=tmp_path)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: requests.get(f"{url}/readyz", timeout=2).status_code == 200, seconds=40)
        assert "keys create --scope admin" in (tmp_path / "log").read_text()
        made = subprocess.run(
            [*command, "keys", "create", "--scope", "admin"],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
        headers = {"Authorization": f"Bearer {made.stdout.split()[-1]}"}
        assert (
            requests.post(
                f"{url}/api/v1/patterns/report", json=a_report(3), headers=headers, timeout=10
            ).status_code
            == 200
        )
        generated = subprocess.run(
            [*command, "generate", "shop"], env=environ, capture_output=True, text=True, check=True
        )
        assert '"version": 1' in generated.stdout
        wait_for(
            lambda: (
                requests.get(
                    f"{url}/api/v1/policies/active?service_name=shop", headers=headers, timeout=5
                ).json()["version"]
                == 1
            )
        )
        numbers = requests.get(f"{url}/metrics", timeout=5).text
        assert "lipservice_patterns_total 3.0" in numbers
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(40) == 0, (tmp_path / "log").read_text()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/healthz", timeout=2)
