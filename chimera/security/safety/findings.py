"""What is to go out, and what was found in it. A finding names a rule and a place, never the text."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from chimera.core.types import Frozen, Name

MAX_CHARS = 1_000_000
"""The longest text that is reviewed, in characters; as UTF-8 it may have as many bytes."""

MAX_FINDINGS = 1_000

MediaType = Literal["text/plain", "text/markdown", "text/html", "application/json", "text/x-code"]


class Severity(StrEnum):
    """What a finding does: `block` refuses the output, `review` holds it for a person, the others let it pass."""

    BLOCK = "block"
    REVIEW = "review"
    REDACT = "redact"
    WARN = "warn"


class Output(Frozen):
    """A text that is to leave Chimera: a post, a reply to a person, a file, a message to another system.

    `channel` is the name of one of the policy's channels, `audience` who is to read it (a page, a person, a system),
    `author` the agent that wrote it.
    """

    text: str = Field(repr=False)
    channel: Name
    audience: Annotated[str, Field(min_length=1, max_length=256)]
    author: Name
    media_type: MediaType = "text/plain"


class Finding(Frozen):
    """Something found in an output. `span` counts characters of its text, the second one excluded.

    `rule` is the id of what found it, such as `secret.aws-access-key`; `advice` says what to do.
    """

    rule: Name
    severity: Severity
    span: tuple[int, int]
    advice: str
