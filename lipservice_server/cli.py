"""
`lipservice-server`: run, worker, migrate, keys, teams, boosts, generate, prune, backup, settings,
openapi.

Commands act on the database that the settings name, as whoever may read its secret: they need no
API key. What they change is audited as done by "command line".
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from lipservice._version import __version__
from lipservice.exceptions import ConfigurationError
from lipservice.simulation.console import safe
from lipservice_server import jobs, migrations
from lipservice_server.api.bodies import explain
from lipservice_server.api.schemas import NewBoost
from lipservice_server.app import create_app
from lipservice_server.boosts import begin_boost, end_boost, of_what
from lipservice_server.config import Settings, load_settings, table
from lipservice_server.db import Row, patience, sqlite_path
from lipservice_server.errors import DatabaseAwayError, NotFoundError, ServerError
from lipservice_server.generation import Wish, generate_policy
from lipservice_server.keys import SCOPES, make_key
from lipservice_server.logs import set_up_logging, visible
from lipservice_server.runtime import Runtime, make_runtime
from lipservice_server.serve import serve

_ACTOR: Final = "command line"
_DEFAULT_TEAM: Final = "default"
#: Characters of a template that are shown.
_LONGEST_TEMPLATE: Final = 80


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status: 0 done, 1 failed, 2 used wrongly."""
    given = _parser().parse_args(arguments)
    try:
        settings = load_settings()
        set_up_logging(settings.log_level)
        command: Callable[[Settings, argparse.Namespace], int] = given.command
        with patience(60.0):
            return command(settings, given)
    except (ConfigurationError, ServerError, OSError, subprocess.CalledProcessError) as error:
        print(f"lipservice-server: {safe(str(error))}", file=sys.stderr)  # may hold templates
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lipservice-server",
        description="The LipService policy server. Settings come from the environment: "
        "`lipservice-server settings` lists them.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(command=_run, no_jobs=False)
    commands = parser.add_subparsers(title="commands")
    run = _command(commands, "run", _run, "serve, with the background jobs beside (the default)")
    run.add_argument("--no-jobs", action="store_true", help="another host runs the worker")
    _command(commands, "worker", _worker, "run the background jobs alone")
    _command(commands, "migrate", _migrate, "bring the schema up to date")
    _add_keys(commands)
    _add_teams(commands)
    _add_boosts(commands)
    generate = _command(commands, "generate", _generate, "make a service's next policy now")
    generate.add_argument("service")
    generate.add_argument("--team", default=_DEFAULT_TEAM)
    generate.add_argument("--cost-target", type=_share, help="share of the bytes to keep, 0 to 1")
    generate.add_argument("--provider", choices=("builtin", "openai", "anthropic"))
    generate.add_argument("--draft", action="store_true", help="store it, do not activate it")
    _command(commands, "prune", _prune, "forget what is older than the settings say")
    backup = _command(commands, "backup", _backup, "copy the database while it is in use")
    backup.add_argument("file", type=Path)
    _command(commands, "settings", _settings, "list every setting")
    _command(commands, "openapi", _openapi, "print the OpenAPI document")
    return parser


def _command(
    commands: Any, name: str, command: Callable[[Settings, argparse.Namespace], int], help: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help, description=help)
    parser.set_defaults(command=command)
    return parser


