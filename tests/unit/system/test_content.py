"""Campaign files, briefs, the record of pieces, and the report: what needs no gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chimera.content.create.create import Created
from chimera.content.feeds.item import FeedItem
from chimera.content.kpi import Report
from chimera.content.publish.ledger import PostLedger
from chimera.content.publish.types import Post
from chimera.content.trends.trend import TrendOptions
from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, NotThere
from chimera.core.types import Task
from chimera.system.content_briefs import brief_of, find_trends, is_told, read_feeds
from chimera.system.content_campaign import Campaign, load_campaign
from chimera.system.content_made import Recipe, make, make_as_agent
from chimera.system.content_parts import Places
from chimera.system.content_record import CampaignRecord, Piece, Stage
from chimera.system.content_report import read_metrics, report, standing, standings
from tests.content_feed import SOURCES, STORIES, write_feeds

NOW = 1_800_000_000.0
ACCOUNT = """
accounts:
  - {name: acme, platform: outbox, handle: acme, brand: Acme, automated: true,
     operator: {name: Acme GmbH, contact: press@acme.example}}
"""


def campaign(folder: Path, text: str = "", account: str = "acme") -> Campaign:
    (folder / "accounts.yaml").write_text(ACCOUNT)
    path = folder / "spring.yaml"
    path.write_text(f"accounts: accounts.yaml\naccount: {account}\n{text}")
    return load_campaign(path)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


async def fed(folder: Path, clock: ManualClock, text: str = "") -> tuple[Campaign, list[FeedItem]]:
    write_feeds(folder, now=NOW, items=600, hostile=False)
    feeds = json.dumps([f"{source}.jsonl" for source in SOURCES])
    made = campaign(folder, f"feeds: {feeds}\n{text}")
    items, problems = await read_feeds(made, clock=clock, secret=b"s")
    assert not problems
    return made, items


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("colour: red\n", "colour"),
        ("items: 0\n", "items"),
        ("item_usd: 0.06\n", "item_usd"),
        ("picture: photo\n", "picture"),
        ("feeds: [\n", "spring.yaml"),
    ],
)
def test_a_campaign_that_is_wrong_says_where(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        campaign(tmp_path, text)


def test_a_campaign_needs_a_declared_account(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="other is none of acme"):
        campaign(tmp_path, account="other")


async def test_a_feed_that_cannot_be_read_holds_up_none_of_the_others(tmp_path: Path, clock: ManualClock) -> None:
    made, items = await fed(tmp_path, clock)
    file = made.file.model_copy(update={"feeds": ("gone.jsonl", *made.file.feeds)})
    again, problems = await read_feeds(made.model_copy(update={"file": file}), clock=clock, secret=b"s")
    assert [one.id for one in again] == [one.id for one in items]
    assert len(problems) == 1 and "gone.jsonl" in problems[0]


async def test_each_story_becomes_one_brief_that_rests_on_its_own_sources(tmp_path: Path, clock: ManualClock) -> None:
    made, items = await fed(tmp_path, clock)
    by_id = {item.id: item for item in items}
    found = find_trends(items, 20, now=NOW, options=TrendOptions())
    told: list[frozenset[str]] = []
    briefs = []
    for trend in found:
        if not is_told(trend, told):
            brief = brief_of(trend, by_id, made)
            assert brief is not None
            told.append(frozenset(source.id for source in brief.sources))
            briefs.append(brief)
    for words, _ in STORIES:
        assert sum(all(words in source.title for source in brief.sources) for brief in briefs) == 1, words
    assert all(is_told(trend, told) for trend in found), "what was told is not told again"
    again = [brief_of(trend, by_id, made) for trend in found]
    assert {brief.id for brief in briefs} <= {one.id for one in again if one}, "the same trend is the same brief"
    assert not find_trends([], 5, now=NOW, options=TrendOptions())


async def test_a_chart_is_of_our_own_counts_and_says_so(tmp_path: Path, clock: ManualClock) -> None:
    made, items = await fed(tmp_path, clock, "picture: chart\n")
    trend = find_trends(items, 1, now=NOW, options=TrendOptions())[0]
    brief = brief_of(trend, {item.id: item for item in items}, made)
    assert brief is not None and brief.chart is not None
    assert brief.chart.source.startswith("own count of ") and sum(brief.chart.values) == sum(trend.counts)


async def test_an_agent_of_a_swarm_makes_what_is_made_here(tmp_path: Path, clock: ManualClock) -> None:
    made, items = await fed(tmp_path, clock)
    trend = find_trends(items, 1, now=NOW, options=TrendOptions())[0]
    brief = brief_of(trend, {item.id: item for item in items}, made)
    assert brief is not None
    here = await make(brief, Recipe())
    assert isinstance(here, Created)
    inputs = {"brief": brief.model_dump(mode="json"), "recipe": Recipe().model_dump(mode="json")}
    reply = await make_as_agent(Task(goal="make it", inputs=inputs), None)  # type: ignore[arg-type]
    assert isinstance(reply.value, dict)
    assert Created.model_validate(reply.value["created"]) == here


def piece(id: str, stage: Stage = Stage.MADE, **more: object) -> Piece:
    post = Post(account="acme", parts=(f"Words of {id}.",), item_id=id)
    return Piece(id=id, campaign="spring", account="acme", post=post).to(stage, **more)  # type: ignore[arg-type]


def test_a_piece_is_kept_as_it_is_and_added_once(tmp_path: Path, clock: ManualClock) -> None:
    record = CampaignRecord(tmp_path / "c.db", clock=clock)
    first = record.add(piece("aa01"))
    record.put(first.to(Stage.WAITING, "a person decides"))
    assert record.add(piece("aa01")).stage is Stage.WAITING, "what is there already stays as it stands"
    record.add(piece("aa02"))
    record.close()
    again = CampaignRecord(tmp_path / "c.db", clock=clock)
    assert again.piece("aa01").reason == "a person decides"
    assert [one.id for one in again.pieces(Stage.WAITING)] == ["aa01"]
    assert again.pieces(campaign="autumn") == ()
    with pytest.raises(InputError, match="several"):
        again.piece("aa")
    for none in ("", "zz", "%"):
        with pytest.raises(NotThere):
            again.piece(none)
    again.close()


async def test_what_was_read_is_kept_once_and_bounded(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, items = await fed(tmp_path, clock)
    record = CampaignRecord(tmp_path / "c.db", clock=clock)
    assert record.read("spring", items) == len(items)
    assert record.read("spring", items) == 0
    monkeypatch.setattr("chimera.system.content_record.MAX_ITEMS", 100)
    record.read("spring", [])
    kept = record.items("spring")
    newest = sorted(items, key=lambda item: item.published_s)[-100:]
    assert {one.id for one in kept} == {one.id for one in newest}
    record.close()


async def test_the_report_counts_what_became_of_each_piece(tmp_path: Path, clock: ManualClock) -> None:
    assert isinstance(report(tmp_path).items, Report) and report(tmp_path).items.items == 0
    assert standings(tmp_path) == ()
    places = Places(home=tmp_path)
    record = CampaignRecord(places.record, clock=clock)
    accounts = campaign(tmp_path).accounts
    ledger = PostLedger(places.posts, accounts.values(), clock=clock)
    sent = piece("sent").post
    assert sent is not None
    ledger.add(sent)
    ledger.schedule(sent.key, NOW)
    ledger.claim(sent.key)
    ledger.part_sent(sent.key, 0, "there")
    for one in (
        piece("sent", Stage.HANDED, key=sent.key, person=True, cost_usd=0.02),
        piece("waits", Stage.WAITING),
        piece("rejected", Stage.REFUSED, person=True, changed=True),
        piece("blocked", Stage.REFUSED),
        piece("failed", Stage.FAILED),
    ):
        record.add(one)
    ledger.close()
    record.close()
    found = report(tmp_path).items
    assert (found.items, found.published, found.refused) == (5, 1, 2)
    assert found.without_person.value == 0.5 and found.without_person.n == 4, "what waits has not ended"
    assert found.interventions.value == 0.25 and found.errors.value == 0.25
    assert found.cost_usd_total == 0.02
    assert standing(tmp_path, "sent").state == "sent" and standing(tmp_path, "waits").state == "waiting"
    metrics = tmp_path / "m.jsonl"
    metrics.write_text(json.dumps({"key": sent.key, "seen": 50, "reactions": 5}) + "\n")
    assert report(tmp_path, metrics=read_metrics(metrics)).items.engagement.value == 0.1
    metrics.write_text('{"key": "k", "seen": -1}\n')
    with pytest.raises(InputError, match="line 1"):
        read_metrics(metrics)
