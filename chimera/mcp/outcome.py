"""What comes of a call: an answer, a refusal before anything was sent, or a failure afterwards. All are values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from chimera.security.gateway.gateway import Screened

Rule = Literal["server", "tool", "pin", "schema", "arguments", "authority", "rate", "busy", "breaker"]
"""What refused a call: the server's entry, no such tool, no approval, the tool's schema or the arguments against it, no
capability, too many a second, too many at once, or a server that keeps failing."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a server answered: untrusted data, whose source is `tool:SERVER/TOOL`.

    Take `text.text` into a prompt with `Trail.take`. `structured` is its JSON. `is_error` is the server's own word that
    the tool failed. `truncated` says that an answer over a limit was cut, `structured` dropped with it; `size_bytes`
    is what it was before.
    """

    text: Screened
    structured: Screened | None
    is_error: bool
    truncated: bool
    size_bytes: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was sent. `why` says what was wrong, `advice` what to do, `retry_after_s` when to come again, if ever."""

    rule: Rule
    why: str
    advice: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no answer. If the call was `sent`, it may have worked: look before it is made again."""

    why: str
    sent: bool
    attempts: int
    retry_after_s: float = 0.0


Outcome: TypeAlias = Answered | Refused | Failed