def _add_keys(commands: Any) -> None:
    keys = commands.add_parser("keys", help="create, list, rotate, revoke keys").add_subparsers(
        title="commands", required=True
    )
    create = _command(keys, "create", _keys_create, "make a key; it is shown once")
    create.add_argument("--team", default=_DEFAULT_TEAM, help="made where there is none")
    create.add_argument("--name", default="made on the command line")
    create.add_argument("--scope", choices=SCOPES, action="append", help="may be given repeatedly")
    create.add_argument("--service", help="the one service that the key belongs to")
    create.add_argument("--days", type=float, help="life; without it, the key does not expire")
    listing = _command(keys, "list", _keys_list, "list the keys, without themselves")
    listing.add_argument("--team", default=_DEFAULT_TEAM)
    rotate = _command(keys, "rotate", _keys_rotate, "make a key's successor; it is shown once")
    rotate.add_argument("id", type=_id)
    rotate.add_argument("--team", default=_DEFAULT_TEAM)
    rotate.add_argument("--overlap-hours", type=float, help="how long the old one still works")
    revoke = _command(keys, "revoke", _keys_revoke, "end a key at once")
    revoke.add_argument("id", type=_id)
    revoke.add_argument("--team", default=_DEFAULT_TEAM)


def _add_teams(commands: Any) -> None:
    teams = commands.add_parser("teams", help="create, list teams").add_subparsers(
        title="commands", required=True
    )
    _command(teams, "create", _teams_create, "make a team").add_argument("name")
    _command(teams, "list", _teams_list, "list the teams")


def _add_boosts(commands: Any) -> None:
    boosts = commands.add_parser(
        "boosts", help="keep everything of something for a while; list, end"
    ).add_subparsers(title="commands", required=True)
    add = _command(boosts, "add", _boosts_add, "keep everything; with no selector, of the service")
    add.add_argument("service")
    add.add_argument("--team", default=_DEFAULT_TEAM)
    add.add_argument("--pattern", help="a signature, a message, or a template that was reported")
    add.add_argument("--severity", type=str.upper, help="such as DEBUG")
    add.add_argument("--logger", help="a logger's name; its children are meant with it")
    add.add_argument("--minutes", type=float, help="above 0, at most 1440 (default 10)")
    add.add_argument("--reason", help="for those who come after you")
    add.set_defaults(refuse=add.error)
    listing = _command(boosts, "list", _boosts_list, "list what runs, the newest first")
    listing.add_argument("service", nargs="?", help="without it, of every service")
    listing.add_argument("--team", default=_DEFAULT_TEAM)
    listing.add_argument("--ended", action="store_true", help="the last 200 that have ended")
    end = _command(boosts, "end", _boosts_end, "end one now")
    end.add_argument("id", type=_id)
    end.add_argument("--team", default=_DEFAULT_TEAM)


def _id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise argparse.ArgumentTypeError("is a number, as the list shows it")
    return int(text)


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError("lies above 0 and at most 1")
    return share


def _open(settings: Settings) -> Runtime:
    """The parts, with the schema in place."""
    runtime = make_runtime(settings)
    runtime.watcher.look()
    return runtime


def _run(settings: Settings, given: argparse.Namespace) -> int:
    try:
        runtime = _open(settings)
        if not runtime.store.keys.live():
            print(
                "There is no key yet. Make the first one with:\n"
                "  lipservice-server keys create --scope admin",
                flush=True,
            )
        runtime.store.db.close()
    except DatabaseAwayError as error:
        # It may come back, and until then the snapshot is served.
        print(f"lipservice-server: {error}", file=sys.stderr)
    print(f"Serving on http://{settings.host}:{settings.port}", flush=True)
    return serve(settings, jobs=not given.no_jobs)


def _worker(settings: Settings, given: argparse.Namespace) -> int:
    del given
    runtime = make_runtime(settings)
    while True:
        try:
            runtime.watcher.look()
            break
        except DatabaseAwayError as error:
            print(f"lipservice-server: {error}", file=sys.stderr)
            time.sleep(5)
    consumer = jobs.make_jobs(runtime).create_consumer(
        workers=1, periodic=True, initial_delay=0.5, max_delay=5.0, check_worker_health=True
    )
    consumer.run()
    return 0


def _migrate(settings: Settings, given: argparse.Namespace) -> int:
    del given
    runtime = make_runtime(settings)
    made = migrations.migrate(runtime.store.db)
    print(f"schema {migrations.current(runtime.store.db)}, {len(made)} step(s) made")
    return 0


