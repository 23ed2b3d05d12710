"""Programs of their own, for what a test cannot do in its own process: fork, exit, hang."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What Python 3.12 and later say of every fork of a process with threads; it is what we test.
_QUIET = ("-W", "ignore:This process:DeprecationWarning")


def run_program(path: Path, *arguments: object, seconds: float = 100.0) -> str:
    """Run the file *path*; what it printed. Killed, and failed, when it hangs or complains."""
    return _run([str(path)], arguments, seconds)


def run_script(script: str, *arguments: object, seconds: float = 100.0) -> str:
    """Run the text *script* likewise."""
    return _run(["-c", textwrap.dedent(script)], arguments, seconds)


def _run(what: list[str], arguments: tuple[object, ...], seconds: float) -> str:
    done = subprocess.run(
        [sys.executable, *_QUIET, "-X", "faulthandler", *what, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


class ManualClock:
    """Monotonic seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
