"""A capability allows what it says, and narrowed it never allows more."""

from __future__ import annotations

import base64
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chimera.core.clock import ManualClock
from chimera.core.errors import ChimeraError, Forbidden, InputError, SecurityError
from chimera.security.capabilities import (
    MAX_BLOCKS,
    MAX_TOKEN_CHARS,
    REFUSED,
    CapabilityAuthority,
    CapabilityToken,
    attenuate,
    contents,
    describe,
)
from chimera.security.capability_keys import KeyFolder
from chimera.security.caveats import (
    Caveat,
    ExpiresAt,
    ForAudience,
    ForTenant,
    MaxUsd,
    OnlyOperations,
    OnResource,
    Uses,
)
from chimera.security.revocation import MemoryRevocations
from chimera.security.uses import MemoryUses, SqliteUses

NOW_S = 1_800_000_000.0

Make = Callable[..., CapabilityAuthority]


class AnyClock(ManualClock):
    """One that also goes back, for requests in any order."""

    def set(self, now_s: float) -> None:
        self._now = now_s


@pytest.fixture
def clock() -> AnyClock:
    return AnyClock(NOW_S)


@pytest.fixture
def make(tmp_path: Path, clock: ManualClock) -> Make:
    """Authorities that share keys, revocations and uses."""
    keys = KeyFolder(tmp_path / "keys", clock=clock)
    shared = {"revocations": MemoryRevocations(clock=clock), "uses": MemoryUses(clock=clock), "clock": clock}
    return lambda **options: CapabilityAuthority(keys, **{**shared, **options})


def allows(authority: CapabilityAuthority, token: CapabilityToken, *request: str, **more: object) -> bool:
    try:
        authority.verify(token, *request, **more)  # type: ignore[arg-type]
    except Forbidden:
        return False
    return True


def test_a_grant_tells_who_may_do_what_until_when(make: Make) -> None:
    authority = make()
    token = authority.issue("agent-7", ["swarm:read", "swarm:task"], "missions/*", ttl_s=60)
    child = attenuate(token, OnResource("missions/42"), ExpiresAt(NOW_S + 30))
    grant = authority.verify(child, "swarm:read", "missions/42", tenant="acme")
    assert (grant.subject, grant.operation, grant.resource) == ("agent-7", "swarm:read", "missions/42")
    assert (grant.expires_at, grant.depth, grant.tenant) == (NOW_S + 30, 1, "acme")
    assert grant.revocation_ids == contents(child).revocation_ids
    assert grant.revocation_ids[:1] == contents(token).revocation_ids


@pytest.mark.parametrize(
    ("operation", "resource"),
    [
        ("swarm:cancel", "missions/1"),
        ("swarm", "missions/1"),
        ("swarm:read.all", "missions/1"),
        ("swarm:read", "missions"),
        ("swarm:read", "missions-2/1"),
        ("swarm:read", "duels/1"),
    ],
)
def test_only_what_was_given_is_allowed(make: Make, operation: str, resource: str) -> None:
    authority = make()
    token = authority.issue("agent-7", "swarm:read", "missions/*", ttl_s=60)
    assert allows(authority, token, "swarm:read", "missions/1")
    assert allows(authority, token, "swarm:read", "missions/1/replies/2")
    with pytest.raises(Forbidden, match=f"^{REFUSED}$"):
        authority.verify(token, operation, resource)


def test_it_ends_at_its_second_and_not_before(make: Make, clock: ManualClock) -> None:
    authority = make()
    token = authority.issue("a", "x", "r", ttl_s=10)
    clock.advance(9.999)
    assert allows(authority, token, "x", "r")
    clock.advance(0.001)
    assert not allows(authority, token, "x", "r")


def test_a_life_longer_than_a_verifier_permits_is_refused_there(make: Make) -> None:
    token = make(max_ttl_s=7_200.0).issue("a", "x", "r", ttl_s=7_200)
    assert allows(make(max_ttl_s=7_200.0), token, "x", "r")
    assert not allows(make(max_ttl_s=3_600.0), token, "x", "r")


