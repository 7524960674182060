"""Items from files of one's own: JSONL and CSV with id, url, author, title, text, published, language and tags."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from chimera.content.feeds.item import FeedItem, Origin, Parsed
from chimera.content.feeds.syndication import parse_feed
from chimera.core.errors import SourceError

MAX_FILE_BYTES: Final = 64 << 20
MAX_ROWS: Final = 100_000
MAX_LINE: Final = 65_536

TEXTS: Final = ("id", "url", "author", "title", "text", "language")


def read_file(path: Path, origin: Origin) -> Parsed:
    """The items of a file, by its ending: .jsonl, .csv, or .xml, .rss and .atom. Raises SourceError for others."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SourceError(f"{path} has more than {MAX_FILE_BYTES:,} bytes: cut it in pieces")
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return parse_jsonl(data, origin)
        case ".csv":
            return parse_csv(data, origin)
        case ".xml" | ".rss" | ".atom":
            return parse_feed(data, origin)
    raise SourceError(f"{path}: items are read from .jsonl, .csv, .xml, .rss and .atom")


def parse_jsonl(data: bytes, origin: Origin) -> Parsed:
    """One JSON object a line. A line that is none is left out and counted."""
    return _items((_object(line) for line in data.splitlines() if line.strip()), origin)


def parse_csv(data: bytes, origin: Origin) -> Parsed:
    """A CSV with a header; tags are divided by spaces. Raises SourceError for one without `title` and `text`."""
    rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig", "replace")))
    try:
        if not {"title", "text"} & set(rows.fieldnames or ()):
            raise SourceError(f"{origin.source}: a CSV of items has a column `title` or `text` in its first line")
        return _items(rows, origin)
    except csv.Error as error:
        raise SourceError(f"{origin.source}: no CSV: {error}") from None


def _items(rows: Iterator[dict[str, Any] | None] | csv.DictReader[str], origin: Origin) -> Parsed:
    items: list[FeedItem] = []
    refused, why = 0, ""
    for number, row in enumerate(rows, start=1):
        if number > MAX_ROWS:
            refused, why = refused + 1, why or f"at most {MAX_ROWS:,} rows are read of one file"
            break
        item = None if row is None else _item(row, origin)
        if item is None:
            refused, why = refused + 1, why or f"row {number} says nothing, or is no object"
        else:
            items.append(item)
    return Parsed(items=tuple(items), refused=refused, why=why)


def _item(row: dict[str, Any], origin: Origin) -> FeedItem | None:
    told = {name: str(row.get(name) or "") for name in TEXTS}
    published = row.get("published_s") or row.get("published")
    tags = row.get("tags") or ()
    return origin.item(
        guid=told["id"],
        url=told["url"],
        account=told["author"],
        title=told["title"],
        html=told["text"],
        published=published if isinstance(published, str | float | int) else None,
        language=told["language"],
        tags=tuple(str(tag) for tag in (tags.split() if isinstance(tags, str) else tags)[:64])
        if isinstance(tags, str | list)
        else (),
    )


def _object(line: bytes) -> dict[str, Any] | None:
    if len(line) > MAX_LINE:
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
