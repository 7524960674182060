"""From a sentence to a mission, by rules and by a model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import MissionError
from chimera.llm.chat import ChatModel, ChatRequest, ChatResponse
from chimera.llm.offline import OfflineModel
from chimera.swarm.intent import IntentCompiler, read_sentence
from chimera.swarm.mission import Limits, Mission


class ScriptedModel(ChatModel):
    """A model that gives the answers it was given, in order, and remembers what it was asked."""

    name = "scripted"
    writes = True

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[ChatRequest] = []

    async def chat(self, request: ChatRequest) -> ChatResponse:
        self.asked.append(request)
        return ChatResponse(text=self.answers.pop(0))


def said(sentence: str) -> dict[str, Any]:
    """What the rules understood, less what is a default anyway."""
    return read_sentence(sentence).model_dump(mode="json", exclude_defaults=True)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("How many?", {"goal": "How many?"}),
        ("  How many?  \n", {"goal": "How many?"}),
        (
            "Summarise it, decide by majority within 3 seconds.",
            {"goal": "Summarise it, decide by majority within 3 seconds."},
        ),
        ("Who? Where? Decide by majority.", {"goal": "Who? Where?", "consensus": "majority"}),
        ("Do we decide by majority with 2 replicas?", {"goal": "Do we decide by majority with 2 replicas?"}),
        ("Q? decide by a majority vote", {"goal": "Q?", "consensus": "majority"}),
        ("Q? DECIDE UNANIMOUSLY", {"goal": "Q?", "consensus": "unanimous"}),
        ("Q? decide by unanimity.", {"goal": "Q?", "consensus": "unanimous"}),
        ("Q? Decide by quorum.", {"goal": "Q?", "consensus": "quorum"}),
        ("Q? Decide by quorum of 60 %.", {"goal": "Q?", "consensus": "quorum", "threshold": 0.6}),
        ("Q? decide by a quorum of 75.5%", {"goal": "Q?", "consensus": "quorum", "threshold": 0.755}),
        ("Q? decide by quorum of 60 percent", {"goal": "Q?", "consensus": "quorum", "threshold": 0.6}),
        ("Q? within 30 seconds", {"goal": "Q?", "limits": {"deadline_s": 30.0}}),
        ("Q? Within 2 minutes.", {"goal": "Q?", "limits": {"deadline_s": 120.0}}),
        ("Q? within 1.5 h", {"goal": "Q?", "limits": {"deadline_s": 5400.0}}),
        ("Q? with 5 replicas and with 9 agents", {"goal": "Q?", "replicas": 5, "agents": 9}),
        ("Q? with 1 replica.", {"goal": "Q?", "replicas": 1}),
        ("Q? over docs /a/b.d.", {"goal": "Q?", "docs": "/a/b.d"}),
        ('Q? in the docs "/a b/c", within 3 s', {"goal": "Q?", "docs": "/a b/c", "limits": {"deadline_s": 3.0}}),
        ("Q? in docs package:sklearn/datasets/descr", {"goal": "Q?", "docs": "package:sklearn/datasets/descr"}),
    ],
)
def test_an_instruction_after_the_question_is_understood(sentence: str, expected: dict[str, Any]) -> None:
    assert said(sentence) == expected


def test_several_instructions_in_any_order() -> None:
    sentence = "Which one, and why? Within 2 minutes, decide by weighted vote over docs ./d, and with 4 replicas."
    mission = read_sentence(sentence)
    assert mission == Mission(goal="Which one, and why?", docs="./d", replicas=4, limits=Limits(deadline_s=120.0))


@pytest.mark.parametrize(
    ("sentence", "goal"),
    [
        ("Q? Please be brief. Decide by majority.", "Q? Please be brief"),
        ("Q? Decide by majority, and name the file.", "Q? and name the file"),
        ("Q? within 3 sunsets, with two replicas.", "Q? within 3 sunsets, with two replicas."),
        ("Q? decide by lot", "Q? decide by lot"),
        ('She asked "why?" Decide by majority.', 'She asked "why?"'),
        ("Q? decide by majorities with 3 replicasets", "Q? decide by majorities with 3 replicasets"),
    ],
)
def test_words_that_are_not_understood_stay_in_the_goal(sentence: str, goal: str) -> None:
    assert read_sentence(sentence).goal == goal


@given(st.text(min_size=1, max_size=200).filter(lambda text: text.strip() != ""))
def test_no_sentence_loses_a_word(text: str) -> None:
    """None of these letters can make a directive, so the goal is all that was said."""
    sentence = "".join(letter for letter in text if letter not in "dDwWoOiI") + "x"
    try:
        goal = read_sentence(sentence).goal
    except MissionError:
        assert any(0xD800 <= ord(letter) < 0xE000 for letter in sentence)
        return
    assert goal == sentence.strip()


@pytest.mark.parametrize(
    ("sentence", "says"),
    [
        ("Q? with 99 replicas", r"replicas: must be at most 64 \(got 99\)"),
        ("Q? with 0 replicas", "replicas: must be at least 1"),
        ("Q? within 90 hours", "limits.deadline_s: must be at most 86400"),
        ("Q? decide by quorum of 160 %", "threshold: must be at most 1"),
        ("Q? decide by majority, decide unanimously", "which one: 'decide by majority' and 'decide unanimously'"),
        ("Q? within 3 seconds or within 5 seconds", "which one"),
    ],
)
def test_an_instruction_that_cannot_be_followed_is_named(sentence: str, says: str) -> None:
    with pytest.raises(MissionError, match=says):
        read_sentence(sentence)


@pytest.mark.parametrize("sentence", ["", "  \n", "x" * 20_001])
async def test_a_goal_is_neither_empty_nor_endless(sentence: str) -> None:
    for compiler in (IntentCompiler(), IntentCompiler(ScriptedModel())):
        with pytest.raises(MissionError, match="goal"):
            await compiler.compile(sentence)


async def test_a_mapping_is_checked_and_no_model_is_asked() -> None:
    assert await IntentCompiler(ScriptedModel()).compile({"goal": "g", "replicas": 2}) == Mission(goal="g", replicas=2)
    with pytest.raises(MissionError, match="replicas"):
        await IntentCompiler().compile({"goal": "g", "replicas": 0})


async def test_a_model_that_only_extracts_leaves_it_to_the_rules() -> None:
    mission = await IntentCompiler(OfflineModel()).compile("Q? with 2 replicas")
    assert mission == Mission(goal="Q?", replicas=2)


@pytest.mark.parametrize("wrap", ["{}", "```json\n{}\n```", "\n```\n{}\n```\n"])
async def test_a_model_writes_the_mission(wrap: str) -> None:
    answer = json.dumps({"goal": "Count them", "replicas": 5})
    model = ScriptedModel(wrap.replace("{}", answer))
    assert await IntentCompiler(model).compile("five of you, count them") == Mission(goal="Count them", replicas=5)
    [request] = model.asked
    assert '"max_attempts"' in request.messages[0].content, "the model is shown the schema"
    assert request.messages[1].content == "five of you, count them"


async def test_a_model_is_told_its_mistake_once() -> None:
    model = ScriptedModel('{"goal": "g", "replicas": 0}', '{"goal": "g", "replicas": 1}')
    assert (await IntentCompiler(model).compile("g")).replicas == 1
    assert model.asked[1].messages[2].content == '{"goal": "g", "replicas": 0}'
    assert "replicas: must be at least 1 (got 0)" in model.asked[1].messages[3].content


async def test_two_mistakes_are_an_error() -> None:
    model = ScriptedModel("I would rather not.", '{"goal": 3}', '{"goal": "too late"}')
    with pytest.raises(MissionError, match="scripted wrote no valid mission, twice: goal: must be text"):
        await IntentCompiler(model).compile("g")
    assert len(model.asked) == 2


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"spawn": [{"policy": "os:system"}]}, "spawn"),
        ({"docs": "/etc"}, "docs"),
        ({"docs": "/"}, "docs"),
        ({"docs": "/my/do"}, "docs"),
        ({"model": "openai:dear"}, "model"),
    ],
)
async def test_a_model_does_not_choose_code_files_or_models(fields: dict[str, Any], says: str) -> None:
    answer = json.dumps({"goal": "g", **fields})
    with pytest.raises(MissionError, match=f"twice: {says}: "):
        await IntentCompiler(ScriptedModel(answer, answer)).compile("read my notes in /my/docs")


@pytest.mark.parametrize("sentence", ["read /my/docs", 'read "/my/docs", please', "In /my/docs. Look there."])
async def test_documents_that_the_user_named_are_fine(sentence: str) -> None:
    model = ScriptedModel('{"goal": "read", "docs": "/my/docs"}')
    assert (await IntentCompiler(model).compile(sentence)).docs == "/my/docs"
