"""Capabilities: signed leave for some operations on one resource, which its holder can narrow and hand on, offline.

Agents and tools get these and never a user's token. Whoever holds one can append a block of checks (`attenuate`), and
nobody can take one away: each block is signed by a key that the block before it names. What a block may hold is closed
(`chimera.security.caveats`), so that the Datalog of a later block can neither give rights nor run for long; biscuit's
scopes say the same once more: facts of a later block are not seen by the first block's policies. Tokens are biscuits
(https://www.biscuitsec.org), with the issuer's public key before them, as narrowing asks for it; it is no secret.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import Forbidden, InputError
from chimera.core.types import Frozen
from chimera.security.capability_keys import RootKeys
from chimera.security.caveats import (
    MAX_LINES,
    Caveat,
    ExpiresAt,
    NotUnderstood,
    Right,
    Uses,
    check_name,
    check_operations,
    check_path,
    micro_usd,
    read_caveats,
    read_first,
    utc,
)
from chimera.security.revocation import Revocations

if TYPE_CHECKING:
    from chimera.security.biscuits import Opened

log = logging.getLogger(__name__)

MAX_TOKEN_CHARS = 8_192
MAX_BLOCKS = 16
MAX_TTL_S = 86_400.0
MAX_TIME_S = 1.0
"""For the Datalog of one request. Biscuit's own 1 ms of wall time fails valid tokens whenever the machine is busy."""

PREFIX = "chcap1."

REFUSED = "this capability does not allow that: ask whoever gave it to you for another"
"""All that whoever is refused is told. The reason is in the verifier's log."""


@dataclass(frozen=True, slots=True)
class CapabilityToken:
    """A capability as it is handed on. Whoever has `text` can use it, so that it is in no repr."""

    text: str = field(repr=False)


class Grant(Frozen):
    """What a verified capability allows: this one operation on this one resource, until `expires_at` (wall seconds).

    `depth` is how often it was narrowed; `revocation_ids` are its blocks' from the first on: revoking any kills it.
    """

    subject: str
    operation: str
    resource: str
    expires_at: float
    depth: int
    revocation_ids: tuple[str, ...]
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a token says: its first block's right and caveats, and what each later block has narrowed."""

    right: Right
    blocks: tuple[tuple[Caveat, ...], ...]
    revocation_ids: tuple[str, ...]

    @property
    def expires_at(self) -> float:
        """The earliest of its expiries, seconds since the epoch."""
        return min(caveat.at_s for block in self.blocks for caveat in block if isinstance(caveat, ExpiresAt))

    @property
    def ends_at(self) -> float:
        """When all that is derived from its first block has expired, whatever this one's later blocks say."""
        return min(caveat.at_s for caveat in self.blocks[0] if isinstance(caveat, ExpiresAt))

    def uses(self) -> list[tuple[str, int]]:
        """How often it may be used: by the id of the block that says so, which all that is derived from it shares."""
        named = zip(self.revocation_ids, self.blocks, strict=True)
        return [(block_id, c.times) for block_id, block in named for c in block if isinstance(c, Uses)]


class UseStore(Protocol):
    """Counts uses for verifiers. See `chimera.security.uses`."""

    def take(self, uses: Sequence[tuple[str, int]], until: float) -> bool:
        """Count one more use of each id, unless one has had as many as the number beside it: then none, and false."""
        ...


