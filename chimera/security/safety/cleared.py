"""What was reviewed and may go out, and those who may send it. Only the gateway makes a `Cleared`.

A `Cleared` is sealed (HMAC-SHA256, RFC 2104) over the whole output (text, pictures, channel, audience, author ...), its
disclosure and the checks that looked at it, with a key that is drawn anew by every process and never leaves it. So one
that was made, changed, copied or unpickled past the gateway is found when it is opened, and a text cleared for one
audience does not go to another. This stops mistakes and short cuts in ordinary code; code that reads this module's
private names is stopped by the test of imports.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from abc import ABC, abstractmethod
from typing import Any, Final, NoReturn, SupportsIndex, final

from chimera.core.errors import Forbidden
from chimera.security.safety.disclosures import DISCLOSURES
from chimera.security.safety.findings import Finding, Output, digest_of

_TOKEN: Final = object()
_KEY: Final = secrets.token_bytes(32)


def _seal(output: Output, disclosure: str, checks: frozenset[str]) -> bytes:
    digests = (output.digest, digest_of((disclosure,)), digest_of(tuple(sorted(checks))))
    return hmac.new(_KEY, "".join(digests).encode(), hashlib.sha256).digest()


@final
class Cleared:
    """A text that passed the gateway, bound to where it may go.

    `text` may be redacted and have the disclosure added; `findings` are what was let pass, redacted or warned of, with
    spans in the text that was handed in; `disclosure` is the words that the channel requires, empty where it requires
    none; `checks` names what looked at it besides the policy. `digest` is the SHA-256 of the text, for the audit log.
    """

    __slots__ = ("_output", "_sealed", "checks", "disclosure", "findings")

    _output: Output
    _sealed: bytes
    findings: tuple[Finding, ...]
    disclosure: str
    checks: frozenset[str]

    def __init__(
        self,
        token: object,
        output: Output,
        findings: tuple[Finding, ...],
        disclosure: str,
        checks: frozenset[str] = frozenset(),
    ) -> None:
        if token is not _TOKEN:
            raise Forbidden("only the SafetyGateway clears an output: hand it to SafetyGateway.review")
        for name, value in (
            ("_output", output),
            ("_sealed", _seal(output, disclosure, checks)),
            ("findings", findings),
            ("disclosure", disclosure),
            ("checks", checks),
        ):
            object.__setattr__(self, name, value)

    def __init_subclass__(cls) -> None:
        raise TypeError("Cleared has no subclasses")

    @property
    def text(self) -> str:
        return self._output.text

    @property
    def channel(self) -> str:
        return self._output.channel

    @property
    def audience(self) -> str:
        return self._output.audience

    @property
    def author(self) -> str:
        return self._output.author

    @property
    def media_type(self) -> str:
        return self._output.media_type

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("what was cleared does not change: review the new text")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("what was cleared does not change: review the new text")

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a Cleared stays in the process that reviewed it: review the text again where it is sent")

    def __repr__(self) -> str:
        return f"Cleared(channel={self.channel!r}, audience={self.audience!r}, chars={len(self.text)})"


def clear(
    output: Output, findings: tuple[Finding, ...], disclosure: str, checks: frozenset[str] = frozenset()
) -> Cleared:
    """The gateway's own: nobody else may import this, and a test says so."""
    return Cleared(_TOKEN, output, findings, disclosure, checks)


def opened(
    cleared: Cleared, *, channel: str, audience: str, requires: frozenset[str] = frozenset(), public: bool = False
) -> Output:
    """What was cleared, if it is the gateway's own, for this channel and audience, and all of `requires` looked at it.

    What is `public` has to bear a disclosure besides, in words that everybody understands (`DISCLOSURES`): a policy may
    choose among them and cannot do without. Raises Forbidden if it is anything else.
    """
    if type(cleared) is not Cleared:
        raise Forbidden("only what SafetyGateway.review gave may be published")
    try:
        output, sealed = cleared._output, cleared._sealed
        disclosure, checks = cleared.disclosure, cleared.checks
        genuine = hmac.compare_digest(sealed, _seal(output, disclosure, checks))
    except (AttributeError, TypeError):
        genuine = False
    if not genuine:
        raise Forbidden("this was not cleared by the gateway of this process: hand it to SafetyGateway.review")
    if (output.channel, output.audience) != (channel, audience):
        raise Forbidden("this was cleared for another channel or audience: review it again for this one")
    if missing := requires - checks:
        raise Forbidden(
            f"this was cleared without {', '.join(sorted(missing))}: review it by a gateway with these checks"
        )
    if public and (disclosure not in DISCLOSURES or disclosure not in output.text):
        raise Forbidden("nothing goes out to the public without its disclosure: give the channel one of DISCLOSURES")
    return output


class Publisher(ABC):
    """Whatever sends something out of Chimera. `publish` takes a `Cleared` and nothing else; subclasses only `_send`.

    `channel` is the one that it serves. It takes what the checks in `requires` looked at, and nothing less; with
    `public`, nothing without a disclosure.
    """

    channel: str
    requires: frozenset[str] = frozenset()
    public: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "publish" in vars(cls):
            raise TypeError(f"{cls.__name__}: publish is not to be replaced; send in _send what it was given")

    @final
    async def publish(self, cleared: Cleared, *, audience: str) -> str:
        """Send what was cleared for this channel and `audience`; the reference that it has there, or nothing.

        Raises Forbidden for anything else.
        """
        output = opened(
            cleared, channel=self.channel, audience=audience, requires=type(self).requires, public=type(self).public
        )
        return await self._send(output)

    @abstractmethod
    async def _send(self, output: Output) -> str:
        """Send `output` as it is. Called by `publish` only."""
