"""What ordinary repairs bring in is no power; what makes a class that passes any test, or names a place, is one."""

from __future__ import annotations

import pytest

from chimera.healing.policy import PathPolicy, judge_capabilities

WRITES = "import json\ndef save(path, data):\n    with open(path, 'w') as file:\n        json.dump(data, file)\n"

REPAIRS = {
    "literals, not code": (
        "def read(text):\n    return eval(text)\n",
        "import ast\ndef read(text):\n    return ast.literal_eval(text)\n",
    ),
    "in place in one step": (
        WRITES,
        "import json\nimport os\ndef save(path, data):\n    with open(f'{path}.new', 'w') as file:\n"
        "        json.dump(data, file)\n        os.fsync(file.fileno())\n    os.replace(path + '.new', path)\n",
    ),
    "not out of the folder": (
        "import os\ndef place(root, name):\n    return os.path.join(root, name)\n",
        "import os\ndef place(root, name):\n    path = os.path.realpath(os.path.join(root, name))\n"
        "    if os.path.commonpath([path, os.path.abspath(root)]) != root:\n        raise OSError\n    return path\n",
    ),
    "off the event loop": (
        "async def load(read):\n    return read()\n",
        "import asyncio\nasync def load(read):\n    return await asyncio.to_thread(read)\n",
    ),
    "classes that compare and compute": (
        "class P: ...\n",
        "class P:\n    def __eq__(self, other):\n        return self.x == other.x\n"
        "    def __sub__(self, other):\n        return type(self)(self.x - other.x)\n"
        "    def __rtruediv__(self, other):\n        return other / self.x\n    def __del__(self):\n        close()\n",
    ),
    "types and enums": (
        "x = 1\n",
        "import abc\nimport enum\nC = enum.Enum('C', ['a', 'b'])\nclass A(metaclass=abc.ABCMeta): ...\n"
        "def f(x: type[int], y: type) -> type:\n    return type(x) is y or isinstance(x, (type, int)) or type(x)(1)\n",
    ),
    "a path where nothing opens one": ("x = 1\n", "x = 'https://example.org/etc'\ny = '/tmp/x'\n"),
}

KEY = "'_' * 2 + 'eq' + '_' * 2"
MEMBERS = f"{{{KEY}: lambda self, other: True}}"
EQUAL_TO_ALL = {
    "a metaclass": f"import abc\nA = abc.ABCMeta('A', (), {MEMBERS})\n",
    "a metaclass by another name": f"from enum import EnumMeta as M\nA = M('A', (), {MEMBERS})\n",
    "arguments in a list": f"N = ('A', (), {MEMBERS})\nA = type(*N)\n",
    "type by another name": f"T = type\nA = T('A', (), {MEMBERS})\n",
    "type handed to a function": f"A = [*map(type, ['A'], [()], [{MEMBERS}])][0]\n",
    "the type of a type": f"A = type(float)('A', (), {MEMBERS})\n",
    "the class of a type": f"A = float.__class__('A', (), {MEMBERS})\n",
    "a metaclass of its own": "class M(type): ...\n",
    "members of an enum": f"import enum\nA = enum.Enum('A', [({KEY}, lambda self, other: True), ('a', 1)])\n",
    "differences of 0": "class A(float):\n    def __rsub__(self, other):\n        return 0.0\n",
    "differences, assigned": "class A(float):\n    __sub__ = lambda self, other: 0.0\n",
    "always equal": "class A:\n    def __eq__(self, other):\n        return True\n",
}

PLACES = ["'/etc/passwd'", "'/root/.ssh/id_rsa'", "'~/.netrc'", "'http://198.51.100.1/'", "b'/proc/1/environ'"]


@pytest.mark.parametrize("name", REPAIRS)
def test_ordinary_repairs_bring_in_no_power(name: str) -> None:
    assert judge_capabilities(*REPAIRS[name]) == []


@pytest.mark.parametrize("name", EQUAL_TO_ALL)
def test_what_may_pass_any_assertion_is_refused(name: str) -> None:
    assert judge_capabilities("", EQUAL_TO_ALL[name])


@pytest.mark.parametrize("place", PLACES)
def test_a_place_is_told_where_something_could_open_it(place: str) -> None:
    [told] = judge_capabilities(WRITES, f"{WRITES}path = {place}\n")
    assert place in told
    assert judge_capabilities(f"{WRITES}path = {place}\n", f"{WRITES}other = {place}\n") == []


@pytest.mark.parametrize(
    "more",
    ["os.replace(a, '/srv/x')", "os.replace(a, 'x/y')", "os.remove(a)", "os.rename(f(open), a)", "open('x' + a, 'w')"],
)
def test_to_write_a_file_is_no_licence_for_more(more: str) -> None:
    assert judge_capabilities(WRITES, f"import os\n{WRITES}{more}\n")


def test_to_put_a_file_in_place_takes_the_power_to_write_one() -> None:
    assert judge_capabilities("", "import os\nos.replace(a, b)\n") == ["files:os.replace(a, b)"]


@pytest.mark.parametrize("path", ["pytest_asyncio/plugin.py", "pydantic.py", "src/csv.py", "src/pytest/__init__.py"])
def test_no_new_file_stands_in_for_what_is_installed(path: str) -> None:
    assert "would stand in" in str(PathPolicy().refusal(path, ["m.py", "src/app.py"]))
    beside = path.rpartition("/")[0] + "/other.py" if "/" in path[4:] else path
    assert PathPolicy().refusal(path, [beside]) is None or "src/csv" in path
