"""Reading feeds and timelines from the network: with limits, politely, and never from the inside of a network.

A feed's address is somebody else's choice, and so is where it redirects to. So each host is resolved here, every
address is checked, and the connection goes to an address that was checked: a name that resolves differently a moment
later gains nothing (DNS rebinding). Redirects are followed by hand, and checked in the same way.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
import stat
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from chimera.content.feeds.item import Origin, Parsed, web_url
from chimera.content.feeds.social import parse_bluesky, parse_mastodon
from chimera.content.feeds.syndication import MAX_BYTES, parse_feed
from chimera.core.clock import Clock
from chimera.core.errors import ChimeraError, Forbidden, InputError, MissingExtra, RateLimited, SourceError
from chimera.core.hashing import digest
from chimera.core.types import Frozen

MAX_REDIRECTS: Final = 5
MAX_REMEMBERED: Final = 10_000
MAX_FEEDS: Final = 1_000
MAX_WAIT_S: Final = 86_400.0
AT_ONCE: Final = 8
PORTS: Final = frozenset({80, 443, 8080, 8443})
ACCEPT: Final = "application/atom+xml, application/rss+xml, application/xml;q=0.9, text/xml;q=0.8, */*;q=0.1"
MAX_CREDENTIALS: Final = 8_192

NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

HEADERS: Final = ("ETag", "Last-Modified", "Retry-After")

T = TypeVar("T")

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to addresses."""


class Fetched(Frozen):
    """What came of asking for a feed: its items, or that it is `unchanged`, or an `error` that says what is wrong."""

    url: str
    unchanged: bool = False
    parsed: Parsed = Parsed()
    error: str = ""


async def resolve_here(host: str, port: int) -> list[str]:
    """By the system's resolver. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def is_public(address: str) -> bool:
    """Whether it is an address of the open Internet, whatever form it hides in."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


class _Checked(AbstractResolver):
    """Gives aiohttp nothing to connect to but addresses that were checked."""

    def __init__(self, resolve: Resolve, private_hosts: frozenset[str]) -> None:
        self._resolve, self._private_hosts = resolve, private_hosts

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolve(host, port)
        _check(host, found, self._private_hosts)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        return None


