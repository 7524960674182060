"""Posts at Mastodon: with an idempotency key, which a server keeps for an hour, and a code in the text, which stays.

After a crash one's own newest posts are read for the code, and only where it is not found the post is sent again, under
the same idempotency key: so neither a slow answer nor a long absence makes two of one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from html import unescape
from typing import TYPE_CHECKING, Any, Final

from chimera.content.accounts import Account, load_credentials
from chimera.content.publish.ledger import PostLedger
from chimera.content.publish.publisher import AccountPublisher, same_handle
from chimera.content.publish.types import Claim, marker
from chimera.content.rules.provenance import picture_bytes
from chimera.core.errors import ChimeraError, Forbidden, InputError, MissingExtra, RateLimited, SourceError
from chimera.security.safety.findings import Output

if TYPE_CHECKING:
    from mastodon import Mastodon

TIMEOUT_S: Final = 20.0
PAGE: Final = 40
MAX_PAGES: Final = 25
"""Of one's own posts that are read when one is looked for: ten days at the highest cap."""

CLOCKS_APART_S: Final = 600.0
WAIT_S: Final = 300.0
"""Mastodon's limits are for five minutes."""


class MastodonPublisher(AccountPublisher):
    """Sends by an account at a Mastodon server. References are the statuses' ids.

    Works only under the declared handle, and only where the profile says that it is a bot's. Raises MissingExtra
    without Mastodon.py.
    """

    def __init__(self, account: Account, ledger: PostLedger) -> None:
        super().__init__(account, ledger)
        self._client: Mastodon | None = None
        self._id = ""
        self._login = asyncio.Lock()

    async def _send(self, output: Output) -> str:
        claim = self._claimed(output)
        pictures = [(picture, picture_bytes(picture)) for picture in output.attached]
        client = await self._logged_in()
        media = []
        for picture, data in pictures:
            kind = picture.media_type
            made = await _asked(client.media_post, data, mime_type=kind, description=picture.alt, synchronous=True)
            media.append(made.id)
        status = await _asked(
            client.status_post,
            output.text,
            in_reply_to_id=(claim.replies[-1] if claim.replies else output.reply_to) or None,
            media_ids=media or None,
            visibility="unlisted" if output.reply_to else "public",
            language=output.language.partition("-")[0] or None,
            idempotency_key=claim.key,
        )
        return str(status.id)

    async def find(self, claim: Claim) -> str:
        client = await self._logged_in()
        code = f"[ref {marker(claim.key)}]"
        older = None
        for _ in range(MAX_PAGES):
            page = await _asked(client.account_statuses, self._id, limit=PAGE, max_id=older)
            for status in page:
                if code in unescape(re.sub(r"<[^>]*>", "", status.content)):
                    return str(status.id)
            if not page or page[-1].created_at.timestamp() < claim.at_s - CLOCKS_APART_S:
                return ""
            older = page[-1].id
        raise SourceError(f"whether {claim.key} is out cannot be told: too many posts came after it")

    async def take_down(self, reference: str) -> None:
        client = await self._logged_in()
        if not re.fullmatch(r"\w{1,64}", reference):
            raise InputError(f"{reference!r} is no status's id")
        from mastodon import MastodonNotFoundError

        try:
            await _asked(client.status_delete, reference)
        except InputError as error:
            if not isinstance(error.__cause__, MastodonNotFoundError):
                raise

    async def _logged_in(self) -> Mastodon:
        """The client, with the token of the declared account."""
        async with self._login:
            if self._client is not None:
                return self._client
            try:
                from mastodon import Mastodon
            except ImportError as error:
                raise MissingExtra("Mastodon.py", "content") from error
            if self.account.credentials is None:
                raise InputError(f"{self.account.name} has no credentials")
            secret = load_credentials(self.account.credentials).secret.get_secret_value()
            client = Mastodon(
                access_token=secret,
                api_base_url=self.account.server.rstrip("/"),
                ratelimit_method="throw",
                request_timeout=TIMEOUT_S,
            )
            profile = await _asked(client.account_verify_credentials)
            same_handle(self.account, profile.acct)
            if not profile.bot:
                raise Forbidden(f"mark {self.account.handle} as an automated account in its profile at Mastodon first")
            self._client, self._id = client, str(profile.id)
            return client


async def _asked(call: Callable[..., Any], *args: object, **more: object) -> Any:
    """What the call answers, from a thread; its errors as those of Chimera, by what is known after them."""
    from mastodon import MastodonError

    try:
        return await asyncio.to_thread(call, *args, **more)
    except MastodonError as error:
        raise _told(error) from error


def _told(error: Exception) -> ChimeraError:
    import mastodon as m

    said = f"{type(error).__name__}: {str(error)[:300]}"
    if isinstance(error, m.MastodonRatelimitError):
        return RateLimited(f"the server takes no more for now: {said}", WAIT_S)
    status = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], int) else 0
    if status in (401, 403):
        return Forbidden(f"the server does not let this account in: {said}")
    if isinstance(error, m.MastodonIllegalArgumentError) or (400 <= status < 500 and status not in (408, 425, 429)):
        return InputError(f"the server refuses it: {said}")
    return SourceError(f"the server cannot be asked: {said}")
