from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chimera.core.types import FailureKind
from chimera.swarm.attempt import Appraisal, Attempt
from chimera.swarm.routing import Router


def attempt(replica: int = 0, *, task: str = "t", number: int = 1, mission: str = "m", **fields: Any) -> Attempt:
    id_ = f"{mission}/{task}/{replica}/{number}"
    return Attempt(id_, mission, task, replica, number, fields.pop("role", "worker"), 1.0, b"", **fields)


def router(*agents: tuple[str, str], **fields: Any) -> Router:
    """Workers as `(manager, agent)`."""
    made = Router()
    for manager, agent in agents:
        made.add(manager, agent, **{"role": "worker", "policy": "p", **fields})
    return made


def sent(found: Router, *attempts: Attempt) -> list[str]:
    """Whom each of these goes to, one after another; an empty string: refused."""
    return [next(iter(found.route([one])[0]), "") for one in attempts]


def test_the_manager_whose_agents_have_least_to_do_is_chosen() -> None:
    small, large = [("a", "a0")], [("b", f"b{n}") for n in range(3)]
    found = router(*small, *large)
    told = sent(found, *(attempt(mission=f"m{n}") for n in range(8)))
    assert Counter(told) == {"a": 2, "b": 6}
    for n in range(8):
        if told[n] == "a":
            found.ended(f"m{n}/t/0/1")
    assert sent(found, *(attempt(mission=f"n{n}") for n in range(2))) == ["a", "a"]


@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.data())
def test_one_agent_one_vote_holds_over_all_managers(sizes: list[int], data: st.DataObject) -> None:
    """As many replicas as there are agents: no manager is given more of a task than it has agents who may take it."""
    found = router(*((f"m{m}", f"m{m}a{n}") for m, size in enumerate(sizes) for n in range(size)))
    voted: set[str] = set()
    at: Counter[str] = Counter()
    for replica in range(sum(sizes)):
        one = attempt(replica, barred=frozenset(voted))
        [(manager, [same])] = found.route([one])[0].items()
        assert same is one
        at[manager] += 1
        if data.draw(st.booleans()):  # it is answered before the next is sent
            free = [f"{manager}a{n}" for n in range(sizes[int(manager[1:])]) if f"{manager}a{n}" not in voted]
            voted.add(data.draw(st.sampled_from(free)))
            assert found.ended(one.id) == ("m", 0.0)
    assert at == {f"m{m}": size for m, size in enumerate(sizes)}


def test_who_voted_or_failed_is_not_counted_as_able() -> None:
    found = router(("a", "a0"), ("b", "b0"), ("b", "b1"))
    assert sent(found, attempt(0, barred=frozenset({"b0", "b1"}))) == ["a"]
    assert sent(found, attempt(0, task="u", barred=frozenset({"a0"}))) == ["b"]


def test_an_attempt_that_is_in_progress_stays_with_its_manager() -> None:
    found = router(("a", "a0"), ("b", "b0"))
    [first] = sent(found, attempt())
    assert sent(found, attempt(), attempt()) == [first, first]
    assert found.open_at(first) == {"m/t/0/1"} and found.manager_of("m/t/0/1") == first
    assert "m/t/0/1" in found
    assert found.ended("m/t/0/1") == ("m", 0.0)
    assert found.ended("m/t/0/1") is None and found.manager_of("m/t/0/1") is None
    assert sent(found, attempt(task="u"), attempt(task="v")) == ["a", "b"], "nothing of it is left"


def test_each_replica_goes_to_another_policy_wherever_it_is() -> None:
    found = Router()
    for manager, policy in (("a", "q"), ("b", "p"), ("b", "q")):
        found.add(manager, f"{manager}{policy}", role="worker", policy=policy)
    routed, refused = found.route([attempt(replica, different=True) for replica in range(3)])
    policies = {one.replica: one.policy for attempts in routed.values() for one in attempts}
    assert policies == {0: "p", 1: "q"}
    [report] = refused
    assert (report.attempt_id, report.failure) == ("m/t/2/1", FailureKind.NO_AGENT)
    assert report.detail == "role 'worker' has 2 different policies; replica 3 needs another"


def test_a_policy_is_only_asked_where_it_is() -> None:
    found = Router()
    for n in range(9):
        found.add("a", f"a{n}", role="worker", policy="p")
    found.add("b", "b0", role="worker", policy="q")
    routed, _ = found.route([attempt(1, task=f"t{n}", different=True) for n in range(20)])
    assert {manager: len(attempts) for manager, attempts in routed.items()} == {"b": 20}


def test_a_skill_is_only_asked_of_those_who_have_it() -> None:
    found = router(*(("a", f"a{n}") for n in range(9)))
    found.add("b", "b0", role="worker", policy="p", skills=["french", "law"])
    assert sent(found, *(attempt(task=f"t{n}", skill="law") for n in range(5))) == ["b"] * 5
    [refusal] = found.route([attempt(skill="latin")])[1]
    assert refusal.detail == "no agent has role 'worker' and skill 'latin'; spawn one"


def test_nobody_of_the_role_is_a_refusal_that_says_what_to_do() -> None:
    found = router(("a", "a0"))
    for different in (False, True):
        [refusal] = found.route([attempt(role="poet", different=different)])[1]
        assert refusal.detail == "no agent has role 'poet'; spawn one"
        assert refusal.mission_id == "m" and refusal.failure is FailureKind.NO_AGENT


def test_agents_that_left_are_not_counted() -> None:
    found = router(("a", "a0"), ("b", "b0"))
    found.remove("a0")
    found.remove("a0")
    assert sent(found, attempt(), attempt(1)) == ["b", "b"], "its manager knows best that it has nobody left"
    assert (len(found), found.agents_of("a"), found.agents_of("b"), found.roles) == (1, 0, 1, {"worker"})


def test_appraisals_go_to_the_manager_of_whom_they_are_about() -> None:
    found = router(("a", "a0"), ("b", "b0"))
    about = [Appraisal("b0", "", 1.0), Appraisal("a0", "", 0.0), Appraisal("who", "", 1.0), Appraisal("b0", "x", 0.5)]
    assert found.sort(about) == {"b": [about[0], about[3]], "a": [about[1]]}


def test_a_manager_whose_agents_cannot_be_given_work_gets_only_what_no_other_can_take() -> None:
    found = router(("a", "a0"), ("b", "b0"))
    found.weigh("a", 0.0)
    assert sent(found, *(attempt(mission=f"m{n}") for n in range(3))) == ["b"] * 3
    found.weigh("b", 0.0)
    assert sent(found, attempt(mission="n")) == ["a"], "nobody has any: it waits where least is to do"
    found.weigh("a", 1.0)
    assert sent(found, *(attempt(mission=f"o{n}") for n in range(2))) == ["a"] * 2


def test_work_goes_by_the_agents_that_can_be_given_it() -> None:
    found = router(*(("a", f"a{n}") for n in range(4)), *(("b", f"b{n}") for n in range(4)))
    found.weigh("a", 0.25)
    assert Counter(sent(found, *(attempt(mission=f"m{n}") for n in range(10)))) == {"a": 2, "b": 8}