@pytest.mark.parametrize(
    ("caveat", "good", "bad"),
    [
        (MaxUsd(0.29), {"amount_usd": 0.29}, {"amount_usd": 0.290001}),
        (ForTenant("acme"), {"tenant": "acme"}, {"tenant": "acme2"}),
        (ForTenant("acme"), {"tenant": "acme"}, {}),
    ],
)
def test_what_the_request_carries(make: Make, caveat: Caveat, good: dict[str, object], bad: dict[str, object]) -> None:
    authority = make()
    for token in (
        authority.issue("a", "x", "r", ttl_s=60, caveats=[caveat]),
        attenuate(authority.issue("a", "x", "r", ttl_s=60), caveat),
    ):
        assert allows(authority, token, "x", "r", **good)
        assert not allows(authority, token, "x", "r", **bad)


def test_an_audience_is_the_verifier_s_name_and_none_is_nobody(make: Make) -> None:
    token = make().issue("a", "x", "r", ttl_s=60, caveats=[ForAudience("node-1")])
    assert allows(make(audience="node-1"), token, "x", "r")
    assert not allows(make(audience="node-2"), token, "x", "r")
    assert not allows(make(), token, "x", "r")


def test_uses_are_shared_with_all_that_is_derived_and_refusals_cost_none(
    make: Make, clock: ManualClock, tmp_path: Path
) -> None:
    authority = make(uses=SqliteUses(tmp_path / "uses.db", clock=clock))
    token = authority.issue("a", "x", "r", ttl_s=600, caveats=[Uses(4)])
    short, once = attenuate(token, ExpiresAt(NOW_S + 10)), attenuate(token, Uses(1))
    assert not allows(authority, token, "y", "r")
    assert allows(authority, short, "x", "r") and allows(authority, once, "x", "r")
    assert not allows(authority, once, "x", "r")
    assert allows(authority, token, "x", "r") and allows(authority, token, "x", "r")
    assert not allows(authority, token, "x", "r")
    assert not allows(make(uses=None), authority.issue("a", "x", "r", ttl_s=60, caveats=[Uses(4)]), "x", "r")


def test_a_count_outlives_the_child_that_was_used(make: Make, clock: ManualClock, tmp_path: Path) -> None:
    authority = make(uses=SqliteUses(tmp_path / "uses.db", clock=clock))
    token, other = (authority.issue("a", "x", "r", ttl_s=600, caveats=[Uses(n)]) for n in (1, 9))
    assert allows(authority, attenuate(token, ExpiresAt(NOW_S + 10)), "x", "r")
    clock.advance(11)
    assert allows(authority, other, "x", "r")
    assert not allows(authority, token, "x", "r")


def test_revoking_a_parent_kills_the_children_and_a_child_only_its_own(make: Make) -> None:
    authority = make()
    root = authority.issue("a", "x", "r", ttl_s=60)
    left, right = attenuate(root, MaxUsd(1)), attenuate(root, MaxUsd(1))
    below = attenuate(left, MaxUsd(1))
    authority.revoke(left)
    assert [allows(authority, token, "x", "r") for token in (root, right, left, below)] == [True, True, False, False]
    authority.revoke(root)
    assert not any(allows(authority, token, "x", "r") for token in (root, right, left, below))


def test_a_parent_stays_revoked_for_as_long_as_any_child_may_live(make: Make, clock: ManualClock) -> None:
    authority = make()
    root = authority.issue("a", "x", "r", ttl_s=600)
    middle = attenuate(root, MaxUsd(1))
    authority.revoke(attenuate(middle, ExpiresAt(NOW_S + 10)))
    authority.revoke(middle)
    clock.advance(599)
    assert not allows(authority, attenuate(middle, MaxUsd(1)), "x", "r")
    assert allows(authority, root, "x", "r")


