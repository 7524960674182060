"""All checks of content together. A publisher of content takes nothing that one of them has not looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chimera.content.accounts import Account
from chimera.content.rules.coordination import AudienceCheck, CoordinationCheck, Said
from chimera.content.rules.identity import IdentityCheck
from chimera.content.rules.injected import InjectedCheck
from chimera.content.rules.sensitive import SensitiveCheck
from chimera.core.clock import Clock
from chimera.security.safety.gateway import Check

CONTENT_CHECKS: Final[frozenset[str]] = frozenset({"audience", "coordination", "identity", "injected", "sensitive"})


def content_checks(accounts: Mapping[str, Account], said: Said, *, clock: Clock) -> tuple[Check, ...]:
    """For a SafetyGateway whose Cleared are to go out by these accounts. `said` is their PostLedger."""
    return (
        IdentityCheck(accounts),
        CoordinationCheck(said, clock=clock),
        SensitiveCheck(),
        InjectedCheck(),
        AudienceCheck(said),
    )
