"""The treasury in a real browser: looked at, approved, stopped, and nothing that strangers wrote becomes markup."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from chimera.api.services import Services
from chimera.core.config import Settings
from chimera.security.roles import Role
from chimera.system.treasury import Treasury
from chimera.treasury.payment import Payment
from chimera.treasury.vault.process import start_vault
from tests.api.serving import Served, served
from tests.api.test_console import browser, log_in, page, picture
from tests.api.test_treasury import House

__all__ = ["browser", "page"]

HIDDEN_TURN = "\N{RIGHT-TO-LEFT OVERRIDE}"
MARKUP = '<img src=x onerror="document.title=1"><b>Acme</b>'


@pytest.fixture(autouse=True, scope="module")
def patience() -> Iterator[None]:
    expect.set_options(timeout=30_000)
    yield
    expect.set_options(timeout=None)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With a vault of its own, money, and a payee whose name is markup."""
    with ThreadPoolExecutor(1) as threads:  # the browser's loop runs in this one
        house = threads.submit(House, f"  - {{id: evil, kind: outside, title: '{MARKUP}'}}\n").result()
    vault = start_vault(house.home, end_with_me=True)

    def change(services: Services) -> None:
        services.treasury = Treasury(Settings(home=house.home))

    try:
        with served(tmp_path_factory.mktemp("console"), change=change) as made:
            asked(made, 5_000, debit="bank", credit="cash", category="income", requester="owner")
            yield made
            made.do(_treasury(made).close())
    finally:
        vault.stop()
        shutil.rmtree(house.home)


def _treasury(node: Served) -> Treasury:
    found = node.node.services.treasury
    assert found is not None
    return found


def asked(node: Served, amount: int, **fields: Any) -> Payment:
    told = {"debit": "cash", "credit": "acme", "category": "hosting", "requester": "operator", **fields}
    return node.do(_treasury(node).pay(amount=amount, **told))


def state(node: Served, made: Payment) -> str:
    return node.do(_treasury(node).payment(made.request.id)).state


def opened(page: Page, node: Served, role: Role) -> None:
    log_in(page, node, role)
    page.get_by_role("link", name="Treasury").click()
    expect(page.get_by_role("table", name="Balances")).to_be_visible()


def card(page: Page, made: Payment) -> Locator:
    return page.get_by_role("region", name=f"Payment {made.request.id}")


def test_a_payment_is_read_and_approved(page: Page, node: Served, tmp_path: Path) -> None:
    made = asked(node, 420, request_id="invoice-2026-11", reason="Two servers for the autumn.", mission="m-7")
    opened(page, node, Role.ADMIN)
    waits = card(page, made)
    for text in ("420.00 USD to Acme Ltd. (acme)", "operator asks", "Two servers", "m-7", "Risk 0"):
        expect(waits).to_contain_text(text)
    expect(page.get_by_role("table", name="Risk of invoice-2026-11").get_by_role("row")).not_to_have_count(1)
    expect(page.get_by_role("row", name="all funds the last 24 hours")).to_contain_text("1,000.00 USD")
    expect(page.get_by_role("row", name=re.compile("^cash"))).to_contain_text("5,000.00 USD")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        picture(page, tmp_path, scheme)
    waits.get_by_role("button", name="Approve").click()
    dialog = page.get_by_role("dialog", name="Approve")
    expect(dialog).to_contain_text("Pay 420.00 USD to Acme Ltd. (acme)?")
    dialog.get_by_role("button", name="Approve it").click()
    expect(page.get_by_text("420.00 USD to Acme Ltd. (acme): it is paid.")).to_be_visible()
    expect(waits).to_have_count(0)
    expect(page.get_by_role("row", name="all funds the last 24 hours")).to_contain_text("42 %")
    expect(page.get_by_role("table", name="Last entries")).to_contain_text("admin has approved invoice-2026-11")
    [entry] = [each for each in node.node.audit.entries if each.action == "approve payment"]
    assert (entry.actor, entry.resource, state(node, made)) == ("admin", made.request.id, "paid")