class FeedReader:
    """Reads RSS and Atom over HTTP. It asks a host for one thing at a time, `gap_s` apart, and only for what is new.

    Use it as a context manager. `private_hosts` are those that may be on this machine or its networks: feeds of one's
    own.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        secret: bytes = b"",
        private_hosts: Collection[str] = (),
        timeout_s: float = 20.0,
        gap_s: float = 1.0,
        resolve: Resolve = resolve_here,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock, self._secret, self._private_hosts = clock, secret, frozenset(private_hosts)
        self._timeout_s, self._gap_s, self._resolve, self._sleep = timeout_s, gap_s, resolve, sleep
        self._session: aiohttp.ClientSession | None = None
        self._validators: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._not_before: OrderedDict[str, float] = OrderedDict()
        self._turns: OrderedDict[str, asyncio.Lock] = OrderedDict()

    async def __aenter__(self) -> FeedReader:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=_Checked(self._resolve, self._private_hosts), use_dns_cache=False),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers={"User-Agent": "chimera-feeds", "Accept": ACCEPT, "Accept-Encoding": "identity"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def read_all(self, urls: Iterable[str]) -> list[Fetched]:
        """Each feed, in the order given; one that cannot be read says why, and holds up none of the others.

        Raises InputError for more than MAX_FEEDS.
        """
        asked = list(urls)
        if len(asked) > MAX_FEEDS:
            raise InputError(f"at most {MAX_FEEDS} feeds are read at once, not {len(asked)}")
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(url: str) -> Fetched:
            async with slots:
                try:
                    return await self.read(url)
                except ChimeraError as error:
                    return Fetched(url=url[:2_048], error=str(error))

        return await asyncio.gather(*map(one, asked))

    async def read(self, url: str) -> Fetched:
        """One feed. Its items' source is `feed:` and the host that was asked for.

        Raises InputError for what is no http(s) address, Forbidden for one that is not public, RateLimited where the
        host asked for patience, and SourceError where there is no feed to be had within the limits.
        """
        start = at = web_url(url)
        if not start:
            raise InputError(f"{url!a:.200} is no address of a feed: give one such as https://example.com/feed.xml")
        for _ in range(MAX_REDIRECTS + 1):
            status, headers, body = await self._get(at, start)
            if status == 304:
                return Fetched(url=start, unchanged=True)
            if status in (301, 302, 303, 307, 308):
                at = self._onward(at, headers.get("Location", ""))
                continue
            if status != 200:
                raise SourceError(f"{_shown(at)}: it answers {status}")
            origin = Origin(source=_source(start), seen_s=self._clock.now(), secret=self._secret)
            parsed = await asyncio.to_thread(parse_feed, body, origin)
            self._remember(start, headers)
            return Fetched(url=start, parsed=parsed)
        raise SourceError(f"{_shown(start)}: it redirects more than {MAX_REDIRECTS} times")

    def kept(self) -> dict[str, dict[str, str]]:
        """The ETag and Last-Modified of each feed, to hand to `restore` after a restart."""
        return {url: dict(found) for url, found in self._validators.items()}

    def restore(self, kept: dict[str, dict[str, str]]) -> None:
        for url, headers in kept.items():
            self._remember(url, headers)

    async def _get(self, at: str, start: str) -> tuple[int, dict[str, str], bytes]:
        if self._session is None:
            raise InputError("open the reader first: async with FeedReader(...) as reader")
        host = self._permitted(at)
        async with _bounded(self._turns, host, asyncio.Lock()):
            wait = self._not_before.get(host, 0.0) - self._clock.monotonic()
            if wait > self._gap_s:
                raise RateLimited(f"{host} asked for patience: come again in {wait:.0f} s", wait)
            if wait > 0.0:
                await self._sleep(wait)
            try:
                answer = await self._ask(self._session, at, self._validators.get(start, {}) if at == start else {})
            finally:
                self._later(host, self._gap_s)
            if answer[0] in (429, 503):
                pause = _pause(answer[1].get("Retry-After", ""), self._clock.now())
                self._later(host, pause)
                raise RateLimited(f"{host} asks for patience: come again in {pause:.0f} s", pause)
            return answer

    async def _ask(
        self, session: aiohttp.ClientSession, at: str, known: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        asked = {
            ours: known[theirs]
            for ours, theirs in (("If-None-Match", "ETag"), ("If-Modified-Since", "Last-Modified"))
            if theirs in known
        }
        try:
            async with session.get(at, headers=asked, allow_redirects=False) as response:
                headers = {name: response.headers.get(name, "")[:1_024] for name in HEADERS if name in response.headers}
                if "Location" in response.headers:
                    headers["Location"] = response.headers["Location"][:2_048]
                if response.status != 200:
                    return response.status, headers, b""
                if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise SourceError(f"{_shown(at)}: it answers compressed, without having been asked to")
                body = bytearray()
                async for chunk in response.content.iter_chunked(1 << 16):
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise SourceError(f"{_shown(at)}: a feed has at most {MAX_BYTES:,} bytes, this one has more")
                return response.status, headers, bytes(body)
        except TimeoutError:
            raise SourceError(f"{_shown(at)}: no whole answer in {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SourceError(f"{_shown(at)}: it cannot be read: {type(error).__name__}") from error

    def _permitted(self, at: str) -> str:
        """The host, as politeness goes by it. An address that stands in a URL never sees the resolver."""
        parts = urlsplit(at)
        try:
            host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise InputError(f"{_shown(at)} has no such port") from None
        if ":" in host or host.replace(".", "").isdecimal():
            _check(host, [host], self._private_hosts)
        if port not in PORTS and host not in self._private_hosts:
            raise Forbidden(f"{_shown(at)}: feeds are read from the ports {', '.join(map(str, sorted(PORTS)))} only")
        return host

    def _onward(self, at: str, location: str) -> str:
        target = web_url(urljoin(at, location)) if location else ""
        if not target:
            raise SourceError(f"{_shown(at)}: it redirects to what is no address of a feed")
        if at.startswith("https:") and not target.startswith("https:"):
            raise Forbidden(f"{_shown(at)}: it redirects from https to http, which is not followed")
        return target

    def _later(self, host: str, wait_s: float) -> None:
        until = max(self._not_before.pop(host, 0.0), self._clock.monotonic() + wait_s)
        _bounded(self._not_before, host, until)

    def _remember(self, url: str, headers: dict[str, str]) -> None:
        self._validators.pop(url, None)
        if found := {name: headers[name] for name in ("ETag", "Last-Modified") if headers.get(name)}:
            _bounded(self._validators, url, found)


async def read_bluesky(credentials: Path, *, clock: Clock, secret: bytes = b"", limit: int = 100) -> Parsed:
    """The home timeline of an account, by the atproto client.

    `credentials` is a JSON file with `handle`, `password` (an app password) and, unless it is bsky.social, `service`.
    Raises InputError for what is no such file, SourceError where the server cannot be asked, MissingExtra.
    """
    told = read_credentials(credentials, ("handle", "password"))
    try:
        from atproto import AsyncClient
        from atproto_client.exceptions import AtProtocolError
    except ImportError:
        raise MissingExtra("atproto", "content") from None
    client: Any = AsyncClient(told["service"].rstrip("/") + "/xrpc" if "service" in told else None)
    try:
        await client.login(told["handle"], told["password"], fetch_bsky_profile=False)
        answer = await client.get_timeline(limit=min(max(limit, 1), 100))
    except (AtProtocolError, OSError, ValueError) as error:
        raise SourceError(f"Bluesky cannot be read: {type(error).__name__}") from error
    timeline = {"feed": [each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in answer.feed]}
    return parse_bluesky(timeline, Origin(source="bluesky:home", seen_s=clock.now(), secret=secret))


async def read_mastodon(credentials: Path, *, clock: Clock, secret: bytes = b"", limit: int = 40) -> Parsed:
    """The home timeline of an account, by Mastodon.py.

    `credentials` is a JSON file with `service`, such as https://mastodon.social, and `access_token`. Raises as
    `read_bluesky` does.
    """
    told = read_credentials(credentials, ("service", "access_token"))
    try:
        from mastodon import Mastodon, MastodonError
    except ImportError:
        raise MissingExtra("Mastodon.py", "content") from None

    def ask() -> list[Any]:
        client: Any = Mastodon(
            access_token=told["access_token"],
            api_base_url=told["service"],
            ratelimit_method="throw",
            request_timeout=20,
            user_agent="chimera-feeds",
        )
        return list(client.timeline_home(limit=min(max(limit, 1), 40)))

    try:
        statuses = await asyncio.to_thread(ask)
    except (MastodonError, OSError, ValueError) as error:
        raise SourceError(f"Mastodon cannot be read: {type(error).__name__}") from error
    source = f"mastodon:{urlsplit(told['service']).hostname}"
    return parse_mastodon(statuses, Origin(source=source, seen_s=clock.now(), secret=secret))


def read_credentials(path: Path, needed: tuple[str, ...]) -> dict[str, str]:
    """A JSON file of strings that nobody else can read. Raises InputError that never repeats what stands in it."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(MAX_CREDENTIALS + 1)
        found = json.loads(data) if len(data) <= MAX_CREDENTIALS else None
    except OSError as error:
        raise InputError(f"{path}: the credentials cannot be read: {error.strerror}") from error
    except ValueError:
        found = None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(f"{path} can be read by others: chmod 600 it")
    if not isinstance(found, dict) or not all(isinstance(value, str) and value for value in found.values()):
        raise InputError(f"{path} must be a JSON object of strings: {', '.join(needed)}")
    if missing := [name for name in needed if name not in found]:
        raise InputError(f"{path} lacks {', '.join(missing)}")
    host = urlsplit(found.get("service", "https://bsky.social"))
    if host.scheme != "https" and not (host.scheme == "http" and host.hostname in ("127.0.0.1", "::1", "localhost")):
        raise InputError(f"{path}: `service` must begin with https://, or a password would be sent in the clear")
    return found


