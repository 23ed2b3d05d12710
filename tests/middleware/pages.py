"""The pages docs/how-to/requests-in/*.md as projects: their files, their commands, their servers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "how-to" / "requests-in"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"^`([\w./-]+\.\w+)`[^\n]*$")
_STORY = re.compile(
    r"cart (?P<loaded>\d+) is loaded|prices of cart (?P<prices>\d+) are up to date"
    r"|cart (?P<lost>\d+) is lost"
)


def need(*names):
    """Skip without a package or program; in CI fail."""
    for name in names:
        if importlib.util.find_spec(name) is None and shutil.which(name) is None:
            if os.environ.get("CI") == "true":
                pytest.fail(f"{name} is not installed")
            pytest.skip(f"{name} is not installed", allow_module_level=True)


class Project:
    """What a reader of the page has made."""

    def __init__(self, page, folder):
        text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
        self.folder = folder
        self.log = folder / "log"
        self.commands = []
        for block in _BLOCK.finditer(text):
            language, body = block.groups()
            before = text[: block.start()].rstrip().rpartition("\n\n")[2].splitlines()
            named = _FILE.match(before[0]) if before else None
            if named is not None and language != "sh":
                path = folder / named[1]
                path.parent.mkdir(exist_ok=True)
                path.write_text(body, encoding="utf-8")
            elif language == "sh":
                self.commands += body.splitlines()

    def command(self, program):
        """The page's command that begins with *program*, as this environment has it."""
        found = [line for line in self.commands if line.startswith(f".venv/bin/{program} ")]
        assert len(found) == 1, self.commands
        return shlex.split(found[0].replace(".venv/bin/", f"{Path(sys.executable).parent}/"))

    def replace(self, old, new):
        """Another address than the page's: tests run side by side."""
        for path in self.folder.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(old, new), encoding="utf-8")

    def environment(self, **more):
        clean = {key: value for key, value in os.environ.items() if "LIPSERVICE" not in key}
        return {**clean, "PYTHONPATH": str(ROOT), **more}

    @contextlib.contextmanager
    def running(self, command, **environment):
        """*command*, its output in `log`; ended as its users end it."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment(**environment),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(30)
        except BaseException:
            print(self.log.read_text(encoding="utf-8"))
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what a killed parent may have left
            process.wait(10)

    def run(self, command, **environment):
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    @contextlib.contextmanager
    def web_server(self, program, *options):
        """The page's server on a free port; its address."""
        port = free_port()
        environment = {
            "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port} --no-control-socket",
            "UVICORN_PORT": str(port),
        }
        with self.running([*self.command(program), *options], **environment) as process:
            wait_for(lambda: process.poll() is not None or _listens(port))
            assert process.poll() is None, "it does not start"
            yield f"127.0.0.1:{port}"

    def load_as_the_page_does(self, address):
        (loop,) = [line for line in self.commands if line.startswith("seq ")]
        # Where an answer breaks off, curl and with it xargs say so by their exit code.
        self.run(["bash", "-c", loop.replace("localhost:8000", address) + " || true"])

    def stories(self):
        """Number of a cart -> what the log tells about it, in order."""
        found = {}
        for match in _STORY.finditer(self.log.read_text(encoding="utf-8")):
            found.setdefault(int(match[match.lastgroup]), []).append(match.lastgroup)
        return found


WHOLE = ["loaded", "prices"]


def check_failed(stories, numbers):
    """Each of them told everything, in order, before its error."""
    for number in numbers:
        story = stories[number]
        assert story[: len(WHOLE)] == WHOLE, (number, story)
        assert set(story[len(WHOLE) :]) == {"lost"}, (number, story)


def check_page(stories, count):
    """Of the carts 1 to *count* cart 13 is whole with its error, each other one whole or absent."""
    check_failed(stories, [13])
    good = [stories.get(number, []) for number in range(1, count + 1) if number != 13]
    assert all(story in ([], WHOLE) for story in good), good
    assert [] in good


def ask_concurrently(address, base, *, count=60, fails=500):
    """Good and bad requests at once: (numbers that fail, that are kept, that are dropped)."""
    failed = [base + 13, base + 113, base + 213]
    good = [base + number for number in range(20, 20 + count)]
    kept, dropped = good[::3], sorted({*good} - {*good[::3]})

    def ask(number):
        # The trace id's last 56 bits decide: the greatest are kept at every rate, the least at none.
        randomness = "f" * 14 if number in kept else "0" * 13 + "1"
        header = {"traceparent": f"00-{'a' * 18}{randomness}-00f067aa0ba902b7-00"}
        with contextlib.suppress(requests.RequestException):  # an answer that breaks off
            answer = requests.get(f"http://{address}/cart/{number}", headers=header, timeout=30)
            assert answer.status_code == (fails if number in failed else 200)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, sorted([*failed, *good], key=lambda number: number % 7)))
    return failed, kept, dropped


def check_web(stories, asked):
    failed, kept, dropped = asked
    check_failed(stories, failed)
    assert [stories.get(number) for number in kept] == [WHOLE] * len(kept)
    assert [number for number in dropped if number in stories] == []


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def _listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.05)


@contextlib.contextmanager
def redis_server(folder):
    """A Redis of its own: its port."""
    need("redis-server")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: _listens(port))
        yield port
    finally:
        process.terminate()
        process.wait(10)
