from __future__ import annotations

import pytest
from csvline import fields


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('"say ""hello"", then",2', ['say "hello", then', "2"]),
        ('"",x,', ["", "x", ""]),
        ('" a ", b ', [" a ", " b "]),
        ('"1,2","3,4"', ["1,2", "3,4"]),
    ],
)
def test_fields(line: str, expected: list[str]) -> None:
    assert fields(line) == expected
