"""The port to whoever holds the CFO's key: it is asked to decide, and signs only what it finds in the ledger itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from pydantic import Field

from chimera.core.types import Frozen, Share
from chimera.treasury.types import Digest, Factor, Id, Outcome

Verdict = Literal["approved", "ask", "refused"]

STRICTNESS: tuple[Verdict, ...] = ("approved", "ask", "refused")
"""Later ones are stricter."""

MAX_PROPOSALS = 500
"""Requests that are decided at once."""


class Proposal(Frozen):
    """What the CFO wants to say of a request, and why; `request_digest` is of the request that it saw."""

    request_id: Id
    request_digest: Digest
    verdict: Verdict
    risk: Share
    factors: Annotated[tuple[Factor, ...], Field(max_length=32)] = ()


class Signer(Protocol):
    """Holds the key, in a process of its own."""

    async def decide(self, proposals: Sequence[Proposal]) -> list[Outcome]:
        """Read each request from the ledger, judge it again, sign, and write the decision: what came of each.

        What is signed is the stricter of what is proposed and what the signer itself makes of the ledger: whoever asks
        can make it refuse, and never make it agree. Raises InputError for more than `MAX_PROPOSALS`, LedgerError,
        LedgerUnavailable.
        """
        ...
