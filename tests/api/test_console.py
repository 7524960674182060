"""The console in a real browser: opened, typed into, clicked, and looked at in the dark and by keyboard alone."""

from __future__ import annotations

import asyncio
import math
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from chimera.anomaly.engine import AnomalyDetectionEngine
from chimera.api.services import Services
from chimera.core.watching import Reading
from chimera.security.roles import Role
from tests.api.serving import Served, served
from tests.api.whole import PASSWORD

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


def watching(services: Services) -> None:
    """A till whose errors jump once."""
    engine = AnomalyDetectionEngine()
    noise = random.Random(0)
    values = [2 + math.sin(at / 9) + 0.3 * noise.random() + 9 * (at == 350) for at in range(400)]
    readings = [Reading("till_errors", 1e9 + 10.0 * at, value) for at, value in enumerate(values)]
    alerts = asyncio.run(_pushed(engine, readings))
    services.engine, services.alerts = engine, lambda: alerts


async def _pushed(engine: AnomalyDetectionEngine, readings: list[Reading]) -> list[Any]:
    return await engine.push(readings)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("console")) as made:
        made.do(_later(made))
        yield made


async def _later(made: Served) -> None:
    await asyncio.to_thread(watching, made.node.services)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sandbox = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=[*sandbox, "--disable-dev-shm-usage"])
        yield made
        made.close()


@pytest.fixture
def page(browser: Browser, node: Served) -> Iterator[Page]:
    """A page whose scripts make no mistake, and that asks nobody but the node."""
    made = browser.new_page(viewport={"width": 1100, "height": 800})
    faults: list[str] = []
    made.on("pageerror", lambda error: faults.append(str(error)))
    made.on("request", lambda request: None if node.url in request.url else faults.append(request.url))
    made.on("console", lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None)
    yield made
    made.close()
    assert not faults


def log_in(page: Page, node: Served, role: Role) -> None:
    page.goto(node.url)
    page.get_by_label("User").fill(role.value)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible(timeout=20_000)


def picture(page: Page, folder: Path, name: str) -> None:
    """Not a blank page: pictures of one colour are a few kilobytes."""
    path = folder / f"{name}.png"
    page.screenshot(path=path)
    assert path.stat().st_size > 8_000, name


def test_log_in_submit_a_mission_and_watch_it_finish(page: Page, node: Served, tmp_path: Path) -> None:
    log_in(page, node, Role.OPERATOR)
    expect(page.get_by_role("table", name="Agents by role")).to_contain_text("hanging")
    picture(page, tmp_path, "swarm")
    page.get_by_role("link", name="Missions").click()
    page.get_by_label("Goal").fill("say <b>hello</b>")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_test_id("state")).to_have_text("answered", timeout=20_000)
    expect(page.get_by_test_id("answer")).to_contain_text("<b>hello</b>")
    expect(page.get_by_role("table", name="Replies to task")).to_contain_text("worker-")
    expect(page.locator("svg rect.decided")).to_have_count(1)
    picture(page, tmp_path, "mission")
    page.get_by_role("link", name="All missions").click()
    expect(page.get_by_role("table", name="Missions")).to_contain_text("mission ended")


def test_a_mission_that_hangs_is_cancelled(page: Page, node: Served) -> None:
    log_in(page, node, Role.OPERATOR)
    page.get_by_role("link", name="Missions").click()
    page.get_by_label("Goal").fill("take for ever")
    page.get_by_label("Role").fill("hanging")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_test_id("state")).to_have_text("running")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_test_id("state")).to_have_text("cancelled", timeout=20_000)


def test_an_anomaly_is_seen_over_its_metric_in_the_dark(page: Page, node: Served, tmp_path: Path) -> None:
    page.emulate_media(color_scheme="dark")
    log_in(page, node, Role.OBSERVER)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, ground.removeprefix("rgb(").removesuffix(")").split(","))) < 150
    page.get_by_role("link", name="Anomalies").click()
    drawing = page.get_by_role("img", name=re.compile("till_errors: 400 readings, [1-9] alerts"))
    expect(drawing).to_be_visible(timeout=20_000)
    expect(drawing.locator("circle.mark").first).to_be_visible()
    expect(page.get_by_role("table", name="Alerts")).to_contain_text("spike")
    picture(page, tmp_path, "anomalies")


