"""The review queue in a real browser: looked at, claimed, approved, edited and rejected, also by keyboard alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from pydantic import JsonValue

from chimera.api.queued import readable
from chimera.review.queue import ReviewQueue
from chimera.review.types import Item, Proposal, State
from chimera.security.roles import Role
from tests.api.serving import Served, served
from tests.api.test_console import browser, log_in, page, picture

__all__ = ["browser", "page"]

HIDDEN_TURN = "\N{RIGHT-TO-LEFT OVERRIDE}"
MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>"
LARGE = 12345678901234567890

WAIT_MS = 60_000


@pytest.fixture(autouse=True, scope="module")
def patience() -> Iterator[None]:
    expect.set_options(timeout=WAIT_MS)
    yield
    expect.set_options(timeout=None)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("console")) as made:
        yield made


def queue_of(node: Served) -> ReviewQueue:
    assert node.node.services.queue is not None
    return node.node.services.queue


def asked(node: Served, key: str, **told: Any) -> str:
    fields = {"kind": "answer", "summary": f"Answer {key}", "payload": {"text": "hello"}, "confidence": 0.2}
    item = node.do(queue_of(node).ask(Proposal(**{"key": key, "asker": "support-agent", **fields, **told})))
    assert isinstance(item, Item)
    return item.id


def opened(page: Page, node: Served, role: Role, item_id: str) -> None:
    log_in(page, node, role)
    page.get_by_role("link", name="Review queue").click()
    page.get_by_role("table", name="Review queue").locator(f"a[href$='{item_id}']").click()
    expect(page.get_by_test_id("payload")).to_be_visible()


def test_an_item_is_claimed_and_approved_and_what_it_says_stays_text(page: Page, node: Served, tmp_path: Path) -> None:
    payload: dict[str, JsonValue] = {"text": f"{MARKUP} {HIDDEN_TURN}", "number": LARGE}
    item_id = asked(node, "hostile", summary=f"{MARKUP} {HIDDEN_TURN}", payload=payload)
    opened(page, node, Role.ADMIN, item_id)
    expect(page.get_by_test_id("summary")).to_have_text(f"{MARKUP} ⟨U+202E⟩")
    expect(page.get_by_test_id("payload")).to_have_text(readable(payload))
    assert HIDDEN_TURN not in page.content() and page.locator("main img, main script").count() == 0
    picture(page, tmp_path, "item")
    page.get_by_role("button", name="Claim").click()
    expect(page.get_by_test_id("holder")).to_contain_text("admin has claimed it")
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("dialog", name="Approve").get_by_role("button", name="Approve it").click()
    expect(page.get_by_role("status")).to_have_text("Approved.")
    expect(page.get_by_test_id("state")).to_have_text("approved")
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    assert node.do(queue_of(node).item(item_id)).approvers == ("admin",)


def test_it_is_edited_with_its_numbers_as_they_are(page: Page, node: Served) -> None:
    item_id = asked(node, "edited", payload={"text": "helo", "number": LARGE})
    opened(page, node, Role.OPERATOR, item_id)
    page.get_by_role("button", name="Edit").click()
    dialog = page.get_by_role("dialog", name="Edit and approve")
    text = dialog.get_by_label("Payload (JSON)")
    text.fill("{")
    dialog.get_by_role("button", name="Edit and approve").click()
    expect(dialog).to_be_visible()  # no JSON, and nothing was sent
    text.fill(json.dumps({"text": "hello", "number": LARGE}))
    dialog.get_by_role("button", name="Edit and approve").click()
    expect(page.get_by_test_id("state")).to_have_text("edited")
    assert node.do(queue_of(node).item(item_id)).payload == {"text": "hello", "number": LARGE}


def test_by_keyboard_alone_it_is_looked_at_left_and_then_rejected_with_a_reason(page: Page, node: Served) -> None:
    item_id = asked(node, "keys")
    log_in(page, node, Role.ADMIN)
    page.goto(f"{node.url}/#/queue/{item_id}")
    expect(page.get_by_role("button", name="Reject")).to_be_visible()
    page.keyboard.press("c")
    expect(page.get_by_test_id("holder")).to_contain_text("admin")
    page.keyboard.press("a")
    expect(page.get_by_role("dialog").get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("r")
    expect(page.get_by_label("Why")).to_be_focused()
    page.keyboard.press("Enter")  # without a reason nothing is sent
    expect(page.get_by_role("dialog")).to_have_count(1)
    page.keyboard.type("a figure is wrong")  # in which no letter is a shortcut
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("state")).to_have_text("rejected")
    found = node.do(queue_of(node).item(item_id))
    assert found.ending is not None and (found.ending.by, found.ending.reason) == ("admin", "a figure is wrong")


def test_who_comes_second_is_told_who_has_it_and_loses_nothing(page: Page, node: Served) -> None:
    item_id = asked(node, "two")
    opened(page, node, Role.ADMIN, item_id)
    node.do(queue_of(node).claim(item_id, "operator"))
    page.get_by_role("button", name="Claim").click()
    expect(page.get_by_role("alert")).to_contain_text("operator has claimed it")
    expect(page.get_by_test_id("holder")).to_contain_text("operator has claimed it")
    assert node.do(queue_of(node).item(item_id)).state is State.WAITING


def test_four_eyes_are_told_and_who_may_not_decide_has_no_buttons(page: Page, node: Served) -> None:
    item_id = asked(node, "contract", kind="contract")
    opened(page, node, Role.ADMIN, item_id)
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("dialog").get_by_role("button", name="Approve it").click()
    expect(page.get_by_role("status")).to_have_text("Approved. One more has to agree.")
    expect(page.get_by_text("2 people have to agree. So far: admin.")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    opened(page, node, Role.OBSERVER, item_id)
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    page.keyboard.press("c")
    page.get_by_role("button", name="Log out").click()
    log_in(page, node, Role.API_CLIENT)
    expect(page.get_by_role("link", name="Missions")).to_be_visible()
    expect(page.get_by_role("link", name="Review queue")).to_have_count(0)
    assert node.do(queue_of(node).item(item_id)).claim is None
