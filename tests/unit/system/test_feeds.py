"""Feeds over the network: what is asked, what is followed, and where nobody is let in."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from chimera.content.feeds.syndication import MAX_BYTES
from chimera.core.clock import ManualClock
from chimera.core.errors import Forbidden, InputError, RateLimited, SourceError
from chimera.system.feeds import FeedReader, is_public, read_bluesky, read_credentials, read_mastodon

DATA = Path(__file__).parents[2] / "data" / "content"
NOW = datetime(2026, 3, 3, 12, tzinfo=UTC).timestamp()
MODIFIED = "Tue, 03 Mar 2026 08:00:00 GMT"
HOUSE = frozenset({"feeds.example"})
RSS = (DATA / "rss.xml").read_bytes()


class Site:
    """A web server on loopback that notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.busy = self.busiest = 0
        self.address = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path_qs, dict(request.headers)))
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        await asyncio.sleep(0)
        self.busy -= 1
        name = request.match_info["name"]
        match name:
            case "feed":
                if request.headers.get("If-None-Match") == '"v1"':
                    return web.Response(status=304)
                return web.Response(
                    body=RSS, headers={"ETag": '"v1"', "Last-Modified": "Tue, 03 Mar 2026 08:00:00 GMT"}
                )
            case "moved":
                return web.Response(status=301, headers={"Location": "/feed"})
            case "loop":
                return web.Response(status=302, headers={"Location": "/loop"})
            case "inside":
                return web.Response(status=302, headers={"Location": "http://169.254.169.254/latest/meta-data/"})
            case "file":
                return web.Response(status=302, headers={"Location": "file:///etc/passwd"})
            case "busy":
                return web.Response(status=429, headers={"Retry-After": "120"})
            case "large":
                return web.Response(body=b"<rss>" + b" " * MAX_BYTES)
            case "packed":
                return web.Response(body=b"x", headers={"Content-Encoding": "gzip"})
            case "slow":
                await asyncio.Event().wait()
        return web.Response(status=404)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    found = Site()
    app = web.Application()
    app.router.add_get("/{name}", found.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.address = f"http://feeds.example:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


async def here(host: str, port: int) -> list[str]:
    """Every name is this machine."""
    return ["127.0.0.1"]


async def no_wait(seconds: float) -> None:
    return None


def reader(clock: ManualClock | None = None, *, timeout_s: float = 20.0) -> FeedReader:
    return FeedReader(
        clock=clock or ManualClock(NOW), private_hosts=HOUSE, resolve=here, sleep=no_wait, timeout_s=timeout_s
    )


async def test_a_feed_is_read_once_and_then_only_asked_whether_it_changed(site: Site) -> None:
    async with reader() as feeds:
        first = await feeds.read(f"{site.address}/feed")
        assert len(first.parsed.items) == 3 and not first.unchanged
        assert first.parsed.items[0].source == "feed:feeds.example"
        assert (await feeds.read(f"{site.address}/feed")).unchanged
        kept = feeds.kept()
    async with reader() as again:
        again.restore(kept)
        assert (await again.read(f"{site.address}/feed")).unchanged
    assert site.asked[1][1]["If-Modified-Since"] == MODIFIED


async def test_a_redirect_is_followed_and_a_ring_of_them_is_not(site: Site) -> None:
    async with reader() as feeds:
        assert len((await feeds.read(f"{site.address}/moved")).parsed.items) == 3
        with pytest.raises(SourceError, match="more than 5 times"):
            await feeds.read(f"{site.address}/loop")
        with pytest.raises(SourceError, match="redirects to what is no address"):
            await feeds.read(f"{site.address}/file")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/feed",
        "http://127.1/feed",
        "http://2130706433/feed",
        "http://0x7f000001/feed",
        "http://0/feed",
        "http://[::1]/feed",
        "http://[::ffff:127.0.0.1]/feed",
        "http://[64:ff9b::7f00:1]/feed",
        "http://169.254.169.254/latest",
        "http://10.0.0.1/feed",
        "http://localhost/feed",
        "http://user@localhost:80/feed",
        "http://example.com:22/feed",
    ],
)
async def test_nothing_inside_is_reached_by_its_address(url: str) -> None:
    async with FeedReader(clock=ManualClock(NOW), sleep=no_wait) as feeds:
        with pytest.raises(Forbidden):
            await feeds.read(url)


