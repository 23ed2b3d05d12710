"""The dashboard in a real Chromium: every page and action, by keyboard, on a phone, light and dark."""

from __future__ import annotations

import os

import pytest
import requests

if os.environ.get("CI") != "true":
    pytest.importorskip("selenium")

from selenium.webdriver.common.keys import Keys

from tests.dashboard.conftest import PAGES, PROVIDER
from tests.dashboard.shop import signature_of
from tests.dashboard.vectors import VECTORS
from tests.server.harness import wait_for

pytestmark = pytest.mark.xdist_group("chromium")


def test_every_page_holds_on_desk_and_phone_in_light_and_dark(visitor, shop):
    """No horizontal scroll, no complaint of the console, and a heading, in all four forms."""
    for scheme in ("light", "dark"):
        for width in (1280, 375):
            visitor.emulate(scheme=scheme, width=width)
            for name, path in PAGES.items():
                visitor.open(shop.base + path)
                where = f"{name}, {scheme}, {width} px"
                # Not innerWidth: a phone zooms out until a page that is too wide fits.
                wide = visitor.run("return document.documentElement.scrollWidth")
                assert wide <= width, (where, wide)
                assert len(visitor.driver.find_elements("tag name", "h1")) == 1, where
                assert visitor.complaints() == [], where
                paint = visitor.run("return getComputedStyle(document.body).backgroundColor")
                assert (sum(eval(paint[3:])[:3]) < 200) == (scheme == "dark"), where


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 375)])
def test_axe_finds_nothing_serious(visitor, shop, axe_source, scheme, width):
    visitor.axe = axe_source
    visitor.emulate(scheme=scheme, width=width)
    found = {}
    for name, path in PAGES.items():
        visitor.open(shop.base + path)
        if violations := visitor.violations():
            found[name] = violations
    visitor.sign_out()
    visitor.open(shop.base + "sign-in")
    if violations := visitor.violations():
        found["sign-in"] = violations
    assert found == {}


def test_charts_are_drawn_from_the_tables_beside_them(visitor, shop):
    visitor.open(shop.base + PAGES["overview"])
    for chart in visitor.driver.find_elements("css selector", "figure[data-chart]"):
        # Anything painted at all, and as many bars as the table has rows to hover over.
        painted = visitor.run(
            "const c = arguments[0].querySelector('canvas');"
            "return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v > 0)",
            chart,
        )
        rows = visitor.run("return arguments[0].querySelectorAll('tbody tr').length", chart)
        assert painted
        assert rows == 30
    visitor.driver.find_element("css selector", "figure summary").click()
    assert visitor.driver.find_element("css selector", "figure table").is_displayed()


def press(browser, *keys):
    browser.driver.switch_to.active_element.send_keys(*keys)


def tab_to(browser, name: str, most: int = 120):
    """Go on by the tabulator until the focused element has this name."""
    for _ in range(most):
        press(browser, Keys.TAB)
        if browser.run(
            "const e = document.activeElement;"
            "return [e.textContent.trim(), e.labels?.[0]?.textContent.trim()].includes(arguments[0])",
            name,
        ):
            outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"the focus on {name} cannot be seen"
            return
    raise AssertionError(f"no way to {name!r} by keyboard\n{browser.text()[:1500]}")


def test_the_keyboard_alone_signs_in_finds_pins_undoes_and_signs_out(browser, shop):
    browser.open(shop.base)
    press(browser, shop.key, Keys.ENTER)  # the field for the key has the focus
    browser.wait("return document.querySelector('h1').textContent === 'All services'")
    tab_to(browser, "checkout")
    press(browser, Keys.ENTER)
    browser.wait("return document.querySelector('h1').textContent === 'checkout'")
    tab_to(browser, "Patterns")
    press(browser, Keys.ENTER)
    browser.wait("return document.querySelector('[data-search]')")
    browser.run("document.body.focus()")
    browser.driver.find_element("tag name", "body").send_keys("/")
    press(browser, "slower than", Keys.ENTER)
    browser.wait("return document.querySelectorAll('.patterns tbody tr').length === 1")
    browser.run("document.querySelector('#main').focus()")
    while browser.run("return !document.activeElement.closest('.patterns tbody')"):
        press(browser, Keys.TAB)
    press(browser, Keys.ENTER)
    browser.wait("return document.querySelector('.decide')")
    tab_to(browser, "Rate in %")
    press(browser, Keys.CONTROL, "a")
    press(browser, "25", Keys.ENTER)
    browser.wait("return document.querySelector('.notice')")
    assert "Pinned at 25" in browser.text()
    tab_to(browser, "Undo")
    press(browser, Keys.ENTER)
    browser.wait("return document.querySelector('.notice')?.innerText.includes('Taken back')")
    assert "What you decide holds" in browser.text()
    tab_to(browser, "Sign out")
    press(browser, Keys.ENTER)
    browser.wait("return location.pathname.endsWith('/sign-in')")
    browser.driver.back()
    browser.wait("return location.pathname.endsWith('/sign-in') || document.querySelector('.card')")
    browser.open(shop.base)
    assert browser.run("return location.pathname").endswith("/sign-in")


