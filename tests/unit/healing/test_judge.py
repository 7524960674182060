"""The order of a judgement, and what the verdict says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from chimera.core.errors import InputError
from chimera.healing.judge import Verdict, judge
from chimera.healing.workspace import snapshot
from tests.unit.healing.walls import NoWalls

APP = "def double(x):\n    return x + 2\n"
FIX = {"path": "app.py", "search": "x + 2", "replace": "x * 2"}
SECRET = "what_only_the_held_out_tests_know"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for path, text in {
        "work/app.py": APP,
        "work/test_app.py": "from app import double\ndef test_two():\n    assert double(2) == 4\n",
        "hidden/test_hidden.py": f"from app import double\ndef test_{SECRET}():\n    assert double(5) == 10\n",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


async def judged(place: Path, *edits: dict[str, str], walls: NoWalls | None = None, **more: Any) -> Verdict:
    patch = {"summary": "s", "edits": list(edits), **more.pop("patch", {})}
    before = snapshot(place / "work").digest
    verdict = await judge(place / "work", place / "hidden", patch, walls or NoWalls(), **{"wall_s": 60.0, **more})
    assert snapshot(place / "work").digest == before
    return verdict


async def test_a_good_patch_is_accepted_and_the_workspace_stays_as_it_was(place: Path) -> None:
    verdict = await judged(place, FIX)
    assert (verdict.verdict, verdict.stage) == ("accept", "done"), verdict.reason
    assert {name: count.passed for name, count in verdict.tests.items()} == {"visible": 1, "hidden": 1}
    assert (place / "work/app.py").read_text() == APP


async def test_held_out_tests_reject_and_are_not_told(place: Path) -> None:
    verdict = await judged(place, {**FIX, "replace": "x + 2 + 0"})
    assert (verdict.verdict, verdict.stage, verdict.fault) == ("reject", "hidden", "failed")
    assert SECRET not in verdict.model_dump_json() and "double(5)" not in verdict.model_dump_json()


STAGES = [
    ({"path": "app.py", "search": "nowhere", "replace": "x"}, "parse"),
    ({"path": "../app.py", "whole": "x = 1\n"}, "parse"),
    ({"path": "app.py"}, "parse"),
    ({"path": "test_app.py", "whole": ""}, "paths"),
    ({"path": "test_app.py", "append": "def test_(: os._exit"}, "paths"),
    ({"path": "app.py", "append": "import os; def (\n"}, "syntax"),
    ({"path": "app.py", "append": "# coding: latin-1\nimport subprocess\n"}, "capabilities"),
    ({"path": "new.py", "whole": "import socket\n"}, "capabilities"),
]


@pytest.mark.parametrize(("edit", "stage"), STAGES)
async def test_what_reading_rejects_is_never_run(place: Path, edit: dict[str, str], stage: str) -> None:
    walls = NoWalls()
    verdict = await judged(place, FIX, edit, walls=walls)
    assert (verdict.verdict, verdict.stage) == ("reject", stage), verdict.reason
    assert verdict.reason and walls.seen == []


async def test_a_fake_pass_is_none_even_where_its_means_are_allowed(place: Path) -> None:
    exits = {"path": "app.py", "append": "import os\nos._exit(0)\n"}
    verdict = await judged(place, FIX, exits, allowed={"exit", "import:os"})
    assert (verdict.stage, verdict.fault) == ("visible", "crash")


async def test_tests_of_the_patch_itself_must_pass_too(place: Path) -> None:
    right = {"path": "test_new.py", "text": "from app import double\ndef test_n():\n    assert double(3) == 6\n"}
    assert (await judged(place, FIX, patch={"tests": [right]})).accepted
    wrong = {**right, "text": right["text"].replace("6", "7")}
    assert (await judged(place, FIX, patch={"tests": [wrong]})).stage == "generated"
    empty = {**right, "text": "x = 1\n"}
    assert (await judged(place, FIX, patch={"tests": [empty]})).stage == "generated"


NEW_NAME = {"path": "app.py", "append": "def twice(x):\n    return 2 * x\n"}
REPRODUCING = {
    "fails before": ("from app import double\ndef test_n():\n    assert double(3) == 6\n", True),
    "one of two fails before": ("from app import *\ndef test_a():\n    assert double(2) == 4\n"
                                "def test_b():\n    assert double(3) == 6\n", True),
    "never ends before": ("from app import double\ndef test_n():\n    while double(3) != 6: pass\n", True),
    "passes before too": ("from app import double\ndef test_n():\n    assert double(2) == 4\n", False),
    "wants what is new": ("from app import twice\ndef test_n():\n    assert twice(2) == 4\n", False),
}  # fmt: skip


@pytest.mark.parametrize("name", REPRODUCING)
async def test_whether_a_test_of_the_patch_fails_without_it_is_told(place: Path, name: str) -> None:
    text, reproduced = REPRODUCING[name]
    tests = [{"path": "test_new.py", "text": text}]
    wall_s = 3.0 if "never" in name else 60.0
    verdict = await judged(place, FIX, NEW_NAME, patch={"tests": tests}, wall_s=wall_s)
    assert (verdict.accepted, verdict.reproduced) == (True, reproduced), verdict.reason


async def test_where_the_code_could_not_be_imported_that_is_what_its_tests_reproduce(place: Path) -> None:
    (place / "work/app.py").write_text("def double(x)\n    return x * 2\n")
    tests = [{"path": "test_new.py", "text": "from app import double\ndef test_n():\n    assert double(3) == 6\n"}]
    fix = {"path": "app.py", "search": "(x)\n", "replace": "(x):\n"}
    verdict = await judged(place, fix, patch={"tests": tests})
    assert (verdict.accepted, verdict.reproduced) == (True, True), verdict.reason


async def test_a_patch_without_tests_reproduces_nothing_and_nothing_is_run_for_it(place: Path) -> None:
    walls = NoWalls()
    assert (await judged(place, FIX, walls=walls)).reproduced is None
    assert len(walls.seen) == 3  # collection, visible, hidden


@pytest.mark.parametrize("path", ["_held_out/helper.py", "_generated/app.py"])
async def test_nothing_is_put_among_the_tests(place: Path, path: str) -> None:
    verdict = await judged(place, FIX, {"path": path, "whole": "x = 1\n"})
    assert (verdict.accepted, verdict.stage) == (False, "paths")


async def test_held_out_tests_within_the_workspace_are_not_in_the_visible_run(place: Path) -> None:
    (place / "hidden").rename(place / "work" / "hidden")
    walls = NoWalls()
    verdict = await judge(place / "work", place / "work/hidden", {"summary": "s", "edits": [FIX]}, walls, wall_s=60.0)
    assert verdict.accepted, verdict.reason
    assert [any("hidden" in name for name in names) for _, names in walls.seen] == [True, False, True]
    assert SECRET not in walls.seen[1][0]


async def test_a_link_is_not_edited(place: Path) -> None:
    (place / "elsewhere").mkdir()
    (place / "work/pkg").symlink_to(place / "elsewhere")
    verdict = await judged(place, FIX, {"path": "pkg/new.py", "whole": "x = 1\n"})
    assert (verdict.stage, list((place / "elsewhere").iterdir())) == ("paths", [])


async def test_a_workspace_that_changes_meanwhile_is_told(place: Path) -> None:
    class Meddling(NoWalls):
        async def run(self, *arguments: Any, **options: Any) -> Any:
            (place / "work/app.py").write_text("# other\n")
            return await super().run(*arguments, **options)

    verdict = await judge(place / "work", place / "hidden", {"summary": "s", "edits": [FIX]}, Meddling(), wall_s=60.0)
    assert (verdict.verdict, verdict.stage) == ("reject", "workspace")


async def test_folders_that_cannot_be_used(place: Path) -> None:
    patch = {"summary": "s", "edits": [FIX]}
    (place / "empty").mkdir()
    for workspace, hidden in [("no", "hidden"), ("work", "no"), ("work", "empty"), ("work", "work"), ("work", ".")]:
        with pytest.raises(InputError):
            await judge(place / workspace, place / hidden, patch, NoWalls())
