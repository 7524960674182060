"""The two-phase reload under lost, repeated and overtaken messages, dying actors and a coordinator that restarts."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.core.errors import InputError, ReloadError
from chimera.reload.messages import (
    Abort,
    Commit,
    Died,
    Drain,
    Drained,
    Event,
    Failed,
    Finish,
    Instruction,
    Joined,
    Prepare,
    Propose,
    Ready,
    Record,
    Restart,
    Running,
    Settled,
    Tick,
)
from chimera.reload.twophase import Limits, TwoPhase

LIMITS = Limits(prepare_s=3.0, again_s=1.0, tries=3)


def of(kind: type, instructions: list[Instruction]) -> list[Any]:
    return [one for one in instructions if isinstance(one, kind)]


def with_actors(count: int) -> TwoPhase:
    brain = TwoPhase(LIMITS)
    for at in range(count):
        brain.handle(Joined(f"a{at}", 1, 0), 0.0)
    return brain


def test_it_commits_when_all_are_ready_and_settles_when_all_are_drained() -> None:
    brain = with_actors(2)
    first = brain.handle(Propose("d1"), 0.0)
    assert first[:3] == [Record("proposed", 1, "d1"), Prepare("a0", 1, "d1"), Prepare("a1", 1, "d1")]
    assert not of(Commit, brain.handle(Ready("a0", 1, 1), 0.0))
    decided = brain.handle(Ready("a1", 1, 1), 0.0)
    assert decided[:4] == [
        Record("committed", 1, "d1"),
        Finish(1, True),
        Commit("a0", 1, "d1"),
        Commit("a1", 1, "d1"),
    ]
    assert of(Drain, brain.handle(Running("a0", 1, 1), 0.0)) == [Drain("a0", 1)]
    brain.handle(Drained("a0", 1, 1), 0.0)
    brain.handle(Running("a1", 1, 1), 0.0)
    assert of(Settled, brain.handle(Drained("a1", 1, 1), 0.0)) == [Settled(1)]


def test_one_failure_aborts_it_everywhere() -> None:
    brain = with_actors(3)
    brain.handle(Propose("d1"), 0.0)
    brain.handle(Ready("a0", 1, 1), 0.0)
    aborted = brain.handle(Failed("a1", 1, 1, "migrate raised"), 0.0)
    assert of(Abort, aborted) == [Abort("a0", 1), Abort("a1", 1), Abort("a2", 1)]
    assert of(Finish, aborted) == [Finish(1, False, "a1: migrate raised")]
    assert not of(Commit, brain.handle(Ready("a2", 1, 1), 0.0)) and brain.committed == 0


def test_silence_aborts_it_in_time() -> None:
    brain = with_actors(2)
    brain.handle(Propose("d1"), 0.0)
    brain.handle(Ready("a0", 1, 1), 0.0)
    assert of(Prepare, brain.handle(Tick(), 1.0)) == [Prepare("a1", 1, "d1")]
    assert of(Finish, brain.handle(Tick(), 3.0)) == [Finish(1, False, "no answer within 3 s from a1")]


def test_who_dies_while_it_is_decided_catches_up() -> None:
    brain = with_actors(2)
    brain.handle(Propose("d1"), 0.0)
    brain.handle(Ready("a0", 1, 1), 0.0)
    assert of(Record, brain.handle(Died("a1", 1), 0.0)) == [Record("committed", 1, "d1")]
    assert of(Commit, brain.handle(Joined("a1", 2, 0), 0.0)) == [Commit("a1", 1, "d1")]
    assert of(Commit, brain.handle(Joined("late", 1, 0), 0.0)) == [Commit("late", 1, "d1")]


def test_a_message_of_an_ended_life_has_no_say() -> None:
    brain = with_actors(1)
    brain.handle(Propose("d1"), 0.0)
    brain.handle(Joined("a0", 2, 0), 0.0)
    assert not of(Record, brain.handle(Ready("a0", 1, 1), 0.0))
    assert of(Record, brain.handle(Ready("a0", 2, 1), 0.0))


def test_who_cannot_take_up_what_was_committed_is_restarted_until_it_is_gone() -> None:
    brain = with_actors(1)
    brain.handle(Propose("d1"), 0.0)
    brain.handle(Ready("a0", 1, 1), 0.0)
    assert of(Restart, brain.handle(Failed("a0", 1, 1, "no"), 0.0)) == [Restart("a0", "no")]
    assert of(Restart, brain.handle(Tick(), 1.0)) == [Restart("a0", "no")]
    assert of(Commit, brain.handle(Joined("a0", 2, 0), 1.0)) == [Commit("a0", 1, "d1")]


def test_who_never_answers_a_commit_is_restarted() -> None:
    brain = with_actors(1)
    brain.handle(Propose("d1"), 0.0)
    brain.handle(Ready("a0", 1, 1), 0.0)
    assert [type(brain.handle(Tick(), float(now))[0]) for now in range(1, 4)] == [Commit, Commit, Restart]


def test_a_restarted_coordinator_aborts_what_was_not_decided_and_finishes_what_was() -> None:
    brain = TwoPhase.recover([Record("proposed", 1, "d1")], LIMITS)
    assert of(Abort, brain.handle(Joined("a0", 1, 0), 0.0)) == [Abort("a0", 1)]
    assert of(Record, brain.handle(Propose("d2"), 0.0)) == [Record("proposed", 2, "d2")]
    brain = TwoPhase.recover([Record("proposed", 1, "d1"), Record("committed", 1, "d1")], LIMITS)
    assert of(Commit, brain.handle(Joined("a0", 1, 0), 0.0)) == [Commit("a0", 1, "d1")]
    with pytest.raises(ReloadError, match="out of order"):
        TwoPhase.recover([Record("committed", 1, "d1")])


def test_it_is_bounded_and_refuses_what_it_cannot_do() -> None:
    brain = TwoPhase(Limits(max_actors=1))
    assert of(Finish, brain.handle(Propose("d"), 0.0)) == [Finish(0, False, "no actor is there to try it")]
    brain.handle(Joined("a0", 1, 0), 0.0)
    with pytest.raises(InputError, match="no more"):
        brain.handle(Joined("a1", 1, 0), 0.0)
    brain.handle(Propose("d"), 0.0)
    assert not of(Finish, brain.handle(Propose("e"), 0.0))[0].committed


@dataclass
class Actor:
    """What the real one does: prepares, switches, loads what it is told to run, confirms again."""

    life: int = 1
    alive: bool = True
    running: int = 0
    prepared: set[int] = field(default_factory=set)


@dataclass
class World:
    """A cluster in which anything may happen to messages and processes. `journal` alone survives the coordinator."""

    rng: random.Random
    bad: frozenset[int]
    trouble: bool = True
    now: float = 0.0
    journal: list[Record] = field(default_factory=list)
    actors: dict[str, Actor] = field(default_factory=dict)
    up: list[Event] = field(default_factory=list)
    down: list[Prepare | Commit | Abort | Drain | Restart] = field(default_factory=list)
    finished: dict[int, bool] = field(default_factory=dict)
    settled: int = 0
    brain: TwoPhase = field(default_factory=lambda: TwoPhase(LIMITS))

    def tell(self, event: Event) -> None:
        instructions = self.brain.handle(event, self.now)
        crash = self.rng.randrange(len(instructions) + 1) if self.trouble and self.rng.random() < 0.08 else None
        for instruction in instructions[:crash]:
            if isinstance(instruction, Record):
                self.journal.append(instruction)
            elif isinstance(instruction, Finish) and instruction.version:
                assert self.finished.setdefault(instruction.version, instruction.committed) is instruction.committed
            elif isinstance(instruction, Settled):
                self.settled = instruction.version
            elif isinstance(instruction, Prepare | Commit | Abort | Drain | Restart):
                self.down.append(instruction)
        if crash is not None:
            self.restart()

    def restart(self) -> None:
        self.brain = TwoPhase.recover(self.journal, LIMITS)
        for name in self.actors:
            self.announce(name)

    def announce(self, name: str) -> None:
        actor = self.actors[name]
        if actor.alive:
            self.up.append(Joined(name, actor.life, actor.running))

    def kill(self, name: str) -> None:
        actor = self.actors[name]
        if actor.alive:
            actor.alive = False
            self.up.append(Died(name, actor.life))

    def revive(self, name: str) -> None:
        actor = self.actors[name]
        if not actor.alive:
            self.actors[name] = Actor(life=actor.life + 1)
            self.announce(name)

    def obey(self, order: Prepare | Commit | Abort | Drain | Restart) -> None:
        name, actor = order.actor, self.actors[order.actor]
        if not actor.alive:
            return
        life = actor.life
        match order:
            case Prepare():
                if order.version in self.bad and self.rng.random() < 0.5:
                    self.up.append(Failed(name, life, order.version, "bad"))
                else:
                    actor.prepared.add(order.version)
                    self.up.append(Ready(name, life, order.version))
            case Commit():
                if self.trouble and self.rng.random() < 0.1:
                    self.up.append(Failed(name, life, order.version, "no room"))
                    return
                actor.running = max(actor.running, order.version)
                assert any(record.kind == "committed" and record.version == actor.running for record in self.journal)
                self.up.append(Running(name, life, order.version))
            case Abort():
                assert actor.running != order.version
                actor.prepared.discard(order.version)
            case Drain():
                self.up.append(Drained(name, life, order.version))
            case Restart():
                self.kill(name)

    def deliver(self) -> None:
        """One message, any; in trouble it may be lost, or come again."""
        queue: list[Any] = self.rng.choice([self.up, self.down])
        if not queue:
            return
        at = self.rng.randrange(len(queue)) if self.trouble else 0
        message = queue[at]
        fate = self.rng.random() if self.trouble else 1.0
        if fate >= 0.15:
            queue.pop(at)
        if 0.15 <= fate < 0.3 and not isinstance(message, Joined | Died):
            return
        self.tell(message) if queue is self.up else self.obey(message)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    actors=st.integers(1, 5),
    steps=st.integers(20, 250),
    bad=st.frozensets(st.integers(1, 12), max_size=6),
)
def test_nobody_ever_runs_what_was_not_committed_and_in_the_end_all_run_the_same(
    seed: int, actors: int, steps: int, bad: frozenset[int]
) -> None:
    world = World(random.Random(seed), bad)
    for at in range(actors):
        world.actors[f"a{at}"] = Actor()
        world.announce(f"a{at}")
    for _ in range(steps):
        dice = world.rng.random()
        name = world.rng.choice(sorted(world.actors))
        if dice < 0.05:
            world.tell(Propose(f"d{len(world.journal)}"))
        elif dice < 0.08:
            world.kill(name)
        elif dice < 0.14:
            world.revive(name)
        elif dice < 0.15:
            world.restart()
        elif dice < 0.16 and len(world.actors) < 8:
            late = f"a{len(world.actors)}"
            world.actors[late] = Actor()
            world.announce(late)
        elif dice < 0.25:
            world.now += world.rng.random()
            world.tell(Tick())
        else:
            world.deliver()
    calm_down(world)
    committed = [record.version for record in world.journal if record.kind == "committed"]
    assert committed == sorted(set(committed))
    assert world.brain.committed == max(committed, default=0)
    living = {actor.running for actor in world.actors.values() if actor.alive}
    assert living <= {world.brain.committed}
    assert world.settled == world.brain.committed or not living
    assert all(committed.count(version) == done for version, done in world.finished.items())


def calm_down(world: World) -> None:
    world.trouble = False
    for _ in range(40):
        for name in world.actors:
            world.revive(name)
        while world.up or world.down:
            world.deliver()
        world.now += 1.0
        world.tell(Tick())
