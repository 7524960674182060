"""Who decides on a proposal: the policy itself, or a person, and which (pure).

What is critical waits whatever the confidence and whatever the policy's file says: it can only add to that. What the
policy does not know waits too.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from chimera.core.types import Frozen, Name, Share
from chimera.review.types import MAX_LEASE_S, Duration, Ground, Proposal, Route, Routing

CRITICAL_USD = 50.0
"""Above this much money a person is always asked; a policy may ask earlier."""

CRITICAL_KINDS = frozenset({"security_policy", "agent_permissions"})
"""What decides over decisions is never decided automatically."""

DAY_S = 86_400.0


class KindRule(Frozen):
    """How one kind of action is reviewed. What is None is as the policy says for all kinds.

    `four_eyes`: two different people have to agree. `group` decides ("" is every reviewer); after `escalate_after_s`
    `escalate_to` does. `needs` is what a proposal has to tell to be decided on without a person. `editable`: a person
    may change it before agreeing, which is not for payloads that the summary, the money or the audience speak of.
    """

    critical: bool = False
    four_eyes: bool = False
    group: Name | Literal[""] = ""
    escalate_after_s: Duration | None = None
    escalate_to: Name | Literal[""] = ""
    expires_after_s: Duration | None = None
    needs: Literal["usd", "audience"] | None = None
    editable: bool = True


KINDS = MappingProxyType(
    {
        "answer": KindRule(),
        "mission": KindRule(),
        "held_task": KindRule(critical=True),
        "reply": KindRule(needs="audience"),
        "publish": KindRule(needs="audience"),
        "payment": KindRule(needs="usd", editable=False),
        "patch": KindRule(editable=False),
        "tool_call": KindRule(needs="usd", editable=False),
        "security_policy": KindRule(critical=True, editable=False),
        "agent_permissions": KindRule(critical=True, editable=False),
    }
)
"""The kinds that every policy knows; a file's own are added to them, or take their place."""


class WebhookTarget(Frozen):
    """Where people are told. The secret is in a file that its owner alone can read, as `whsec_` and base64."""

    url: Annotated[str, Field(min_length=1, max_length=2_000)]
    secret_file: Annotated[str, Field(min_length=1, max_length=4_096)]
    allow_private: bool = False


