"""The attempts of one mission: replicas that wait for their turn and their money, what is sent, what was spent."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from chimera.core.types import Budget, FailureKind
from chimera.swarm.attempt import NO_LIMIT, Attempt, Report
from chimera.swarm.budget import Bill, Purse
from chimera.swarm.running import RunningTask

NO_MONEY = (
    "the mission's budget has not enough left for this attempt (what an attempt spent whose host died is not known,"
    " and counts as all it had): raise the budget, or lower the task's `spend`"
)


class Turn(NamedTuple):
    """A replica whose turn it is. If it is not `funded`, no money for it can come."""

    task: RunningTask
    replica: int
    attempt_id: str
    funded: bool


class Outgoing:
    """`open` attempts have not ended, `begun` ones were sent; `ahead` are the tries that replicas may still make."""

    def __init__(self, mission_id: str, budget: Budget, ahead: int) -> None:
        self.purse = Purse(budget)
        self.bill = Bill()
        self.open: dict[str, RunningTask] = {}
        self.ahead = ahead
        self.begun = 0
        self._mission_id = mission_id
        self._queue: deque[tuple[RunningTask, int]] = deque()
        self._sending: list[Attempt] = []

    def ask(self, task: RunningTask, replicas: Iterable[int]) -> None:
        """These replicas of the task wait for their turn."""
        self._queue.extend((task, replica) for replica in replicas)

    def turn(self) -> Turn | None:
        """The replica that has waited longest; None when there is none, or it has to wait on for money."""
        while self._queue:
            task, replica = self._queue[0]
            if replica not in task.waiting:  # its task has been decided
                self._queue.popleft()
                continue
            attempt_id, funded = task.next_id(self._mission_id, replica), True
            if self.purse.limited:
                ask = self.purse.share(self.ahead, task.node.task.spend)
                funded = self.purse.reserve(attempt_id, ask)
                if not funded and self.purse.could(ask):
                    return None
            self._queue.popleft()
            task.waiting.discard(replica)
            return Turn(task, replica, attempt_id, funded)
        return None

    def begin(self, turn: Turn, left_s: float) -> None:
        """The replica is sent out, `left_s` before its task is due."""
        turn.task.begin(turn.attempt_id, turn.replica)
        self.ahead -= 1
        self.open[turn.attempt_id] = turn.task
        self.begun += 1
        self._sending.append(self.attempt(turn.task, turn.attempt_id, left_s))

    def attempt(self, task: RunningTask, attempt_id: str, left_s: float) -> Attempt:
        """The envelope of an open attempt, `left_s` before its task is due."""
        spend = self.purse.grant(attempt_id) if self.purse.limited else task.node.task.spend or NO_LIMIT
        return task.attempt(self._mission_id, attempt_id, left_s, spend)

    def take(self) -> tuple[Attempt, ...]:
        """What is to be sent now."""
        sending, self._sending = tuple(self._sending), []
        return sending

    def settle(self, report: Report) -> bool:
        """An attempt has ended, and gives back what it did not spend. Whether money was set aside for it."""
        if not self.purse.limited:
            return False
        spent = report.spent.model_copy(update={"seconds": report.elapsed_s})
        return self.purse.settle(report.attempt_id, None if report.failure is FailureKind.LOST else spent)

    def wait(self, task: RunningTask, replica: int) -> None:
        """The replica is to be sent out again, later."""
        self.ahead += task.wait(replica)

    def done(self, task: RunningTask, replica: int) -> None:
        """The replica is not tried again."""
        self.ahead -= task.ahead.pop(replica)

    def close(self, task: RunningTask) -> None:
        """The task's vote is over: none of its replicas is sent out any more."""
        self.ahead -= sum(task.ahead.values())
        task.waiting.clear()

    def call_off(self, task: RunningTask) -> tuple[str, ...]:
        """Nobody waits for the task's attempts any more: those to cancel. What this very step began is never sent."""
        unsent = {attempt.id for attempt in self._sending if attempt.id in task.open}
        self._sending = [attempt for attempt in self._sending if attempt.id not in unsent]
        self.begun -= len(unsent)
        for attempt_id in task.open:
            del self.open[attempt_id]
        return tuple(attempt_id for attempt_id in task.open if attempt_id not in unsent)

    def write_off(self, tasks: Iterable[RunningTask]) -> None:
        """What another swarm's attempts spent is not known: it counts as all they had, and they are made anew."""
        for attempt_id in self.purse.attempts:
            self.purse.settle(attempt_id, None)
        for task in tasks:
            for attempt_id, replica in task.open.items():
                del self.open[attempt_id]
                self.wait(task, replica)
                self.ask(task, [replica])
            task.open.clear()
