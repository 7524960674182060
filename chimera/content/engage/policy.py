"""Whether a mention is answered, and by whom (pure). Nobody is written to who has not written, or who said stop."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from chimera.content.engage.mention import Mention, Reading, Want
from chimera.core.types import Frozen, Share

HOUR_S = 3_600.0


class EngagePolicy(Frozen):
    """What answers keep to. Above these caps a person is asked in silence.

    `thank` lets thanks be answered; `late_s` is the age from which a mention is no longer answered by a machine.
    `least_covered` is the share of a question's words that a passage of the brand's has to have to answer it.
    """

    per_person_hour: Annotated[int, Field(ge=0, le=20)] = 3
    per_account_hour: Annotated[int, Field(ge=0, le=200)] = 30
    per_conversation: Annotated[int, Field(ge=0, le=20)] = 4
    thank: bool = False
    late_s: Annotated[float, Field(gt=0, le=30 * 86_400.0)] = 2 * 86_400.0
    least_covered: Share = 0.5


class Past(Frozen):
    """What has been between us: answers to this person and by this account within the hour, and in this conversation.

    `stopped`: the person wants no answers. `with_person`: the conversation was handed over, and stays so.
    """

    person_hour: Annotated[int, Field(ge=0)] = 0
    account_hour: Annotated[int, Field(ge=0)] = 0
    conversation: Annotated[int, Field(ge=0)] = 0
    stopped: bool = False
    with_person: bool = False


class Decision(Frozen):
    """What to do with a mention, and by which rule.

    `answer` it from the brand's texts, `thank`, `hand_over` to a person (`tell`: say once that one will answer),
    remember to `stop`, or `ignore` it.
    """

    do: Literal["answer", "thank", "hand_over", "stop", "ignore"]
    rule: str
    tell: bool = False


def decide(mention: Mention, reading: Reading, past: Past, policy: EngagePolicy, now: float) -> Decision:
    """What becomes of a mention. People who want a person, or are angry, get one, whatever the caps are."""
    if reading.want is Want.STOP:
        return Decision(do="stop", rule=reading.rule)
    if past.stopped:
        return Decision(do="ignore", rule="person.stopped")
    if reading.want in (Want.PERSON, Want.ANGER):
        may_speak = not past.with_person and past.person_hour < policy.per_person_hour
        return Decision(
            do="hand_over", rule=reading.rule, tell=may_speak and past.account_hour < policy.per_account_hour
        )
    if past.with_person:
        return Decision(do="hand_over", rule="conversation.with_person")
    if reading.want in (Want.ATTACK, Want.SPAM, Want.OTHER):
        return Decision(do="ignore", rule=reading.rule)
    if reading.want is Want.THANKS and not policy.thank:
        return Decision(do="ignore", rule=reading.rule)
    if now - mention.at_s > policy.late_s:
        return Decision(do="hand_over", rule="mention.late")
    for count, cap, rule in (
        (past.person_hour, policy.per_person_hour, "cap.person"),
        (past.account_hour, policy.per_account_hour, "cap.account"),
        (past.conversation, policy.per_conversation, "cap.conversation"),
    ):
        if count >= cap:
            return Decision(do="hand_over", rule=rule)
    return Decision(do="thank" if reading.want is Want.THANKS else "answer", rule=reading.rule)
