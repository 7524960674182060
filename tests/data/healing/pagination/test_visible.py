from __future__ import annotations

import pytest
from pagination import page, pages


def test_first_page() -> None:
    assert page([1, 2, 3, 4, 5], 1, 2) == [1, 2]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_pages_of_two(count: int) -> None:
    assert pages(list(range(count)), 2) == (count + 1) // 2


def test_no_page_zero() -> None:
    with pytest.raises(ValueError, match="count from 1"):
        page([1], 0, 2)
