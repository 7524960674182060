"""Decisions that wait for a person: when, what time does meanwhile, what each answer comes to, and its replay."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chimera.core.errors import GraphError, MissionError
from chimera.core.events import EventKind
from chimera.core.types import Budget, Consensus, FailureKind, MissionState, Outcome, Spend, Task
from chimera.swarm import facts
from chimera.swarm.attempt import Attempt, Report
from chimera.swarm.decomposition import TaskDecomposer
from chimera.swarm.held import MAX_OTHERS, NEAR, HeldTask, Review
from chimera.swarm.instructions import Cancelled, Reported, Resumed, Reviewed, Tick
from chimera.swarm.mission_file import parse_mission
from chimera.swarm.replay import rebuild
from tests.unit.swarm.chance import on_the_tick
from tests.unit.swarm.driver import Mission, encoded, node
from tests.unit.swarm.test_replay import DECOMPOSER, ends_of_steps, recorded, said, stored

WEEK_S = 604_800.0


def a_held(*after: Any, **task: Any) -> Mission:
    """A mission whose one task, or whose first one, waits for a person."""
    mission = Mission(node("t", review="always", **task), *after, deadline_s=20.0)
    mission.reply("t", "proposed", now=5.0)
    return mission


def test_a_held_mission_has_nobody_at_work_nothing_reserved_and_no_timer_but_the_reviews_own() -> None:
    mission = Mission(
        node("t", review="always", replicas=3),
        node("last", "t"),
        budget=Budget(usd=1.0),
        deadline_s=20.0,
    )
    mission.reply("t", "a", 0, now=5.0)
    mission.reply("t", "a", 1, now=6.0)
    assert [each.task_id for each in mission.brain.held] == ["t"] and mission.brain.waits
    assert not mission.open and set(mission.cancelled) == {"m/t/2/1"}
    mission.report(mission.cancelled.pop("m/t/2/1"), failure=FailureKind.CANCELLED)
    assert mission.brain.reserved == Spend()
    assert mission.brain.wake_at == 6.0 + WEEK_S
    assert mission.kinds.count(EventKind.TASK_HELD) == 1 and EventKind.TASK_DECIDED not in mission.kinds
    assert mission.appraisals == [], "nobody has judged yet"
    [asked] = mission.asked
    assert (asked.proposal.value, asked.confidence, asked.others) == ("a", 1.0, ())


def test_what_is_approved_goes_on_as_it_was_proposed() -> None:
    mission = a_held(node("last", "t"))
    mission.review("t", "approve", now=1_000.0)
    assert mission.work("last").upstream["t"].decision.value == "proposed"
    mission.reply("last", "done")
    assert (mission.ended.state, mission.ended.value) == (MissionState.ANSWERED, "done")
    assert [(each.agent, each.good) for each in mission.appraisals] == [("a0", 1.0)] * 2


def test_what_is_edited_goes_on_as_the_person_said() -> None:
    mission = a_held(node("last", "t"), replicas=3, consensus=Consensus.QUORUM, threshold=0.5, early_stop=False)
    mission.reply("t", "Edited", 1)
    mission.reply("t", "proposed", 2)
    mission.review("t", "edit", value={"by": "a person"}, reason="better")
    upstream = mission.work("last").upstream["t"]
    assert upstream.decision.value == {"by": "a person"} and upstream.decision.agreed
    assert (upstream.supporters, upstream.confidence, upstream.decision.support) == ((), 0.0, 0.0)
    assert upstream.decision.explanation == "edited by ada: better"
    assert sorted((each.agent, each.good) for each in mission.appraisals) == [("a0", NEAR), ("a1", 0.0), ("a2", NEAR)]


def test_who_had_voted_for_what_the_person_says_was_right() -> None:
    mission = a_held(replicas=3, consensus=Consensus.QUORUM, threshold=0.5, early_stop=False)
    mission.reply("t", 7, 1, confidence=0.9)
    mission.reply("t", "proposed", 2)
    assert mission.asked[0].others == (7,)
    mission.review("t", "edit", value=7.0)
    assert sorted((each.agent, each.good) for each in mission.appraisals) == [("a0", NEAR), ("a1", 1.0), ("a2", NEAR)]
    assert (mission.ended.value, mission.ended.supporters, mission.ended.confidence) == (7.0, ("replica-1",), 0.3)


def test_what_is_rejected_fails_the_mission_and_its_value_is_nobodys_result() -> None:
    mission = a_held(node("last", "t", needs="settled"))
    mission.review("t", "reject", reason="it is wrong")
    ended = mission.ended
    assert (ended.state, ended.value) == (MissionState.FAILED, None)
    assert ended.error == {"kind": "SwarmError", "message": "t: rejected by ada: it is wrong", "reason": "rejected"}
    assert not mission.open, "what waited for it does not start"
    assert [(each.agent, each.good) for each in mission.appraisals] == [("a0", 0.0)]


def test_nobody_in_time_is_a_rejection_that_blames_nobody() -> None:
    mission = a_held(review_s=100.0)
    assert mission.tell(Tick(), 104.9) and mission.result is None
    mission.tell(Tick(), 105.0)
    assert mission.ended.state is MissionState.FAILED and "nobody decided in time" in mission.ended.explanation
    assert mission.appraisals == []
    assert mission.tell(Reviewed("t", Review(verdict="approve", by="ada"))) == []


def test_an_answer_twice_or_of_what_is_not_held_changes_nothing() -> None:
    mission = a_held(node("last", "t"))
    yes = Review(verdict="approve", by="ada")
    assert mission.tell(Reviewed("last", yes)) == [] == mission.tell(Reviewed("none", yes))
    assert "is not held" in mission.brain.holds.refusal("none", yes)
    assert mission.tell(Reviewed("t", yes))
    assert mission.tell(Reviewed("t", yes)) == [] and mission.brain.holds.refusal("t", yes) == ""
    no = Review(verdict="reject", by="bob", reason="no")
    assert mission.tell(Reviewed("t", no)) == []
    assert "another one: approved by ada" in mission.brain.holds.refusal("t", no)
    assert mission.kinds.count(EventKind.TASK_REVIEWED) == 1


def test_no_agreement_is_held_too_and_cannot_be_approved() -> None:
    mission = Mission(node("t", review="policy", replicas=2))
    mission.reply("t", "a", 0)
    mission.reply("t", "b", 1)
    [asked] = mission.asked
    assert (asked.proposal.outcome, asked.others) == (Outcome.TIE, ("a", "b"))
    assert mission.review("t", "approve") == []
    assert "edit it, or reject it" in mission.brain.holds.refusal("t", Review(verdict="approve", by="ada"))
    mission.review("t", "edit", value="b")
    assert (mission.ended.state, mission.ended.value) == (MissionState.ANSWERED, "b")


def test_where_no_agent_replied_there_is_nothing_to_look_at() -> None:
    mission = Mission(node("t", review="always", max_attempts=1))
    mission.fail("t", FailureKind.RAISED)
    assert not mission.asked and mission.ended.state is MissionState.UNDECIDED


@pytest.mark.parametrize(("confidence", "held"), [(0.69, True), (0.7, False), (1.0, False), (0.0, True)])
def test_by_policy_only_what_the_swarm_is_not_sure_of_is_held(confidence: float, held: bool) -> None:
    mission = Mission(node("t", review="policy"))
    mission.reply("t", "v", confidence=confidence)
    assert bool(mission.brain.held) is held


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_more_confidence_never_asks_more_people(low: float, more: float, below: float) -> None:
    def held(confidence: float) -> bool:
        mission = Mission(node("t", review="policy", review_below=below))
        mission.reply("t", "v", confidence=confidence)
        return bool(mission.brain.held)

    assert held(min(low, more)) >= held(max(low, more))


def test_the_deadline_stands_still_for_as_long_as_anything_is_held() -> None:
    mission = a_held(node("last", "t"))
    mission.review("t", "approve", now=100_005.0)
    [last] = mission.open.values()
    assert last.timeout_s == 15.0 and mission.brain.wake_at == 100_020.0, "15 s are left, as there were"
    mission.tell(Tick(), 100_020.0)
    assert mission.ended.state is MissionState.EXPIRED and mission.ended.elapsed_s == 100_020.0


def test_others_at_work_lose_no_time_and_two_that_are_held_are_one_pause() -> None:
    first, second = (node(name, review="always") for name in "ab")
    mission = Mission(first, second, node("slow"), node("end", "a", "b", "slow"), deadline_s=20.0)
    mission.reply("a", 1, now=2.0)
    mission.reply("b", 2, now=10.0)
    assert mission.brain.outstanding(15.0)[0].timeout_s == 15.0, "as from the start, less the 2 s before the pause"
    mission.review("a", "approve", now=40.0)
    assert mission.brain.wake_at == 10.0 + WEEK_S, "b is held"
    mission.review("b", "approve", now=50.0)
    assert mission.brain.wake_at == 68.0
    mission.reply("slow", 3, now=60.0)
    assert mission.open["m/end/0/1"].timeout_s == 8.0


def test_a_mission_that_ends_otherwise_gives_no_value_that_nobody_has_looked_at() -> None:
    mission = a_held()
    mission.tell(Cancelled("enough"))
    assert (mission.ended.state, mission.ended.value) == (MissionState.CANCELLED, None)
    assert mission.brain.held == []
    votes: dict[str, Any] = {"replicas": 2, "early_stop": False, "consensus": "quorum", "threshold": 0.5}
    late = Mission(node("t", review="always", **votes), deadline_s=10.0)
    late.reply("t", "v", 0, now=1.0)
    late.tell(Tick(), 10.0)
    assert (late.ended.state, late.ended.value) == (MissionState.EXPIRED, None)


def test_a_person_makes_up_for_who_was_not_heard_in_time() -> None:
    slow = node("t", review="always", replicas=2, early_stop=False, deadline_s=5.0, consensus="quorum", threshold=0.5)
    mission = Mission(slow, deadline_s=20.0)
    mission.reply("t", "v", 0, now=1.0)
    mission.tell(Tick(), 5.0)
    mission.review("t", "approve")
    assert mission.ended.state is MissionState.ANSWERED


def test_another_swarm_gives_people_all_of_their_time_again() -> None:
    mission = a_held(review_s=100.0)
    mission.tell(Resumed("s2"), 90.0)
    assert mission.brain.wake_at == 190.0 and mission.brain.held[0].until_s == 190.0
    brain, _ = rebuild(stored(mission.events), decomposer=DECOMPOSER, now=90.0, wall=90.0)
    assert brain.held == mission.brain.held


def test_what_an_answer_may_be() -> None:
    for wrong in (
        {"verdict": "reject"},
        {"verdict": "reject", "reason": " "},
        {"verdict": "approve", "value": 1},
        {"verdict": "edit", "value": float("nan")},
        {"verdict": "edit", "value": "\ud800"},
        {"verdict": "approve", "by": ""},
        {"verdict": "agree"},
    ):
        with pytest.raises(ValidationError):
            Review.model_validate({"by": "ada", **wrong})


def test_what_a_person_is_shown_has_limits() -> None:
    mission = Mission(node("t", review="always", replicas=12))
    for replica in range(12):
        mission.reply("t", "v" * 20_000 if replica == 0 else f"v{replica}", replica)
    [asked] = mission.asked
    assert len(asked.others) <= MAX_OTHERS and all(len(str(value)) < 10_000 for value in asked.others)
    assert len(asked.brief().goal) <= 300
    assert HeldTask.model_validate_json(asked.model_dump_json()) == asked


def a_life(seed: int) -> Mission:
    """Tasks in a chain and beside one another, most of them held; whatever may happen to them does."""
    chance = Random(seed)
    names = [f"t{n}" for n in range(chance.randint(2, 5))]
    nodes = [
        node(
            name,
            *([chance.choice(names[:n])] if n and chance.random() < 0.5 else []),
            needs=chance.choice(["agreed", "settled"]),
            replicas=chance.randint(1, 3),
            early_stop=chance.random() < 0.5,
            review=chance.choice(["policy", "always", "always"]),
            review_s=chance.choice([8.0, WEEK_S]),
            deadline_s=chance.choice([6.0, 60.0]),
        )
        for n, name in enumerate(names)
    ]
    mission = Mission(*nodes, output=names[-1], deadline_s=16.0, wall_ahead_s=float(chance.randint(0, 2**31)))
    while mission.result is None:
        now = on_the_tick(mission.now) + chance.choice([0, 1, 32, 64, 640]) / 64
        held = [each.task_id for each in mission.brain.held]
        what = chance.random()
        if what < 0.05:
            mission.tell(Resumed(f"s{seed}"), now)
        elif what < 0.45 and mission.open:
            attempt = mission.open.pop(chance.choice(sorted(mission.open)))
            mission.tell(Reported(_report(chance, attempt)), now)
        elif what < 0.85 and held:
            verdict: Any = chance.choice(["approve", "approve", "edit", "edit", "reject"] if what < 0.6 else ["edit"])
            value: Any = chance.choice(["a", 3]) if verdict == "edit" else None
            answer = Review(verdict=verdict, by="ada", reason="r", value=value)
            mission.tell(Reviewed(chance.choice(held), answer), now)
        else:
            mission.tell(Tick(), max(mission.brain.wake_at, mission.now) if what > 0.95 else now)
    return mission


def _report(chance: Random, attempt: Attempt) -> Report:
    reply = encoded(chance.choice(["a", "a", "b"]), confidence=chance.choice([0.2, 1.0]))
    return Report(attempt.id, attempt.mission_id, agent=f"a{chance.randint(0, 3)}", reply=reply, elapsed_s=0.5)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_was_held_when_it_died_a_rebuilt_brain_goes_on_as_the_first_would_have(seed: int) -> None:
    mission = a_life(seed)
    journal = stored(mission.events)
    for length, (number, ends) in enumerate(ends_of_steps(mission), 1):
        shift_s = (length % 3) * 4096.0
        told = mission.told[number]
        now = on_the_tick(told.now)
        brain, rest = rebuild(
            journal[:length], decomposer=DECOMPOSER, now=now + shift_s, wall=now + mission.wall_ahead_s
        )
        assert brain.held == told.held and set(brain.open_attempts) == told.open
        assert recorded(rest) == mission.events[length:ends]
        for later in mission.told[number + 1 :]:
            again = brain.handle(later.happening, brain.wake_at if later.due else later.now + shift_s)
            assert said(again) == said(later.steps)
        assert brain.ended


def test_the_lives_above_hold_several_tasks_at_once_and_end_in_many_ways() -> None:
    lives = [a_life(seed) for seed in range(60)]
    assert max(len(told.held) for life in lives for told in life.told) >= 2
    assert {life.ended.state for life in lives} >= {MissionState.ANSWERED, MissionState.FAILED, MissionState.EXPIRED}
    told = {(e.data["verdict"], bool(e.data["by"])) for m in lives for e in m.events if "verdict" in e.data}
    assert told == {("approve", True), ("edit", True), ("reject", True), ("reject", False)}
    for life in lives:  # nothing that had to be looked at has agreed without a person
        looked_at = {e.task_id for e in life.events if e.kind is EventKind.TASK_REVIEWED and e.data["by"]}
        for event in life.events:
            if event.kind is EventKind.TASK_HELD and event.task_id not in looked_at:
                [decided] = [e for e in life.events if e.kind is EventKind.TASK_DECIDED and e.task_id == event.task_id]
                assert decided.data["outcome"] != "agreed"


def test_what_a_journal_tells_of_what_is_held() -> None:
    mission = a_held(node("last", "t"))
    assert facts.held_in(mission.events) == ["t"]
    mission.review("t", "approve")
    assert facts.held_in(mission.events) == []


def of(**fields: Any) -> dict[str, Task]:
    graph = TaskDecomposer().decompose(parse_mission({"goal": "g", "consensus": "majority", **fields}))
    return {each.id: each.task for each in graph.nodes}


def test_a_missions_own_review_is_that_of_its_output() -> None:
    assert of(review="always")["task"].review == "always"
    brief = of(docs="/docs", review="policy", review_below=0.8, review_s=60)
    assert {name: task.review for name, task in brief.items()} == {
        **dict.fromkeys(("plan", "extract", "judge"), "never"),
        "compose": "policy",
    }
    assert (brief["compose"].review_below, brief["compose"].review_s) == (0.8, 60.0)
    tasks = [{"id": "a", "goal": "a"}, {"id": "b", "goal": "b", "after": ["a"], "review_below": 0.0}]
    found = of(tasks=tasks, review="policy", review_below=0.8)
    assert (found["a"].review, found["b"].review, found["b"].review_below) == ("never", "policy", 0.0)


def test_a_task_says_itself_whether_it_is_reviewed() -> None:
    tasks = [{"id": "a", "goal": "a", "review": "always"}, {"id": "b", "goal": "b", "after": ["a"], "review": "never"}]
    found = of(tasks=tasks, review="always")
    assert (found["a"].review, found["b"].review) == ("always", "never")


@pytest.mark.parametrize(
    "wrong", [{"review": "sometimes"}, {"review": True}, {"review_below": 1.5}, {"review_s": 0}, {"review_s": 3e6}]
)
def test_a_mission_file_that_says_it_wrong_is_told_where(wrong: dict[str, Any]) -> None:
    with pytest.raises((MissionError, GraphError), match=next(iter(wrong))):
        of(**wrong)
    with pytest.raises(MissionError, match=rf"tasks\[0\]\.{next(iter(wrong))}"):
        of(tasks=[{"id": "a", "goal": "a", **wrong}])
