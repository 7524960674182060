"""Timelines of Bluesky (AT Protocol) and Mastodon, from the JSON that their servers answer with.

Formats: the lexicons app.bsky.feed.getTimeline, getAuthorFeed and searchPosts (atproto.com), and the Status entity
(docs.joinmastodon.org/entities/Status). What is not public is left out, whoever may see it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

from chimera.content.feeds.item import FeedItem, Origin, Parsed
from chimera.core.errors import SourceError

MAX_BYTES: Final = 16 << 20
MAX_POSTS: Final = 1_000


def parse_bluesky(data: bytes | dict[str, Any], origin: Origin) -> Parsed:
    """The posts of a timeline (`feed`) or a search (`posts`). Raises SourceError for what is neither."""
    found = _loaded(data, origin)
    posts = found.get("feed", found.get("posts")) if isinstance(found, dict) else None
    if not isinstance(posts, list):
        raise SourceError(f"{origin.source}: no timeline of Bluesky: it has no list `feed` or `posts`")
    return _each(posts, lambda post: _bluesky(post.get("post", post), origin))


def parse_mastodon(data: bytes | list[Any], origin: Origin) -> Parsed:
    """The statuses of a timeline, or of a search (`statuses`). Raises SourceError for what is neither."""
    found = _loaded(data, origin)
    statuses = found.get("statuses") if isinstance(found, dict) else found
    if not isinstance(statuses, list):
        raise SourceError(f"{origin.source}: no timeline of Mastodon: it is no list of statuses")
    return _each(statuses, lambda status: _mastodon(status.get("reblog") or status, origin))


def _bluesky(post: dict[str, Any], origin: Origin) -> FeedItem | None:
    record, did = post["record"], str(post["author"]["did"])
    uri = str(post["uri"])
    key = uri.rpartition("/")[2]
    facets = [feature for facet in _list(record, "facets") for feature in _list(facet, "features")]
    embed = post.get("embed") or {}
    external = embed.get("external") or {}
    return origin.item(
        guid=uri,
        url=f"https://bsky.app/profile/{did}/post/{key}" if did and key else "",
        account=did,
        html=_escaped(str(record.get("text", ""))),
        # what the server saw, before what the author claims
        published=post.get("indexedAt") or record.get("createdAt"),
        language=str(next(iter(_list(record, "langs")), "")),
        tags=tuple(str(tag) for tag in (*_list(record, "tags"), *(f["tag"] for f in facets if f.get("tag")))),
        links=tuple(str(link) for link in (external.get("uri"), *(f.get("uri") for f in facets)) if link),
    )


def _mastodon(status: dict[str, Any], origin: Origin) -> FeedItem | None:
    if status.get("visibility", "public") not in ("public", "unlisted"):
        return None
    account, card = status["account"], status.get("card") or {}
    created = status.get("created_at")
    return origin.item(
        guid=str(status.get("uri") or status["id"]),
        url=str(status.get("url") or ""),
        account=str(account["acct"]),  # what our own server calls it: a URL is what the account's server says
        html=" ".join(str(status.get(name) or "") for name in ("spoiler_text", "content")),
        published=created if isinstance(created, datetime) else str(created or ""),
        language=str(status.get("language") or ""),
        tags=tuple(str(tag.get("name", "")) for tag in _list(status, "tags")),
        links=tuple(str(link) for link in (card.get("url"),) if link),
    )


def _each(posts: list[Any], read: Callable[[dict[str, Any]], FeedItem | None]) -> Parsed:
    """One post that is not what it should be costs the others nothing."""
    items: list[FeedItem] = []
    refused, why = max(0, len(posts) - MAX_POSTS), f"at most {MAX_POSTS} posts are read of one answer"
    for post in posts[:MAX_POSTS]:
        try:
            item = read(post)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            item, reason = None, f"a post is not what it should be: {type(error).__name__}"
        else:
            reason = "a post says nothing, or is not public"
        if item is None:
            why = why if refused else reason
            refused += 1
        else:
            items.append(item)
    return Parsed(items=tuple(items), refused=refused, why=why if refused else "")


def _loaded(data: Any, origin: Origin) -> Any:
    if not isinstance(data, bytes):
        return data
    if len(data) > MAX_BYTES:
        raise SourceError(f"{origin.source}: an answer has at most {MAX_BYTES:,} bytes, this one {len(data):,}")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise SourceError(f"{origin.source}: the answer is no JSON") from None


def _list(holder: dict[str, Any], name: str) -> Iterable[Any]:
    found = holder.get(name)
    return found[:64] if isinstance(found, list) else []


def _escaped(text: str) -> str:
    """Bluesky's text is no HTML: a tag in it is what somebody wrote."""
    return text.replace("&", "&amp;").replace("<", "&lt;")