def _check(host: str, addresses: list[str], private_hosts: frozenset[str]) -> None:
    if host not in private_hosts and not (addresses and all(map(is_public, addresses))):
        raise Forbidden(f"{host!a:.100} is not on the open Internet: feeds are read from public addresses only")


def _source(url: str) -> str:
    """A name for where a feed is: its host, in ASCII."""
    host = urlsplit(url).hostname or ""
    try:
        name = host.encode("idna").decode()
    except UnicodeError:
        name = digest([host])
    return f"feed:{name}"[:128]


def _shown(url: str) -> str:
    """Without its query, which may hold a secret."""
    return f"{url.partition('?')[0]!a:.200}".strip("'")


def _pause(told: str, now: float) -> float:
    """Seconds of a Retry-After (RFC 9110, section 10.2.3): a number or a date; a minute where it is neither."""
    try:
        wait = float(told) if told.strip().isdecimal() else parsedate_to_datetime(told).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        wait = 60.0
    return min(max(wait, 1.0), MAX_WAIT_S)


def _bounded(held: OrderedDict[str, T], key: str, value: T) -> T:
    """What is held under `key`, else `value`, held from now on; the oldest goes when there are too many."""
    found = held.setdefault(key, value)
    if len(held) > MAX_REMEMBERED:
        held.popitem(last=False)
    return found