def test_nothing_that_strangers_wrote_becomes_markup_or_is_hidden(page: Page, node: Served) -> None:
    made = asked(node, 60, credit="evil", reason=f"<script>document.title = 2</script>{HIDDEN_TURN}DSU")
    opened(page, node, Role.ADMIN)
    waits = card(page, made)
    expect(waits).to_contain_text(MARKUP)
    expect(waits).to_contain_text("<script>document.title = 2</script>⟨U+202E⟩DSU")
    assert page.locator("main img, main script").count() == 0 and HIDDEN_TURN not in page.content()
    waits.get_by_role("button", name="Refuse").click()
    expect(page.get_by_role("dialog", name="Refuse")).to_contain_text(MARKUP)
    page.get_by_role("dialog").get_by_role("button", name="Refuse it").click()
    expect(page.get_by_text("admin has refused it.")).to_be_visible()
    expect(page).to_have_title("Treasury · Chimera")
    assert page.locator("img").count() == 0 and state(node, made) == "refused"


def test_by_keyboard_alone_a_question_is_left_and_then_answered(page: Page, node: Served) -> None:
    made = asked(node, 60)
    opened(page, node, Role.ADMIN)
    waits = card(page, made)
    for key, left in (("Escape", "waiting"), ("Enter", "waiting"), ("Tab", "refused")):
        waits.get_by_role("button", name="Refuse").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog").get_by_role("button", name="Cancel")).to_be_focused()
        page.keyboard.press(key)
        if left == "refused":
            page.keyboard.press("Enter")
            expect(waits).to_have_count(0)
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert state(node, made) == left


def test_all_spending_is_stopped_with_a_reason_and_started_again(page: Page, node: Served) -> None:
    opened(page, node, Role.OPERATOR)
    page.get_by_role("button", name="Stop all spending").click()
    dialog = page.get_by_role("dialog", name="Stop all spending")
    dialog.get_by_role("button", name="Stop all spending").click()
    expect(dialog).to_be_visible()  # not without a reason
    dialog.get_by_label("Why").fill("paid <i>twice</i>")
    dialog.get_by_role("button", name="Stop all spending").click()
    expect(page.get_by_text("by operator: paid <i>twice</i>")).to_be_visible()
    assert asked(node, 1).state == "refused"
    expect(page.get_by_role("button", name="Start spending")).to_have_count(0)
    page.get_by_role("button", name="Log out").click()
    opened(page, node, Role.ADMIN)
    page.get_by_role("button", name="Start spending").click()
    page.get_by_role("dialog").get_by_role("button", name="Start spending").click()
    expect(page.get_by_role("button", name="Stop all spending")).to_be_visible()
    assert asked(node, 1).state == "paid"


def test_who_may_not_decide_has_no_buttons_and_who_may_not_look_no_page(page: Page, node: Served) -> None:
    own, other = asked(node, 60, requester="admin"), asked(node, 61)
    opened(page, node, Role.ADMIN)
    expect(card(page, own)).to_contain_text("somebody else decides")
    expect(card(page, own).get_by_role("button")).to_have_count(0)
    expect(card(page, other).get_by_role("button")).to_have_count(2)
    page.get_by_role("button", name="Log out").click()
    opened(page, node, Role.OBSERVER)
    expect(card(page, other)).to_be_visible()
    expect(page.get_by_role("main").get_by_role("button")).to_have_count(0)
    page.get_by_role("button", name="Log out").click()
    log_in(page, node, Role.API_CLIENT)
    expect(page.get_by_role("link", name="Missions")).to_be_visible()
    expect(page.get_by_role("link", name="Treasury")).to_have_count(0)


def test_a_page_is_read_on_a_small_screen(page: Page, node: Served) -> None:
    asked(node, 62, reason="x" * 1_000)
    page.set_viewport_size({"width": 420, "height": 800})
    opened(page, node, Role.ADMIN)
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
