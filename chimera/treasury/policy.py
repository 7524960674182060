"""What the CFO may agree to alone, what a person has to see, and what nobody gets: the house's policy (pure).

The database holds to its own rules whatever is decided here. The policy can only be stricter than they are.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from chimera.core.types import Frozen, Share
from chimera.treasury.history import Flow
from chimera.treasury.risk import Assessment
from chimera.treasury.signer import STRICTNESS, Verdict
from chimera.treasury.types import Id, PaymentRequest, Rules, shown


class Policy(Frozen):
    """From which risk on a person is asked, and from which on it is refused; what a person always has to see."""

    ask_at: Share = 0.5
    refuse_at: Share = 0.9
    critical_categories: Annotated[frozenset[Id], Field(max_length=1_000)] = frozenset()
    critical_payees: Annotated[frozenset[Id], Field(max_length=10_000)] = frozenset()

    @model_validator(mode="after")
    def _asks_before_it_refuses(self) -> Policy:
        if self.ask_at > self.refuse_at:
            raise ValueError("ask_at is at most refuse_at: what is refused is not asked about")
        return self


class Ground(Frozen):
    """Why a request is not simply agreed to, for people: at least `verdict`."""

    verdict: Verdict
    why: str


def grounds(request: PaymentRequest, assessment: Assessment, *, rules: Rules, policy: Policy) -> tuple[Ground, ...]:
    """Everything that speaks against agreeing to it without a person. `rules` are those of its currency.

    The limits are the ledger's: money that comes in is never asked about for its amount, and who is paid by use only
    above `dual_over`. What nobody approved within a day to the same payee, or for the same mission, is added to it.
    """
    found = []
    if assessment.risk >= policy.refuse_at:
        found.append(Ground(verdict="refused", why=f"its risk is {assessment.risk:.2f}"))
    elif assessment.risk >= policy.ask_at:
        found.append(Ground(verdict="ask", why=f"its risk is {assessment.risk:.2f}"))
    if request.category in policy.critical_categories:
        found.append(Ground(verdict="ask", why=f"the category {request.category} is critical"))
    if request.credit in policy.critical_payees:
        found.append(Ground(verdict="ask", why=f"the payee {request.credit} is critical"))
    limit = asks_above(assessment.flow, rules)
    beside = assessment.beside if assessment.flow is not Flow.METERED else 0
    if limit is not None and request.amount + beside > limit:
        alone = request.amount > limit
        beside_it = "" if alone else f" with {shown(beside, request.currency)} that nobody approved today"
        found.append(Ground(verdict="ask", why=f"it is above {shown(limit, request.currency)}{beside_it}"))
    return tuple(found)


def judge(request: PaymentRequest, assessment: Assessment, *, rules: Rules, policy: Policy) -> Verdict:
    """The strictest of its grounds; `approved` where there are none."""
    found = grounds(request, assessment, rules=rules, policy=policy)
    return max((each.verdict for each in found), key=STRICTNESS.index, default="approved")


def asks_above(flow: Flow, rules: Rules) -> int | None:
    """Above what amount a person has to approve; None: whatever it is, nobody has to.

    Who is paid by use may get what filled the mission's fund.
    """
    match flow:
        case Flow.INCOME:
            return None
        case Flow.METERED:
            return rules.dual_over
        case _:
            return min(rules.ask_over, rules.dual_over)
