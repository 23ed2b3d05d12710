"""
Real parts for the server's tests: PostgreSQL, Redis, gunicorn, and a client that speaks to them.

What is not installed is skipped with a reason; where CI=true, it fails instead.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from lipservice_server.app import runtime_of
from lipservice_server.keys import make_key

_PG_BIN = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def absent(what: str):
    """Skip for want of a part, or fail where the whole suite is owed."""
    message = f"{what} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Postgres:
    """A cluster of its own in a directory of its own: pytest's are closed to the user postgres."""

    def __init__(self) -> None:
        found = shutil.which("initdb")
        binaries = _PG_BIN or (Path(found).parent if found else None)
        if binaries is None:
            absent("PostgreSQL (initdb)")
        self.directory = Path(tempfile.mkdtemp(prefix="lipservice-pg-"))
        self._bin, self.port = binaries, free_port()
        self._user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        if self._user:
            shutil.chown(self.directory, "postgres", "postgres")
        self._run(
            "initdb", "-D", str(self.directory / "data"), "-A", "trust", "-U", "postgres",
            "-E", "UTF8", "--no-sync",
        )  # fmt: skip
        self.start()
        self._warden = self._start_warden()

    def _start_warden(self) -> subprocess.Popen:
        """Ends the cluster when this process is killed and can no longer do it."""
        stop = [
            *self._user,
            str(self._bin / "pg_ctl"),
            "-D",
            str(self.directory / "data"),
            "-m",
            "immediate",
            "stop",
        ]
        script = (
            f"while kill -0 {os.getpid()} 2>/dev/null; do sleep 2; done;"
            f" {shlex.join(stop)}; rm -rf {shlex.quote(str(self.directory))}"
        )
        return subprocess.Popen(
            ["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, cwd="/",
        )  # fmt: skip

    def end(self) -> None:
        """Stop the cluster and remove its files."""
        self._warden.kill()
        self._warden.wait(5)
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        options = f"-k {self.directory} -p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=60"
        self._run(
            "pg_ctl",
            "-D",
            str(self.directory / "data"),
            "-l",
            str(self.directory / "log"),
            "-o",
            options,
            "-w",
            "start",
        )

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", str(self.directory / "data"), "-m", mode, "-w", "stop")

    @property
    def pid(self) -> int:
        return int((self.directory / "data" / "postmaster.pid").read_text().split()[0])

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Every process of the cluster stopped by SIGSTOP, its sockets open."""
        pids = [self.pid, *_children(self.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def new_database(self) -> str:
        name = f"t{secrets.token_hex(6)}"
        self._run(
            "createdb", "-h", str(self.directory), "-p", str(self.port), "-U", "postgres", name
        )
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        # Into a file: the server inherits pg_ctl's output, and a pipe would never end.
        with (self.directory / f"{program}.out").open("wb") as output:
            done = subprocess.run(
                [*self._user, str(self._bin / program), *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                timeout=60, cwd=self.directory, check=False,
            )  # fmt: skip
        assert done.returncode == 0, (self.directory / f"{program}.out").read_text()


def _children(pid: int) -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in listed.stdout.split()]


class RedisServer:
    """A redis-server of its own, without persistence."""

    def __init__(self, directory: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            absent("redis-server")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process = subprocess.Popen(
            [
                program,
                "--port",
                str(self.port),
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
                str(directory),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: socket.create_connection(("127.0.0.1", self.port), 1).close() or True)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)


def wait_for(condition, *, seconds: float = 15.0, pause: float = 0.05):
    """Wait until *condition* is true; what it raises on the way counts as not yet."""
    ends = time.monotonic() + seconds
    last = None
    while time.monotonic() < ends:
        try:
            found = condition()
        except (OSError, AssertionError, requests.RequestException) as error:
            last = error
        else:
            if found:
                return found
        time.sleep(pause)
    raise AssertionError(f"it did not come about within {seconds} s: {last!r}")


@dataclass
class Server:
    """gunicorn with the real application, as a child process."""

    url: str
    environ: dict[str, str]
    process: subprocess.Popen
    log: Path
    session: requests.Session = field(default_factory=requests.Session)

    def get(self, path: str, key: str | None = None, **kwargs) -> requests.Response:
        return self._call("GET", path, key, kwargs)

    def post(self, path: str, key: str | None = None, **kwargs) -> requests.Response:
        return self._call("POST", path, key, kwargs)

    def _call(self, method, path, key, kwargs) -> requests.Response:
        headers = dict(kwargs.pop("headers", {}))
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        return self.session.request(
            method, self.url + path, headers=headers, timeout=kwargs.pop("timeout", 15), **kwargs
        )

    def workers(self) -> list[int]:
        return _children(self.process.pid)

    def stop(self) -> None:
        self.session.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)


def start_server(
    directory: Path, environ: dict[str, str], *, workers: int = 2, threads: int = 16
) -> Server:
    """Start gunicorn as the documentation says, on a free port."""
    port = free_port()
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / f"gunicorn-{port}.log"
    used = {
        **os.environ,
        "LIPSERVICE_DATA_DIR": str(directory / "data"),
        "LIPSERVICE_PORT": str(port),
        "LIPSERVICE_WORKERS": str(workers),
        "LIPSERVICE_THREADS": str(threads),
        "LIPSERVICE_CACHE_SECONDS": "0.2",
        "LIPSERVICE_SHARE_SECONDS": "0.3",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        **environ,
    }
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-c",
        "python:lipservice_server.gunicorn_conf",
        "lipservice_server.wsgi:app",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=used, stdout=output, stderr=subprocess.STDOUT)
    server = Server(f"http://127.0.0.1:{port}", used, process, log)
    try:
        wait_for(
            lambda: requests.get(f"{server.url}/healthz", timeout=2).status_code == 200, seconds=30
        )
    except AssertionError:
        server.stop()
        raise AssertionError(log.read_text()) from None
    return server


def make_team(
    app, name: str, *, service: str | None = None, scopes=("admin",), expires_at=None
) -> str:
    """A key of the team *name*, which is made where it is not there."""
    return key_in(runtime_of(app), name, service=service, scopes=scopes, expires_at=expires_at)


def key_in(runtime, name: str, *, service=None, scopes=("admin",), expires_at=None) -> str:
    now = runtime.clock()
    found = [team["id"] for team in runtime.store.teams.every() if team["name"] == name]
    team_id = found[0] if found else runtime.store.teams.create(name, now=now)
    key, prefix = make_key("test")
    runtime.store.keys.add(
        team_id,
        name=f"{name}'s",
        prefix=prefix,
        hashed=runtime.ring.hash(key),
        scopes=list(scopes),
        service_name=service,
        expires_at=expires_at,
        actor="test",
        now=now,
    )
    return key


def a_report(patterns: int = 3, **fields) -> dict:
    """A report as an SDK sends it."""
    return {
        "report_id": secrets.token_hex(8),
        "service_name": "shop",
        "instance_id": "host-1:1",
        "interval": 600.0,
        "sdk": {"language": "python", "version": "0.1.0"},
        "health": {"dropped": 0, "alive": True},
        "patterns": [a_pattern(i) for i in range(patterns)],
        **fields,
    }


def a_pattern(number: int, **fields) -> dict:
    return {
        "signature": f"{number:016x}",
        "template": f"user <*> did thing {number} in <*> ms",
        "count": 100 + number,
        "kept": 10,
        "bytes": 10_000,
        "severity_distribution": {"INFO": 100 + number},
        "first_seen": "2026-01-01T12:00:00Z",
        "last_seen": "2026-01-01T12:10:00Z",
        "sampling_rate": 0.1,
        **fields,
    }
