"""What missions came to, for a statement: tasks that were decided, by the swarm's journal; income, by the ledger.

Income of a mission is what came in from outside and names it: so its return is known without anybody estimating it.
"""

from __future__ import annotations

from collections import defaultdict

from chimera.core.events import EventKind
from chimera.storage.journal import MAX_READ, Journal
from chimera.treasury.ledger import Ledger
from chimera.treasury.statement import read_statement
from chimera.treasury.statement_lines import MissionOutcome, PostedTransfer, Statement

MAX_MISSIONS = 1_000
"""Missions whose journal is read for one statement."""


async def read_with_outcomes(ledger: Ledger, journal: Journal, *, month: str, at: int) -> Statement:
    """The statement of a month with the cost of a task and the return of each mission, as far as they are known.

    Raises what `read_statement` does, and StorageError.
    """
    moved: defaultdict[tuple[str, str, str], int] = defaultdict(int)

    def note(posted: PostedTransfer) -> None:
        if posted.mission:
            moved[posted.mission, posted.debit, posted.payee] += posted.amount

    first = await read_statement(ledger, month=month, at=at, each=note)
    ours = {line.account for line in first.accounts if line.kind == "fund"}
    income: defaultdict[str, int] = defaultdict(int)
    for (mission, debit, credit), amount in moved.items():
        if credit in ours and debit not in ours:
            income[mission] += amount
    outcomes = {}
    for cost in first.missions[:MAX_MISSIONS]:
        tasks = await tasks_done(journal, cost.mission)
        if tasks or cost.mission in income:
            outcomes[cost.mission] = MissionOutcome(
                tasks_done=tasks, value=income.get(cost.mission), currency=cost.currency
            )
    return await read_statement(ledger, month=month, at=at, outcomes=outcomes)


async def tasks_done(journal: Journal, mission_id: str) -> int:
    """How many of a mission's tasks have a decision; 0 where the journal does not know it."""
    done = after = 0
    while events := await journal.read(mission_id, after=after, limit=MAX_READ):
        done += sum(event.kind is EventKind.TASK_DECIDED for event in events)
        after = events[-1].seq
        if len(events) < MAX_READ:
            break
    return done
