"""The peers' benchmark: what it counts, how it puts rounds together, and (soak) each peer at 50 tasks."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.peers.__main__ import swarm_figures
from bench.peers.catalog import PEERS, Peer
from bench.peers.compare import Row, compare, least_ratio, median, table
from bench.peers.measure import Call, Exchange, Figures, Reply, Tally, Work, measure, tree_usage

ROOT = Path(__file__).parents[2]
FIGURES = Figures(1_000.0, 10.0, 20.0, 1.0, 100.0, 0, 0)


def ticks() -> Callable[[], float]:
    """A clock that is one second later each time it is asked."""
    counter = itertools.count()
    return lambda: float(next(counter))


def peer(reply: Callable[[Call], list[Reply]]) -> Callable[[Work], Any]:
    @contextmanager
    def start(work: Work) -> Iterator[Exchange]:
        yield lambda calls: itertools.chain.from_iterable(reply(call) for call in calls)

    return start


def test_right_replies_are_counted() -> None:
    figures = measure(peer(lambda call: [(call.id, call.n + 1)]), Work(50))
    assert (figures.lost, figures.duplicated) == (0, 0)
    assert figures.tasks_per_s > 0
    assert figures.total_rss_mb > 1


def test_what_is_lost_wrong_or_doubled_shows() -> None:
    def reply(call: Call) -> list[Reply]:
        right = (call.id, call.n + 1)
        return {3: [], 5: [(call.id, -1)], 7: [right, right]}.get(call.id, [right])

    figures = measure(peer(reply), Work(50))
    assert (figures.lost, figures.duplicated) == (2, 1)


@given(st.integers(1, 7), st.data())
def test_a_task_is_decided_by_the_majority_as_soon_as_there_is_one(voters: int, data: st.DataObject) -> None:
    wrong = data.draw(st.sets(st.integers(0, voters - 1)))
    order = data.draw(st.permutations(range(voters)))
    tally = Tally(Work(1, voters), ticks())
    calls = list(tally.calls())
    assert [call.n for call in calls] == [0] * voters
    for number, id_ in enumerate(order, start=1):
        tally.add((id_, -1 if id_ in wrong else 1))
        seen = [id_ in wrong for id_ in order[:number]]
        assert len(tally.latencies_s) == (max(seen.count(True), seen.count(False)) > voters / 2)
    assert tally.right == (voters - len(wrong) > voters / 2)


def test_latency_is_from_the_first_call_of_a_task_to_its_decision() -> None:
    tally = Tally(Work(2), ticks())
    for call in list(tally.calls()):  # asked at 0 and at 1
        tally.add((call.id, call.n + 1))  # decided at 2 and at 3
    assert tally.latencies_s == [2.0, 2.0]


def test_rounds_alternate_and_each_ratio_is_to_the_run_before() -> None:
    us, a, b = (Peer(name, "", 1, 2, "in memory") for name in "uab")
    speeds = {
        "u": iter([100.0, 200.0, 300.0, 400.0, 500.0, 600.0]),
        "a": iter([10.0, 10.0, 10.0]),
        "b": iter([50.0] * 3),
    }
    order: list[str] = []

    def run(peer: Peer) -> Figures:
        order.append(peer.name)
        return replace(FIGURES, tasks_per_s=next(speeds[peer.name]), lost=1)

    rows = compare(us, [a, b], 3, run)
    assert "".join(order) == "uaub" * 3
    assert [row.ratio for row in rows] == [1.0, 30.0, 8.0]
    assert [row.figures.tasks_per_s for row in rows] == [350.0, 10.0, 50.0]
    assert [row.figures.lost for row in rows] == [6, 3, 3]
    assert least_ratio(rows) == 8.0


def test_a_peer_that_acknowledges_batches_only_does_not_count_for_the_bar() -> None:
    row = Row(PEERS["dask"], FIGURES, 9.0)
    assert least_ratio([row, row, Row(PEERS["ray-batched"], FIGURES, 0.1)]) == 9.0
    assert least_ratio([row]) is None


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=9))
def test_a_median_is_between_the_least_and_the_most(speeds: list[float]) -> None:
    found = median([replace(FIGURES, tasks_per_s=speed, duplicated=2) for speed in speeds])
    assert min(speeds) <= found.tasks_per_s <= max(speeds)
    assert found.duplicated == 2 * len(speeds)


def test_the_table_has_a_column_for_every_figure_and_lines_them_up() -> None:
    rows = [Row(peer, FIGURES, 5.0) for peer in PEERS.values()]
    lines = table(rows).splitlines()
    at = lines[0].index("acknowledges")
    assert [line[at:].split("  ")[0] for line in lines[1:]] == [peer.acknowledges for peer in PEERS.values()]
    assert json.loads(json.dumps([row.as_dict() for row in rows]))[3]["name"] == "dask"


def test_a_swarm_without_its_journal_has_no_place_in_the_table() -> None:
    said = {**asdict(FIGURES), "latency_ms": {"p50": 1.0, "p95": 2.0}, "journaled": True, "wrong": 3}
    assert swarm_figures(said).lost == 3
    with pytest.raises(SystemExit, match="journal"):
        swarm_figures({**said, "journaled": False})


def test_usage_is_of_the_children_too() -> None:
    hold = "import sys; block = bytearray(b'x') * 50_000_000; print(flush=True); sys.stdin.read()"
    alone = tree_usage(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    with_child = tree_usage(os.getpid())
    child.communicate(b"")
    assert with_child.rss_mb - alone.rss_mb > 45
    assert tree_usage(os.getpid()).cpu_s >= with_child.cpu_s - 0.02  # what an ended child used stays counted


def test_an_unknown_peer_is_refused_by_name() -> None:
    command = [sys.executable, "-m", "bench.peers", "--peers", "dask,slurm"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such peer: slurm" in done.stderr


@pytest.mark.soak
@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("options", [[], ["--think=5", "--consensus=3"]], ids=["plain", "think"])
def test_every_peer_does_the_work(name: str, options: list[str]) -> None:
    command = [sys.executable, "-m", "bench.peers.run", name, "--tasks=50", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout[done.stdout.index("{") :])
    assert (said["lost"], said["duplicated"]) == (0, 0)
