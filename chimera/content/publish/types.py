"""A post, where it stands, and what came of handing it in."""

from __future__ import annotations

import base64
import hashlib
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, field_validator

from chimera.content.accounts import Account
from chimera.core.types import Frozen, Name
from chimera.security.safety.findings import MAX_ATTACHMENTS, Attachment, Output, digest_of

MAX_PARTS: Final = 12
MAX_PART_CHARS: Final = 10_000
AUTHOR: Final = "content"
_DIGITS: Final = "234567abcdefghijklmnopqrstuvwxyz"

Part = Annotated[str, Field(min_length=1, max_length=MAX_PART_CHARS)]


class Post(Frozen):
    """What is to go out by an account: one text, or a thread of several. The pictures go with the first.

    `item_id` is the item that it was made of; `reply_to` the platform's reference of what it answers: a status's id at
    Mastodon, `URI#CID` at Bluesky, followed by a space and the thread's root if that is another.
    """

    account: Annotated[str, Field(min_length=1, max_length=64)]
    parts: tuple[Part, ...] = Field(min_length=1, max_length=MAX_PARTS, repr=False)
    media: tuple[Attachment, ...] = Field(default=(), max_length=MAX_ATTACHMENTS)
    reply_to: Annotated[str, Field(max_length=900)] = ""
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = "en"
    item_id: Name
    audience: Annotated[str, Field(min_length=1, max_length=256)] = "public"

    @field_validator("parts")
    @classmethod
    def _say_something(cls, parts: tuple[str, ...]) -> tuple[str, ...]:
        parts = tuple(part.strip() for part in parts)  # or white space would make another post of it
        if not all(parts):
            raise ValueError("every part of a post says something")
        return parts

    @property
    def key(self) -> str:
        """What makes it this post and no other: it is sent once, however often it is handed in."""
        pictures = tuple(text for one in self.media for text in (one.sha256, one.alt))
        return digest_of((self.account, self.audience, self.item_id, self.reply_to, *self.parts, *pictures))[:32]


def part_key(key: str, number: int) -> str:
    """The key of one part of a post. Under it, and no other, that part is sent."""
    return f"{key}.{number}"


def marker(part: str) -> str:
    """A short code for readers, by which a post is found again where the platform takes no key of ours."""
    return base64.b32encode(hashlib.sha256(part.encode()).digest())[:12].decode().lower()


def outputs(post: Post, account: Account) -> tuple[Output, ...]:
    """What is reviewed and sent for each part. A later part answers the one before it, by that one's key."""
    key = post.key
    made = []
    for number, text in enumerate(post.parts):
        own = part_key(key, number)
        # Mastodon forgets idempotency keys after an hour; the code stays, and lets a reader name the post.
        shown = f"{text}\n\n[ref {marker(own)}]" if account.platform == "mastodon" else text
        made.append(
            Output(
                text=shown,
                channel=account.name,
                audience=post.audience,
                author=AUTHOR,
                key=own,
                reply_to=f"part:{part_key(key, number - 1)}" if number else post.reply_to,
                language=post.language,
                attached=() if number else post.media,
            )
        )
    return tuple(made)


class PostState(StrEnum):
    """Where a post stands. From `sending` on it counts against the caps."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    TAKEN_DOWN = "taken_down"


class Entry(Frozen):
    """A post in the ledger. `references` are what the platform calls its parts; "" for one that is not out.

    `reason` says why it is held, failed or was taken down. Times are in seconds since the epoch; 0 is never.
    """

    key: str
    post: Post
    state: PostState
    due_s: float = 0.0
    claimed_s: float = 0.0
    sent_s: float = 0.0
    not_before_s: float = 0.0
    attempts: int = 0
    reason: str = ""
    references: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        return self.state in (PostState.SENT, PostState.FAILED, PostState.TAKEN_DOWN)


class Wait(Frozen):
    """A post that may not go out yet: by which rule, and until when."""

    rule: Name
    until_s: float


class Claim(Frozen):
    """The right to send one part of a post now. `replies` are references of what it answers, the thread's root first.

    `at_s` is when the post was claimed first: it stays the same however often the part is tried.
    """

    key: str
    at_s: float
    replies: tuple[str, ...] = ()


class Handed(Frozen):
    """What came of handing a post in, or of a step with it. `rules` are what holds, refuses or delays it."""

    key: str
    state: PostState
    due_s: float = 0.0
    rules: tuple[Name, ...] = ()
    message: str = ""

    @property
    def held(self) -> bool:
        """Whether it waits for a person: `Sender.approve` or `Sender.take_down`."""
        return self.state is PostState.DRAFT and bool(self.rules)


def record_key(claim: Claim) -> str:
    """The TID of a part at Bluesky: its claim's time in microseconds;
    its last ten bits and the clock's id are the key's.
    """
    chance = int.from_bytes(hashlib.sha256(claim.key.encode()).digest()[:4], "big")
    micros = int(claim.at_s * 1e6) & ~0x3FF | chance & 0x3FF
    number = (micros << 10 | chance >> 10 & 0x3FF) & (1 << 63) - 1
    return "".join(_DIGITS[number >> 5 * place & 31] for place in range(12, -1, -1))