def test_protect_and_let_go(visitor, shop):
    signature = signature_of("stock reservation <*> released")
    visitor.open(f"{shop.base}pattern?service=checkout&signature={signature}")
    click(visitor, "Protect: keep every record")
    visitor.wait("return document.querySelector('.notice')")
    assert "Kept: protected by key" in visitor.text()
    click(visitor, "Let go")
    visitor.wait("return document.querySelector('.notice')?.innerText.includes('Let go')")
    click(visitor, "Undo")
    visitor.wait("return document.querySelector('.notice')?.innerText.includes('Taken back')")
    assert "Kept: protected by key" in visitor.text()
    click(visitor, "Let go")
    visitor.wait("return document.querySelector('.notice')?.innerText.includes('Let go')")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 375)])
def test_everything_is_kept_for_a_while_by_keyboard_and_ended(
    visitor, shop, axe_source, scheme, width
):
    visitor.axe = axe_source
    visitor.emulate(scheme=scheme, width=width)
    signature = signature_of("stock of sku <*> is below <*>")
    visitor.open(f"{shop.base}pattern?service=checkout&signature={signature}")
    tab_to(visitor, "Minutes")
    press(visitor, Keys.CONTROL, "a")
    press(visitor, "25", Keys.ENTER)
    visitor.wait("return document.querySelector('.boosts')")
    assert "25 minutes left" in visitor.text()
    visitor.open(f"{shop.base}?service=checkout")
    tab_to(visitor, "Or only of the logger, with its children")
    press(visitor, "shop." + "x" * 150, Keys.ENTER)
    visitor.wait("return document.querySelectorAll('.boosts li').length === 2")
    assert visitor.run("return document.documentElement.scrollWidth") <= width
    assert visitor.violations() == []
    for left in (1, 0):
        tab_to(visitor, "End now")
        press(visitor, Keys.ENTER)
        visitor.wait(f"return document.querySelectorAll('.boosts li').length === {left}")
    assert "Ended: the policy decides" in visitor.text()
    assert visitor.complaints() == []


