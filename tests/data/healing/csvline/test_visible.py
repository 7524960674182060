from __future__ import annotations

import pytest
from csvline import fields


@pytest.mark.parametrize(
    ("line", "expected"),
    [("a,b", ["a", "b"]), ('a,"b,c",d', ["a", "b,c", "d"]), ('"x"', ["x"])],
    ids=["plain", "quoted comma", "quoted"],
)
def test_fields(line: str, expected: list[str]) -> None:
    assert fields(line) == expected
