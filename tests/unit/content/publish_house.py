"""A house with accounts, a ledger, a gateway with all checks, and a sender: what the tests of publishing share."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image
from pydantic import JsonValue

from chimera.content.accounts import Account, content_policy, declared
from chimera.content.provenance.c2pa import Identity, Provenance, SourceType, sign
from chimera.content.provenance.certificates import Credentials, own_credentials
from chimera.content.provenance.registry import Registry
from chimera.content.publish.bluesky import BlueskyPublisher
from chimera.content.publish.ledger import PostLedger
from chimera.content.publish.mastodon import MastodonPublisher
from chimera.content.publish.outbox import OutboxPublisher
from chimera.content.publish.publisher import AccountPublisher
from chimera.content.publish.sending import Sender
from chimera.content.publish.types import Handed, Post
from chimera.content.rules.every import content_checks
from chimera.core.clock import Clock, ManualClock, SystemClock
from chimera.security.safety.findings import Attachment
from chimera.security.safety.gateway import SafetyGateway

START_S = 1_800_000_000.0
TEXT = "The city library opens its reading garden on Tuesday, with forty seats under the lime trees."


def account(name: str = "acme", **more: Any) -> Account:
    """An account of the outbox, or another; no gap between posts unless a test wants one."""
    told = {
        "name": name,
        "platform": "outbox",
        "handle": name,
        "operator": {"name": "Acme GmbH", "contact": "press@acme.example"},
        "brand": "Acme",
        "automated": True,
        "caps": {"per_hour": 12, "per_day": 100, "gap_s": 0.0},
    }
    return Account.model_validate(told | more)


def at(platform: str, server: str, folder: Path, **more: Any) -> Account:
    """An account at a stub, with credentials of its own."""
    secret = folder / f"{platform}.json"
    if not secret.exists():
        secret.touch(mode=0o600)
        secret.write_text(json.dumps({"secret": "app-password"}))
    handle = {"bluesky": "acme.test", "mastodon": "acme"}[platform]
    return account(
        f"acme.{platform}",
        **({"platform": platform, "server": server, "handle": handle} | more | {"credentials": secret}),
    )


def post(text: str | tuple[str, ...] = TEXT, *, by: str = "acme", item: str = "item-1", **more: Any) -> Post:
    parts = (text,) if isinstance(text, str) else text
    return Post.model_validate({"account": by, "parts": parts, "item_id": item} | more)


@cache
def unsigned() -> bytes:
    """A PNG without credentials."""
    file = io.BytesIO()
    Image.linear_gradient("L").save(file, "PNG")
    return file.getvalue()


@cache
def _credentials() -> Credentials:
    with tempfile.TemporaryDirectory() as folder:
        return own_credentials(Path(folder), operator="Acme GmbH", clock=SystemClock())


@cache
def signed(by: str = "acme", operator: str = "Acme GmbH") -> bytes:
    """A PNG with the credentials of an account."""
    identity = Identity(account=by, operator=operator)
    provenance = Provenance(title="A garden", source_type=SourceType.ALGORITHM, identity=identity)
    return sign(unsigned(), "image/png", provenance, _credentials())


def picture(
    folder: Path, alt: str = "A garden with chairs under trees", data: bytes | None = None, by: str = "acme"
) -> Attachment:
    data = data or signed(by)
    path = folder / f"{hashlib.sha256(data).hexdigest()[:8]}.png"
    path.write_bytes(data)
    return Attachment(path=path, sha256=hashlib.sha256(data).hexdigest(), media_type="image/png", alt=alt)


@dataclass
class Audit:
    """An audit log that a test can read."""

    entries: list[tuple[str, str, str, Mapping[str, JsonValue]]] = field(default_factory=list)

    def append(
        self, actor: str, action: str, resource: str, outcome: str, detail: Mapping[str, JsonValue] | None = None
    ) -> None:
        self.entries.append((action, resource, outcome, detail or {}))

    def rules(self, *outcomes: str) -> set[str]:
        """The rules that were written down with one of these outcomes."""
        found: set[str] = set()
        for _, _, outcome, detail in self.entries:
            if outcome in outcomes:
                told: Any = detail.get("findings", [])
                found |= {one["rule"] for one in told} | set(detail.get("rules", []))  # type: ignore[arg-type]
        return found


class House:
    """All of it, in a folder. `agreed` audiences have been spoken to, so that nobody has to be asked about them."""

    def __init__(
        self,
        folder: Path,
        accounts: Iterable[Account] = (),
        *,
        clock: Clock | None = None,
        ledger: Callable[..., PostLedger] = PostLedger,
        settle_s: float = 0.0,
        registry: Registry | None = None,
    ) -> None:
        self.folder = folder
        self.accounts = declared(accounts or [account()])
        self.clock = clock or ManualClock(START_S)
        self.audit = Audit()
        self.ledger = ledger(folder / "posts.db", self.accounts.values(), clock=self.clock)
        self.gateway = SafetyGateway(
            content_policy(self.accounts.values()),
            self.clock,
            self.audit,
            checks=content_checks(self.accounts, self.ledger, clock=self.clock, registry=registry),
            approvals=self.ledger,
        )
        self.publishers = {name: self.publisher(one) for name, one in self.accounts.items()}
        self.sender = Sender(
            ledger=self.ledger,
            publishers=self.publishers,
            gateway=self.gateway,
            audit=self.audit,
            clock=self.clock,
            rng=Random(0),
            settle_s=settle_s,
        )

    def publisher(self, one: Account) -> AccountPublisher:
        if one.platform == "outbox":
            return OutboxPublisher(one, self.ledger, folder=self.folder / "outbox")
        return (BlueskyPublisher if one.platform == "bluesky" else MastodonPublisher)(one, self.ledger)

    async def submit(self, one: Post, **more: Any) -> Handed:
        """Hand it in, with a person's yes to a new audience and to nothing else."""
        handed = await self.sender.submit(one, **more)
        if handed.rules == ("audience.new",):
            handed = await self.sender.approve(handed.key, by="alice", **more)
        return handed

    def outbox(self, name: str = "acme") -> list[dict[str, Any]]:
        """What lies in an account's outbox, in no order."""
        return [json.loads(path.read_text()) for path in (self.folder / "outbox" / name).glob("*.json")]

    async def close(self) -> None:
        for publisher in self.publishers.values():
            await publisher.close()
        self.ledger.close()