def click(browser, name: str) -> None:
    for element in browser.driver.find_elements("css selector", "button, a"):
        if element.text.strip() == name:
            browser.run("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
            return
    raise AssertionError(f"there is no {name!r}\n{browser.text()[:1500]}")


def test_the_slider_shows_its_effect_before_a_draft_is_made_approved_and_rolled_back(visitor, shop):
    visitor.open(shop.base + "policy/new?service=checkout&target=10")
    before = visitor.run("return document.querySelector('[data-told=cost]').textContent")
    slider = visitor.driver.find_element("id", "target-slider")
    slider.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    visitor.wait(
        "return !document.querySelector('[aria-busy]')"
        " && document.querySelector('[data-told=kept]').textContent.startsWith('5')"
    )
    told = visitor.run("return document.querySelector('[data-told=kept]').textContent")
    cost = visitor.run("return document.querySelector('[data-told=cost]').textContent")
    assert cost != before
    assert slider.get_attribute("aria-valuetext") == "5 percent"
    click(visitor, "Make a draft at 5\u202f%")
    visitor.wait("return document.querySelector('.verdict')")
    shown = visitor.run("return document.querySelector('.sides tbody tr td:last-child').innerText")
    assert shown == told, "what the slider promised is not what the draft keeps"
    number = int(visitor.run("return new URLSearchParams(location.search).get('version')"))
    click(visitor, "Run in shadow")
    visitor.wait("return document.querySelector('.banner')")
    click(visitor, "Undo")
    visitor.wait(
        "return !document.querySelector('.banner')"
        " && document.querySelector('.notice')?.innerText.includes('Version 3 is active')"
    )
    visitor.open(f"{shop.base}policy/version?service=checkout&version={number}")
    click(visitor, f"Roll back to version {number}")
    visitor.wait(f"return document.body.innerText.includes('Version {number} is active')")
    click(visitor, "Roll back to 3")
    visitor.wait("return document.body.innerText.includes('Version 3 is active')")
    visitor.open(shop.base + "policy/new?service=checkout&target=7")
    visitor.wait("return document.querySelector('[data-told=kept]').textContent !== '…'")
    click(visitor, "Make a draft at 7\u202f%")
    visitor.wait("return document.querySelector('.verdict')")
    click(visitor, "Reject")
    visitor.wait("return document.querySelector('.notice')?.innerText.includes('rejected')")


def test_a_key_is_made_shown_once_rotated_and_revoked(visitor, shop):
    visitor.open(shop.base + "keys")
    visitor.driver.find_element("id", "name").send_keys("for the browser's test")
    click(visitor, "Make the key")
    visitor.wait("return document.querySelector('#new-key')")
    key = visitor.run("return document.querySelector('#new-key').textContent")
    active = f"{shop.url}/api/v1/policies/active?service_name=checkout"
    assert requests.get(active, headers={"Authorization": f"Bearer {key}"}, timeout=20).ok
    visitor.open(shop.base + "keys")
    assert key not in visitor.run("return document.documentElement.outerHTML")
    row = (
        "[...document.querySelectorAll('tbody tr')].find((r) => r.innerText.includes(arguments[0]))"
    )
    prefix = key.split("_")[2]
    visitor.run(f"{row}.querySelector('button').scrollIntoView({{block: 'center'}})", prefix)
    visitor.run(f"return {row}.querySelector('button')", prefix).click()
    visitor.wait("return document.querySelector('#new-key')")
    assert visitor.run("return document.querySelector('#new-key').textContent") != key
    visitor.run(f"return {row}.querySelector('a')", prefix).click()
    visitor.wait("return document.body.innerText.includes('This cannot be taken back')")
    click(visitor, "Revoke the key")
    visitor.wait("return document.querySelector('.notice')")
    headers = {"Authorization": f"Bearer {key}"}
    wait_for(lambda: requests.get(active, headers=headers, timeout=20).status_code == 401)


def test_explain_says_which_rule_decides_and_what_became_of_the_records(visitor, shop):
    visitor.open(shop.base + "explain?service=checkout")
    message = PROVIDER.replace("<*>", "17")
    visitor.driver.find_element("id", "q").send_keys(message, Keys.ENTER)
    visitor.wait("return document.querySelector('.steps .decides')")
    assert "the rate of WARNING" in visitor.text()
    assert signature_of(PROVIDER) in visitor.text()
    assert visitor.driver.find_elements("css selector", ".facts dd")[0].text != "0"


def test_200_hostile_strings_as_templates_names_and_reasons_run_nothing(visitor, shop):
    """Reported as any instance would; then every page that shows them is opened."""
    name = VECTORS[0][:90]
    headers = {"Authorization": f"Bearer {shop.key}"}
    api = f"{shop.url}/api/v1"
    patterns = [
        {
            "signature": f"{number:016x}", "template": text, "count": 1000 + number, "kept": 10, "bytes": 99,
            "severity_distribution": {"INFO": 1000}, "first_seen": "2026-01-01T12:00:00Z",
            "last_seen": "2026-01-01T12:10:00Z", "sampling_rate": 0.1,
        }
        for number, text in enumerate(VECTORS)
    ]  # fmt: skip
    assert len(patterns) == 200
    report = {"service_name": name, "instance_id": "x:1", "patterns": patterns,
              "health": {"state": VECTORS[3][:200]}, "sdk": {"language": VECTORS[1][:40], "version": VECTORS[2][:40]}}  # fmt: skip
    assert requests.post(f"{api}/patterns/report", json=report, headers=headers, timeout=20).ok
    for number in range(0, 200, 8):
        put = requests.put(
            f"{api}/patterns/{number:016x}/pin", params={"service_name": name}, timeout=20,
            json={"rate": 0.5, "reason": VECTORS[number][:500]}, headers=headers,
        )  # fmt: skip
        assert put.ok
        if number < 80:
            boost = {"service_name": name, "minutes": 5, "reason": VECTORS[number][:500]}
            logger = "".join(c for c in VECTORS[number + 1][:200] if c.isprintable())
            of = {"pattern": f"{number:016x}"} if number % 16 else {"logger": logger}
            assert requests.post(f"{api}/boosts", json=boost | of, headers=headers, timeout=20).ok
        body = {"name": VECTORS[number + 1][:100], "scopes": ["ingest"]}
        assert requests.post(f"{api}/keys", json=body, headers=headers, timeout=20).ok
    draft = {
        "sampling_rate": 0.5,
        "reasoning": VECTORS[5],
        "patterns": ["'\"><img/src=x/onerror=alert(1)>"],
    }
    for _ in range(2):
        made = requests.post(
            f"{api}/policies",
            params={"service_name": name},
            json=draft,
            headers=headers,
            timeout=20,
        )
        assert made.ok
    query = requests.compat.urlencode({"service": name})
    pages = [
        *(f"patterns?page={page}&{query}" for page in (1, 2, 3, 4)),
        f"?{query}", "", f"changes?{query}", f"policy?{query}", f"policy/version?version=1&{query}",
        f"policy/replay?version=2&{query}", f"policy/compare?from=1&to=2&{query}", f"policy/new?{query}",
        f"instances?{query}", "keys", "keys/ask?key=9", "audit", "audit?kind=key.", "audit?kind=boost.",
        *(f"pattern?signature={number:016x}&{query}" for number in range(0, 200, 25)),
        *(f"explain?q={requests.compat.quote(VECTORS[number])}&{query}" for number in range(0, 200, 25)),
        *(f"patterns?q={requests.compat.quote(VECTORS[number])}&{query}" for number in range(0, 200, 25)),
    ]  # fmt: skip
    for page in pages:
        visitor.open(shop.base + page)
        assert visitor.run("return window.pwned") is None, page
        assert visitor.complaints() == [], page
        for tag in ("iframe", "object", "embed", "base", "img", "math", "style", "video"):
            assert not visitor.driver.find_elements("css selector", f"body {tag}"), (page, tag)
    visitor.open(shop.base + pages[0])
    shown = visitor.run("return document.querySelector('.patterns').innerText")
    assert "<script>" in shown
    assert requests.delete(
        f"{api}/service", params={"service_name": name}, headers=headers, timeout=20
    ).ok
