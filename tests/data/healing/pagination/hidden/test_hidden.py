from __future__ import annotations

import pytest
from pagination import page, pages


@pytest.mark.parametrize(("number", "expected"), [(1, [0, 1, 2]), (2, [3, 4, 5]), (3, [6]), (4, [])])
def test_every_page(number: int, expected: list[int]) -> None:
    assert page(list(range(7)), number, 3) == expected


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (2, 1), (4, 2), (5, 3)])
def test_number_of_pages(count: int, expected: int) -> None:
    assert pages(list(range(count)), 2) == expected
