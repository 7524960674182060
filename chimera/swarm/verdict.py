"""What a mission came to: from its settled tasks to a state, a confidence and an explanation. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chimera.core.types import Consensus, Decision, MissionState, Outcome, Spend, TaskResult, Vote
from chimera.swarm.attempt import Settled
from chimera.swarm.known import known
from chimera.swarm.running import Fault


@dataclass(frozen=True, slots=True)
class End:
    """How a mission ended, besides by its output: by a fault, cancelled (and why), or after a deadline of `expired_s`;
    and the tasks whose time was up before all their voters were heard."""

    fault: Fault | None = None
    cancelled: str | None = None
    expired_s: float | None = None
    unheard: Sequence[str] = ()


def confidence_in(decision: Decision, votes: tuple[Vote, ...], supporters: tuple[str, ...]) -> float:
    """How sure the swarm is of the decision's value: the mean over the voters that were heard, failures among them."""
    if not decision.agreed or not votes:
        return 0.0
    if decision.method is Consensus.WEIGHTED:
        return round(min(1.0, decision.support * decision.electorate / len(votes)), 6)
    agreeing = set(supporters)
    return round(sum(v.reply.confidence for v in votes if v.reply and v.voter in agreeing) / len(votes), 6)


def verdict(
    mission_id: str,
    output: Settled | None,
    settled: Mapping[str, Settled],
    end: End,
    *,
    elapsed_s: float,
    spent: Spend,
    attempts: int,
) -> TaskResult:
    """The result of a mission that ended with `settled` tasks, and perhaps its `output`."""
    state, why = _state(output, settled, end)
    return known(
        TaskResult,
        mission_id=mission_id,
        state=state,
        value=output.decision.value if output else None,
        confidence=output.confidence if output else 0.0,
        decision=output.decision if output else None,
        replies=output.votes if output else (),
        supporters=output.supporters if output else (),
        explanation=why,
        error=end.fault.as_dict() if end.fault else None,
        elapsed_s=elapsed_s,
        cost_usd=spent.usd,
        spent=spent,
        attempts=attempts,
    )


def _state(output: Settled | None, settled: Mapping[str, Settled], end: End) -> tuple[MissionState, str]:
    """The state that a mission ends in, and why."""
    if end.fault:
        return MissionState.FAILED, end.fault.message
    if end.cancelled is not None:
        return MissionState.CANCELLED, end.cancelled
    if end.expired_s is not None:
        return MissionState.EXPIRED, f"the deadline of {end.expired_s:g} s passed; {_why_not(settled)}"
    if unheard := end.unheard:
        names = ", ".join(unheard[:5]) + (f" and {len(unheard) - 5} more" * (len(unheard) > 5))
        return MissionState.EXPIRED, f"time was up before all had replied to {names}; {_why_not(settled)}"
    if output and (partial := _undecided(output)):
        return MissionState.UNDECIDED, partial
    if output and output.decision.agreed:
        return MissionState.ANSWERED, output.decision.explanation
    return MissionState.UNDECIDED, _why_not(settled)


def _why_not(settled: Mapping[str, Settled]) -> str:
    """The first tasks that were not agreed, and what their voters said."""
    reasons = []
    for name, task in settled.items():
        if task.decision.outcome is not Outcome.AGREED:
            failures = sorted({f"{v.failure}: {v.detail}" for v in task.votes if v.failure})[:3]
            reasons.append(f"{name}: {task.decision.explanation}" + "".join(f"; {f}" for f in failures))
    return " | ".join(reasons[:5]) or "every task was decided"


def _undecided(output: Settled) -> str:
    """Why the output's value is only a partial answer, in the words of the first supporter that says so."""
    told = (v.reply.undecided for v in output.votes if v.reply and v.voter in output.supporters)
    return next((why for why in told if why), "")
