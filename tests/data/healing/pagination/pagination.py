from __future__ import annotations


def page(items: list[object], number: int, size: int) -> list[object]:
    """The items of a page. Pages count from 1; a page beyond the last is empty."""
    if number < 1 or size < 1:
        raise ValueError("pages and their sizes count from 1")
    start = number * size
    return items[start : start + size]


def pages(items: list[object], size: int) -> int:
    """How many pages there are."""
    return len(items) // size + 1
