"""Gateways for the tests. Making one reads Presidio's recognisers, so each policy's is made once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from chimera.core.clock import ManualClock
from chimera.core.errors import OutputBlocked
from chimera.security.safety.cleared import Cleared
from chimera.security.safety.findings import Finding, MediaType, Output
from chimera.security.safety.gateway import SafetyGateway
from chimera.security.safety.policy import SafetyPolicy, load_policy

DATA = Path(__file__).parents[3] / "data" / "safety"
CANARY = "violet-otter-8842-lantern"


@cache
def gateway() -> SafetyGateway:
    """The policy of the samples, with a canary."""
    policy = load_policy(DATA / "policy.yaml").model_dump()
    return SafetyGateway(SafetyPolicy.model_validate({**policy, "canaries": [CANARY]}), ManualClock())


def output(text: str, channel: str = "system", media_type: MediaType = "text/plain", audience: str = "all") -> Output:
    return Output(text=text, channel=channel, audience=audience, author="writer", media_type=media_type)


def cleared(text: str, channel: str = "system", media_type: MediaType = "text/plain") -> Cleared:
    return gateway().review(output(text, channel, media_type))


def findings(text: str, channel: str = "system", media_type: MediaType = "text/plain") -> tuple[Finding, ...]:
    """What is found, whether it is cleared or not."""
    try:
        return cleared(text, channel, media_type).findings
    except OutputBlocked as blocked:
        return tuple(one for one in blocked.findings if isinstance(one, Finding))


def rules(text: str, channel: str = "system", media_type: MediaType = "text/plain") -> set[str]:
    return {finding.rule for finding in findings(text, channel, media_type)}
