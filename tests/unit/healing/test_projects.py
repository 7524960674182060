"""Good patches to projects of many forms are accepted: to refuse them is as bad as to be fooled."""

from __future__ import annotations

from pathlib import Path

import pytest

from chimera.healing.judge import judge
from tests.unit.healing.walls import NoWalls

TWICE = {"path": "m.py", "search": "return x", "replace": "return 2 * x"}
BAD = "def f(x):\n    return x\n"
RIGHT = "from m import f\ndef test_held():\n    assert f(3) == 6\n"

Files = dict[str, str]
PROJECTS: dict[str, tuple[Files, Files, list[dict[str, str]]]] = {
    "subtests of both kinds": (
        {
            "m.py": BAD,
            "test_m.py": "import unittest\nfrom m import f\nclass Case(unittest.TestCase):\n    def test_all(self):\n"
            "        for x in range(3):\n            with self.subTest(x=x):\n"
            "                self.assertEqual(f(x), 2 * x)\n",
        },
        {
            "test_m.py": "from m import f\ndef test_all(subtests):\n    for x in range(3):\n"
            "        with subtests.test(x=x):\n            assert f(x) == 2 * x\n"
        },
        [TWICE],
    ),
    "tests that are marked": (
        {
            "m.py": BAD,
            "test_m.py": "import sys, unittest, pytest\nfrom m import f\n"
            "@pytest.mark.skip(reason='needs a network')\ndef test_net():\n    assert 0\n"
            "@pytest.mark.xfail(reason='known')\ndef test_known():\n    assert f('a') == 5\n"
            "@pytest.mark.skipif(sys.platform == 'linux', reason='elsewhere')\nclass TestElsewhere:\n"
            "    def test_it(self):\n        assert 0\n"
            "class Case(unittest.TestCase):\n    @unittest.skip('later')\n    def test_later(self):\n        assert 0\n"
            "    @unittest.expectedFailure\n    def test_hard(self):\n        assert 0\n"
            "def test_one():\n    assert f(1) == 2\n",
            "test_other.py": "import pytest\npytest.importorskip('nothing_here')\ndef test_it():\n    assert 0\n",
        },
        {"test_m.py": RIGHT},
        [TWICE],
    ),
    "code that could not be imported, tests that no text tells": (
        {
            "m.py": "def f(x)\n    return x\n",
            "test_m.py": "import pytest\nfrom unittest import TestCase as Base\nfrom m import f\n"
            "class Common:\n    def test_common(self):\n        assert f(0) == 0\n"
            "class TestMine(Common):\n    def test_mine(self):\n        assert f(1) == 2\n"
            "class Case(Base):\n    def test_case(self):\n        assert f(2) == 4\n"
            "class TestNone:\n    def __init__(self): ...\n    def test_not_collected(self): ...\n"
            "@pytest.fixture\ndef test_value():\n    return 3\ntest_short = lambda: None\n",
        },
        {"test_m.py": RIGHT},
        [{**TWICE, "search": "def f(x)\n    return x", "replace": "def f(x):\n    return 2 * x"}],
    ),
    "helpers beside tests, packages, a layout with src": (
        {
            "src/pkg/__init__.py": "from .m import f\n",
            "src/pkg/m.py": "def f(x):\r\n    return x\r\n",
            "tests/helper.py": "TWO = 2\n",
            "tests/conftest.py": "import pytest\n@pytest.fixture\ndef one():\n    return 1\n",
            "tests/test_m.py": "from helper import TWO\nfrom pkg import f\ndef test(one):\n    assert f(one) == TWO\n",
            "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '--no-such-option'\n",
        },
        {
            "unit/helpers.py": "SIX = 6\n",
            "unit/test_m.py": "from helpers import SIX\nfrom pkg import f\ndef test_three():\n    assert f(3) == SIX\n",
            "own/__init__.py": "",
            "own/near.py": "EIGHT = 8\n",
            "own/test_m.py": "from .near import EIGHT\nfrom pkg import f\ndef test_four():\n    assert f(4) == EIGHT\n",
        },
        [
            {"path": "src/pkg/m.py", "search": "return x", "replace": "return TWO * x"},
            {"path": "src/pkg/m.py", "append": "\n\nfrom .numbers import TWO\n"},
            {"path": "src/pkg/numbers.py", "whole": "TWO = 2\n"},
        ],
    ),
    "held-out tests of other names": ({"m.py": BAD}, {"held_m.py": RIGHT, "data.py": "x = 1\n"}, [TWICE]),
    "no test in a file, none at all in the workspace": (
        {"m.py": BAD},
        {"test_m.py": RIGHT, "test_empty.py": "def helper(): ...\n"},
        [TWICE],
    ),
}


@pytest.mark.parametrize("name", PROJECTS)
async def test_a_good_patch_is_accepted(name: str, tmp_path: Path) -> None:
    work, hidden, edits = PROJECTS[name]
    for folder, files in (("work", work), ("hidden", hidden)):
        for path, text in files.items():
            (tmp_path / folder / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / path).write_bytes(text.encode())
    patch = {"summary": "twice", "edits": edits}
    verdict = await judge(tmp_path / "work", tmp_path / "hidden", patch, NoWalls(), wall_s=60.0)
    assert verdict.accepted, verdict.reason
    other = {
        "summary": "not twice",
        "edits": [
            {**each, "whole": each["whole"].replace("2", "3")}
            if "whole" in each
            else {**each, **{k: each[k].replace("2 *", "3 *") for k in ("replace",) if k in each}}
            for each in edits
        ],
    }
    verdict = await judge(tmp_path / "work", tmp_path / "hidden", other, NoWalls(), wall_s=60.0)
    assert (verdict.accepted, verdict.fault) == (False, "failed"), verdict.reason
