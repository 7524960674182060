"""Asking a web server for a document of bounded size in bounded time."""

from __future__ import annotations

import asyncio
import os
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp

from chimera.anomaly.sources.addresses import shown_url
from chimera.core.errors import InputError, SourceError

MAX_DOCUMENT_BYTES = 32 * 1024 * 1024


class Document(NamedTuple):
    status: int
    kind: str
    """Its content type, without parameters."""
    body: bytes


def checked_url(url: str) -> str:
    """The URL without a slash at its end. Raises InputError for what is no http(s) URL with a host."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or len(url) > 2_048:
        raise InputError(f"{shown_url(url)!a:.200} is not a URL: give one such as http://127.0.0.1:9090")
    return url.rstrip("/")


def token_of(variable: str | None) -> str | None:
    """The bearer token in this environment variable. Raises InputError when it is named and not set."""
    if variable is None:
        return None
    token = os.environ.get(variable, "").strip()
    if not token or not token.isprintable():
        raise InputError(f"the environment variable {variable} is to hold the bearer token, and is not set")
    return token


def open_session(timeout_s: float, token: str | None = None) -> aiohttp.ClientSession:
    """A client that keeps no cookies and inflates nothing: what is read is what was sent, so its size is known."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "chimera"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        headers=headers,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


async def fetch(
    session: aiohttp.ClientSession,
    url: str,
    *,
    form: dict[str, str] | None = None,
    accept: str = "*/*",
    limit: int = MAX_DOCUMENT_BYTES,
) -> Document:
    """GET, or POST with a form. Follows no redirects, so that a token goes nowhere else.

    Raises SourceError when no document of at most `limit` bytes can be had.
    """
    try:
        async with session.request(
            "GET" if form is None else "POST", url, data=form, headers={"Accept": accept}, allow_redirects=False
        ) as response:
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise SourceError(f"{shown_url(url)}: it answers compressed, without having been asked to")
            body = bytearray()
            async for chunk in response.content.iter_chunked(1 << 16):
                body += chunk
                if len(body) > limit:
                    raise SourceError(
                        f"{shown_url(url)}: its answer is longer than {limit:,} bytes; ask for less of it"
                    )
            return Document(response.status, response.content_type, bytes(body))
    except TimeoutError:
        raise SourceError(f"{shown_url(url)}: no whole answer in {session.timeout.total:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise SourceError(f"{shown_url(url)}: {_reason(error)}") from error
    except asyncio.IncompleteReadError as error:
        raise SourceError(f"{shown_url(url)}: its answer breaks off") from error


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"it cannot be reached: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.InvalidURL):
        return "it is not a URL"
    # the whole text of a ClientResponseError holds the URL, with its query
    told = error.message if isinstance(error, aiohttp.ClientResponseError) else error
    return f"{type(error).__name__}: {told}"[:300]
