"""One thing that somebody published, as little of it as is needed, and marked as what it is: somebody else's words.

Of an author there is kept a keyed hash and no name: it tells voices apart and nothing more. Text is stripped of HTML,
of whatever cannot be seen (bidirectional marks, tag characters, zero-width spaces: where instructions hide), and cut.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import Field

from chimera.content.feeds.markup import plain, plain_html
from chimera.core.errors import InputError
from chimera.core.hashing import digest
from chimera.core.types import Frozen
from chimera.security.gateway.taint import SOURCE, Tainted

MAX_TITLE: Final = 300
MAX_TEXT: Final = 4_000
MAX_URL: Final = 2_048
MAX_TAGS: Final = 16
MAX_LINKS: Final = 16
MAX_WORD: Final = 64

EARLIEST_S: Final = 631_152_000.0
"""1990: a date before that is a mistake, such as a clock that was never set."""

Url = Annotated[str, Field(max_length=MAX_URL)]


class FeedItem(Frozen):
    """A post or an article. `id` follows from where it came from and what it is called there.

    `author` is a keyed hash of the account that its platform vouches for; empty for a feed, which may make up as many
    authors' names as it likes. `published_s` are seconds since the epoch, never later than when it was read.
    """

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    source: Annotated[str, Field(pattern=rf"^{SOURCE.pattern}$")]
    url: Url = ""
    author: Annotated[str, Field(pattern=r"^([0-9a-f]{24})?$")] = ""
    title: Annotated[str, Field(max_length=MAX_TITLE)] = ""
    text: Annotated[str, Field(max_length=MAX_TEXT)] = ""
    published_s: Annotated[float, Field(ge=EARLIEST_S, le=1e11, allow_inf_nan=False)]
    language: Annotated[str, Field(max_length=16)] = ""
    tags: Annotated[tuple[str, ...], Field(max_length=MAX_TAGS)] = ()
    links: Annotated[tuple[Url, ...], Field(max_length=MAX_LINKS)] = ()

    @property
    def voice(self) -> str:
        """Who says it, as far as one voice can be told from another: the account, else the source as a whole."""
        return self.author or self.source

    def tainted(self) -> Tainted:
        """Title and text for a prompt: data, of which its source is the author."""
        return Tainted("\n\n".join(part for part in (self.title, self.text) if part), frozenset({self.source}))


class Parsed(Frozen):
    """What was found in a document, and how many of its entries could not be used; `why` says it of the first."""

    items: tuple[FeedItem, ...] = ()
    refused: int = 0
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a document is from and when it was read. `secret` keys the hashes of authors: keep it, or voices change.

    Raises InputError for a source that is no name such as `feed:example.com` or `bluesky:home`.
    """

    source: str
    seen_s: float
    secret: bytes = b""

    def __post_init__(self) -> None:
        if not SOURCE.fullmatch(self.source):
            raise InputError(f"{self.source!a:.150} is no source: letters, digits and _.:/@+- , at most 128 characters")
        if not (math.isfinite(self.seen_s) and self.seen_s >= EARLIEST_S):
            raise InputError("an item is read at a time in seconds since the epoch, after 1990")
        if len(self.secret) > 64:
            raise InputError("the secret for authors' hashes has at most 64 bytes")

    def author(self, account: str) -> str:
        """The keyed hash (BLAKE2b, RFC 7693) of an account's name; empty for none."""
        if not account:
            return ""
        data = account[:MAX_URL].casefold().encode("utf-8", "replace")
        return hashlib.blake2b(data, digest_size=12, key=self.secret).hexdigest()

    def item(
        self,
        *,
        guid: str,
        url: str = "",
        account: str = "",
        title: str = "",
        html: str = "",
        published: str | float | datetime | None = None,
        language: str = "",
        tags: tuple[str, ...] = (),
        links: tuple[str, ...] = (),
    ) -> FeedItem | None:
        """The item, cleaned and cut; None for one that says nothing. Without a `guid` its URL or its words name it."""
        title, _ = plain_html(title, MAX_TITLE)
        text, found = plain_html(html, MAX_TEXT)
        if not title and not text:
            return None
        url = web_url(url)
        name = plain(guid, MAX_URL) or url or f"{title}\n{text}"
        kept = dict.fromkeys(link for link in map(web_url, (*links, *found)) if link and link != url)
        words = dict.fromkeys(word for word in (plain(tag.lstrip("#"), MAX_WORD) for tag in tags) if word)
        return FeedItem(
            id=digest([self.source, name]),
            source=self.source,
            url=url,
            author=self.author(account),
            title=title,
            text=text,
            published_s=self.moment(published),
            language=language[:16] if language.isascii() and language.replace("-", "").isalnum() else "",
            tags=tuple(words)[:MAX_TAGS],
            links=tuple(kept)[:MAX_LINKS],
        )

    def moment(self, published: str | float | datetime | None) -> float:
        """Seconds since the epoch. A date that is missing, broken, too old or in the future is when it was read."""
        at = _seconds(published)
        return self.seen_s if at is None or at < EARLIEST_S else min(at, self.seen_s)


def web_url(url: str) -> str:
    """An absolute http(s) URL without user, password and fragment; empty for anything else."""
    url = url.strip()
    if not url or len(url) > MAX_URL or not url.isprintable():
        return ""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return ""
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    except ValueError:
        return ""


def _seconds(published: str | float | datetime | None) -> float | None:
    if isinstance(published, str):
        published = _date(published.strip()[:64])
    try:
        if isinstance(published, datetime):
            return (published if published.tzinfo else published.replace(tzinfo=UTC)).timestamp()
        return None if published is None or not math.isfinite(published) else float(published)
    except (OverflowError, ValueError):
        return None


def _date(text: str) -> datetime | float | None:
    """ISO 8601, the date of a mail (RFC 5322), or seconds."""
    for read in (datetime.fromisoformat, parsedate_to_datetime, float):
        try:
            return read(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None
