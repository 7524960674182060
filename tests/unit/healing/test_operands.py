"""A class may compare its own parts with another's like parts; what answers without a look at both sides may not."""

from __future__ import annotations

import ast

import pytest

from chimera.healing.operands import is_plain_comparison, looks_at_operands

PLAIN = {
    "a tuple of parts": "def __eq__(self, other):\n    if not isinstance(other, P):\n        return NotImplemented\n"
    "    return (self.x, self.y) == (other.x, other.y)",
    "one after the other": "def __eq__(self, other: object) -> bool:\n    'Alike.'\n"
    "    return isinstance(other, P) and self.x == other.x and self.y == other.y",
    "the other way round": "def __lt__(self, other):\n    return other.key < self.key",
    "a private method": "def __le__(self, other):\n    return self._key() <= other._key()",
    "not equal": "def __ne__(self, other):\n    return not self == other",
    "an item of a part": "def __contains__(self, item):\n    return item in self._items",
    "False for others": "def __eq__(self, other):\n    if isinstance(other, P):\n        return self.x == other.x\n"
    "    else:\n        return False",
}
NOT_PLAIN = {
    "always": "def __eq__(self, other):\n    return True",
    "itself": "def __eq__(self, other):\n    return self.x == self.x",
    "unlike parts": "def __eq__(self, other):\n    return self.x == other.y",
    "another name for itself": "def __eq__(self, other):\n    other = self\n    return self.x == other.x",
    "a name in between": "def __eq__(self, other):\n    if (other := self):\n        return self.x == other.x",
    "or": "def __eq__(self, other):\n    return self.x == other.x or True",
    "what all numbers answer alike": "def __eq__(self, other):\n    return self.is_integer() == other.is_integer()",
    "what all objects have": "def __eq__(self, other):\n    return self.__doc__ == other.__doc__",
    "no part": "def __eq__(self, other):\n    return () == ()",
    "empty tuples of both": "def __eq__(self, other):\n    return [] == []",
    "type only": "def __eq__(self, other):\n    return isinstance(other, object)",
    "several types only": "def __eq__(self, other):\n    return isinstance(other, object) and isinstance(self, object)",
    "parts times 0": "def __eq__(self, other):\n    return self.x * 0 == other.x * 0",
    "decorated": "@always\ndef __eq__(self, other):\n    return self.x == other.x",
    "in, but no __contains__": "def __eq__(self, other):\n    return other in self.all",
    "everything is in it": "def __contains__(self, item):\n    return item in [item]",
    "many parameters": "def __eq__(self, other, *more):\n    return self.x == other.x",
    "a loop": "def __eq__(self, other):\n    while True:\n        return self.x == other.x",
    "a coroutine": "async def __eq__(self, other):\n    return self.x == other.x",
}


def method(text: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return node


@pytest.mark.parametrize("name", PLAIN)
def test_ordinary_comparisons_are_plain(name: str) -> None:
    assert is_plain_comparison(method(PLAIN[name]))


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_others_are_not(name: str) -> None:
    assert not is_plain_comparison(method(NOT_PLAIN[name]))


@pytest.mark.parametrize(
    ("text", "looks"),
    [
        ("def __sub__(self, other):\n    return P(self.x - other.x)", True),
        (
            "def __sub__(self, o):\n    if o is None:\n        return NotImplemented\n    return self.x - o.x",
            True,
        ),
        ("def __abs__(self):\n    return P(abs(self.x))", True),
        ("def __sub__(self, other):\n    return 0.0", False),
        ("def __rsub__(self, other):\n    return self", False),
        ("def __rsub__(self, other):\n    return other * 0", False),
        ("def __sub__(self, other):\n    if self:\n        return self - other\n    return 0", False),
        ("def __abs__(self):\n    return 0.0", False),
        ("def __abs__(self):\n    pass", False),
        ("def __sub__(*both):\n    return both", False),
    ],
)
def test_a_difference_is_made_of_both_operands(text: str, looks: bool) -> None:
    assert looks_at_operands(method(text)) is looks