async def test_a_name_that_leads_inside_is_not_followed_first_or_later(site: Site) -> None:
    port = site.address.rpartition(":")[2]
    turns = iter([["127.0.0.1"], ["93.184.216.34", "10.0.0.1"], []])

    async def resolve(host: str, port: int) -> list[str]:
        return next(turns)

    async with FeedReader(clock=ManualClock(NOW), resolve=resolve, sleep=no_wait) as feeds:
        for _ in range(3):
            with pytest.raises(Forbidden, match="open Internet"):
                await feeds.read("http://rebound.example/feed")
        with pytest.raises(Forbidden, match="ports"):
            await feeds.read(f"http://rebound.example:{port}/feed")
    assert site.asked == []


async def test_a_redirect_to_the_inside_is_not_followed_even_from_a_house_of_ones_own(site: Site) -> None:
    async with reader() as feeds:
        assert (await feeds.read(f"{site.address}/feed")).parsed.items
        with pytest.raises(Forbidden, match=re.escape("169.254.169.254")):
            await feeds.read(f"{site.address}/inside")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::a00:1", False),
        ("nonsense", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


async def test_a_host_that_asks_for_patience_is_given_it(site: Site) -> None:
    clock = ManualClock(NOW)
    async with reader(clock) as feeds:
        for _ in range(2):
            with pytest.raises(RateLimited) as refusal:
                await feeds.read(f"{site.address}/busy")
            assert refusal.value.retry_after_s == pytest.approx(120)
        assert len(site.asked) == 1
        clock.advance(121)
        assert (await feeds.read(f"{site.address}/feed")).parsed.items


async def test_a_host_is_asked_for_one_thing_at_a_time_with_a_pause_between(site: Site) -> None:
    clock, waits = ManualClock(NOW), []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock.advance(seconds)

    async with FeedReader(clock=clock, private_hosts=HOUSE, resolve=here, sleep=sleep, gap_s=2.0) as feeds:
        found = await feeds.read_all([f"{site.address}/feed?{n}" for n in range(5)])
    assert [len(each.parsed.items) for each in found] == [3] * 5
    assert site.busiest == 1 and waits == [pytest.approx(2.0)] * 4


async def test_one_bad_feed_holds_up_none_of_the_others(site: Site) -> None:
    names = ("gone", "large", "packed", "feed")
    async with reader() as feeds:
        found = await feeds.read_all([*(f"{site.address}/{name}" for name in names), "ftp://x.example/", "nonsense"])
    errors = [each.error for each in found]
    assert "answers 404" in errors[0] and "this one has more" in errors[1] and "compressed" in errors[2]
    assert errors[3] == "" and len(found[3].parsed.items) == 3
    assert all("no address of a feed" in error for error in errors[4:])
    with pytest.raises(InputError, match="at most"):
        await reader().read_all(["x"] * 1_001)


async def test_a_server_that_never_answers_is_given_up(site: Site) -> None:
    async with reader(timeout_s=0.05) as feeds:
        with pytest.raises(SourceError, match="no whole answer"):
            await feeds.read(f"{site.address}/slow")


def credentials(path: Path, **told: str) -> Path:
    path.write_text(json.dumps(told))
    path.chmod(0o600)
    return path


def test_credentials_are_nobody_elses_whole_and_not_sent_in_the_clear(tmp_path: Path) -> None:
    path = credentials(tmp_path / "a.json", handle="me", password="secret")
    assert read_credentials(path, ("handle", "password"))["handle"] == "me"
    clear = {"handle": "me", "password": "secret", "service": "http://far.example"}
    for wrong, needed in (({"handle": "secret"}, "lacks password"), (clear, "https")):
        with pytest.raises(InputError, match=needed) as refusal:
            read_credentials(credentials(path, **wrong), ("handle", "password"))
        assert "secret" not in str(refusal.value)
    path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        read_credentials(path, ())
    with pytest.raises(InputError, match="cannot be read"):
        read_credentials(tmp_path / "missing", ())
    path.chmod(0o600)
    path.write_text("[")
    with pytest.raises(InputError, match="JSON"):
        read_credentials(path, ())


@pytest.fixture
async def social(tmp_path: Path) -> AsyncIterator[str]:
    """A server that speaks as much of both networks as a timeline takes."""
    feed = json.loads((DATA / "bluesky.json").read_text())
    feed["feed"] = feed["feed"][:2]
    for each in feed["feed"]:
        each["post"]["cid"] = "bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"
        each["post"]["author"] |= {"did": "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "handle": "jane.example"}
        each["post"]["uri"] = "at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/app.bsky.feed.post/3k1aaaaaaaa2a"
        if "reason" in each:
            each["reason"]["by"]["did"] = "did:plc:ewvi7nxzyoun6zhxrhs64oiy"

    async def session(request: web.Request) -> web.Response:
        told = await request.json()
        if told != {"identifier": "jane.example", "password": "app-pass"}:
            return web.json_response({"error": "AuthenticationRequired", "message": "no"}, status=401)
        token = "e30.eyJzY29wZSI6ImEiLCJzdWIiOiJkIiwiaWF0IjoxLCJleHAiOjk5OTk5OTk5OTksImF1ZCI6ImQifQ.xxxx"
        return web.json_response({"accessJwt": token, "refreshJwt": token, "handle": "jane.example",
                                  "did": "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "active": True})  # fmt: skip

    async def timeline(request: web.Request) -> web.Response:
        return web.json_response(feed)

    async def home(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer token":
            return web.json_response({"error": "no"}, status=401)
        return web.Response(body=(DATA / "mastodon.json").read_bytes(), content_type="application/json")

    app = web.Application()
    app.router.add_post("/xrpc/com.atproto.server.createSession", session)
    app.router.add_get("/xrpc/app.bsky.feed.getTimeline", timeline)
    app.router.add_get("/api/v1/timelines/home", home)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_timeline_of_bluesky_is_read_by_its_client(social: str, tmp_path: Path) -> None:
    pytest.importorskip("atproto")
    path = credentials(tmp_path / "a.json", service=social, handle="jane.example", password="app-pass")
    parsed = await read_bluesky(path, clock=ManualClock(NOW))
    assert parsed.refused == 0 and parsed.items[0].text == "Tidal barrage is <live>! #tide"
    assert (parsed.items[0].tags, parsed.items[0].source) == (("tide",), "bluesky:home")
    assert parsed.items[0].links == ("https://harbour.example/barrage",)
    credentials(path, service=social, handle="jane.example", password="wrong")
    with pytest.raises(SourceError, match="Bluesky cannot be read"):
        await read_bluesky(path, clock=ManualClock(NOW))


async def test_a_timeline_of_mastodon_is_read_by_its_client(social: str, tmp_path: Path) -> None:
    pytest.importorskip("mastodon")
    path = credentials(tmp_path / "m.json", service=social, access_token="token")
    parsed = await read_mastodon(path, clock=ManualClock(NOW))
    assert [item.text for item in parsed.items] == ["The tidal barrage is live #tide", "Boosted words"]
    assert parsed.items[0].published_s == datetime(2026, 3, 3, 8, 12, tzinfo=UTC).timestamp()
    credentials(path, service=social, access_token="wrong")
    with pytest.raises(SourceError, match="Mastodon cannot be read"):
        await read_mastodon(path, clock=ManualClock(NOW))
