"""Who may do what: roles, permissions, and the one table that joins them. What is not in it is not allowed.

Admin holds all that operator holds, operator all that observer holds. A node (a worker machine) and an api_client
(a program from outside) stand beside that line: each holds what it needs and nothing else. So a program has to do with
money only by a key of another role, narrowed to scopes that name it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType

from chimera.core.errors import InputError


class Role(StrEnum):
    """What somebody is to this Chimera."""

    ADMIN = "admin"
    OPERATOR = "operator"
    OBSERVER = "observer"
    NODE = "node"
    API_CLIENT = "api_client"


class Permission(StrEnum):
    """One verb on one kind of thing. Each route and each message of the API asks for exactly one."""

    SWARM_READ = "swarm:read"
    SWARM_SPAWN = "swarm:spawn"
    SWARM_TASK = "swarm:task"
    SWARM_CONSENSUS = "swarm:consensus"
    SWARM_CANCEL = "swarm:cancel"
    SWARM_ANY = "swarm:any"
    """Missions of others too; without it only one's own."""
    LLM_GENERATE = "llm:generate"
    ANOMALY_DETECT = "anomaly:detect"
    ANOMALY_PREDICT = "anomaly:predict"
    ARENA_READ = "arena:read"
    REVIEW_READ = "review:read"
    REVIEW_DECIDE = "review:decide"
    """An approval runs code on the node: it is for whoever may reload modules, and not for who may merely act."""
    QUEUE_DECIDE = "queue:decide"
    """To be a reviewer at all; whose word counts, and on what, is for the review policy to say."""
    CONTENT_READ = "content:read"
    TREASURY_READ = "treasury:read"
    TREASURY_PAY = "treasury:pay"
    """To ask for payments; what becomes of them the treasury says."""
    TREASURY_APPROVE = "treasury:approve"
    """Also to start spending again. What one has asked for oneself, another approves."""
    TREASURY_STOP = "treasury:stop"
    RELOAD_READ = "reload:read"
    RELOAD_MODULE = "reload:module"
    KEYS_CREATE = "keys:create"
    KEYS_READ = "keys:read"
    KEYS_REVOKE = "keys:revoke"
    KEYS_ANY = "keys:any"
    """API keys of others too; without it only one's own."""
    USERS_READ = "users:read"
    USERS_MANAGE = "users:manage"
    CAPABILITY_ISSUE = "capability:issue"
    CAPABILITY_REVOKE = "capability:revoke"
    CAPABILITY_ANY = "capability:any"
    """Capabilities of other issuers too; without it only those that one has issued."""
    SIGNING_ROTATE = "signing:rotate"
    AUDIT_READ = "audit:read"
    METRICS_READ = "metrics:read"
    NODE_JOIN = "node:join"
    NODE_REPORT = "node:report"


_OBSERVER = frozenset(
    {
        Permission.SWARM_READ,
        Permission.SWARM_ANY,
        Permission.ANOMALY_DETECT,
        Permission.ANOMALY_PREDICT,
        Permission.ARENA_READ,
        Permission.REVIEW_READ,
        Permission.CONTENT_READ,
        Permission.TREASURY_READ,
        Permission.RELOAD_READ,
        Permission.KEYS_READ,
        Permission.METRICS_READ,
    }
)

_OPERATOR = _OBSERVER | {
    Permission.SWARM_SPAWN,
    Permission.SWARM_TASK,
    Permission.SWARM_CONSENSUS,
    Permission.SWARM_CANCEL,
    Permission.LLM_GENERATE,
    Permission.QUEUE_DECIDE,
    Permission.TREASURY_PAY,
    Permission.TREASURY_STOP,
    Permission.KEYS_CREATE,
    Permission.KEYS_REVOKE,
    Permission.CAPABILITY_ISSUE,
    Permission.CAPABILITY_REVOKE,
}

_NODE = frozenset({Permission.NODE_JOIN, Permission.NODE_REPORT})

_API_CLIENT = frozenset(
    {
        Permission.SWARM_READ,
        Permission.SWARM_TASK,
        Permission.SWARM_CONSENSUS,
        Permission.SWARM_CANCEL,
        Permission.LLM_GENERATE,
        Permission.ANOMALY_DETECT,
        Permission.ANOMALY_PREDICT,
        Permission.KEYS_READ,
    }
)

PERMISSIONS: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        Role.ADMIN: frozenset(Permission),
        Role.OPERATOR: _OPERATOR,
        Role.OBSERVER: _OBSERVER,
        Role.NODE: _NODE,
        Role.API_CLIENT: _API_CLIENT,
    }
)


def allowed(role: Role, permission: Permission) -> bool:
    """Whether the table says so. What is no role or no permission is not allowed."""
    return permission in PERMISSIONS.get(role, frozenset())


def covers(role: Role, other: Role) -> bool:
    """Whether `role` holds all that `other` holds, and so may hand it out."""
    return PERMISSIONS[other] <= PERMISSIONS[role]


def effective(role: Role, scopes: frozenset[Permission] | None) -> frozenset[Permission]:
    """What is left of a role within `scopes`: never more than the role has. None: all of it."""
    held = PERMISSIONS.get(role, frozenset())
    return held if scopes is None else held & scopes


def parse_scopes(names: Iterable[str]) -> frozenset[Permission]:
    """Permissions by their names, as `swarm:read`. Raises InputError for one that there is not."""
    found = set()
    for name in names:
        try:
            found.add(Permission(name))
        except ValueError:
            raise InputError(f"no such permission: {str(name)[:64]!r}; see chimera.security.roles.Permission") from None
    return frozenset(found)
