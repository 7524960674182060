"""A failure becomes patches: what the model is told, and what becomes of its answers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from chimera.core.errors import HealingError, InputError, ModelError, PatchInvalid
from chimera.healing.blocks import parse_blocks
from chimera.healing.failure import Failure
from chimera.healing.generator import MAX_FILES_CHARS, CodeGenerator, GeneratorOptions, _written
from chimera.healing.patch import CodePatch
from chimera.llm.chat import ChatModel, ChatRequest, ChatResponse
from chimera.llm.offline import OfflineModel

FILES = {"shop/prices.py": "def total(prices):\n    return sum(prices) / 0\n"}
FAILURE = Failure(kind="traceback", module="shop.prices", text="ZeroDivisionError: division by zero")
GOOD = """\
Adds up the prices.

They were divided by zero, which always raises.

shop/prices.py
<<<<<<< SEARCH
    return sum(prices) / 0
=======
    return {}
>>>>>>> REPLACE

test_total.py
```python
from shop.prices import total

def test_total():
    assert total([1, 2]) == 3
```
"""
SUM, LOOP = GOOD.format("sum(prices)"), GOOD.format("sum(price for price in prices)")
MISFIT = GOOD.replace("/ 0", "/ 1")


class Scripted(ChatModel):
    """Answers what it was given, and keeps what it was asked."""

    name, writes = "scripted", True

    def __init__(self, answers: Sequence[str | ChatResponse | Exception]) -> None:
        self.answers = list(answers)
        self.asked: list[ChatRequest] = []

    async def chat(self, request: ChatRequest) -> ChatResponse:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return ChatResponse(text=answer, cost_usd=0.5, provider="p", model="m") if isinstance(answer, str) else answer


async def made(model: Scripted, remembered: Sequence[str] = (), **options: int) -> list[CodePatch]:
    generator = CodeGenerator(model, options=GeneratorOptions(**options))
    return [patch async for patch in generator.candidates(FAILURE, FILES, remembered=remembered)]


async def test_a_failure_and_the_files_become_a_patch_with_its_test_and_its_price() -> None:
    model = Scripted([SUM])
    [patch] = await made(model, ["dividing by 1 was rejected"], candidates=1)
    assert patch.summary == "Adds up the prices."
    assert "always raises" in patch.rationale
    assert (patch.paths, [test.path for test in patch.tests]) == (("shop/prices.py",), ["test_total.py"])
    assert (patch.provider, patch.model, patch.cost_usd) == ("p", "m", 0.5)
    told = model.asked[0].messages[-1].content
    assert all(part in told for part in (FAILURE.text, FILES["shop/prices.py"].strip(), "dividing by 1 was rejected"))


async def test_candidates_differ_and_the_same_patch_comes_once() -> None:
    model = Scripted([SUM, SUM, LOOP])
    assert len(await made(model, candidates=3)) == 2
    assert [request.temperature for request in model.asked] == [0.0, 0.7, 0.7]
    assert len({request.seed for request in model.asked}) == 3


async def test_an_answer_that_does_not_fit_is_told_so_and_paid_for() -> None:
    model = Scripted(["I cannot help it.", SUM])
    [patch] = await made(model, candidates=1)
    assert patch.cost_usd == 1.0
    assert "there is no edit" in model.asked[1].messages[-1].content
    model = Scripted([MISFIT, SUM])
    assert len(await made(model, candidates=1)) == 1
    assert "not in the file" in model.asked[1].messages[-1].content


async def test_an_unknown_price_stays_unknown() -> None:
    [patch] = await made(Scripted([MISFIT, ChatResponse(text=SUM)]), candidates=1)
    assert patch.cost_usd is None


async def test_one_bad_candidate_is_left_out_and_none_at_all_is_an_error() -> None:
    assert len(await made(Scripted(["no", "no", SUM]), candidates=2)) == 1
    with pytest.raises(HealingError, match="wrote no patch that fits: there is no edit"):
        await made(Scripted(["no"] * 4), candidates=2)


async def test_an_answer_that_was_cut_off_is_no_patch() -> None:
    with pytest.raises(HealingError, match="cut off at 8192 tokens"):
        await made(Scripted([ChatResponse(text=SUM, finish="length")]), candidates=1, misread=0)


async def test_what_the_model_cannot_do_is_the_callers_to_handle() -> None:
    with pytest.raises(ModelError, match="gone"):
        await made(Scripted([ModelError("gone")]))
    with pytest.raises(ModelError, match="refuses to write this patch: never"):
        await made(Scripted([ChatResponse(text="never", finish="refusal")]))


async def test_a_rejected_patch_is_shown_again_with_the_end_of_what_it_printed() -> None:
    patch = parse_blocks(LOOP)
    model = Scripted([SUM])
    again = await CodeGenerator(model).repaired(FAILURE, FILES, patch, "x" * 100_000 + "AssertionError: 4 != 3")
    assert again == parse_blocks(SUM).model_copy(update={"provider": "p", "model": "m", "cost_usd": 0.5})
    *_, before, last = model.asked[0].messages
    assert parse_blocks(before.content).id == patch.id
    assert "AssertionError: 4 != 3" in last.content and len(last.content) < 10_000
    with pytest.raises(PatchInvalid):
        await CodeGenerator(Scripted(["no", "no"])).repaired(FAILURE, FILES, patch, "")


def test_a_patch_is_written_as_it_is_read() -> None:
    whole = "Makes it anew.\n\nBecause.\n\nshop/prices.py\n````python\nx = '```'\n````\n"
    for text in (SUM, LOOP, whole):
        assert parse_blocks(_written(parse_blocks(text))).id == parse_blocks(text).id


async def test_a_model_that_only_extracts_and_files_too_large_are_refused() -> None:
    with pytest.raises(InputError, match="writes nothing of its own"):
        CodeGenerator(OfflineModel())
    generator = CodeGenerator(Scripted([]))
    for files in ({}, {"a.py": "x" * (MAX_FILES_CHARS + 1)}):
        with pytest.raises(InputError, match="is shown 1 to"):
            [patch async for patch in generator.candidates(FAILURE, files)]