def test_nothing_is_said_of_a_token_but_names(make: Make) -> None:
    token = attenuate(
        make().issue("agent-7", ["a", "b"], "m/*", ttl_s=60), OnlyOperations(("a",)), Uses(3), MaxUsd(2.5)
    )
    said = describe(token)
    assert said.startswith(
        "agent-7 may a, b on m/* until 2027-01-15T08:01:00Z; then only a, at most 3 uses, at most 2.5 USD at once ["
    )
    raw = base64.urlsafe_b64decode(token.text.rpartition(".")[2]).hex()
    assert not any(raw[at : at + 16] in said for at in range(0, len(raw) - 16, 2))
    assert token.text not in repr(token)
    assert describe(CapabilityToken("chcap1.x.\n")) == "a capability that cannot be read"
    assert pickle.loads(pickle.dumps(token)) == token


@pytest.mark.parametrize(
    "fields",
    [
        {"subject": 'a"); right("x", "y'},
        {"subject": ""},
        {"operations": []},
        {"operations": ["x", "x"]},
        {"operations": [f"x{n}" for n in range(17)]},
        {"operations": ["*"]},
        {"operations": ["X"]},
        {"resource": "../x"},
        {"resource": "a//b"},
        {"resource": "a/"},
        {"resource": "/a"},
        {"resource": "a*"},
        {"resource": "*/a"},
        {"resource": "a/*/b"},
        {"resource": "a/./b"},
        {"resource": "a\n"},
        {"resource": "a" * 257},
        {"ttl_s": 0.0},
        {"ttl_s": math.nan},
        {"ttl_s": 86_401.0},
        {"caveats": [MaxUsd(1.0)] * 33},
    ],
)
def test_what_cannot_be_said_in_one_is_refused(make: Make, fields: dict[str, object]) -> None:
    said = {"subject": "a", "operations": ["x"], "resource": "r", "ttl_s": 60.0, "caveats": (), **fields}
    with pytest.raises(InputError):
        make().issue(**said)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make_caveat",
    [
        lambda: MaxUsd(-1.0),
        lambda: MaxUsd(math.nan),
        lambda: MaxUsd(math.inf),
        lambda: Uses(0),
        lambda: ExpiresAt(math.inf),
        lambda: ForTenant("a b"),
        lambda: ForAudience('x"'),
        lambda: OnResource("a/b*"),
        lambda: OnlyOperations(()),
    ],
)
def test_a_caveat_that_means_nothing_cannot_be_made(make_caveat: Callable[[], Caveat]) -> None:
    with pytest.raises(InputError):
        make_caveat()


@pytest.mark.parametrize("request_", [("x", "r/*"), ("x", "*"), ("x", "a/../r"), ("*", "r"), ("x", 'r"); right("x')])
def test_a_request_names_one_operation_on_one_resource(make: Make, request_: tuple[str, str]) -> None:
    authority = make()
    token = authority.issue("a", "x", "*", ttl_s=60)
    with pytest.raises(InputError):
        authority.verify(token, *request_)
    with pytest.raises(InputError):
        authority.verify(token, "x", "r", amount_usd=math.nan)


def test_depth_and_size_have_an_end(make: Make) -> None:
    authority = make()
    token = authority.issue("a", "x", "r", ttl_s=60)
    for _ in range(MAX_BLOCKS - 1):
        token = attenuate(token, MaxUsd(1))
    assert authority.verify(token, "x", "r").depth == MAX_BLOCKS - 1
    with pytest.raises(InputError, match="15 times"):
        attenuate(token, MaxUsd(1))
    long = authority.issue("a", "x", "r", ttl_s=60)
    many = [OnResource(f"{n}/" + "a" * 250) for n in range(16)]
    with pytest.raises(InputError, match=f"{MAX_TOKEN_CHARS} at most"):
        attenuate(attenuate(long, *many), *(OnResource(f"b{caveat.pattern}") for caveat in many))


