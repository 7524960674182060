"""The console's pages of duels in a real browser: the list and its bars, one duel's course, the dark, the keyboard."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from chimera.actors import cluster
from chimera.core.clock import ManualClock
from chimera.core.config import Settings
from chimera.security.roles import Role
from chimera.system.arena import DuelRequest, hold_duel
from chimera.system.duels import Duels
from tests.actors.duel_handle import DuelHandle
from tests.api.serving import Served, served
from tests.api.whole import PASSWORD

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"

WAIT_MS = 60_000

BEGAN_S = 1_767_225_600.0


async def held(home: Path) -> None:
    for number in range(27):
        request = DuelRequest(
            champion="oracle:p=0.4",
            contender="oracle:p=0.7" if number == 26 else "oracle:p=0.95",
            env_ids=("tictactoe-v0" if number in (3, 26) else "mult8-v0",),
            concurrency=2,
        )
        clock = ManualClock(BEGAN_S + 60 * number)
        await hold_duel(request, Settings(home=home), lambda *told: None, clock=clock)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A node on whose machine 27 duels were held, two of them in another environment than the rest."""
    folder = tmp_path_factory.mktemp("duels")
    with served(folder) as made, pytest.MonkeyPatch.context() as no_ray:
        no_ray.setattr(cluster, "connect", lambda settings: None)
        no_ray.setattr(cluster, "spawn", lambda kind, **how: DuelHandle())
        no_ray.setattr(cluster, "kill", lambda actor: None)
        no_ray.setattr(cluster, "disconnect", lambda connection: None)
        made.do(held(folder), limit_s=60.0)
        yield made


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
    made.set_default_timeout(WAIT_MS)
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
    expect(page.get_by_role("button", name="Log out")).to_be_visible(timeout=WAIT_MS)


def shown(page: Page, many: int) -> None:
    rows = page.get_by_role("table", name="Duels").locator("tbody tr")
    expect(rows).to_have_count(many, timeout=WAIT_MS)


def test_the_list_has_a_bar_for_each_duel_and_leads_to_its_course(page: Page, node: Served, tmp_path: Path) -> None:
    [last] = node.node.duels.part(1).found
    log_in(page, node, Role.OBSERVER)
    page.get_by_role("link", name="Duels").click()
    shown(page, 25)
    first = page.get_by_role("table", name="Duels").locator("tbody tr").first
    expect(first).to_contain_text("oracle:p=0.7 against oracle:p=0.4")
    expect(first).to_contain_text("4-0-0")
    expect(first).to_contain_text("2026-01-01 00:26:00")
    expect(first).to_contain_text(f"{last.low:.3f} .. {last.high:.3f}")
    bar = first.get_by_role("img", name=re.compile(f"between {last.low:.3f} and {last.high:.3f}, to beat 0.51"))
    band, limit, share = (bar.locator(name) for name in (".band", ".limit", ".share"))
    place = {name: float(band.get_attribute(name) or "nan") for name in ("x", "width")}
    assert place["x"] == pytest.approx(6 + 188 * last.low)
    assert place["x"] + place["width"] == pytest.approx(6 + 188 * last.high)
    assert float(limit.get_attribute("x1") or "nan") == pytest.approx(6 + 188 * 0.51)
    assert float(share.get_attribute("cx") or "nan") == pytest.approx(6 + 188 * last.wins / (last.wins + last.losses))
    path = tmp_path / "list.png"
    page.screenshot(path=path)
    assert path.stat().st_size > 8_000
    first.get_by_role("link").click()
    expect(page.get_by_role("heading", name="oracle:p=0.7 against oracle:p=0.4 in tictactoe-v0")).to_be_visible()
    drawing = page.get_by_role("img", name=re.compile("How the interval narrowed"))
    corners = (drawing.locator("polygon.band").get_attribute("points") or "").split()
    assert len(corners) == 2 * (1 + len(last.course)), "each point has an upper and a lower end"
    heights = [float(corner.split(",")[1]) for corner in corners]
    assert (heights[0], heights[-1]) == (24, 276), "nothing is known before the first sample"
    assert heights[len(last.course)] == pytest.approx(276 - 252 * last.high, abs=0.06)
    assert heights[len(last.course) + 1] == pytest.approx(276 - 252 * last.low, abs=0.06)
    page.get_by_text("The numbers behind the picture").click()
    expect(page.get_by_role("table", name="Course").locator("tbody tr")).to_have_count(len(last.course))
    expect(page.get_by_role("table", name="Rule")).to_contain_text("wilson")
    path = tmp_path / "one.png"
    page.screenshot(path=path)
    assert path.stat().st_size > 8_000


def test_the_list_is_paged_and_filtered(page: Page, node: Served) -> None:
    log_in(page, node, Role.OPERATOR)
    page.get_by_role("link", name="Duels").click()
    shown(page, 25)
    page.get_by_role("button", name="Older").click()
    shown(page, 2)
    expect(page.get_by_role("button", name="Older")).to_be_disabled()
    page.get_by_role("button", name="Newer").click()
    shown(page, 25)
    page.get_by_label("Only of the environment").fill("tictactoe-v0")
    page.get_by_role("button", name="Show").click()
    shown(page, 2)
    page.get_by_label("Only of the environment").fill("ledger-v0")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("There is no duel in ledger-v0 on record.")).to_be_visible()


def test_by_keyboard_in_the_dark(page: Page, node: Served) -> None:
    page.emulate_media(color_scheme="dark")
    log_in(page, node, Role.OBSERVER)
    page.goto(f"{node.url}/#/duels")
    shown(page, 25)
    colours = page.evaluate(
        """() => ['.band', '.limit'].map((name) => {
            const found = getComputedStyle(document.querySelector(`svg.interval ${name}`));
            return name === '.band' ? found.fill : found.stroke;
        })"""
    )
    assert all(sum(map(int, re.findall(r"\d+", each)[:3])) > 300 for each in colours), "seen on a dark ground"
    page.get_by_label("Only of the environment").focus()
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="oracle:p=0.7 against oracle:p=0.4")).to_be_visible()
    for _ in range(12):
        if page.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("table", name="Course")).to_be_visible()


def test_what_is_damaged_is_told_and_who_may_not_look_has_no_page(page: Page, node: Served) -> None:
    folder = node.node.duels.folder
    broken = folder / "1767225599000-00000000.json"
    broken.write_text("{")
    try:
        log_in(page, node, Role.OBSERVER)
        page.goto(f"{node.url}/#/duels")
        page.get_by_role("button", name="Older").click()
        expect(page.get_by_text("1 damaged and skipped: 1767225599000-00000000")).to_be_visible()
        page.goto(f"{node.url}/#/duels/1767225599000-00000000")
        expect(page.get_by_role("alert")).to_contain_text("damaged")
        page.get_by_role("button", name="Log out").click()
        log_in(page, node, Role.API_CLIENT)
        expect(page.get_by_role("navigation")).not_to_contain_text("Duels")
        expect(page.get_by_role("navigation")).to_contain_text("Missions")
    finally:
        broken.unlink()


def test_an_empty_list_says_how_to_make_one(page: Page, node: Served, tmp_path: Path) -> None:
    services = node.node.services
    services.duels = Duels.kept_in(tmp_path)
    try:
        log_in(page, node, Role.OBSERVER)
        page.goto(f"{node.url}/#/duels")
        expect(page.get_by_text("af duel oracle:p=0.6 oracle:p=0.9")).to_be_visible()
    finally:
        services.duels = node.node.duels
