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
from chimera.swarm.instructions import Reported
from chimera.swarm.lanes import Lane, Line, TaskRecord, Waiting
from chimera.swarm.roster import Assignment, Roster, Step
from tests.unit.swarm.driver import Mission, node

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


def names(step: Step) -> list[str]:
    return [given.attempt.task_id for given in step.assignments]


def test_a_suspect_has_its_cell_to_itself() -> None:
    shard = roster(8, cells=2)
    step = shard.submit([attempt(f"s{n}", suspect=True) for n in range(5)])
    assert Counter(a.cell for a in step.assignments) == {"c0": 1, "c1": 1}
    first, second = step.assignments
    assert names(shard.submit([attempt("plain"), attempt("more")])) == [], "nothing shares a cell with a suspect"
    freed = shard.done(first.attempt.id)
    assert sorted(names(freed)) == ["more", "plain"] and {a.cell for a in freed.assignments} == {first.cell}
    (lost,) = shard.cell_down(second.cell, "died").reports
    assert lost.attempt_id == second.attempt.id and lost.alone
    (third,) = shard.cell_up(second.cell).assignments
    assert third.cell == second.cell and third.attempt.suspect
    assert names(shard.done("m/plain/0/1")) == []
    assert names(shard.done("m/more/0/1")) == ["s3"], "the first cell is idle again"


def test_a_cell_takes_no_more_until_the_suspect_that_waits_has_been_there_and_the_others_go_on() -> None:
    shard = roster(6, cells=3)
    busy = {a.cell: a.attempt.id for a in shard.submit([attempt(f"t{n}") for n in range(6)]).assignments}
    shard.submit([attempt("s0", suspect=True), attempt("s1", suspect=True), *(attempt(f"u{n}") for n in range(9))])
    ended = {cell: names(shard.done(attempt_id)) for cell, attempt_id in busy.items()}
    assert sorted(map(len, ended.values())) == [0, 1, 1], "one of the three is held"
    held = next(cell for cell, next_ in ended.items() if not next_)
    (last,) = (shard._agents[name].attempt for name in shard.agents_in(held) if shard._agents[name].attempt)
    assert last is not None
    (first,) = shard.done(last.id).assignments
    assert (first.attempt.task_id, first.cell) == ("s0", held)
    after = shard.done(first.attempt.id)
    assert len(after.assignments) == 2 and not any(a.attempt.suspect for a in after.assignments), "others have a turn"
    assert shard.waiting == 6, "s1, and u4 to u8"
    again = [shard.done(attempt_id) for attempt_id in sorted(shard._busy)]
    assert [names(step) for step in again].count(["s1"]) == 1


def test_a_manager_of_one_cell_holds_that_and_its_other_work_waits_its_turn() -> None:
    shard = roster(3)
    shard.submit([attempt("t0"), attempt("t1"), attempt("s", suspect=True)])
    assert names(shard.submit([attempt("u0"), attempt("u1")])) == [], "though an agent is free"
    assert names(shard.done("m/t0/0/1")) == []
    assert names(shard.done("m/t1/0/1")) == ["s"]
    assert sorted(names(shard.done("m/s/0/1"))) == ["u0", "u1"]


def test_a_held_cell_is_given_back_when_no_suspect_waits_for_it_any_more() -> None:
    shard = roster(2)
    shard.submit([attempt("t0"), attempt("t1")])
    shard.submit([attempt("s", suspect=True), attempt("u0")])
    assert names(shard.done("m/t0/0/1")) == []
    assert not list(shard.cancel(["m/s/0/1"]))
    assert names(shard.submit([attempt("u1")])) == ["u0"]


def test_a_suspect_whose_own_agents_are_down_holds_no_cell_of_others() -> None:
    shard = roster(2)
    shard.add("poet", role="poet", policy="p", cell="Agent[poet]")
    shard.submit([attempt("t0"), attempt("s", suspect=True, role="poet")])
    assert names(shard.submit([attempt("t1")])) == ["t1"]
    assert names(shard.cell_up("Agent[poet]")) == ["s"]
    (lost,) = shard.cell_down("Agent[poet]", "died").reports
    assert lost.alone, "it has a process of its own"


def test_who_was_lost_with_others_was_not_alone() -> None:
    shard = roster(4)
    shard.submit([attempt("t0"), attempt("t1")])
    assert [report.alone for report in shard.cell_down("c0", "died").reports] == [False, False]
    shard.cell_up("c0")
    shard.submit([attempt("t2"), attempt("t3")])
    shard.done("m/t2/0/1")
    assert [report.alone for report in shard.cell_down("c0", "died").reports] == [True]


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


