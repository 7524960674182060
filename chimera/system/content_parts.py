"""What a campaign works with, opened together: ledgers, the gateway with all checks, the log, the studio, the queue.

Everything is kept in CHIMERA_HOME/content: `campaigns.db` (what was read and made), `posts.db` (what went out),
`made.db` (hashes of all that was made), `mentions.db`, `media`, `outbox`, `credentials` (which sign the pictures) and
`audit`. One process at a time works there, which is the one that has the audit log.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chimera.content.accounts import Account, content_policy
from chimera.content.engage.handled import Mentions
from chimera.content.media.store import MediaFolder
from chimera.content.media.studio import Studio
from chimera.content.provenance.c2pa import Identity
from chimera.content.provenance.certificates import own_credentials
from chimera.content.provenance.registry import Registry
from chimera.content.publish.bluesky import BlueskyPublisher
from chimera.content.publish.ledger import PostLedger
from chimera.content.publish.mastodon import MastodonPublisher
from chimera.content.publish.outbox import OutboxPublisher
from chimera.content.publish.publisher import AccountPublisher
from chimera.content.publish.sending import SETTLE_S, Sender
from chimera.content.rules.every import content_checks
from chimera.core.clock import Clock, SystemClock
from chimera.core.config import Settings
from chimera.core.errors import AuditBusy, InputError, StorageError
from chimera.llm.images import ImageModel, OpenAIImages
from chimera.review.policy import KindRule, ReviewPolicy
from chimera.review.queue import ReviewQueue
from chimera.security.audit import AuditLog
from chimera.security.audit_entry import signing_key
from chimera.security.safety.gateway import SafetyGateway
from chimera.security.safety.policy import Channel, SafetyPolicy
from chimera.storage.whole_file import write_whole
from chimera.system.content_campaign import Campaign
from chimera.system.content_record import CampaignRecord
from chimera.system.review import open_desk, read_policy

AUDIT_WAIT_S: Final = 10.0
"""For another command to be done with the log: it has one writer."""
RETRY_S: Final = 0.05
SECRET_BYTES: Final = 32
SOURCES: Final = "content.sources"
"""The channel by which texts of others are looked through before anything is made of them. Nothing goes out there."""
FLAGGED: Final = "publish_flagged"
"""The kind of a post that a rule holds: a person decides on it whatever the confidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where everything of the installation's content lies."""

    home: Path

    @property
    def folder(self) -> Path:
        return self.home / "content"

    @property
    def record(self) -> Path:
        return self.folder / "campaigns.db"

    @property
    def posts(self) -> Path:
        return self.folder / "posts.db"

    @property
    def made(self) -> Path:
        return self.folder / "made.db"

    @property
    def mentions(self) -> Path:
        return self.folder / "mentions.db"

    @property
    def outbox(self) -> Path:
        return self.folder / "outbox"

    @property
    def credentials(self) -> Path:
        return self.folder / "credentials"

    def inbox(self, account: str) -> Path:
        return self.folder / "inbox" / f"{account}.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """All of it, open. `sources` looks through texts of others; `gateway` through all that is to go out."""

    campaign: Campaign
    places: Places
    clock: Clock
    secret: bytes
    record: CampaignRecord
    ledger: PostLedger
    mentions: Mentions
    registry: Registry
    media: MediaFolder
    audit: AuditLog
    gateway: SafetyGateway
    sources: SafetyGateway
    sender: Sender
    queue: ReviewQueue

    def studio(self) -> Studio:
        """Made when there is something to draw: it signs, and so needs the extra."""
        account = self.campaign.account
        return Studio(
            folder=self.media,
            registry=self.registry,
            credentials=own_credentials(self.places.credentials, operator=account.operator.name, clock=self.clock),
            identity=Identity(account=account.name, operator=account.operator.name),
            image_model=_image_model(self.campaign.file.image_model),
        )


@asynccontextmanager
async def open_parts(settings: Settings, campaign: Campaign, *, clock: Clock | None = None) -> AsyncIterator[Parts]:
    """Everything, until the block ends. Making the gateway takes seconds.

    Raises AuditBusy while another process works there, Forbidden for accounts that were others before, InputError,
    StorageError, and MissingExtra.
    """
    clock = clock or SystemClock()
    places = Places(home=settings.home)
    accounts = campaign.accounts
    async with AsyncExitStack() as stack:
        audit = await _log(places.folder / "audit", settings.home / "security" / "audit.pem", clock)
        stack.callback(audit.close)
        ledger = PostLedger(places.posts, accounts.values(), clock=clock)
        stack.callback(ledger.close)
        record = CampaignRecord(places.record, clock=clock)
        stack.callback(record.close)
        mentions = Mentions(places.mentions, clock=clock)
        stack.callback(mentions.close)
        registry = Registry(places.made, clock=clock)
        stack.callback(registry.close)
        checks = content_checks(accounts, ledger, clock=clock, registry=registry)
        policy = content_policy(accounts.values())
        gateway = await asyncio.to_thread(SafetyGateway, policy, clock, audit, checks=checks, approvals=ledger)
        reading = SafetyPolicy(channels={SOURCES: Channel(disclosure=None)}, on_review="pass")
        publishers = {one.name: _publisher(one, ledger, places) for one in accounts.values()}
        for publisher in publishers.values():
            stack.push_async_callback(publisher.close)
        sender = Sender(
            ledger=ledger,
            publishers=publishers,
            gateway=gateway,
            audit=audit,
            clock=clock,
            rng=random.Random(),
            # Nothing is on its way to a folder any more once its sender is dead.
            settle_s=0.0 if all(one.platform == "outbox" for one in accounts.values()) else SETTLE_S,
        )
        review = None if campaign.file.review is None else campaign.path(campaign.file.review)
        desk = await stack.enter_async_context(
            open_desk(settings, policy=_with_flagged(read_policy(settings, review)), name=campaign.file.queue)
        )
        stack.push_async_callback(desk.record)
        yield Parts(
            campaign=campaign,
            places=places,
            clock=clock,
            secret=_secret(places.folder / "secret"),
            record=record,
            ledger=ledger,
            mentions=mentions,
            registry=registry,
            media=MediaFolder(places.folder / "media"),
            audit=audit,
            gateway=gateway,
            sources=await asyncio.to_thread(SafetyGateway, reading, clock, audit),
            sender=sender,
            queue=desk.queue,
        )


def _publisher(account: Account, ledger: PostLedger, places: Places) -> AccountPublisher:
    match account.platform:
        case "bluesky":
            return BlueskyPublisher(account, ledger)
        case "mastodon":
            return MastodonPublisher(account, ledger)
        case "outbox":
            return OutboxPublisher(account, ledger, folder=places.outbox)


def _with_flagged(policy: ReviewPolicy) -> ReviewPolicy:
    """The policy, in which what a rule holds always waits, for those who decide on what is published."""
    rule = policy.kinds.get("publish", KindRule()).model_copy(update={"critical": True})
    return policy.model_copy(update={"kinds": {**policy.kinds, FLAGGED: rule}})


def _image_model(name: str | None) -> ImageModel | None:
    if name is None:
        return None
    model, at, url = name.partition("@http")
    if not model or not at:
        raise InputError(f"image_model: {name!a:.200} is not MODEL@URL, with an URL from https:// on")
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    return OpenAIImages(name, model=model, base_url="http" + url, api_key=key)


def _secret(path: Path) -> bytes:
    """What keys the hashes of authors' names; made once, for the owner alone."""
    try:
        if not path.exists():
            write_whole(path, secrets.token_bytes(SECRET_BYTES))
        return path.read_bytes()[:SECRET_BYTES]
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


async def _log(folder: Path, key: Path, clock: Clock) -> AuditLog:
    signer = signing_key(key)
    until = clock.monotonic() + AUDIT_WAIT_S
    await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
    while True:
        with suppress(AuditBusy):
            return await asyncio.to_thread(AuditLog, folder, signer, clock=clock)
        if clock.monotonic() > until:
            raise AuditBusy(f"another process works in {folder.parent}: wait for it, or end it")
        await asyncio.sleep(RETRY_S)
