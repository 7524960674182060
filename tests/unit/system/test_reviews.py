"""Answers that people leave for a node: each is given to it once, and of two the refusal counts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chimera.core.errors import InputError, Overloaded
from chimera.system.heart import HeartNode
from chimera.system.proposals import Asked
from chimera.system.reviews import PatchReviews, heed
from tests.unit.system.places import AFTER, BEFORE, proposal


class Told(HeartNode):
    """A node that takes note of its answers; it has no place for the first `full` agreements."""

    def __init__(self, full: int = 0) -> None:
        self.heard: list[str] = []
        self.full = full

    def agree(self, patch_id: str) -> None:
        if self.full:
            self.full -= 1
            raise Overloaded("later", 1.0)
        self._hear(f"agree {patch_id}")

    def refuse(self, patch_id: str) -> None:
        self._hear(f"refuse {patch_id}")

    def _hear(self, what: str) -> None:
        if any(each.endswith(what.split()[1]) for each in self.heard):
            raise InputError("none waits")
        self.heard.append(what)


async def heeded(node: Told, home: Path) -> list[str]:
    """What the node is told until no answer is left."""
    said: list[str] = []
    task = asyncio.create_task(heed(node, home, said.append))
    async with asyncio.timeout(60):
        while list((home / "answers").iterdir()):  # noqa: ASYNC110 (what it waits for tells nobody)
            await asyncio.sleep(0.01)
    task.cancel()
    return said


def left(home: Path, *names: str) -> None:
    (home / "answers").mkdir()
    for name in names:
        (home / "answers" / name).touch()


async def test_of_two_answers_the_refusal_counts(tmp_path: Path) -> None:
    node = Told()
    left(tmp_path, "a.agree", "a.refuse", "b.agree")
    assert await heeded(node, tmp_path) == ["a.agree came to nothing: none waits"]
    assert node.heard == ["refuse a", "agree b"]


async def test_an_answer_waits_for_its_place(tmp_path: Path) -> None:
    node = Told(full=1)
    left(tmp_path, "a.agree")
    assert await heeded(node, tmp_path) == ["a.agree waits: later"] and node.heard == ["agree a"]


async def test_what_is_approved_here_is_what_the_node_is_told(tmp_path: Path) -> None:
    patch = proposal("till", {"till.py": AFTER}, {"till.py": BEFORE})
    Asked(tmp_path / "reviews").keep(patch)
    reviews, node = PatchReviews(tmp_path), Told()
    [waits] = reviews.waiting()
    assert reviews.answer(waits.id, "approve").answer == "approve" == reviews.read(waits.id).answer
    with pytest.raises(InputError, match="another answer"):
        reviews.answer(waits.id, "refuse")
    assert await heeded(node, tmp_path) == [] and node.heard == [f"agree {waits.id}"]
    assert reviews.waiting()[0].answer is None, "heeded, and not yet applied"
