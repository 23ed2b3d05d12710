"""The dashboard without sign-in starts on loopback only, whoever names the address."""

import os
import subprocess
import sys

import pytest

from tests.server.harness import free_port


@pytest.mark.parametrize("address", ["0.0.0.0", "[::]"])
def test_gunicorn_refuses_an_address_that_others_reach(tmp_path, address):
    environ = {
        **os.environ,
        "LIPSERVICE_DATA_DIR": str(tmp_path / "data"),
        "LIPSERVICE_DASHBOARD": "loopback",
    }
    command = [
        sys.executable, "-m", "gunicorn", "-c", "python:lipservice_server.gunicorn_conf",
        "-b", f"{address}:{free_port()}", "lipservice_server.wsgi:app",
    ]  # fmt: skip
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode != 0
    assert "LIPSERVICE_DASHBOARD=loopback has no sign-in" in done.stderr
