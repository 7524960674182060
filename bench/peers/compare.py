"""Rounds of Chimera and each peer in turn, and what they come to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from bench.peers.catalog import Peer
from bench.peers.measure import Figures

COUNTS = ("lost", "duplicated")


@dataclass(frozen=True, slots=True)
class Row:
    """A system's medians over the rounds (sums of what was lost and duplicated), and by how many times Chimera carried
    more tasks a second: the median over rounds, each against the run of Chimera just before it."""

    peer: Peer
    figures: Figures
    ratio: float

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self.peer), **asdict(self.figures), "ratio": round(self.ratio, 2)}


def compare(chimera: Peer, peers: Iterable[Peer], rounds: int, run: Callable[[Peer], Figures]) -> list[Row]:
    """Chimera first, then a row a peer. Turns alternate, so that a machine that slows down slows both."""
    ours: list[Figures] = []
    theirs: dict[Peer, list[Figures]] = {peer: [] for peer in peers}
    ratios: dict[Peer, list[float]] = {peer: [] for peer in theirs}
    for _ in range(rounds):
        for peer, runs in theirs.items():
            ours.append(run(chimera))
            runs.append(run(peer))
            ratios[peer].append(ours[-1].tasks_per_s / runs[-1].tasks_per_s)
    rows = [Row(peer, median(runs), statistics.median(ratios[peer])) for peer, runs in theirs.items()]
    return [Row(chimera, median(ours), 1.0), *rows]


def median(runs: list[Figures]) -> Figures:
    """Each figure's median; the counts, which ought to be 0, added up."""
    columns = {field.name: [getattr(run, field.name) for run in runs] for field in fields(Figures)}
    return Figures(**{name: (sum if name in COUNTS else statistics.median)(of) for name, of in columns.items()})


def least_ratio(rows: list[Row]) -> float | None:
    """Chimera's lead over the fastest peer that acknowledges or journals each task; None if there was none."""
    return min((row.ratio for row in rows[1:] if row.peer.each_task), default=None)


def table(rows: list[Row]) -> str:
    """The rows as a table of text."""
    head = "system agents processes tasks/s ratio p50_ms p95_ms cpu_s/1000 rss_MB lost duplicated acknowledges journals"
    lines = [head.split()]
    for row in rows:
        peer, f = row.peer, row.figures
        counts = [str(peer.agents or "-"), str(peer.processes), f"{f.tasks_per_s:.0f}", f"{row.ratio:.2f}"]
        costs = [f"{f.p50_ms:.1f}", f"{f.p95_ms:.1f}", f"{f.cpu_s_per_1000_tasks:.2f}", f"{f.total_rss_mb:.0f}"]
        lines.append([peer.name, *counts, *costs, str(f.lost), str(f.duplicated), peer.acknowledges, peer.journals])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = {0, len(widths) - 2, len(widths) - 1}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