def _keys_create(settings: Settings, given: argparse.Namespace) -> int:
    runtime = _open(settings)
    now = runtime.clock()
    try:
        team_id = runtime.store.teams.named(given.team)["id"]
    except NotFoundError:
        team_id = runtime.store.teams.create(given.team, now=now)
    key, prefix = make_key()
    row = runtime.store.keys.add(
        team_id,
        name=given.name,
        prefix=prefix,
        hashed=runtime.ring.hash(key),
        scopes=given.scope or ["ingest"],
        service_name=given.service,
        expires_at=None if given.days is None else int(now + given.days * 86_400),
        actor=_ACTOR,
        now=now,
    )
    print(f"key {row['id']} ({', '.join(row['scopes'])}) of team {given.team}, shown only now:")
    print(key)
    return 0


def _keys_list(settings: Settings, given: argparse.Namespace) -> int:
    runtime = _open(settings)
    for row in runtime.store.keys.all(_team(runtime, given)):
        state = "revoked" if row["revoked_at"] else _ends(row["expires_at"], runtime.clock())
        service = f", service {row['service_name']}" if row["service_name"] else ""
        print(f"{row['id']:>5}  {row['prefix']}  {state:<24} {' '.join(row['scopes'])}{service}"
              f"  {row['name']}")  # fmt: skip
    return 0


def _ends(expires_at: int | None, now: float) -> str:
    if expires_at is None:
        return "live"
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(expires_at))
    return f"expired {when}" if expires_at <= now else f"until {when}"


def _keys_rotate(settings: Settings, given: argparse.Namespace) -> int:
    runtime = _open(settings)
    now = runtime.clock()
    hours = given.overlap_hours
    overlap = settings.rotation_seconds if hours is None else int(hours * 3600)
    key, prefix = make_key()
    row = runtime.store.keys.replace(
        _team(runtime, given),
        given.id,
        prefix=prefix,
        hashed=runtime.ring.hash(key),
        ends_at=int(now) + overlap,
        actor=_ACTOR,
        now=now,
    )
    print(f"key {row['id']} succeeds key {given.id}, shown only now:")
    print(key)
    return 0


def _keys_revoke(settings: Settings, given: argparse.Namespace) -> int:
    runtime = _open(settings)
    team_id = _team(runtime, given)
    runtime.store.keys.revoke(team_id, given.id, actor=_ACTOR, now=runtime.clock())
    print(f"key {given.id} is revoked")
    return 0


def _teams_create(settings: Settings, given: argparse.Namespace) -> int:
    runtime = _open(settings)
    print(f"team {runtime.store.teams.create(given.name, now=runtime.clock())}: {given.name}")
    return 0


def _teams_list(settings: Settings, given: argparse.Namespace) -> int:
    del given
    for team in _open(settings).store.teams.every():
        print(f"{team['id']:>5}  {team['name']}")
    return 0


def _boosts_add(settings: Settings, given: argparse.Namespace) -> int:
    names = ("pattern", "severity", "logger", "minutes", "reason")
    fields = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    try:
        wish = NewBoost(**fields)
    except ValidationError as error:
        given.refuse(f"--{explain(error).message}")
    if wish.logger is not None and (wish.pattern is not None or wish.severity is not None):
        given.refuse("give --logger, or --pattern and --severity, not both")
    runtime = _open(settings)
    row = begin_boost(runtime, _team(runtime, given), given.service, wish, actor=_ACTOR)
    until = _clock(row["until"])
    print(f"boost {row['id']}: everything of {_of_what(row)} is kept until {until}")
    print("Each instance keeps to it from its next poll on (every 300 s unless set otherwise).")
    if row["signature"] is not None and row["template"] is None:
        print("No instance has reported this pattern yet.")
    return 0