class Hosts:
    """Missions of one task each, over a roster whose cells can be killed: every other part of a swarm is left out."""

    def __init__(self, cells: int, agents_each: int, seed: int) -> None:
        self.shard = roster(cells * agents_each, cells, seed)
        self.missions: dict[str, Mission] = {}
        self.sent: set[str] = set()
        self.given: dict[str, Assignment] = {}

    def admit(self, *names: str) -> None:
        for name in names:
            self.missions[name] = Mission(node("t", deadline_s=3_600.0, max_attempts=1), deadline_s=3_600.0, name=name)
        self.send()

    def send(self) -> None:
        """Every pause is over, and what has been dispatched is submitted."""
        for mission in self.missions.values():
            mission.pause()
            new = [attempt for attempt in mission.open.values() if attempt.id not in self.sent]
            self.sent |= {attempt.id for attempt in new}
            self.take(self.shard.submit(new))

    def take(self, step: Step) -> None:
        self.given |= {given.attempt.mission_id: given for given in step.assignments}
        for report in step.reports:
            del self.given[report.mission_id]
            mission = self.missions[report.mission_id]
            mission.open.pop(report.attempt_id)
            mission.tell(Reported(report))

    def kill(self, cell: str) -> None:
        self.take(self.shard.cell_down(cell, "died"))
        self.take(self.shard.cell_up(cell))
        self.send()

    def end(self, name: str) -> None:
        attempt_ = self.given.pop(name).attempt
        self.take(self.shard.done(attempt_.id))
        self.missions[name].reply("t", "well")

    def failures(self, name: str) -> list[FailureKind | None]:
        return [vote.failure for vote in self.missions[name].ended.replies]


@given(SEEDS, st.integers(1, 4), st.integers(2, 9), st.integers(1, 5), st.integers(1, 9))
@settings(max_examples=60)
def test_poison_is_found_and_nothing_else_is_called_poison(
    seed: int, cells: int, agents_each: int, poisons: int, well: int
) -> None:
    """Long tasks that do no harm, and tasks of other missions that kill whatever they run in, one after another."""
    chance = random.Random(seed)
    hosts = Hosts(cells, agents_each, seed)
    hosts.admit(*(f"well{n}" for n in range(well)))
    to_come = [f"poison{n}" for n in range(poisons)]
    kills: Counter[str] = Counter()
    while to_come or hosts.given:
        if to_come and (not hosts.given or chance.random() < 0.5):
            hosts.admit(to_come.pop())
        at_work = {name: given_.cell for name, given_ in hosts.given.items()}
        if poison := next((name for name in at_work if name.startswith("poison")), None):
            kills[poison] += 1
            hosts.kill(at_work[poison])
        elif at_work and chance.random() < 0.2:  # they take long
            hosts.end(chance.choice(sorted(at_work)))
    assert hosts.shard.waiting == hosts.shard.busy == 0
    for name in hosts.missions:
        assert hosts.failures(name) == ([FailureKind.POISON] if name.startswith("poison") else [None])
    assert all(number <= 4 for number in kills.values()), "and soon"


def test_a_task_whose_cells_are_killed_from_outside_twice_is_not_called_poison() -> None:
    hosts = Hosts(2, 3, 0)
    hosts.admit("m")
    for _ in range(2):
        hosts.kill(hosts.given["m"].cell)
    hosts.end("m")
    assert hosts.failures("m") == [None]


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

    def check(self, *, exact: bool = True) -> None:
        """`exact` but for those calls that cannot give work: what they change shows in the next step."""
        assert (self.shard.busy, self.shard.waiting) == (len(self.busy), len(self.waiting))
        assert self.submitted == self.ended + len(self.busy) + len(self.waiting)
        busy = Counter(a.cell for a in self.busy.values())
        apart = {a.cell for a in self.busy.values() if a.attempt.suspect}
        assert all(busy[cell] == 1 for cell in apart), "a suspect shares its cell"
        held = self.shard._held.name if self.shard._held else None
        if exact:
            assert not held or (busy[held] and held in self.serving - apart), "held in vain"
            assert not held or any(job.suspect for job in self.waiting.values()), "held for nobody"
        for job in self.waiting.values():
            able = [agent for agent in self.homes if self.may(agent, job)]
            assert able, "nobody could ever take it, and it was not refused"
            homes = {self.homes[agent] for agent in able} & self.serving
            if job.suspect and exact:
                assert all(busy[home] for home in homes), "it waits beside an idle cell"
                assert held or apart & self.serving or not homes, "its turn will never come"
            elif not job.suspect:
                for agent in able:
                    idle = agent not in self.busy and self.homes[agent] in self.serving
                    assert not idle or self.homes[agent] in apart | {held}, "it idles while work waits for it"

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
            self.check(exact=False)

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
            self.check(exact=False)


MOVES = ["submit"] * 5 + ["done"] * 3 + "cell_goes cell_comes agent_comes agent_goes agent_moves cancel".split()


@given(SEEDS, st.integers(0, 300))
def test_a_roster_keeps_its_rules_whatever_happens(seed: int, moves: int) -> None:
    """Nothing lost, no agent with two attempts, one agent one vote, suspects alone, nobody idle beside its work."""
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
