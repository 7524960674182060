"""Notices as signed HTTP requests (Standard Webhooks, https://www.standardwebhooks.com, version 1).

The address is the operator's, and yet it is looked at: a name that leads into a private network, or a redirect there,
would let this process be used to reach what only it can reach. The host is looked up once, what was found is what is
connected to, and no redirect is followed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import ipaddress
import random
import socket
import ssl
from urllib.parse import SplitResult, urlsplit

from chimera.core.clock import Clock
from chimera.core.errors import InputError, SourceError
from chimera.llm.backoff import Backoff
from chimera.review.notices import Notice

MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
SECRET_PREFIX = "whsec_"
TIMEOUT_S = 10.0
MAX_STATUS_BYTES = 1_000

TUNNELS = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "2002::/16", "2001::/32")))
"""IPv6 addresses that stand for an IPv4 one, which may be private (RFC 6052, 3056, 4380)."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def read_secret(text: str) -> bytes:
    """The bytes of a secret, as `whsec_` and base64 of 24 to 64 bytes. Raises InputError, which does not repeat it."""
    try:
        secret = base64.b64decode(text.strip().removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES or not text.startswith(SECRET_PREFIX):
        sizes = f"{MIN_SECRET_BYTES} to {MAX_SECRET_BYTES}"
        raise InputError(f"a webhook's secret is {SECRET_PREFIX} and base64 of {sizes} bytes")
    return secret


def signature(secret: bytes, notice_id: str, at_s: int, body: bytes) -> str:
    """The value of `webhook-signature`: an HMAC (RFC 2104) with SHA-256 over id, time and body."""
    signed = f"{notice_id}.{at_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


class Webhook:
    """POSTs notices to `url`. It must be https, or on this machine (localhost, 127.0.0.1, [::1]).

    `allow_private` lets the host be in a private network. A request that fails is made again as `backoff` says; then
    `tell` raises SourceError. Raises InputError for a URL that cannot be used.
    """

    def __init__(
        self,
        *,
        url: str,
        secret: bytes,
        clock: Clock,
        generator: random.Random,
        allow_private: bool = False,
        backoff: Backoff | None = None,
        timeout_s: float = TIMEOUT_S,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._parts = _checked(url)
        self.name = f"webhook-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        self._secret = secret
        self._clock = clock
        self._generator = generator
        self._allow_private = allow_private
        self._backoff = backoff or Backoff()
        self._timeout_s = timeout_s
        self._tls = tls

    async def tell(self, notice: Notice) -> None:
        body = notice.model_dump_json().encode()
        failed = 0
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    status = await self._post(notice.id, body)
                if 200 <= status < 300:
                    return
                why = f"it answered {status}" + (", and redirects are not followed" if 300 <= status < 400 else "")
            except TimeoutError:
                why = f"it did not answer within {self._timeout_s:g} s"
            except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
                why = str(error) or type(error).__name__
            failed += 1
            pause_s = self._backoff.pause_s(failed, self._generator)
            if pause_s is None:
                raise SourceError(f"the webhook at {self._parts.hostname} does not take {notice.id}: {why}")
            await asyncio.sleep(pause_s)

    async def _post(self, notice_id: str, body: bytes) -> int:
        """The status of the answer; the rest of it is not read."""
        host, secure = self._parts.hostname or "", self._parts.scheme == "https"
        port = self._parts.port or (443 if secure else 80)
        address = await self._address(host, port)
        tls = (self._tls or ssl.create_default_context()) if secure else None
        reader, writer = await asyncio.open_connection(
            str(address), port, ssl=tls, server_hostname=host if secure else None, limit=MAX_STATUS_BYTES
        )
        try:
            writer.write(self._request(notice_id, body))
            await writer.drain()
            version, status, *_ = (await reader.readuntil(b"\n")).split(None, 2)
            if not version.startswith(b"HTTP/1.") or len(status) != 3:
                raise ValueError("it does not speak HTTP")
            return int(status)
        finally:
            writer.close()

    def _request(self, notice_id: str, body: bytes) -> bytes:
        at_s = int(self._clock.now())
        target = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
        headers = {
            "Host": self._parts.netloc,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "User-Agent": "chimera-review",
            "webhook-id": notice_id,
            "webhook-timestamp": str(at_s),
            "webhook-signature": signature(self._secret, notice_id, at_s, body),
            "Connection": "close",
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST {target} HTTP/1.1\r\n{lines}\r\n".encode("ascii") + body

    async def _address(self, host: str, port: int) -> Address:
        """Where to connect to. Raises OSError where there is nothing, or nothing that may be reached."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]
        for address in addresses:
            if not self._may_reach(host, address):
                raise OSError(f"{host} is {address}, which is not public: allow_private lets it be")
        return addresses[0]

    def _may_reach(self, host: str, address: Address) -> bool:
        mapped = getattr(address, "ipv4_mapped", None) or address
        if mapped.is_loopback:
            return _is_local(host)
        if any(address in tunnel for tunnel in TUNNELS):
            return False
        if mapped.is_link_local or mapped.is_multicast or mapped.is_unspecified or mapped.is_reserved:
            return False
        return self._allow_private or mapped.is_global


def _checked(url: str) -> SplitResult:
    """The parts of a URL. Raises InputError, which does not repeat it: a password may be in it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise InputError(f"a webhook's URL cannot be read: {error}") from None
    if not url.isascii() or any(c.isspace() or not c.isprintable() for c in url) or "@" in parts.netloc or not host:
        raise InputError("a webhook's URL is https://HOST/PATH, in ASCII and without a user or a space")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_local(host)):
        raise InputError(f"the webhook at {host} must be https: what it is told is not for others on the way")
    return parts


def _is_local(host: str) -> bool:
    """Whether the host is written as this machine; a name that merely leads here is not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
