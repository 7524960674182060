"""What was published and how it does, over the API and in the console: to look at, by who may, and as text only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from chimera import Client
from chimera.core.clock import SystemClock
from chimera.security.manager import LOCAL
from chimera.security.roles import Permission, Role
from chimera.system.content_parts import Places
from chimera.system.content_record import CampaignRecord, Piece, Stage
from tests.api.serving import Served, served
from tests.api.test_console import browser, log_in, page
from tests.api.whole import PASSWORD, Api, bearing

__all__ = ["browser", "page"]

MARKUP = "<img src=x onerror=alert(1)>"


def made(home: Path, count: int, campaign: str = "daily") -> None:
    """So many pieces, of which every second one was refused by a person."""
    places = Places(home=home)
    places.folder.mkdir(parents=True, exist_ok=True)
    record = CampaignRecord(places.record, clock=SystemClock())
    for number in range(count):
        piece = Piece(id=f"{campaign}-{number}", campaign=campaign, account="house", cost_usd=0.01)
        if number % 2:
            piece = piece.to(Stage.REFUSED, f"wrong {MARKUP}", person=True, changed=True)
        record.add(piece)
    record.close()


async def test_until_something_was_made_the_node_says_so(api: Api) -> None:
    for path in ("report", "items"):
        assert (await api.ask("GET", f"/api/content/{path}", Role.OBSERVER)).status_code == 501


async def test_figures_and_items_are_told_in_parts_and_by_campaign(api: Api) -> None:
    made(api.node.home, 5)
    made(api.node.home, 2, "weekly")
    report = (await api.ask("GET", "/api/content/report?campaign=daily", Role.OBSERVER)).json()["items"]
    assert (report["items"], report["refused"], report["cost_usd_total"]) == (5, 2, pytest.approx(0.05))
    assert report["interventions"]["value"] == 1.0
    first = (await api.ask("GET", "/api/content/items?limit=4", Role.OBSERVER)).json()
    rest = (await api.ask("GET", f"/api/content/items?limit=4&after={first['next']}", Role.OBSERVER)).json()
    told = first["items"] + rest["items"]
    assert len({each["id"] for each in told}) == 7 and rest["next"] is None
    assert {each["state"] for each in told} == {"planned", "refused"}


async def test_who_may_not_look_and_who_belongs_to_a_tenant_sees_nothing(api: Api) -> None:
    made(api.node.home, 1)
    await api.node.security.create_user("red", PASSWORD, Role.ADMIN, by=LOCAL, tenant="red")
    key = bearing(await api.node.key(Role.ADMIN, scopes=frozenset(Permission) - {Permission.CONTENT_READ}))
    for path in ("/api/content/report", "/api/content/items"):
        assert (await api.ask("GET", path, "red")).status_code == 404
        assert (await api.ask("GET", path, Role.API_CLIENT)).status_code == 403
        assert (await api.ask("GET", path, headers=key)).status_code == 403


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("console")) as running:
        yield running


def test_the_console_shows_them_once_there_is_something_and_as_text(page: Page, node: Served) -> None:
    log_in(page, node, Role.OBSERVER)
    expect(page.get_by_role("link", name="Duels")).to_be_visible(timeout=20_000)
    expect(page.get_by_role("link", name="Content")).to_have_count(0)
    page.get_by_role("button", name="Log out").click()
    made(node.node.home, 4)
    log_in(page, node, Role.OBSERVER)
    page.get_by_role("link", name="Content").click(timeout=20_000)
    expect(page.get_by_role("table", name="Figures of items")).to_contain_text("Interventions", timeout=20_000)
    expect(page.get_by_text("4 made, 0 published, 2 refused")).to_be_visible()
    expect(page.get_by_role("table", name="Items", exact=True)).to_contain_text(MARKUP)
    assert page.locator("main img").count() == 0
    with Client(node.url, node.token(Role.OBSERVER)) as client:
        assert len(client.content_items()) == 4 and client.content_report()["items"]["items"] == 4
