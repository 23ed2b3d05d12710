"""
Fixtures: a shop's month behind a real server, and a real Chromium that looks at it.

Where Chromium is absent its tests are skipped with a reason; where CI=true, they fail instead.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lipservice_server.app import create_app, runtime_of
from lipservice_server.config import Settings
from tests.dashboard.shop import seed_shop, signature_of
from tests.server.conftest import (  # noqa: F401  fixtures
    app,
    clock,
    database_url,
    make_app,
    postgres,
    runtime,
    settings,
)
from tests.server.harness import absent, start_server

PROVIDER = "payment provider <*> answered in <*> ms, slower than <*> ms"
#: Every page, by a name for reports.
PAGES = {
    "all services": "",
    "overview": "?service=checkout",
    "overview by the hour": "?service=checkout&period=48h",
    "patterns": "patterns?service=checkout",
    "changes": "changes?service=checkout",
    "pattern": f"pattern?service=checkout&signature={signature_of(PROVIDER)}",
    "policy": "policy?service=checkout",
    "version": "policy/version?service=checkout&version=4",
    "replay": "policy/replay?service=checkout&version=4",
    "compare": "policy/compare?service=checkout&from=2&to=3",
    "new": "policy/new?service=checkout&target=6",
    "explain": "explain?service=checkout&q=mail+17+queued+for+ada%40example.org",
    "instances": "instances?service=checkout",
    "keys": "keys",
    "revoke": "keys/ask?key=3",
    "audit": "audit",
}
_AXE = "4.14.1"
_AXE_SHA512 = (
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
)


@dataclass
class Shop:
    """A server with the shop's month, and the key of its administrator."""

    url: str
    key: str
    directory: Path
    team_id: int

    @property
    def base(self) -> str:
        return f"{self.url}/dashboard/"


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shop")
    made = runtime_of(create_app(Settings(data_dir=str(directory / "data"))))
    made.watcher.look()
    team_id, key = seed_shop(made, time.time())
    made.store.db.close()
    server = start_server(
        directory, {"LIPSERVICE_REQUESTS_PER_MINUTE": "100000"}, workers=2, threads=32
    )
    yield Shop(server.url, key, directory / "data", team_id)
    server.stop()


@dataclass
class Browser:
    """A Chromium of its own profile, with what the tests ask of it."""

    driver: object
    axe: str = ""
    seen: list[str] = field(default_factory=list)

    def open(self, url: str) -> None:
        self.driver.get(url)
        self.wait("return document.readyState === 'complete'")

    def run(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, seconds: float = 20.0):
        ends = time.monotonic() + seconds
        while not (found := self.run(script)):
            assert time.monotonic() < ends, (
                f"not within {seconds} s: {script}\n{self.text()[:2000]}"
            )
            time.sleep(0.05)
        return found

    def text(self) -> str:
        return self.run("return document.body.innerText")

    def emulate(self, *, scheme: str = "light", width: int = 1280) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )

    def sign_in(self, base: str, key: str) -> None:
        self.open(base + "sign-in")
        self.driver.find_element("id", "key").send_keys(key)
        self.driver.find_element("css selector", "main button").click()
        self.wait("return !location.pathname.endsWith('/sign-in')")

    def sign_out(self) -> None:
        self.driver.delete_all_cookies()

    def complaints(self) -> list[str]:
        """What the console said since it was last asked: violations of the CSP, script errors."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def violations(self) -> list[str]:
        """Serious and critical findings of axe on the page."""
        self.run(self.axe)
        found = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run(document, {resultTypes: ['violations']}).then((r) => done(r.violations))"
        )
        return [
            f"{each['id']} ({each['impact']}): {each['help']}: {each['nodes'][0]['html'][:160]}"
            for each in found
            if each["impact"] in ("serious", "critical")
        ]


@pytest.fixture(scope="session")
def chromium():
    """One Chromium for all tests of a process; each signs in for itself."""
    program, remote = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or remote is None:
        absent("Chromium with its chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    profile = tempfile.mkdtemp(prefix="lipservice-chromium-")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.unhandled_prompt_behavior = "ignore"
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(remote))
    driver.set_script_timeout(60)
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
def browser(chromium):
    found = Browser(chromium)
    found.emulate()
    found.sign_out()
    found.complaints()
    yield found
    found.sign_out()


@pytest.fixture
def visitor(browser, shop):
    """A browser that is signed in."""
    browser.open(shop.base + "sign-in")
    browser.sign_out()
    browser.sign_in(shop.base, shop.key)
    return browser


@pytest.fixture(scope="session")
def axe_source():
    """axe-core's script, from its package at the npm registry; checked, and kept between runs."""
    kept = Path(tempfile.gettempdir()) / f"lipservice-axe-core-{_AXE}-{os.getuid()}.js"
    if not kept.exists():
        _fetch_axe(kept)
    return kept.read_text(encoding="utf-8")


def _fetch_axe(kept: Path) -> None:
    if shutil.which("npm") is None:
        absent("npm (which fetches axe-core)")
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            ["npm", "pack", "--silent", f"axe-core@{_AXE}"],
            cwd=directory, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        if done.returncode:
            absent(f"axe-core (npm: {done.stderr[-200:]})")
        package = Path(directory) / f"axe-core-{_AXE}.tgz"
        digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        assert digest == _AXE_SHA512, "axe-core is not the package that was looked at"
        with tarfile.open(package) as files:
            script = files.extractfile("package/axe.min.js").read()
    partial = kept.with_suffix(f".{os.getpid()}")
    partial.write_bytes(script)
    partial.replace(kept)