def _boosts_list(settings: Settings, given: argparse.Namespace) -> int:
    runtime = _open(settings)
    rows = runtime.store.boosts.page(
        _team(runtime, given), given.service, ended=given.ended, limit=200, now=runtime.clock()
    )
    for row in rows:
        print(visible(_boost_line(row)))
    return 0


def _boost_line(row: Row) -> str:
    ended = f", ended by {row['ended_by']}" if row["ended_by"] else ""
    reason = f": {' '.join(row['reason'].split())}" if row["reason"] else ""  # in one line
    return (
        f"{row['id']:>5}  until {_clock(row['until'])}  {row['service_name']}: {_of_what(row)}"
        f"  by {row['created_by']}{ended}{reason}"
    )


def _of_what(row: Row) -> str:
    """As `of_what`, with the beginning of the pattern's template."""
    template = safe(" ".join((row["template"] or "").split()))  # in one line
    cut = template if len(template) <= _LONGEST_TEMPLATE else f"{template[:_LONGEST_TEMPLATE]}..."
    what = safe(of_what(row))
    return f"{what} ({cut})" if cut else what


def _boosts_end(settings: Settings, given: argparse.Namespace) -> int:
    runtime = _open(settings)
    team_id = _team(runtime, given)
    row = end_boost(runtime, team_id, given.id, service_name=None, actor=_ACTOR)
    print(f"boost {row['id']} of {row['service_name']} has ended; instances learn it at their poll")
    return 0


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _generate(settings: Settings, given: argparse.Namespace) -> int:
    runtime = _open(settings)
    team_id = _team(runtime, given)
    runtime.store.services.require(team_id, given.service)
    wish = Wish(
        cost_target=given.cost_target,
        provider=given.provider,
        activate=False if given.draft else None,
    )
    made = generate_policy(runtime, team_id, given.service, wish, actor=_ACTOR)
    print(json.dumps(made.row["document"], indent=2, ensure_ascii=False))
    if made.fallback_reason:
        print(f"built-in weights were used: {made.fallback_reason}", file=sys.stderr)
    runtime.events.flush()
    return 0


def _prune(settings: Settings, given: argparse.Namespace) -> int:
    del given
    runtime = _open(settings)
    jobs.roll_up(runtime)
    for kind, count in jobs.prune(runtime).items():
        print(f"{count:>9}  {kind}")
    return 0


def _backup(settings: Settings, given: argparse.Namespace) -> int:
    target: Path = given.file
    if target.exists():
        raise ConfigurationError(f"{target} exists: name a new file")
    if settings.database.startswith("sqlite:"):
        _backup_sqlite(sqlite_path(settings.database), target)
    else:
        subprocess.run(  # noqa: S603
            ["pg_dump", "--format=custom", f"--file={target}", settings.database],  # noqa: S607
            check=True,
        )
    target.chmod(0o600)
    print(f"{target}: keep the secret key with it, or every API key in it is of no use")
    return 0


def _backup_sqlite(source: Path, target: Path) -> None:
    """SQLite's own online backup: whole and of one moment, while the server writes on."""
    if not source.exists():
        raise ConfigurationError(f"there is no database {source}")
    with closing(sqlite3.connect(source)) as live, closing(sqlite3.connect(target)) as copy:
        live.backup(copy, pages=1_000)


def _settings(settings: Settings, given: argparse.Namespace) -> int:
    del settings, given
    for row in table():
        default = f" (default {row['default']}{' ' + row['unit'] if row['unit'] else ''})"
        print(f"{row['variable']}{default if row['default'] else ''}\n    {row['help']}")
    return 0


def _openapi(settings: Settings, given: argparse.Namespace) -> int:
    del given
    app = create_app(settings)
    with app.test_client() as client:
        print(json.dumps(client.get("/api/v1/openapi.json").json, indent=2))
    return 0


def _team(runtime: Runtime, given: argparse.Namespace) -> int:
    return int(runtime.store.teams.named(given.team)["id"])


if __name__ == "__main__":
    sys.exit(main())
