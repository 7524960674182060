"""Posts at Bluesky, by the AT Protocol: under a record key made from our own key, so that a second one has no place.

A record's key is a TID (a time of 53 bits and a clock's id of 10, https://atproto.com/specs/tid). Here both come from
the claim: the same part has the same key however often it is sent, and the server refuses to create a record twice.
After a crash the record is asked for by that key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from chimera.content.accounts import Account, load_credentials
from chimera.content.publish.ledger import PostLedger
from chimera.content.publish.publisher import AccountPublisher, same_handle
from chimera.content.publish.types import Claim, record_key
from chimera.content.rules.provenance import picture_bytes
from chimera.core.errors import ChimeraError, Forbidden, InputError, MissingExtra, RateLimited, SourceError
from chimera.security.safety.findings import Output

if TYPE_CHECKING:
    from atproto import AsyncClient

COLLECTION: Final = "app.bsky.feed.post"
LABEL: Final = "bot"
"""The label that every post gives itself, for programs; people read the disclosure."""

TIMEOUT_S: Final = 20.0


class BlueskyPublisher(AccountPublisher):
    """Sends by an account at a personal data server. References are `at://DID/app.bsky.feed.post/RKEY#CID`.

    Logs in when it is first needed, with the app password in the account's file of credentials, and works only under
    the declared handle. Raises MissingExtra without atproto.
    """

    def __init__(self, account: Account, ledger: PostLedger) -> None:
        super().__init__(account, ledger)
        self._client: AsyncClient | None = None
        self._did = ""

    async def _send(self, output: Output) -> str:
        claim = self._claimed(output)
        pictures = [(picture, picture_bytes(picture)) for picture in output.attached]
        client = await self._logged_in()
        from atproto import models

        images = []
        for picture, data in pictures:
            blob = (await _asked(client.upload_blob, data)).blob
            images.append(models.AppBskyEmbedImages.Image(alt=picture.alt, image=blob))
        record = _record(output, claim, models.AppBskyEmbedImages.Main(images=images) if images else None)
        data = models.ComAtprotoRepoCreateRecord.Data(
            repo=self._did, collection=COLLECTION, rkey=record_key(claim), record=record
        )
        try:
            made = await _asked(client.com.atproto.repo.create_record, data)
        except (InputError, SourceError):
            if there := await self.find(claim):
                return there
            raise
        return f"{made.uri}#{made.cid}"

    async def find(self, claim: Claim) -> str:
        client = await self._logged_in()
        from atproto import models

        wanted = models.ComAtprotoRepoGetRecord.Params(repo=self._did, collection=COLLECTION, rkey=record_key(claim))
        try:
            found = await _asked(client.com.atproto.repo.get_record, wanted)
        except InputError as error:
            if "RecordNotFound" in str(error) or "Could not locate record" in str(error):
                return ""
            raise SourceError(f"whether a post is there cannot be told: {error}") from error
        return f"{found.uri}#{found.cid}"

    async def take_down(self, reference: str) -> None:
        uri = reference.partition("#")[0]
        client = await self._logged_in()
        from atproto import models

        repo, collection, rkey = uri.removeprefix("at://").split("/")
        if repo != self._did or collection != COLLECTION:
            raise Forbidden(f"{uri} is no post of {self.account.name}")
        data = models.ComAtprotoRepoDeleteRecord.Data(repo=repo, collection=collection, rkey=rkey)
        await _asked(client.com.atproto.repo.delete_record, data)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.request.close()

    async def _logged_in(self) -> AsyncClient:
        """The client, with a session of the declared account."""
        if self._client is not None:
            return self._client
        try:
            from atproto import AsyncClient, AsyncRequest
        except ImportError as error:
            raise MissingExtra("atproto", "content") from error
        if self.account.credentials is None:
            raise InputError(f"{self.account.name} has no credentials")
        secret = load_credentials(self.account.credentials).secret.get_secret_value()
        client = AsyncClient(self.account.server, request=AsyncRequest(timeout=TIMEOUT_S))
        try:
            await _asked(client.login, self.account.handle.lstrip("@"), secret, fetch_bsky_profile=False)
            session = await _asked(client.com.atproto.server.get_session)
            same_handle(self.account, session.handle)
        except BaseException:
            await client.request.close()
            raise
        self._client, self._did = client, session.did
        return client


async def _asked(call: Callable[..., Awaitable[Any]], *args: object, **more: object) -> Any:
    """What the call answers; its errors as those of Chimera, by what is known after them."""
    import httpx
    from atproto import exceptions

    try:
        return await call(*args, **more)
    except (exceptions.AtProtocolError, httpx.HTTPError) as error:  # some of httpx's pass through atproto
        raise _told(error) from error
    except ValueError as error:  # an answer that is none
        raise SourceError(f"the server's answer cannot be read: {str(error)[:200]}") from error


def _told(error: Exception) -> ChimeraError:
    from atproto import exceptions

    said = f"{type(error).__name__}: {str(error)[:300]}"
    if isinstance(error, exceptions.RateLimitExceededError):
        return RateLimited(f"the server takes no more for now: {said}", _reset_in_s(error))
    if isinstance(error, exceptions.UnauthorizedError):
        return Forbidden(f"the server does not let this account in: {said}")
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if isinstance(error, exceptions.BadRequestError) or status == 413:
        return InputError(f"the server refuses it: {said}")
    return SourceError(f"the server cannot be asked: {said}")


def _reset_in_s(error: Any) -> float:
    """What the server asks to wait, by its own clock: `ratelimit-reset` is seconds since the epoch."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        if "retry-after" in headers:
            return float(headers["retry-after"])
        sent = datetime.strptime(headers["date"], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
        return max(1.0, float(headers["ratelimit-reset"]) - sent.timestamp())
    except (KeyError, ValueError):
        return 300.0


def _record(output: Output, claim: Claim, embed: Any) -> Any:
    from atproto import models
    from atproto_client.utils.facet_detection import detect_facets

    return models.AppBskyFeedPost.Record(
        text=output.text,
        created_at=datetime.fromtimestamp(claim.at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        facets=list(detect_facets(output.text)) or None,
        langs=[output.language or "en"],
        labels=models.ComAtprotoLabelDefs.SelfLabels(values=[models.ComAtprotoLabelDefs.SelfLabel(val=LABEL)]),
        reply=_reply(output, claim),
        embed=embed,
    )


def _reply(output: Output, claim: Claim) -> Any:
    """What it answers, and the root of that thread."""
    references = claim.replies or tuple(reversed(output.reply_to.split()))
    if not references:
        return None
    from atproto import models

    links = []
    for reference in (references[0], references[-1]):
        uri, _, cid = reference.partition("#")
        if not uri.startswith("at://") or not cid:
            raise InputError("what is answered at Bluesky is named as at://...#CID")
        links.append(models.ComAtprotoRepoStrongRef.Main(uri=uri, cid=cid))
    return models.AppBskyFeedPost.ReplyRef(root=links[0], parent=links[1])
