"""A capability in the hand of whoever calls a tool: what `chimera.security.gateway.guard.ToolGuard` asks."""

from __future__ import annotations

from collections.abc import Sequence

from chimera.core.errors import Forbidden, InputError
from chimera.security.capabilities import CapabilityAuthority, CapabilityToken, contents
from chimera.security.caveats import MaxUsd


class HeldCapability:
    """`token`, as `authority` judges it at each question, so that a revocation counts from when it is known.

    `amount_usd` is what the call would spend: where a capability has a limit of money and this was not said, it
    permits nothing. Each question that is answered yes counts as a use, and a call is one question, whatever its tool's
    effects are. `tenant` is on whose behalf the call is.
    """

    def __init__(
        self,
        authority: CapabilityAuthority,
        token: CapabilityToken,
        *,
        amount_usd: float | None = None,
        tenant: str = "",
    ) -> None:
        self._authority = authority
        self._token = token
        self._amount_usd = amount_usd
        self._tenant = tenant

    def verify(self, operations: str | Sequence[str], resource: str) -> bool:
        """Whether it permits all of this now. SecurityError and StorageError where it cannot be known: no leave."""
        asked = (operations,) if isinstance(operations, str) else tuple(operations)
        try:
            if self._amount_usd is None and _limits_money(self._token):
                return False
            self._authority.verify_all(
                self._token, asked, resource, amount_usd=self._amount_usd or 0.0, tenant=self._tenant
            )
        except (Forbidden, InputError):  # InputError: a resource or a token that can be none
            return False
        return True


def _limits_money(token: CapabilityToken) -> bool:
    return any(isinstance(caveat, MaxUsd) for block in contents(token).blocks for caveat in block)
