"""
The one-command mode: gunicorn and the worker of the background jobs, as two children.

If gunicorn ends, the whole ends with its status; if the worker ends, it is started again, ever more
slowly. SIGTERM and SIGINT are handed on.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from lipservice_server.config import Settings

_LONGEST_PAUSE: Final = 60.0
_STOP_SECONDS: Final = 25.0

_log = logging.getLogger(__name__)


def serve(settings: Settings, *, jobs: bool = True) -> int:
    """Run until told to stop; the exit status."""
    environ = dict(os.environ)
    numbers = Path(settings.data_dir).resolve() / "metrics"
    environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(numbers))
    Path(environ["PROMETHEUS_MULTIPROC_DIR"]).mkdir(parents=True, exist_ok=True, mode=0o700)
    return _Supervisor(environ, jobs=jobs).run()


class _Supervisor:
    def __init__(self, environ: dict[str, str], *, jobs: bool) -> None:
        self._environ = environ
        self._jobs = jobs
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False
        self._pause = 1.0

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        web = self._start(
            "-m", "gunicorn", "-c", "python:lipservice_server.gunicorn_conf",
            "lipservice_server.wsgi:app",
        )  # fmt: skip
        worker = self._start_worker() if self._jobs else None
        started = time.monotonic()
        while web.poll() is None:
            if worker is not None and worker.poll() is not None and not self._stopping:
                worker, started = self._restart(worker, started)
            time.sleep(0.2)
        self._end_all()
        return web.returncode

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command: Sequence[str] = (sys.executable, *arguments)
        child = subprocess.Popen(command, env=self._environ)  # noqa: S603  our own modules
        self._children.append(child)
        return child

    def _start_worker(self) -> subprocess.Popen[bytes]:
        return self._start("-m", "lipservice_server.cli", "worker")

    def _restart(
        self, worker: subprocess.Popen[bytes], started: float
    ) -> tuple[subprocess.Popen[bytes], float]:
        self._pause = 1.0 if time.monotonic() - started > 300 else self._pause * 2
        pause = min(self._pause, _LONGEST_PAUSE)
        _log.error("the worker ended with %s; again in %.0f s", worker.returncode, pause)
        self._children.remove(worker)
        time.sleep(pause)
        return self._start_worker(), time.monotonic()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stopping = True
        for child in self._children:
            if child.poll() is None:
                child.terminate()

    def _end_all(self) -> None:
        self._stopping = True
        for child in self._children:
            if child.poll() is None:
                child.terminate()
        for child in self._children:
            _wait(child)


def _wait(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
