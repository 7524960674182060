"""RSS and Atom, by feedparser, after whatever could harm a parser of XML was refused.

feedparser opens what it is handed as a URL or as a file where it can, so it is handed a stream. Entities are declared
by nobody who means well: a document type with declarations of its own is refused, in whatever encoding it is written
(billion laughs, quadratic blow-up, external entities: CWE-776 and CWE-611).
"""

from __future__ import annotations

import calendar
import io
import re
from typing import Any, Final

from chimera.content.feeds.item import FeedItem, Origin, Parsed
from chimera.core.errors import MissingExtra, SourceError

MAX_BYTES: Final = 4 << 20
MAX_TAGS_IN_FEED: Final = 100_000
MAX_ENTRIES: Final = 1_000
MAX_DEPTH: Final = 100

ENCODINGS: Final = frozenset("utf-8 utf8 us-ascii ascii iso-8859-1 iso-8859-2 iso-8859-15 latin-1 latin1".split())
ENCODINGS_MORE: Final = frozenset(
    "windows-1250 windows-1251 windows-1252 koi8-r shift_jis euc-jp euc-kr gb2312".split()
)
"""Each writes ASCII as ASCII, so that no tag hides in it, as one could in UTF-7."""

_DECLARATION = re.compile(r"\A\s*<\?xml\b[^>]{0,200}\?>")
_ENCODING = re.compile(rb"""\A\s*<\?xml\b[^>]{0,150}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_DECLARED = re.compile(r"<!(?:ENTITY|ELEMENT|ATTLIST|NOTATION)|<!DOCTYPE(?![^<>\[]{0,300}>)", re.IGNORECASE)
_TAG = re.compile(r"<!--(?:.*?-->|.*)|<!\[CDATA\[(?:.*?\]\]>|.*)|<(/?)[A-Za-z][^<>]*?(/?)>", re.DOTALL)
"""What is left open is taken to its end, so that many of them are no more work than one."""


def parse_feed(data: bytes, origin: Origin) -> Parsed:
    """The entries of an RSS or Atom document, at most MAX_ENTRIES.

    Raises SourceError for what is no feed, is too large or declares entities, and MissingExtra without feedparser.
    """
    text = _checked(data, origin.source)
    try:
        import feedparser
    except ImportError:
        raise MissingExtra("feedparser", "content") from None
    found: Any = feedparser.parse(
        io.BytesIO(text.encode("utf-8", "replace")),
        response_headers={"content-type": "application/xml; charset=utf-8"},
        sanitize_html=False,
        resolve_relative_uris=False,
    )
    if not found.get("version") and not found.entries:
        raise SourceError(f"{origin.source}: this is neither RSS nor Atom")
    language = str(found.feed.get("language", ""))
    items = [_item(entry, origin, language) for entry in found.entries[:MAX_ENTRIES]]
    refused = sum(item is None for item in items) + max(0, len(found.entries) - MAX_ENTRIES)
    return Parsed(
        items=tuple(item for item in items if item is not None),
        refused=refused,
        why=f"an entry says nothing, or comes after the first {MAX_ENTRIES}" if refused else "",
    )


def _item(entry: Any, origin: Origin, language: str) -> FeedItem | None:
    contents = [str(content.get("value", "")) for content in entry.get("content", [])]
    return origin.item(
        guid=str(entry.get("id", "")),
        url=str(entry.get("link", "")),
        title=str(entry.get("title", "")),
        html=max([str(entry.get("summary", "")), *contents], key=len),
        published=_published(entry),
        language=str(entry.get("language", "")) or language,
        tags=tuple(str(tag.get("term") or "") for tag in entry.get("tags", [])),
        links=tuple(str(link.get("href", "")) for link in entry.get("links", [])),
    )


def _published(entry: Any) -> float | None:
    for name in ("published_parsed", "updated_parsed"):
        moment = dict.get(entry, name)  # its own `get` takes one for the other, and warns of it
        if moment:
            try:
                return float(calendar.timegm(moment))
            except (ValueError, OverflowError, TypeError):
                continue
    return None


def _checked(data: bytes, source: str) -> str:
    """The document as text, harmless to parse."""
    if len(data) > MAX_BYTES:
        raise SourceError(f"{source}: a feed has at most {MAX_BYTES:,} bytes, this one {len(data):,}")
    text = _DECLARATION.sub("", _decoded(data, source).lstrip("\ufeff"), count=1)
    if not text.lstrip().startswith("<"):
        raise SourceError(f"{source}: this is neither RSS nor Atom")
    if _DECLARED.search(text):
        raise SourceError(f"{source}: it declares entities of its own, which no feed needs: it is not read")
    tags = depth = deepest = 0
    for tag in _TAG.finditer(text):
        tags += 1
        if tag[1] is not None and not tag[2]:
            depth += -1 if tag[1] else 1
            deepest = max(deepest, depth)
    if tags > MAX_TAGS_IN_FEED or deepest > MAX_DEPTH:
        raise SourceError(f"{source}: a feed has at most {MAX_TAGS_IN_FEED:,} tags, {MAX_DEPTH} deep: it is not read")
    return text


def _decoded(data: bytes, source: str) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    declared = _ENCODING.match(data.removeprefix(b"\xef\xbb\xbf"))
    encoding = declared[1].decode().lower() if declared else "utf-8"
    if encoding not in ENCODINGS | ENCODINGS_MORE or b"\0" in data:
        raise SourceError(f"{source}: a feed in {encoding} is not read: use UTF-8")
    return data.decode(encoding, "replace")
