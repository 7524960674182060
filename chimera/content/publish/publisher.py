"""What all accounts' publishers have in common: they send what is claimed and fully checked, and find it again."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from chimera.content.accounts import Account
from chimera.content.publish.ledger import PostLedger
from chimera.content.publish.types import Claim
from chimera.content.rules.every import CONTENT_CHECKS
from chimera.core.errors import Forbidden
from chimera.security.safety.cleared import Publisher
from chimera.security.safety.findings import Output


class AccountPublisher(Publisher):
    """Sends by one account. It asks for all checks of content and a disclosure, and no subclass asks for less.

    Errors tell what is known: `InputError`, the platform refused it, and would again; `RateLimited`, it was refused for
    now; `Forbidden`, the account may not; `SourceError`, the platform may have it or not: look before sending again.
    """

    requires = CONTENT_CHECKS
    public = True

    def __init__(self, account: Account, ledger: PostLedger) -> None:
        self.account = account
        self.channel = account.name
        self._ledger = ledger

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.public or not cls.requires >= CONTENT_CHECKS:
            raise TypeError(f"{cls.__name__}: an account's publisher asks for all checks and a disclosure")

    @abstractmethod
    async def find(self, claim: Claim) -> str:
        """The reference of the part that was sent under this claim; "" if it certainly is not out."""

    @abstractmethod
    async def take_down(self, reference: str) -> None:
        """Delete what has this reference; fine if it is gone already."""

    async def close(self) -> None:
        """Let go of connections."""
        return

    def _claimed(self, output: Output) -> Claim:
        """The right to send it, which sending asks for first: so nothing passes the caps, or goes out twice."""
        return self._ledger.claimed(output.key, self.account.name)


def same_handle(account: Account, found: str) -> None:
    """Raises Forbidden if the platform knows the credentials' owner by another handle than the declared one."""
    found_as = account.model_copy(update={"handle": found}).identity
    if found_as != account.identity:
        raise Forbidden(f"the credentials of {account.name} are those of {found}: an account has one identity")
