from __future__ import annotations

import os
import random

from hypothesis import given
from hypothesis import strategies as st

from chimera.mcp.caps import LONGEST_PAUSE_S, SERVER_BYTES, Caps, Held, idle_for_long, pause_s, to_make_room
from chimera.mcp.processes import child_environment, resident_bytes

MB = 2**20

held_servers = st.lists(
    st.builds(
        Held,
        name=st.text("abcdef", min_size=1, max_size=6),
        process=st.booleans(),
        busy=st.booleans(),
        used_s=st.floats(0, 1_000),
        memory_bytes=st.integers(0, 200 * MB),
    ),
    max_size=20,
    unique_by=lambda held: held.name,
)
caps = st.builds(Caps, max_processes=st.integers(1, 12), max_memory_bytes=st.integers(MB, 1_000 * MB))


@given(held_servers, caps)
def test_room_is_made_by_closing_the_longest_unused_processes_and_no_more_than_needed(
    held: list[Held], caps: Caps
) -> None:
    def fits(closed: set[str]) -> bool:
        left = [server for server in held if server.process and server.name not in closed]
        memory = sum(server.memory_bytes for server in left) + SERVER_BYTES
        return len(left) + 1 <= caps.max_processes and memory <= caps.max_memory_bytes

    idle = sorted((s for s in held if s.process and not s.busy), key=lambda s: (s.used_s, s.name))
    closed = to_make_room(held, caps, newcomers=1)
    if closed is None:
        assert not fits({server.name for server in idle})
        return
    assert closed == [server.name for server in idle[: len(closed)]]
    assert fits(set(closed))
    assert not closed or not fits(set(closed[:-1]))


@given(held_servers, caps)
def test_who_is_busy_or_over_http_is_never_closed_for_room(held: list[Held], caps: Caps) -> None:
    closable = {server.name for server in held if server.process and not server.busy}
    for newcomers in (0, 1):
        assert set(to_make_room(held, caps, newcomers=newcomers) or []) <= closable


@given(held_servers)
def test_idle_servers_are_those_that_nobody_used_for_long_enough(held: list[Held]) -> None:
    caps = Caps(idle_s=100)
    found = idle_for_long(held, caps, 500.0)
    assert found == [server.name for server in held if not server.busy and server.used_s <= 400.0]


@given(st.integers(0, 10_000), st.integers())
def test_pauses_are_within_an_exponential_bound(failures: int, seed: int) -> None:
    assert 0.0 <= pause_s(failures, random.Random(seed)) <= min(LONGEST_PAUSE_S, 0.25 * 2.0 ** min(failures, 16))


def test_pauses_are_spread() -> None:
    rng = random.Random(0)
    assert len({round(pause_s(5, rng)) for _ in range(100)}) > 4


def test_a_child_sees_what_everybody_needs_and_what_it_is_granted_and_no_more() -> None:
    ours = {"PATH": "/bin", "OPENAI_API_KEY": "sk", "RAY_AUTH": "x", "LANG": "C.UTF-8", "SHELL": "() { evil; }"}
    assert child_environment({"KEY": "k", "PATH": "/own"}, ours) == {"PATH": "/own", "LANG": "C.UTF-8", "KEY": "k"}


def test_memory_is_that_of_the_whole_group() -> None:
    group = os.getpgid(0)
    found = resident_bytes([group, 2**22 + 1])
    assert found[group] > 10 * MB
    assert found[2**22 + 1] == 0