class ReviewPolicy(Frozen):
    """The thresholds, the kinds, and the people.

    A confidence above `automatic_above` goes on, one below `person_below` waits, and what is between goes on and is
    told. Of what goes on, `check_automatic` and `check_monitored` are the shares that a person looks at afterwards:
    without them nobody would learn how often the policy is right. `reviewers` are the people and their groups.
    """

    automatic_above: Share = 0.9
    person_below: Share = 0.7
    ask_over_usd: Annotated[float, Field(ge=0.0, le=CRITICAL_USD, allow_inf_nan=False)] = CRITICAL_USD
    check_automatic: Share = 0.02
    check_monitored: Share = 0.1
    lease_s: Annotated[float, Field(gt=0.0, le=MAX_LEASE_S, allow_inf_nan=False)] = 900.0
    expires_after_s: Duration = 7 * DAY_S
    escalate_after_s: Duration | None = None
    escalate_to: Name | Literal[""] = ""
    kinds: Annotated[dict[Name, KindRule], Field(max_length=1_000)] = Field(default_factory=lambda: dict(KINDS))
    reviewers: Annotated[dict[Name, tuple[Name, ...]], Field(max_length=10_000)] = Field(default_factory=dict)
    max_waiting: Annotated[int, Field(ge=1, le=100_000)] = 20_000
    webhooks: Annotated[tuple[WebhookTarget, ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        if self.person_below > self.automatic_above:
            raise ValueError(
                "person_below is at most automatic_above: what waits for a person does not go on by itself"
            )
        if len({name.casefold() for name in self.reviewers}) < len(self.reviewers):
            raise ValueError("two reviewers differ in nothing but capitals: they would count as two people")
        self._check_escalation("the policy", self.escalate_after_s, self.escalate_to)
        for name, rule in self.kinds.items():
            self._check_kind(name, rule)
        return self

    def members(self, group: str) -> list[str]:
        """Who may decide for a group."""
        return [name for name, groups in self.reviewers.items() if not group or group in groups]

    def decides(self, name: str, group: str) -> bool:
        """Whether that person may decide for the group."""
        return name in self.reviewers and (not group or group in self.reviewers[name])

    def _check_kind(self, name: str, rule: KindRule) -> None:
        self._check_escalation(f"kind {name}", rule.escalate_after_s, rule.escalate_to)
        if not self.reviewers:
            return
        members = len(self.members(rule.group))
        if members < 1 + rule.four_eyes:
            whose = f"the group {rule.group}" if rule.group else "the reviewers"
            raise ValueError(f"kind {name}: {whose} must be at least {1 + rule.four_eyes}, and {members} are named")

    def _check_escalation(self, where: str, after_s: float | None, to: str) -> None:
        if after_s is not None and not to:
            raise ValueError(f"{where}: escalate_after_s is set: say to whom (escalate_to)")
        if to and self.reviewers and not self.members(to):
            raise ValueError(f"{where}: nobody is in the group {to} (escalate_to)")


def route(proposal: Proposal, policy: ReviewPolicy) -> Routing:
    """Where a proposal goes, and by whom it is decided."""
    rule = policy.kinds.get(proposal.kind)
    if rule is None:
        why = f"the policy knows no kind {proposal.kind}"
        return _routing(Route.PERSON, Ground.UNKNOWN_KIND, why, KindRule(editable=False), policy)
    if why := critical(proposal, policy):
        return _routing(Route.PERSON, Ground.CRITICAL, why, rule, policy)
    sure = f"its confidence is {proposal.confidence:g}"
    if proposal.confidence < policy.person_below:
        return _routing(Route.PERSON, Ground.CONFIDENCE, f"{sure}, below {policy.person_below:g}", rule, policy)
    if proposal.confidence > policy.automatic_above:
        why = f"{sure}, above {policy.automatic_above:g}"
        return _routing(Route.AUTOMATIC, Ground.CONFIDENCE, why, rule, policy, policy.check_automatic)
    why = f"{sure}, from {policy.person_below:g} to {policy.automatic_above:g}"
    return _routing(Route.MONITORED, Ground.CONFIDENCE, why, rule, policy, policy.check_monitored)


def critical(proposal: Proposal, policy: ReviewPolicy) -> str:
    """Why a person has to decide on it whatever the confidence; empty where nothing says so."""
    rule = policy.kinds.get(proposal.kind, KindRule(critical=True))
    if proposal.kind in CRITICAL_KINDS or rule.critical:
        return f"{proposal.kind} is critical"
    if rule.four_eyes:
        return f"{proposal.kind} needs two people"
    if proposal.usd is not None and proposal.usd > min(policy.ask_over_usd, CRITICAL_USD):
        return f"it moves ${proposal.usd:,.2f}, more than ${policy.ask_over_usd:,.2f}"
    if proposal.audience == "new":
        return "it goes to a new audience"
    if rule.needs is not None and getattr(proposal, rule.needs) is None:
        return f"it does not tell its {rule.needs}"
    return ""


def _routing(
    to: Route, ground: Ground, why: str, rule: KindRule, policy: ReviewPolicy, check_share: float = 0.0
) -> Routing:
    own = rule.escalate_after_s is not None
    return Routing(
        route=to,
        ground=ground,
        why=why,
        check_share=check_share,
        approvals=2 if rule.four_eyes else 1,
        group=rule.group,
        expires_after_s=rule.expires_after_s or policy.expires_after_s,
        escalate_after_s=rule.escalate_after_s if own else policy.escalate_after_s,
        escalate_to=rule.escalate_to or policy.escalate_to,
        editable=rule.editable,
    )
