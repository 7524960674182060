"""Requests to one node: with a token, a time-out, and another try where that can do no harm.

A request is sent again if nothing of it can have arrived, or if sending it twice does it once: GET and DELETE, and a
POST with an Idempotency-Key, which stays the same.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chimera.core.errors import ChimeraError, ClusterError, InputError, MissingExtra, NoCluster, Unauthenticated
from chimera.http_client.problems import error_of, wait_s

try:
    import httpx2
except ModuleNotFoundError as error:
    raise MissingExtra("httpx2", "api") from error

TRIES = 5
PAUSE_S = 0.1
MAX_PAUSE_S = 5.0

AGAIN = frozenset({429, 502, 503, 504})
"""Answers after which the same may go well."""


class Transport:
    """One node's API. `timeout_s` is for each answer, and for how long is gone on with further tries."""

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        timeout_s: float = 30.0,
        ca: Path | None = None,
        plain: bool = False,
        transport: httpx2.AsyncBaseTransport | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Raises InputError for what is no address of a node, or would send the token over a network in clear."""
        self.url, local = checked(url, plain=plain)
        self.token = token
        self.refresh_token: str | None = None
        self._timeout_s = timeout_s
        self._rng = rng or random.Random()
        self._refreshing = asyncio.Lock()
        self._http = httpx2.AsyncClient(
            base_url=self.url,
            verify=ssl.create_default_context(cafile=ca) if self.url.startswith("https") else False,
            timeout=timeout_s,
            trust_env=not local,
            transport=transport,
        )

    def __repr__(self) -> str:
        return f"Transport({self.url!r})"

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, *, patience_s: float = 0.0, **parameters: Any) -> Any:
        """The JSON at `path`. It may take `patience_s` more than usual."""
        return await self._request("GET", path, parameters=_given(parameters), patience_s=patience_s)

    async def delete(self, path: str) -> Any:
        return await self._request("DELETE", path)

    async def post(self, path: str, body: Mapping[str, Any], *, once: bool = True, patience_s: float = 0.0) -> Any:
        """What is answered. With `once` it is sent again where no answer comes, and done once."""
        key = secrets.token_hex(16) if once else None
        return await self._request("POST", path, body=body, key=key, patience_s=patience_s)

    async def log_in(self, tokens: Mapping[str, Any]) -> None:
        """Use these from now on."""
        self.token, self.refresh_token = str(tokens["access_token"]), str(tokens["refresh_token"])

    @asynccontextmanager
    async def lines(self, path: str, *, patience_s: float, **parameters: Any) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of a stream with pauses of at most `patience_s`. Raises ClusterError where it breaks off."""
        request = self._http.build_request("GET", path, params=_given(parameters), timeout=self._timeout_s + patience_s)
        request.headers.update(self._who())
        try:
            response = await self._http.send(request, stream=True)
            try:
                if response.status_code >= 400:
                    await response.aread()
                    raise _error(response)
                yield response.aiter_lines()
            finally:
                await response.aclose()
        except httpx2.TransportError as error:
            raise self._lost(error) from error

    async def _request(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
        patience_s: float = 0.0,
        renews: bool = True,
    ) -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        repeatable = method != "POST" or key is not None
        until = asyncio.get_running_loop().time() + self._timeout_s
        for tried in range(1, TRIES + 1):
            token = self.token
            failure: ChimeraError
            pause_s = self._rng.uniform(0.0, min(MAX_PAUSE_S, PAUSE_S * 2**tried))
            try:
                response = await self._http.request(
                    method,
                    path,
                    params=parameters,
                    json=body,
                    headers={**headers, **self._who()},
                    timeout=self._timeout_s + patience_s,
                )
            except httpx2.TransportError as error:
                failure = self._lost(error)
                again = repeatable or isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            else:
                if response.status_code < 400:
                    return self._told(response)
                failure = _error(response)
                if isinstance(failure, Unauthenticated) and renews and await self._renewed(token):
                    renews = False
                    continue
                under_way = response.status_code == 409 and "retry-after" in response.headers
                again = repeatable and (response.status_code in AGAIN or under_way)
                pause_s = max(pause_s, _asked_to_wait(response))
            if not again or tried == TRIES or asyncio.get_running_loop().time() + pause_s > until:
                raise failure
            await asyncio.sleep(pause_s)
        raise ClusterError(f"the node at {self.url} does not take the tokens that it gave: log in again")

    async def _renewed(self, refused: str | None) -> bool:
        """Whether there is another token than this: new ones are had once for all who were refused with it."""
        async with self._refreshing:
            if self.token == refused and self.refresh_token:
                held, self.refresh_token = self.refresh_token, None  # one that is sent twice ends the session
                body = {"refresh_token": held}
                await self.log_in(await self._request("POST", "/api/auth/refresh", body=body, renews=False))
            return self.token != refused

    def _told(self, response: httpx2.Response) -> Any:
        try:
            return response.json() if response.content else None
        except ValueError:
            raise ClusterError(f"what answers at {self.url} is no node: its answer is not JSON") from None

    def _who(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def _lost(self, error: httpx2.TransportError) -> ClusterError:
        why = str(error) or type(error).__name__
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return NoCluster(f"no node answers at {self.url}: {why}; is `chimera serve` running there?")
        return ClusterError(f"the node at {self.url} gave no whole answer: {why}")


def checked(url: str, *, plain: bool) -> tuple[str, bool]:
    """The address without a slash at its end, and whether it is this machine's. Raises InputError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise InputError(f"{url!a:.200} is no address of a node: {error}") from None
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.query or parts.fragment:
        raise InputError(f"{url.rpartition('@')[2]!a:.200} is no address of a node, such as http://127.0.0.1:8700")
    local = host == "localhost" or _is_loopback(host)
    if parts.scheme == "http" and not local and not plain:
        raise InputError(f"the token would go to {host} in clear: use https, or say plain=True")
    return url.rstrip("/"), local


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _error(response: httpx2.Response) -> ChimeraError:
    try:
        document = response.json()
    except ValueError:
        document = None
    return error_of(response.status_code, document, response.headers.get("retry-after"))


def _asked_to_wait(response: httpx2.Response) -> float:
    told = response.headers.get("retry-after")
    return wait_s(told) if told is not None else 0.0


def _given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}
