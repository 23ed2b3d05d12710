"""Without an extra, what needs it says in one line how to get it; the rest works."""

import subprocess
import sys

import pytest

# Hides packages from an interpreter, as if they were not installed.
HIDE = """
import importlib.abc, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""


def run_without(names, code):
    return subprocess.run(
        [sys.executable, "-c", HIDE.format(names=set(names)) + code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("package", "extra", "code"),
    [
        ("structlog", "structlog", "import lipservice; lipservice.SamplingProcessor"),
        ("loguru", "loguru", "import lipservice; lipservice.SamplingSink"),
        ("opentelemetry", "opentelemetry", "from lipservice.metrics import instrument"),
        ("prometheus_client", "prometheus", "import lipservice.metrics as m; m.prometheus_text()"),
        ("prometheus_client", "prometheus", "from lipservice.metrics import PrometheusCollector"),
    ],
)
def test_an_integration_without_its_framework_names_the_extra(package, extra, code):
    done = run_without([package], code)

    assert f"pip install 'lipservice[{extra}]'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("package", ["flask", "huey", "pydantic", "peewee", "jwt"])
def test_the_server_without_its_extra_is_one_line_and_exit_code_2(package):
    code = "from lipservice_server.__main__ import main; sys.exit(main())"
    done = run_without([package], code)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'lipservice[server]'" in done.stderr


def test_the_base_works_without_any_extra():
    code = """
import logging, lipservice
lipservice.configure_adaptive_logging(service_name="shop", cost_target=0.5)
lipservice.get_logger("x").info("hello")
lipservice.shutdown()
"""
    extras = ["structlog", "loguru", "opentelemetry", "posthog", "flask", "pydantic", "openai"]
    done = run_without(extras, code)

    assert done.returncode == 0, done.stderr
    assert "INFO x: hello" in done.stderr
