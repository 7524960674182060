"""A patch of a node that mends itself is looked at and approved in a real browser, and the node then applies it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from chimera.api.services import Services
from chimera.security.roles import Role
from chimera.system.proposals import Asked
from chimera.system.reviews import PatchReviews, heed
from tests.api.serving import Served, served
from tests.api.test_console import browser, log_in, page, picture
from tests.unit.system.places import AFTER, ANSWER, BEFORE, Place, places, proposal
from tests.unit.system.test_heart_reviews import again

__all__ = ["browser", "page"]

HIDDEN_TURN = "\N{RIGHT-TO-LEFT OVERRIDE}"

WAIT_MS = 60_000


@pytest.fixture(autouse=True, scope="module")
def patience() -> Iterator[None]:
    expect.set_options(timeout=WAIT_MS)
    yield
    expect.set_options(timeout=None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A node whose patch was written, tried behind walls, and now waits for a person."""
    with pytest.MonkeyPatch.context() as patching, places(tmp_path_factory.mktemp("heart"), patching, __file__) as made:
        one = made([ANSWER], review_below=1.0)
        assert _run(one.heal()) == ["noticed", "decided", "asked"]
        yield one


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, place: Place) -> Iterator[Served]:
    def change(services: Services) -> None:
        services.reviews = PatchReviews(place.home)

    with served(tmp_path_factory.mktemp("console"), change=change) as made:
        yield made


def _run(work: Any) -> Any:
    """In a thread: the browser's loop runs in this one."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, work).result()


async def _heeding(place: Place) -> list[str]:
    """The node runs until it has done what it was told; its steps since."""
    again(place)
    running = asyncio.create_task(place.node.run())
    heeding = asyncio.create_task(heed(place.node, place.home, print))
    async with asyncio.timeout(60):
        while not place.steps or place.node.asked():  # noqa: ASYNC110 (what it waits for tells nobody)
            await asyncio.sleep(0.01)
        place.source.finish()
        await running
    heeding.cancel()
    return place.steps


def opened(page: Page, node: Served, role: Role, review_id: str) -> None:
    log_in(page, node, role)
    page.get_by_role("link", name="Reviews").click()
    page.get_by_role("table", name="Reviews").locator(f"a[href$='{review_id}']").click()
    expect(page.get_by_test_id("verdict")).to_contain_text("accept")


def test_a_patch_is_read_approved_and_applied(page: Page, node: Served, place: Place, tmp_path: Path) -> None:
    [review_id] = place.node.asked()
    opened(page, node, Role.ADMIN, review_id)
    expect(page.get_by_test_id("failure")).to_contain_text("ZeroDivisionError")
    diff = page.get_by_role("region", name=f"Diff of {place.name}.py")
    expect(diff.locator(".bad")).to_have_text("-    return part / whole\n")
    expect(diff.locator(".good")).to_have_text("+    return part / whole if whole else 0.0\n")
    expect(page.get_by_role("table", name="Tests")).to_contain_text("hidden")
    colours = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        lines = (diff.locator(f".{kind}") for kind in ("good", "bad"))
        colours[scheme] = [line.evaluate("line => getComputedStyle(line).color") for line in lines]
        picture(page, tmp_path, scheme)
    assert len({colour for pair in colours.values() for colour in pair}) == 4
    page.get_by_role("button", name="Approve").click()
    dialog = page.get_by_role("dialog", name="Approve")
    expect(dialog).to_contain_text("runs on the node")
    dialog.get_by_role("button", name="Approve it").click()
    expect(page.get_by_role("status")).to_contain_text("approved")
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    page.get_by_role("link", name="All reviews").click()
    expect(page.get_by_role("row", name="A share of nothing")).to_contain_text("approved, not yet applied")
    [entry] = [each for each in node.node.audit.entries if each.action == "approve patch"]
    assert (entry.actor, entry.resource) == ("admin", review_id) and place.text == BEFORE
    assert _run(_heeding(place)) == ["agreed", "applied", "kept"]
    assert place.text == AFTER
    expect(page.get_by_text("Nothing waits for a person.")).to_be_visible(timeout=20_000)


def test_by_keyboard_alone_a_question_is_left_and_then_answered(page: Page, node: Served, place: Place) -> None:
    waiting = proposal("other", {"other.py": f"x = 1  # {HIDDEN_TURN}\n"}, {"other.py": "x = 0\n"})
    Asked(place.home / "reviews").keep(waiting)
    answers = place.home / "answers"
    log_in(page, node, Role.ADMIN)
    page.goto(f"{node.url}/#/reviews/{waiting.patch.id}")
    expect(page.get_by_role("region", name="Diff of other.py")).to_contain_text("⟨U+202E⟩")
    assert HIDDEN_TURN not in page.content()
    for key, left in (("Escape", []), ("Enter", []), ("Tab", [f"{waiting.patch.id}.refuse"])):
        page.get_by_role("button", name="Refuse").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog").get_by_role("button", name="Cancel")).to_be_focused()
        page.keyboard.press(key)
        if left:
            page.keyboard.press("Enter")
            expect(page.get_by_role("status")).to_contain_text("refused")
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert [path.name for path in answers.glob("*")] == left


def test_who_may_not_decide_has_no_buttons_and_who_may_not_look_no_page(page: Page, node: Served, place: Place) -> None:
    waiting = proposal("third", {"third.py": "x = 1\n"}, {"third.py": "x = 0\n"})
    Asked(place.home / "reviews").keep(waiting)
    opened(page, node, Role.OPERATOR, waiting.patch.id)
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    page.get_by_role("button", name="Log out").click()
    log_in(page, node, Role.API_CLIENT)
    expect(page.get_by_role("link", name="Missions")).to_be_visible()
    expect(page.get_by_role("link", name="Reviews")).to_have_count(0)


def test_a_damaged_one_is_listed_as_such(page: Page, node: Served, place: Place) -> None:
    (place.home / "reviews" / f"{'f' * 32}.json").write_text("{}")
    log_in(page, node, Role.OBSERVER)
    page.get_by_role("link", name="Reviews").click()
    row = page.get_by_role("row", name="f" * 32)
    expect(row).to_contain_text("cannot be used")
    expect(row.get_by_role("link")).to_have_count(0)