class CapabilityAuthority:
    """Issues capabilities with the keys in `keys`, and verifies them, for the verifier that `audience` names.

    With public keys only it verifies. Without `uses`, capabilities with a number of uses are refused. `max_ttl_s` is
    the longest life, which a token that says otherwise does not get either.
    """

    def __init__(
        self,
        keys: RootKeys,
        *,
        revocations: Revocations,
        uses: UseStore | None = None,
        audience: str = "",
        clock: Clock | None = None,
        max_ttl_s: float = MAX_TTL_S,
        max_time_s: float = MAX_TIME_S,
    ) -> None:
        if not 1.0 <= max_ttl_s < float("inf") or not 0.001 <= max_time_s <= 60.0:
            raise InputError(f"{max_ttl_s=} and {max_time_s=}: give at least 1 s, and 0.001 to 60 s")
        self._keys = keys
        self._revocations = revocations
        self._uses = uses
        self._audience = check_name(audience, "verifier") if audience else ""
        self._clock = clock or SystemClock()
        self._max_ttl_s = max_ttl_s
        self._max_time_s = max_time_s

    def issue(
        self, subject: str, operations: Iterable[str], resource: str, *, ttl_s: float, caveats: Iterable[Caveat] = ()
    ) -> CapabilityToken:
        """A capability for `operations` on `resource` (`missions/42`, `missions/*`), for `ttl_s` seconds.

        Raises InputError for what cannot be said in one, SecurityError without a key that signs.
        """
        from chimera.security.biscuits import build, public_of

        if isinstance(operations, str):
            operations = (operations,)
        if not 1.0 <= ttl_s <= self._max_ttl_s:
            raise InputError(f"a capability for {ttl_s} s: give 1 to {self._max_ttl_s:g}, and issue another afterwards")
        right = Right(subject, tuple(operations), resource)
        source = f"{right.lines()}\n{_lines([ExpiresAt(self._clock.now() + ttl_s), *caveats])}"
        key_id, private = self._keys.signing_key()
        return _token(public_of(private), build(source, private, key_id))

    def attenuate(self, token: CapabilityToken, *caveats: Caveat) -> CapabilityToken:
        """The function of the same name: it needs neither the authority nor a key."""
        return attenuate(token, *caveats)

    def verify(
        self, token: CapabilityToken, operation: str, resource: str, *, amount_usd: float = 0.0, tenant: str = ""
    ) -> Grant:
        """Leave for `operation` on `resource`, both of which the caller has named, and not whoever asks.

        `amount_usd` is what the request would spend. A use is counted when all else holds. Raises Forbidden, always
        with the same message; InputError for a request that cannot be one; SecurityError and StorageError where it
        cannot be known, which is no leave either.
        """
        return self.verify_all(token, (operation,), resource, amount_usd=amount_usd, tenant=tenant)[0]

    def verify_all(
        self,
        token: CapabilityToken,
        operations: Sequence[str],
        resource: str,
        *,
        amount_usd: float = 0.0,
        tenant: str = "",
    ) -> tuple[Grant, ...]:
        """Leave for one call that is several operations at once: for all of them, or none. It counts as one use.

        Raises as `verify`.
        """
        check_operations(operations)
        check_path(resource)
        micro = micro_usd(amount_usd)
        if tenant:
            check_name(tenant, "tenant")
        from chimera.security.biscuits import NotOpened

        try:
            opened, contents = self._open(token)
            expires_at = contents.expires_at
            now_s = self._clock.now()
            if not now_s < expires_at <= now_s + self._max_ttl_s + 1.0:
                raise NotOpened("expired, or valid for too long")
            if any(self._revocations.is_revoked(block_id) for block_id in contents.revocation_ids):
                raise NotOpened("revoked")
            uses = contents.uses()
            if uses and self._uses is None:
                raise NotOpened("no store of uses here")
            for operation in operations:
                facts, values = self._facts(operation, resource, micro, tenant, now_s, uses)
                opened.authorize(facts, values, self._max_time_s)
            if uses and self._uses is not None and not self._uses.take(uses, contents.ends_at):
                raise NotOpened("used up")
        except (NotOpened, NotUnderstood) as error:
            asked = ", ".join(operations)
            log.info("capability refused for %s on %s: %s", asked, resource, str(error) or "a line unknown here")
            raise Forbidden(REFUSED) from None
        return tuple(
            Grant(
                subject=contents.right.subject,
                operation=operation,
                resource=resource,
                expires_at=expires_at,
                depth=len(contents.blocks) - 1,
                revocation_ids=contents.revocation_ids,
                tenant=tenant,
            )
            for operation in operations
        )

    def revoke(self, token: CapabilityToken) -> str:
        """Refuse this token and all that is derived from it, everywhere within a second; the id that was revoked.

        It waits as `Revocations.revoke` does. Raises InputError for a token that is not of this authority's keys.
        """
        from chimera.security.biscuits import NotOpened

        try:
            _, contents = self._open(token)
        except (NotOpened, NotUnderstood):
            raise InputError("this is no capability of ours: nothing to revoke") from None
        self._revocations.revoke(contents.revocation_ids[-1], contents.expires_at)
        return contents.revocation_ids[-1]

    def _open(self, token: CapabilityToken) -> tuple[Opened, Contents]:
        from chimera.security.biscuits import NotOpened, Opened

        public, text = _split(token)
        opened = Opened(text, self._keys.public_key, MAX_BLOCKS)
        if opened.public != public:
            raise NotOpened("names a key that it is not signed by")
        return opened, _contents(opened.sources, opened.ids)

    def _facts(
        self, operation: str, resource: str, micro: int, tenant: str, now_s: float, uses: list[tuple[str, int]]
    ) -> tuple[str, dict[str, Any]]:
        values = {"operation": operation, "resource": resource, "micro_usd": micro, "time": utc(now_s)}
        if self._audience:
            values["audience"] = self._audience
        if tenant:
            values["tenant"] = tenant
        facts = [f"{name}({{{name}}});" for name in values]
        return " ".join((*facts, *(f"counted({times});" for _, times in uses))), values


