"""What is to go out, and what was found in it. A finding names a rule and a place, never the text."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from chimera.core.types import Frozen, Name

MAX_CHARS = 1_000_000
"""The longest text that is reviewed, in characters; as UTF-8 it may have as many bytes."""

MAX_FINDINGS = 1_000

MAX_ALT_CHARS = 2_000
MAX_ATTACHMENTS = 4

MediaType = Literal["text/plain", "text/markdown", "text/html", "application/json", "text/x-code"]


class Severity(StrEnum):
    """What a finding does: `block` refuses the output, `review` holds it for a person, the others let it pass."""

    BLOCK = "block"
    REVIEW = "review"
    REDACT = "redact"
    WARN = "warn"


class Attachment(Frozen):
    """A picture that goes out with a text: the file at `path`, of this SHA-256; `alt` says what is to be seen."""

    path: Path
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    media_type: Literal["image/png", "image/jpeg", "image/webp", "image/gif"]
    alt: Annotated[str, Field(min_length=1, max_length=MAX_ALT_CHARS, repr=False)]


class Output(Frozen):
    """A text that is to leave Chimera: a post, a reply to a person, a file, a message to another system.

    `channel` is the name of one of the policy's channels, `audience` who is to read it (a page, a person, a system),
    `author` the agent that wrote it. `key` names this one thing to send, so that it is sent once; `reply_to` is what it
    answers, by the platform's own reference; `language` is a tag of RFC 5646. All of it is sealed with the text.
    """

    text: str = Field(repr=False)
    channel: Name
    audience: Annotated[str, Field(min_length=1, max_length=256)]
    author: Name
    media_type: MediaType = "text/plain"
    key: Annotated[str, Field(max_length=128)] = ""
    reply_to: Annotated[str, Field(max_length=1_000)] = ""
    language: Annotated[str, Field(max_length=35)] = ""
    attached: tuple[Attachment, ...] = Field(default=(), max_length=MAX_ATTACHMENTS)

    @property
    def parts(self) -> tuple[str, ...]:
        """Everything that belongs to it, in one order. What a seal covers."""
        pictures = ((str(one.path), one.sha256, one.media_type, one.alt) for one in self.attached)
        own = (self.text, self.channel, self.audience, self.author, self.media_type)
        return (*own, self.key, self.reply_to, self.language, *(part for picture in pictures for part in picture))

    @property
    def digest(self) -> str:
        """The SHA-256 of all its parts: what a person who approves it approves."""
        return digest_of(self.parts)


def digest_of(parts: tuple[str, ...]) -> str:
    """A SHA-256 of texts that no other division into texts has."""
    made = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        made.update(len(data).to_bytes(8, "big") + data)
    return made.hexdigest()


class Finding(Frozen):
    """Something found in an output. `span` counts characters of its text, the second one excluded.

    `rule` is the id of what found it, such as `secret.aws-access-key`; `advice` says what to do.
    """

    rule: Name
    severity: Severity
    span: tuple[int, int]
    advice: str
