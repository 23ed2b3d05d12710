"""
How gunicorn is to run the server: `gunicorn -c python:lipservice_server.gunicorn_conf ...`.

Threads, because most requests wait for a socket; several workers, because Python computes in one
thread at a time; `reuse_port`, because kept-alive connections are otherwise unevenly spread.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from lipservice_server.config import check_dashboard, load_settings

_settings = load_settings()

wsgi_app = "lipservice_server.wsgi:app"
bind = [f"{_settings.host}:{_settings.port}"]
worker_class = "gthread"
workers = _settings.workers
threads = _settings.threads
reuse_port = True
backlog = 4096
worker_connections = 4096
keepalive = 75
timeout = 60
graceful_timeout = 20
max_requests = 500_000
max_requests_jitter = 50_000
limit_request_line = 4094
limit_request_fields = 60
limit_request_field_size = 8190
loglevel = "warning"
control_socket_disable = True


def child_exit(server: Any, worker: Any) -> None:
    """Let the numbers of a worker that ended not count as live ones."""
    del server
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_starting(server: Any) -> None:
    """
    Refuse an address that the settings did not see; begin with an empty directory of numbers.

    Raises:
        ConfigurationError: The dashboard is open without sign-in, and `gunicorn -b` names an
            address that is not loopback.
    """
    for address in server.cfg.address:
        host = address[0] if isinstance(address, tuple) else "localhost"  # a Unix socket is local
        check_dashboard(replace(_settings, host=host))
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory:
        shutil.rmtree(directory, ignore_errors=True)
        Path(directory).mkdir(parents=True, exist_ok=True, mode=0o700)