def attenuate(token: CapabilityToken, *caveats: Caveat) -> CapabilityToken:
    """The token narrowed by `caveats`, by whoever holds it: no server is asked, no key needed. To hand on.

    Raises InputError for a token that cannot be read, or would grow past MAX_BLOCKS or MAX_TOKEN_CHARS.
    """
    from chimera.security.biscuits import NotOpened, append

    if not caveats:
        raise InputError("narrow a capability by at least one caveat")
    before = contents(token)
    if len(before.blocks) >= MAX_BLOCKS:
        raise InputError(f"this capability was narrowed {MAX_BLOCKS - 1} times: hand on one that was narrowed less")
    public, text = _split(token)
    try:
        return _token(public, append(text, public, _lines(caveats)))
    except NotOpened:
        raise InputError("this is no capability") from None


def contents(token: CapabilityToken) -> Contents:
    """What a token says, which nobody has verified. Raises InputError if it cannot be read."""
    from chimera.security.biscuits import NotOpened, peek

    try:
        return _contents(*peek(_split(token)[1], MAX_BLOCKS))
    except (NotOpened, NotUnderstood):
        raise InputError("this is no capability, or one with caveats that are not known here") from None


def describe(token: CapabilityToken) -> str:
    """What a token says, in words, for logs: nothing of its signatures, and only names that are safe. Never raises."""
    try:
        said = contents(token)
    except InputError:
        return "a capability that cannot be read"
    narrowed = [", ".join(caveat.words() for caveat in block) for block in said.blocks]
    return f"{said.right.words()} {'; then '.join(narrowed)} [{said.revocation_ids[-1]}, not verified]"


def _contents(sources: list[str], ids: list[str]) -> Contents:
    right, first = read_first(sources[0])
    later = (read_caveats(source) for source in sources[1:])
    return Contents(right, (first, *later), tuple(ids))


def _lines(caveats: Iterable[Caveat]) -> str:
    lines = [caveat.lines() for caveat in caveats]
    if len(lines) > MAX_LINES:
        raise InputError(f"{len(lines)} caveats at once: give at most {MAX_LINES}")
    return "\n".join(lines)


def _token(public: bytes, text: str) -> CapabilityToken:
    whole = f"{PREFIX}{base64.urlsafe_b64encode(public).decode()}.{text}"
    if len(whole) > MAX_TOKEN_CHARS:
        raise InputError(
            f"a capability of {len(whole)} characters: say it with fewer caveats, {MAX_TOKEN_CHARS} at most"
        )
    return CapabilityToken(whole)


def _split(token: CapabilityToken) -> tuple[bytes, str]:
    """The public key that a token names, and its biscuit. Raises NotOpened."""
    from chimera.security.biscuits import NotOpened

    text = token.text
    if len(text) > MAX_TOKEN_CHARS or not text.isascii() or not text.startswith(PREFIX):
        raise NotOpened("not a capability's form")
    named, _, biscuit = text.removeprefix(PREFIX).partition(".")
    try:
        public = base64.urlsafe_b64decode(named)
    except ValueError:
        raise NotOpened("not a capability's form") from None
    if base64.urlsafe_b64encode(public).decode() != named:
        raise NotOpened("another spelling of a key")
    return public, biscuit
