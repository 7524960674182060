"""All checks of content together. A publisher of content takes nothing that one of them has not looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from chimera.content.accounts import Account
from chimera.content.rules.coordination import AudienceCheck, CoordinationCheck, Said
from chimera.content.rules.identity import IdentityCheck
from chimera.content.rules.injected import InjectedCheck
from chimera.content.rules.provenance import MadeHere, ProvenanceCheck
from chimera.content.rules.repeated import RepeatedCheck, SaidBefore
from chimera.content.rules.sensitive import SensitiveCheck
from chimera.core.clock import Clock
from chimera.security.safety.gateway import Check

CONTENT_CHECKS: Final[frozenset[str]] = frozenset(
    {"audience", "coordination", "identity", "injected", "provenance", "repeated", "sensitive"}
)


class SaidSoFar(Said, SaidBefore, Protocol):
    """What all accounts have said and plan to say."""


def content_checks(
    accounts: Mapping[str, Account], said: SaidSoFar, *, clock: Clock, registry: MadeHere | None = None
) -> tuple[Check, ...]:
    """For a SafetyGateway whose Cleared are to go out by these accounts. `said` is their PostLedger.

    With a `registry`, pictures are in it too.
    """
    return (
        IdentityCheck(accounts),
        CoordinationCheck(said, clock=clock),
        RepeatedCheck(said, clock=clock),
        ProvenanceCheck(accounts, registry=registry),
        SensitiveCheck(),
        InjectedCheck(),
        AudienceCheck(said),
    )
