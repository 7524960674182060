"""A large corpus is answered with bounded memory: workers read it, the coordinator does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.corpus import measure, write_corpus
from chimera import Settings


async def check(folder: Path, address: str, *, files: int, megabytes: int) -> None:
    write_corpus(folder, files=files, size_bytes=megabytes * 1_000_000)
    measured = await measure(folder, address, deadline_s=240.0)
    assert (measured["state"], measured["found"]) == ("answered", True)
    coordinator, cells = measured["coordinator_peak_mb"], measured["cell_peak_mb"]
    assert isinstance(coordinator, dict) and isinstance(cells, dict)
    assert coordinator["after"] - coordinator["before"] < 20, "the documents went through the coordinator"
    assert max(cells.values()) < 800, "a cell keeps more than its cache may hold"


@pytest.mark.cluster
async def test_three_megabytes_are_answered_with_bounded_memory(
    local_ray: Settings, home: Path, tmp_path: Path
) -> None:
    await check(tmp_path, local_ray.address, files=150, megabytes=3)


@pytest.mark.cluster
@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_twenty_megabytes_are_answered_with_bounded_memory(
    local_ray: Settings, home: Path, tmp_path: Path
) -> None:
    await check(tmp_path, local_ray.address, files=1_000, megabytes=20)
