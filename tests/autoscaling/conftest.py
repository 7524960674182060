"""The cluster that Ray's autoscaler scales. A test that uses it is marked `cluster`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.autoscaling.head import ScaledHead, processes


@pytest.fixture
def scaled_head() -> Iterator[ScaledHead]:
    """A cluster of its own for the test. When it ends, nothing of it may be left."""
    head = ScaledHead()
    try:
        yield head
    finally:
        head.stop()
    assert list(processes(head.marker)) == []
    assert not head.folder.exists()
