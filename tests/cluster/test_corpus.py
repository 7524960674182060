"""A corpus of 1,000 files and 20 MB, answered with bounded memory: workers read it, the coordinator does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.corpus import measure, write_corpus
from chimera import Settings


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_twenty_megabytes_are_answered_with_bounded_memory(
    local_ray: Settings, home: Path, tmp_path: Path
) -> None:
    write_corpus(tmp_path, files=1_000, size_bytes=20_000_000)
    measured = await measure(tmp_path, local_ray.address, deadline_s=240.0)
    assert (measured["state"], measured["found"]) == ("answered", True)
    coordinator, cells = measured["coordinator_peak_mb"], measured["cell_peak_mb"]
    assert isinstance(coordinator, dict) and isinstance(cells, dict)
    assert coordinator["after"] - coordinator["before"] < 20, "the documents went through the coordinator"
    assert max(cells.values()) < 800, "a cell keeps more than its cache may hold"