def test_a_key_is_made_shown_once_and_revoked(page: Page, node: Served) -> None:
    log_in(page, node, Role.OPERATOR)
    page.get_by_role("link", name="API keys").click()
    page.get_by_label("For what").fill("nightly job")
    page.get_by_role("button", name="Create").click()
    secret = page.locator("pre").inner_text()
    assert node.do(_subject(node, secret)) == "operator"
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("row", name="nightly job").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("row", name="nightly job")).to_contain_text("revoked")
    page.reload()
    expect(page.get_by_role("row", name="nightly job")).to_be_visible()
    assert secret not in page.content()


async def _subject(node: Served, secret: str) -> str:
    return node.node.security.verify(secret).subject


def test_each_sees_the_pages_that_they_may(page: Page, node: Served) -> None:
    log_in(page, node, Role.OBSERVER)
    expect(page.get_by_role("navigation")).to_have_text("SwarmMissionsReviewsReview queueAnomaliesDuelsAPI keys")
    page.get_by_role("link", name="Missions").click()
    expect(page.get_by_role("button", name="Submit")).to_have_count(0)
    with page.expect_response("**/api/auth/logout") as ended:
        page.get_by_role("button", name="Log out").click()
    assert ended.value.status == 204
    log_in(page, node, Role.ADMIN)
    page.get_by_role("link", name="Audit").click()
    expect(page.get_by_role("table", name="Audit")).to_contain_text("login")


def test_a_wrong_password_says_so_and_shows_nothing(page: Page, node: Served) -> None:
    page.goto(node.url)
    page.get_by_label("User").fill("operator")
    page.get_by_label("Password", exact=True).fill("wrong")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert").filter(has_text="wrong")).to_be_visible(timeout=20_000)
    expect(page.get_by_role("navigation")).to_be_empty()


def test_by_keyboard_alone(page: Page, node: Served) -> None:
    page.goto(node.url)
    expect(page.get_by_label("User")).to_be_focused()
    page.keyboard.type("operator")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Log out")).to_be_visible(timeout=20_000)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Tab")
    for _ in range(12):
        if page.evaluate("document.activeElement.textContent") == "Missions":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="All missions")).to_be_visible()


def test_a_session_that_ended_leads_to_the_log_in(page: Page, node: Served) -> None:
    log_in(page, node, Role.OPERATOR)
    page.evaluate("sessionStorage.setItem('chimera.tokens', JSON.stringify({access: 'a.b.c', refresh: 'd.e.f'}))")
    page.reload()
    expect(page.get_by_role("button", name="Log in")).to_be_visible(timeout=20_000)


def test_a_token_that_ends_is_renewed_while_a_mission_is_followed_and_when_the_page_is_loaded_again(
    page: Page, node: Served
) -> None:
    log_in(page, node, Role.OPERATOR)
    page.get_by_role("link", name="Missions").click()
    page.get_by_label("Goal").fill("take for ever")
    page.get_by_label("Role").fill("hanging")
    page.get_by_role("button", name="Submit").click()
    expect(page.locator("svg rect.started")).to_have_count(1)
    sockets, audit = node.node.app.state.sockets, node.node.audit
    refused = len(audit.refused("WS authenticate"))
    try:
        with page.expect_response("**/api/auth/refresh", timeout=60_000) as renewed:
            node.node.clock.ahead_s = 1_000.0
        assert renewed.value.status == 200
        _until(page, lambda: len(sockets.followed) == 1)
        assert len(audit.refused("WS authenticate")) == refused
        node.node.clock.ahead_s = 2_000.0
        page.reload()
        expect(page.get_by_role("button", name="Log out")).to_be_visible(timeout=60_000)
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_test_id("state")).to_have_text("cancelled", timeout=60_000)
    finally:
        node.node.clock.ahead_s = 0.0


def _until(page: Page, true: Callable[[], bool]) -> None:
    """The page goes on meanwhile."""
    until = time.monotonic() + 60.0
    while not true():
        assert time.monotonic() < until
        page.wait_for_timeout(20)


def test_every_file_that_the_pages_name_is_in_the_package() -> None:
    folder = files("chimera.api").joinpath("console")
    names = {file.name for file in folder.iterdir()}
    text = "".join(
        folder.joinpath(name).read_text(encoding="utf-8") for name in names if name.endswith((".js", ".html"))
    )
    for name in ("style.css", "main.js", "api.js", "dom.js", "icon.svg", "swarm.js", "missions.js", "reviews.js"):
        assert name in names and name in text
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text
    assert "innerHTML" not in text and "eval(" not in text
