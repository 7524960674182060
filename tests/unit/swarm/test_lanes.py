"""What waits in a roster, and who gets it: priorities, suspects, and the whole against a model of its rules."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.core.types import FailureKind
from chimera.swarm.attempt import Attempt
from chimera.swarm.lanes import Lane, Line, TaskRecord, Waiting
from chimera.swarm.roster import Assignment, Roster, Step

SEEDS = st.integers(0, 2**32)


def attempt(task: str, priority: int = 4, replica: int = 0, number: int = 1, **more: object) -> Attempt:
    made = Attempt(f"m/{task}/{replica}/{number}", "m", task, replica, number, "worker", 5.0, b"", priority)
    return replace(made, **more)  # type: ignore[arg-type]


def roster(agents: int, cells: int = 1, seed: int = 0, policies: int = 1) -> Roster:
    made = Roster(rng=random.Random(seed))
    for n in range(agents):
        made.add(f"a{n}", role="worker", policy=f"p{n % policies}", cell=f"c{n % cells}")
    for n in range(cells):
        made.cell_up(f"c{n}")
    return made


def serve(shard: Roster, running: list[str]) -> Attempt:
    """The one attempt in hand ends; what comes next."""
    step = shard.done(running.pop(0))
    running.append(step.assignments[0].attempt.id)
    return step.assignments[0].attempt


def test_within_a_priority_the_first_comes_first_across_demands() -> None:
    shard = roster(1)
    running = [shard.submit([attempt("first")]).assignments[0].attempt.id]
    shard.submit([attempt(f"t{n}", policy="p0" if n % 3 else "") for n in range(30)])
    assert [serve(shard, running).task_id for _ in range(30)] == [f"t{n}" for n in range(30)]


@given(st.lists(st.integers(0, 8), max_size=60), st.booleans(), st.integers(1, 20))
def test_a_new_9_is_served_next_whatever_waits(backlog: list[int], apart: bool, more: int) -> None:
    shard = roster(1)
    running = [shard.submit([attempt("first")]).assignments[0].attempt.id]
    shard.submit([attempt(f"low{n}", priority) for n, priority in enumerate(backlog)])
    for _ in backlog[::2]:
        serve(shard, running)
    shard.submit([attempt("high", 9, policy="p0" if apart else "")])
    assert serve(shard, running).task_id == "high"
    services = 0
    for n in range(more):  # as soon as one is served the next comes: half of all services are theirs
        shard.submit([attempt(f"high{n}", 9)])
        services += 1
        while serve(shard, running).priority < 9:
            services += 1
    assert services <= 2 * more + 9


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), SEEDS)
@settings(max_examples=25)
def test_a_0_always_moves(others: list[int], seed: int) -> None:
    """However much waits above it, it is served once in so many services: 2**0 in the sum of all shares."""
    chance = random.Random(seed)
    shard = roster(1)
    running = [shard.submit([attempt("first")]).assignments[0].attempt.id]
    bound = 1 + sum(2**priority for priority in set(others))
    shard.submit([attempt("low0", 0), attempt("low1", 0)])
    shard.submit([attempt(f"high{n}", priority) for n, priority in enumerate(others * 3)])
    served: list[str] = []
    while "low1" not in served:
        assert len(served) <= 2 * bound
        done = serve(shard, running)
        served.append(done.task_id)
        if done.priority:  # it never ends
            shard.submit([attempt(f"more{len(served)}", done.priority, policy=chance.choice(["", "p0"]))])
    assert served.index("low1") - served.index("low0") <= bound


def test_shares_are_powers_of_two() -> None:
    shard = roster(1)
    running = [shard.submit([attempt("first")]).assignments[0].attempt.id]
    shard.submit([attempt(f"t{n}-{priority}", priority) for n in range(1_200) for priority in (9, 8, 6)])
    served = Counter(serve(shard, running).priority for _ in range(1_300))
    assert served == pytest.approx({9: 800, 8: 400, 6: 100}, abs=2)


def test_a_priority_that_had_nothing_to_do_gathers_no_credit() -> None:
    shard = roster(1)
    running = [shard.submit([attempt("first")]).assignments[0].attempt.id]
    shard.submit([attempt("early", 9), *(attempt(f"t{n}", 8) for n in range(50))])
    for _ in range(40):
        serve(shard, running)
    shard.submit([*(attempt(f"low{n}", 0) for n in range(9)), *(attempt(f"high{n}", 9) for n in range(9))])
    served = [serve(shard, running).priority for _ in range(12)]
    assert served[0] == 9 and served.count(0) == 1


@given(SEEDS, st.integers(0, 300))
def test_a_line_is_a_list_from_which_anything_can_leave(seed: int, moves: int) -> None:
    line, kept, task, lane = Line(), list[Waiting](), TaskRecord(), Lane(("worker", "", ""))
    chance = random.Random(seed)
    grows = chance.uniform(0.3, 0.8)
    for number in range(1, moves + 1):
        if chance.random() < grows or not kept:
            kept.append(Waiting(number, attempt(f"t{number}"), task, lane))
            line.push(kept[-1])
        else:
            line.remove(kept.pop(0 if chance.random() < 0.5 else chance.randrange(len(kept))))
        after = chance.randrange(number + 1)
        assert list(line.after(after)) == [entry for entry in kept if entry.number > after]
        assert line.live == len(kept) and len(line._entries) <= 2 * len(kept) + 17


def test_a_cell_has_one_suspect_at_a_time() -> None:
    shard = roster(8, cells=2)
    step = shard.submit([attempt(f"s{n}", suspect=True) for n in range(5)] + [attempt("plain")])
    assert Counter(a.cell for a in step.assignments if a.attempt.suspect) == {"c0": 1, "c1": 1}
    assert [a.attempt.task_id for a in step.assignments if not a.attempt.suspect] == ["plain"]
    assert (shard.busy, shard.waiting) == (3, 3)
    first, second = (a for a in step.assignments if a.attempt.suspect)
    (following,) = shard.done(first.attempt.id).assignments
    assert following.cell == first.cell and following.attempt.suspect
    shard.cell_down(second.cell, "died")
    (third,) = shard.cell_up(second.cell).assignments
    assert third.cell == second.cell and third.attempt.suspect


def test_another_agent_of_the_cell_takes_the_next_suspect_if_this_one_may_not() -> None:
    shard = roster(3)
    (first,) = shard.submit([attempt("s1", suspect=True)]).assignments
    shard.submit([attempt("s2", suspect=True, barred=frozenset({first.agent_id}))])
    assert shard.waiting == 1
    (second,) = shard.done(first.attempt.id).assignments
    assert second.attempt.task_id == "s2" and second.agent_id != first.agent_id
    shard.submit([attempt("s3", suspect=True)])
    assert [a.attempt.task_id for a in shard.remove([second.agent_id]).assignments] == ["s3"]


def test_suspects_of_one_task_that_nobody_may_take_are_refused_once() -> None:
    shard = roster(2, cells=2)
    step = shard.submit([attempt("t", replica=r, suspect=True) for r in range(4)])
    assert len(step.assignments) == 2 and len({a.cell for a in step.assignments}) == 2
    assert sorted(r.attempt_id for r in step.reports) == sorted(
        f"m/t/{r}/1" for r in range(4) if r not in {a.attempt.replica for a in step.assignments}
    )
    assert shard.waiting == 0


@pytest.mark.parametrize("suspect", [False, True])
def test_an_agent_that_can_take_more_once_a_suspect_is_placed_is_used_once(suspect: bool) -> None:
    """a0 had replica 0 and is free for replica 1 as soon as another has that, in the midst of placing suspects."""
    for seed in range(10):
        shard = Roster(rng=random.Random(seed))
        for n, policy in enumerate("pqq"):
            shard.add(f"a{n}", role="worker", policy=policy, cell=f"c{n}")
            shard.add(f"s{n}", role="worker", policy="s", cell=f"c{n}")
        shard.add("busy", role="worker", policy="p", cell="c3")
        for n in range(4):
            shard.cell_up(f"c{n}")
        shard.submit([attempt("busy", policy="p", barred=frozenset({"a0"})), attempt("t", policy="p")])
        shard.done("m/t/0/1")
        shard.submit([attempt(f"s{n}", policy="s", suspect=True) for n in range(3)])
        shard.submit(
            [
                attempt("t", 9, number=2, suspect=True),
                attempt("t", 4, replica=1, suspect=suspect, policy="" if suspect else "p"),
                attempt("u", 0, suspect=True),
                attempt("v", 0, suspect=True),
            ]
        )
        assert shard.waiting == 4
        step = shard.remove(["s0", "s1", "s2"])
        assert {a.agent_id for a in step.assignments} == {"a0", "a1", "a2"} and len(step.assignments) == 3
        assert (shard.busy, shard.waiting) == (4, 1)


@given(SEEDS, st.integers(2, 4), st.integers(2, 40))
@settings(max_examples=40)
def test_a_poison_task_does_not_drag_its_neighbours_along(seed: int, cells: int, agents_each: int) -> None:
    """It kills its cell whenever it runs. Whoever shared a cell with it once never meets it again."""
    chance = random.Random(seed)
    shard = roster(cells * agents_each, cells, seed)
    losses: Counter[str] = Counter()
    done: set[str] = set()
    running: list[Assignment] = []
    down: list[str] = []

    def take(step: Step) -> None:
        running.extend(step.assignments)
        for report in step.reports:
            assert report.failure is FailureKind.LOST
            lost = next(a.attempt for a in running if a.attempt.id == report.attempt_id)
            running[:] = [a for a in running if a.attempt.id != report.attempt_id]
            losses[lost.task_id] += 1
            if losses[lost.task_id] < 3:
                again = attempt(lost.task_id, number=lost.number + 1, suspect=True)
                take(shard.submit([again]))

    names = ["poison", *(f"t{n}" for n in range(200))]
    chance.shuffle(names)
    take(shard.submit([attempt(name) for name in names]))
    while running or down:
        if down and (not running or chance.random() < 0.2):
            take(shard.cell_up(down.pop()))
            continue
        ended = chance.choice(running)
        if ended.attempt.task_id == "poison":
            down.append(ended.cell)
            take(shard.cell_down(ended.cell, "killed"))
        else:
            running.remove(ended)
            done.add(ended.attempt.task_id)
            take(shard.done(ended.attempt.id))
    assert losses.pop("poison") == 3
    assert len(done) == 200 and max(losses.values(), default=0) <= 1


@dataclass
class World:
    """A roster, and beside it what its rules say: who lives where, has what, and may have what."""

    shard: Roster
    chance: random.Random
    homes: dict[str, str] = field(default_factory=dict)
    serving: set[str] = field(default_factory=set)
    busy: dict[str, Assignment] = field(default_factory=dict)
    waiting: dict[str, Attempt] = field(default_factory=dict)
    votes: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))
    barred: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    policies: dict[str, str] = field(default_factory=dict)
    submitted: int = 0
    ended: int = 0

    def may(self, agent: str, job: Attempt) -> bool:
        others = {holder for r, holder in self.votes[job.task_id].items() if r != job.replica}
        return agent not in others | self.barred[job.task_id] and job.policy in ("", self.policies[agent])

    def take(self, step: Step) -> None:
        for report in step.reports:
            self.ended += 1
            if report.failure is FailureKind.LOST:
                del self.busy[report.agent]
            else:
                self.waiting.pop(report.attempt_id, None)
        for given_ in step.assignments:
            job, agent = given_.attempt, given_.agent_id
            assert agent not in self.busy and self.homes[agent] == given_.cell and given_.cell in self.serving
            self.waiting.pop(job.id, None)
            self.busy[agent] = given_
            votes = self.votes[job.task_id]
            assert agent not in self.barred[job.task_id] and all(
                a != agent or r == job.replica for r, a in votes.items()
            )
            votes[job.replica] = agent
        self.check()

    def check(self) -> None:
        assert (self.shard.busy, self.shard.waiting) == (len(self.busy), len(self.waiting))
        assert self.submitted == self.ended + len(self.busy) + len(self.waiting)
        suspects = Counter(a.cell for a in self.busy.values() if a.attempt.suspect)
        assert not suspects or max(suspects.values()) == 1
        for job in self.waiting.values():
            able = [agent for agent in self.homes if self.may(agent, job)]
            assert able, "nobody could ever take it, and it was not refused"
            for agent in able:
                idle = agent not in self.busy and self.homes[agent] in self.serving
                assert not idle or (job.suspect and suspects[self.homes[agent]]), "it idles while work waits for it"

    def submit(self) -> None:
        job = attempt(
            f"t{self.submitted // 15 + self.chance.randrange(3)}",
            self.chance.randrange(10),
            self.chance.randrange(4),
            number=self.submitted,
            suspect=self.chance.random() < 0.3,
            policy=self.chance.choice(["", "", "p0", "p1"]),
            barred=frozenset(
                self.chance.sample(sorted(self.homes), self.chance.choice([0, 0, 1, min(3, len(self.homes))]))
                if self.homes
                else ()
            ),
        )
        self.submitted += 1
        self.barred[job.task_id] |= job.barred
        self.waiting[job.id] = job
        self.take(self.shard.submit([job]))

    def done(self) -> None:
        if self.busy:
            ended = self.busy.pop(self.chance.choice(sorted(self.busy)))
            self.ended += 1
            self.take(self.shard.done(ended.attempt.id))

    def cell_goes(self) -> None:
        cell = self.chance.choice(["c0", "c1", "c2"])
        self.serving.discard(cell)
        if self.chance.random() < 0.5:
            self.take(self.shard.cell_down(cell, "died"))
        else:
            self.shard.drain(cell)
            self.check()

    def cell_comes(self) -> None:
        cell = self.chance.choice(["c0", "c1", "c2"])
        self.serving.add(cell)
        self.take(self.shard.cell_up(cell))

    def agent_comes(self) -> None:
        agent, cell, policy = f"a{len(self.policies)}", self.chance.choice(["c0", "c1", "c2"]), self.chance.choice("01")
        self.homes[agent], self.policies[agent] = cell, f"p{policy}"
        self.take(self.shard.add(agent, role="worker", policy=f"p{policy}", cell=cell))

    def agent_goes(self) -> None:
        if self.homes:
            agent = self.chance.choice(sorted(self.homes))
            del self.homes[agent]
            self.take(self.shard.remove([agent]))

    def agent_moves(self) -> None:
        idle = sorted(self.homes.keys() - self.busy.keys())
        if idle:
            agent, cell = self.chance.choice(idle), self.chance.choice(["c0", "c1", "c2"])
            self.homes[agent] = cell
            self.take(self.shard.move(agent, cell))

    def cancel(self) -> None:
        if self.waiting:
            gone = self.chance.choice(sorted(self.waiting))
            del self.waiting[gone]
            self.ended += 1
            assert list(self.shard.cancel([gone])) == []
            self.check()


MOVES = ["submit"] * 5 + ["done"] * 3 + "cell_goes cell_comes agent_comes agent_goes agent_moves cancel".split()


@given(SEEDS, st.integers(0, 300))
def test_a_roster_keeps_its_rules_whatever_happens(seed: int, moves: int) -> None:
    """Nothing lost, no agent with two attempts, one agent one vote, one suspect a cell, nobody idle beside its work."""
    world = World(Roster(rng=random.Random(seed)), random.Random(seed))
    for move in ["agent_comes"] * 4 + ["cell_comes"] * 3 + random.Random(seed + 1).choices(MOVES, k=moves):
        getattr(world, move)()


SCRIPT = """
from tests.unit.swarm.test_lanes import *
world = World(Roster(rng=random.Random(3)), random.Random(3))
for move in ["agent_comes"] * 9 + ["cell_comes"] * 3 + random.Random(4).choices(MOVES, k=400):
    getattr(world, move)()
    print([(agent, given.attempt.id) for agent, given in world.busy.items()])
"""


def test_the_same_calls_give_the_same_assignments_under_any_hash_seed() -> None:
    runs = [
        subprocess.Popen([sys.executable, "-c", SCRIPT], env={**os.environ, "PYTHONHASHSEED": seed}, stdout=-1)
        for seed in ("1", "2")
    ]
    first, second = (run.communicate(timeout=60)[0] for run in runs)
    assert first == second and first.count(b"m/t") > 400
