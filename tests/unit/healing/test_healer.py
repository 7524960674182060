"""A failure, a model, real walls: what is tried, in what order, what is taken and what is remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chimera.core.clock import ManualClock
from chimera.core.errors import InputError
from chimera.healing.failure import Failure
from chimera.healing.generator import CodeGenerator, GeneratorOptions
from chimera.healing.healer import Healer, HealerOptions, PatchResult
from chimera.healing.memory import PatchMemory
from chimera.healing.patch import edited, parse_patch
from chimera.healing.sandbox import open_sandbox
from tests.conftest import ROOT
from tests.unit.healing.test_generator import Scripted

BASKET = ROOT / "tests/data/healing/basket"


def answer(name: str) -> str:
    """One of the scripted answers, as a model writes it: the whole file."""
    patch = parse_patch(json.loads((BASKET / "answers.json").read_text())[name])
    text = edited({"basket.py": (BASKET / "basket.py").read_text()}, patch)["basket.py"]
    return f"{patch.summary}\n\nbasket.py\n```python\n{text}```\n"


ANSWERS = {name: answer(name) for name in ("good", "wrong")}
FAILURE = Failure(kind="description", module="basket", text="the second basket has what the first had")


@pytest.fixture
def memory(tmp_path: Path) -> PatchMemory:
    return PatchMemory(tmp_path / "memory.db", clock=ManualClock())


async def healed(answers: list[str], memory: PatchMemory, **options: int) -> tuple[PatchResult, Scripted]:
    model = Scripted(answers)
    generator = CodeGenerator(model, options=GeneratorOptions(candidates=len(answers), misread=0))
    healer = Healer(
        generator,
        workspace=BASKET,
        hidden_tests=BASKET / "hidden",
        sandbox=open_sandbox(),
        memory=memory,
        options=HealerOptions(wall_s=60.0, **options),
    )
    return await healer.heal(FAILURE, ["basket.py"]), model


async def test_the_one_that_passes_is_taken_and_no_further_one_is_asked_for(memory: PatchMemory) -> None:
    before = (BASKET / "basket.py").read_bytes()
    result, model = await healed([ANSWERS["wrong"], ANSWERS["good"], "never asked"], memory, repairs=0)
    assert [each.verdict.verdict for each in result.tried] == ["reject", "accept"]
    assert result.chosen == result.tried[1]
    assert list(result.changes) == ["basket.py"] and "None = None" in result.changes["basket.py"]
    assert model.answers == ["never asked"]
    assert (BASKET / "basket.py").read_bytes() == before
    assert [each.accepted for each in memory.recall(result.signature)] == [True, False]


async def test_a_rejected_patch_goes_back_with_what_went_wrong(memory: PatchMemory) -> None:
    result, model = await healed([ANSWERS["wrong"], ANSWERS["good"]], memory, repairs=1)
    assert result.chosen is not None and len(result.tried) == 2
    assert "was tried and is rejected" in model.asked[1].messages[-1].content
    assert result.tried[0].verdict.reason[-100:] in model.asked[1].messages[-1].content


async def test_where_nothing_passes_nothing_is_chosen_and_the_next_is_told(memory: PatchMemory) -> None:
    result, _ = await healed([ANSWERS["wrong"]], memory, repairs=0)
    assert (result.chosen, result.changes) == (None, {})
    _, model = await healed([ANSWERS["good"]], memory, repairs=0)
    assert "wrong: basket: rejected" in model.asked[0].messages[-1].content


def with_test(name: str, seen: str) -> str:
    test = f"from basket import put\n\ndef test_new():\n    put('a')\n    {seen}\n"
    return f"{ANSWERS[name]}\ntest_new.py\n```python\n{test}```\n"


async def test_of_several_the_one_whose_tests_fail_without_it_is_taken(memory: PatchMemory) -> None:
    idle = with_test("good", "assert put('b')[-1] == 'b'")
    telling = with_test("good", "assert put('b') == ['b']").replace("item]", "item]  # the longer one\n")
    result, _ = await healed([idle, telling, ANSWERS["good"]], memory, repairs=0, enough=3)
    assert [each.verdict.reproduced for each in result.tried] == [False, True, None]
    assert result.chosen == result.tried[1]


async def test_of_several_that_show_the_same_the_smaller_is_taken(memory: PatchMemory) -> None:
    longer = ANSWERS["good"].replace("```\n", "# one\n# two\n```\n")
    result, _ = await healed([longer, ANSWERS["good"]], memory, repairs=0, enough=2)
    assert result.chosen == result.tried[1]


async def test_confidence_grows_with_what_the_patch_and_its_model_have_shown(memory: PatchMemory) -> None:
    plain, _ = await healed([ANSWERS["good"]], memory, repairs=0)
    telling = with_test("good", "assert put('b') == ['b']")
    shown, _ = await healed([telling], memory, repairs=0)
    assert 0.0 < plain.confidence < plain.confidence + 0.25 < shown.confidence < 1.0
    again, _ = await healed([telling], memory, repairs=0)
    assert again.confidence > shown.confidence  # two of two accepted by now
    none, _ = await healed([ANSWERS["wrong"]], memory, repairs=0)
    assert (none.chosen, none.confidence) == (None, 0.0)


async def test_a_file_that_is_not_there_is_named(memory: PatchMemory) -> None:
    healer = Healer(
        CodeGenerator(Scripted([])), workspace=BASKET, hidden_tests=BASKET / "hidden", sandbox=open_sandbox()
    )
    with pytest.raises(InputError, match=r"'other.py' is no text file of"):
        await healer.heal(FAILURE, ["other.py"])
    assert healer.success_rate(FAILURE) is None
