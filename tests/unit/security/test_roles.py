"""The table of roles and permissions: an order where there is one, and nothing that is not in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core.errors import InputError
from chimera.security.principal import Kind, Principal
from chimera.security.roles import PERMISSIONS, Permission, Role, allowed, covers, effective, parse_scopes

roles = st.sampled_from(Role)
scopes = st.none() | st.frozensets(st.sampled_from(Permission))


def principal(role: Role, narrowed: frozenset[Permission] | None = None, kind: Kind = "user") -> Principal:
    return Principal(subject="somebody", role=role, kind=kind, scopes=narrowed, token_id="t")


def test_admin_has_all_that_operator_has_and_operator_all_that_observer_has() -> None:
    assert PERMISSIONS[Role.ADMIN] == frozenset(Permission)
    assert PERMISSIONS[Role.OBSERVER] < PERMISSIONS[Role.OPERATOR] < PERMISSIONS[Role.ADMIN]
    assert set(PERMISSIONS) == set(Role)


def test_an_observer_changes_nothing() -> None:
    reads = {"read", "detect", "predict", "any"}
    assert {permission.split(":")[1] for permission in PERMISSIONS[Role.OBSERVER]} <= reads
    assert Permission.KEYS_ANY not in PERMISSIONS[Role.OBSERVER]


def test_nodes_and_api_clients_stand_beside_the_line() -> None:
    assert PERMISSIONS[Role.NODE] == {Permission.NODE_JOIN, Permission.NODE_REPORT}
    assert not covers(Role.OPERATOR, Role.NODE)
    assert Permission.SWARM_ANY not in PERMISSIONS[Role.API_CLIENT]


@pytest.mark.parametrize(
    "permission",
    [Permission.USERS_MANAGE, Permission.KEYS_ANY, Permission.AUDIT_READ, Permission.SIGNING_ROTATE],
)
def test_what_is_an_administrators_is_nobody_elses(permission: Permission) -> None:
    assert [role for role in Role if allowed(role, permission)] == [Role.ADMIN]


def test_what_is_no_role_or_no_permission_is_not_allowed() -> None:
    assert not allowed("root", Permission.SWARM_READ)  # type: ignore[arg-type]
    assert not allowed(Role.ADMIN, "swarm:everything")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        PERMISSIONS[Role.NODE] = frozenset(Permission)  # type: ignore[index]


@given(roles, roles)
def test_a_role_covers_another_if_it_has_all_of_it(role: Role, other: Role) -> None:
    assert covers(role, other) == all(
        allowed(role, permission) for permission in Permission if allowed(other, permission)
    )


@given(roles, scopes, st.sampled_from(Permission))
def test_scopes_narrow_a_role_and_never_widen_it(
    role: Role, narrowed: frozenset[Permission] | None, permission: Permission
) -> None:
    may = principal(role, narrowed).may(permission)
    assert may == (allowed(role, permission) and (narrowed is None or permission in narrowed))
    assert effective(role, narrowed) <= PERMISSIONS[role]


@given(roles, st.frozensets(st.sampled_from(Permission)), st.frozensets(st.sampled_from(Permission)))
def test_fewer_scopes_never_give_more(role: Role, some: frozenset[Permission], others: frozenset[Permission]) -> None:
    assert effective(role, some & others) == effective(role, some) & effective(role, others)


def test_no_scopes_at_all_is_not_the_same_as_an_empty_set_of_them() -> None:
    assert principal(Role.ADMIN, None).permissions == frozenset(Permission)
    assert principal(Role.ADMIN, frozenset()).permissions == frozenset()


def test_scopes_are_read_by_name_and_an_unknown_one_is_refused() -> None:
    assert parse_scopes(["swarm:read", "keys:read"]) == {Permission.SWARM_READ, Permission.KEYS_READ}
    with pytest.raises(InputError, match="no such permission"):
        parse_scopes(["swarm:read", "swarm:*"])
