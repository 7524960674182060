"""What is written of a caveat is what biscuit prints of it, and what is read again."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.security.biscuits import build, peek
from chimera.security.caveats import (
    Caveat,
    ExpiresAt,
    ForAudience,
    ForTenant,
    MaxUsd,
    OnlyOperations,
    OnResource,
    Uses,
    read_caveats,
)

segments = st.from_regex(r"[A-Za-z0-9_@:+~\-]{1,8}", fullmatch=True)
paths = st.lists(segments, min_size=1, max_size=4).map("/".join)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.@:+/\-]{0,20}", fullmatch=True)
operations = st.from_regex(r"[a-z][a-z0-9_]{0,8}(:[a-z][a-z0-9_]{0,8})?", fullmatch=True)
caveats = st.one_of(
    st.floats(0, 2.5e11).map(ExpiresAt),
    st.one_of(paths, paths.map(lambda path: f"{path}/*"), st.just("*")).map(OnResource),
    st.lists(operations, min_size=1, max_size=4, unique=True).map(tuple).map(OnlyOperations),
    st.floats(0, 1e9).map(MaxUsd),
    st.integers(1, 1_000_000_000).map(Uses),
    names.map(ForAudience),
    names.map(ForTenant),
)


@settings(max_examples=300)
@given(st.lists(caveats, min_size=1, max_size=8))
def test_what_is_written_is_what_is_read(said: list[Caveat]) -> None:
    sources, _ = peek(build("\n".join(caveat.lines() for caveat in said), bytes(range(32)), 1), 1)
    assert list(read_caveats(sources[0])) == said