def test_what_cannot_be_known_is_no_leave(make: Make, clock: ManualClock) -> None:
    class Silent(MemoryRevocations):
        def is_revoked(self, id: str) -> bool:
            raise SecurityError("out of reach")

    token = make().issue("a", "x", "r", ttl_s=60)
    with pytest.raises(ChimeraError):
        make(revocations=Silent(clock=clock)).verify(token, "x", "r")


OPERATIONS = ("a:read", "a:write", "b:run")
PATHS = ("m", "m/1", "m/1/x", "m/2", "m1", "n/1")
PATTERNS = (*PATHS, "m/*", "m/1/*", "n/*", "*")
AMOUNTS = (0.0, 0.5, 1.0, 1.000001, 2.0)


@dataclass(frozen=True)
class Asked:
    operation: str
    resource: str
    usd: float
    tenant: str
    audience: str
    at_s: float


def holds(caveat: Caveat, asked: Asked) -> bool:
    """What each caveat means, said once more without Datalog."""
    match caveat:
        case ExpiresAt(at_s):
            return asked.at_s < at_s
        case OnResource(pattern):
            return covers(pattern, asked.resource)
        case OnlyOperations(operations):
            return asked.operation in operations
        case MaxUsd(usd):
            return asked.usd <= usd
        case ForTenant(tenant):
            return asked.tenant == tenant
        case ForAudience(audience):
            return asked.audience == audience
        case _:
            raise AssertionError(caveat)


def covers(pattern: str, path: str) -> bool:
    parts, wanted = pattern.split("/"), path.split("/")
    if parts[-1] != "*":
        return parts == wanted
    return wanted[: len(parts) - 1] == parts[:-1] and len(wanted) >= len(parts)


operations = st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=3, unique=True).map(tuple)
caveats = st.one_of(
    st.sampled_from((5, 50)).map(lambda s: ExpiresAt(NOW_S + s)),
    st.sampled_from(PATTERNS).map(OnResource),
    operations.map(OnlyOperations),
    st.sampled_from(AMOUNTS).map(MaxUsd),
    st.sampled_from(("t1", "t2")).map(ForTenant),
    st.sampled_from(("v1", "v2")).map(ForAudience),
)
blocks = st.lists(st.lists(caveats, min_size=1, max_size=2), max_size=3)
requests = st.builds(
    Asked,
    st.sampled_from(OPERATIONS),
    st.sampled_from(PATHS),
    st.sampled_from(AMOUNTS),
    st.sampled_from(("t1", "t2", "")),
    st.sampled_from(("v1", "")),
    st.sampled_from((NOW_S, NOW_S + 20)),
)
REQUESTS_AT_ONCE = 20


def test_narrowing_never_gives_a_right_in_10_000_random_cases(make: Make, clock: AnyClock) -> None:
    seen = {"cases": 0, "child": 0, "parent": 0}

    @settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        operations,
        st.sampled_from(PATTERNS),
        blocks,
        st.lists(requests, min_size=REQUESTS_AT_ONCE, max_size=REQUESTS_AT_ONCE),
    )
    def run(given_to: tuple[str, ...], pattern: str, chain: list[list[Caveat]], asked: list[Asked]) -> None:
        clock.set(NOW_S)
        tokens = [make().issue("s", given_to, pattern, ttl_s=100)]
        for block in chain:
            tokens.append(attenuate(tokens[-1], *block))
        for one in asked:
            clock.set(one.at_s)
            verifier = make(audience=one.audience)
            said = [
                allows(verifier, token, one.operation, one.resource, amount_usd=one.usd, tenant=one.tenant)
                for token in tokens
            ]
            root = one.operation in given_to and covers(pattern, one.resource)
            meant = [root and all(holds(c, one) for block in chain[:n] for c in block) for n in range(len(tokens))]
            assert said == meant
            assert all(parent or not child for parent, child in pairwise(said))
            seen["cases"] += 1
            seen["parent"] += said[0]
            seen["child"] += len(said) > 1 and said[-1]

    run()
    assert seen["cases"] >= 10_000
    assert seen["parent"] > 500 and seen["child"] > 50, seen
