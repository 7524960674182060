"""The one place that says who somebody is and whether they may: users, tokens, API keys, roles, and the record of it.

    security = SecurityManager(folder)
    pair = await security.authenticate("ada", password)
    principal = security.verify(pair.access_token)
    security.check(principal, Permission.SWARM_TASK, "missions/7")

Whoever changes something is named (`by`) and can hand out no more than they have themselves. What was revoked is
refused at once, whatever was remembered of it. The rules are here; how each thing is kept is in its own module.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import JsonValue

from chimera.core.clock import Clock, SystemClock
from chimera.core.errors import Forbidden, InputError, NotThere, TokenReused, Unauthenticated
from chimera.security import issuing
from chimera.security.api_keys import MAX_LIFETIME_S, APIKey, ApiKeys, looks_like_key
from chimera.security.jwt_manager import Identity, JWTManager, Revocations, TokenPair
from chimera.security.jwt_rules import LEEWAY_S
from chimera.security.keyring import KeyRing
from chimera.security.passwords import Passwords, one_time_password, refuse_weak
from chimera.security.principal import Principal
from chimera.security.refusals import AuditSink, Refusal, hold
from chimera.security.roles import PERMISSIONS, Permission, Role, covers, effective
from chimera.security.sessions import Sessions
from chimera.security.store import SecurityStore
from chimera.security.users import User, Users

if TYPE_CHECKING:
    from chimera.security.capabilities import CapabilityToken
    from chimera.security.capability_home import CapabilityHome
    from chimera.security.caveats import Caveat

__all__ = ["AuditSink", "Revocations", "SecurityManager", "TokenPair", "LOCAL"]

STORE = "security.db"
ONE_TIME_S = 86_400.0
"""How long a one-time password can be used."""

LOGIN_REFUSED = "the user or the password is wrong, or there were too many tries: wait, then try again"
"""Whatever the reason is: which users there are, and which are locked, is nobody's business."""

LOCAL = Principal(subject="local", role=Role.ADMIN, kind="user", token_id="local")
"""Whoever runs a command on the machine that has the files. Never for what came over a network."""


class SecurityManager:
    """Identity for one Chimera, kept in `folder` (made for its owner alone). Processes may share it.

    Without `revocations` they are kept in the same file; without `audit` nothing is written down; without
    `capabilities` none are issued. Seconds as in JWTManager.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock | None = None,
        revocations: Revocations | None = None,
        audit: AuditSink | None = None,
        capabilities: CapabilityHome | None = None,
        passwords: Passwords | None = None,
        issuer: str = "chimera",
        audience: str = "chimera-api",
        access_s: float = 900.0,
        refresh_s: float = 7 * 86_400.0,
        session_s: float = 30 * 86_400.0,
    ) -> None:
        self._clock = clock or SystemClock()
        self.store = SecurityStore(folder / STORE, clock=self._clock)
        self.users = Users(self.store, clock=self._clock)
        self.keys = ApiKeys(self.store, clock=self._clock)
        self._revocations = revocations or self.store
        self._audit = audit
        self._capabilities = capabilities
        self._passwords = passwords or Passwords()
        self.tokens = JWTManager(
            KeyRing(folder, clock=self._clock, keep_s=refresh_s + LEEWAY_S),
            Sessions(self.store, clock=self._clock),
            self._revocations,
            clock=self._clock,
            issuer=issuer,
            audience=audience,
            access_s=access_s,
            refresh_s=refresh_s,
            session_s=session_s,
        )

    def close(self) -> None:
        self._passwords.close()
        self.store.close()

    def verify(self, token: object) -> Principal:
        """Who a token or an API key stands for, now. Raises Unauthenticated. Quick, and waits for nobody."""
        return self._verify_key(token) if looks_like_key(token) else self.tokens.verify(token)

    def check(self, principal: Principal, permission: Permission, resource: str = "") -> None:
        """Raises Forbidden unless `principal` may, and Unauthenticated if its token has ended meanwhile."""
        if principal.expires_at is not None and self._clock.now() >= principal.expires_at + LEEWAY_S:
            raise Unauthenticated("the token is refused: it has expired; log in again")
        if not principal.may(permission):
            self.audit(principal.subject, permission, resource, "forbidden", {"role": principal.role.value})
            raise Forbidden(f"{principal.role} may not {permission} here: ask an administrator for the permission")

    def audit(
        self, actor: str, action: str, resource: str, outcome: str, detail: Mapping[str, JsonValue] | None = None
    ) -> None:
        """Write down what was done or refused. No secrets in it."""
        held = outcome == "forbidden" and hold(Refusal(actor, str(action), resource, detail or {}))
        if self._audit is not None and not held:  # what is held is written with the request that it belongs to
            self._audit.append(actor, str(action), resource, outcome, detail or {})

    async def authenticate(self, user: str, password: str, *, new_password: str | None = None) -> TokenPair:
        """Log in, and change the password if a new one is given, which a one-time password needs.

        Raises Unauthenticated with one message for an unknown user, a wrong password, a disabled user and too many
        tries, after the same work; RateLimited if too many log in; to whom the password is known also Forbidden (it
        is a one-time password) and InputError (the new one is too weak).
        """
        found = self.users.find(user)
        admitted = await self.users.begin_attempt("" if found is None else found.name)
        right = await self._passwords.verify(None if found is None else found.password_hash, password)
        if found is None or not admitted or not right or found.disabled or self._is_over(found):
            actor = "unknown" if found is None else found.name  # a name that is none may be a password
            self.audit(actor, "login", "", "refused", {"locked": not admitted})
            raise Unauthenticated(LOGIN_REFUSED)
        if new_password is not None:
            await self._change_password(found, password, new_password)
        elif found.one_time_until is not None:
            raise Forbidden("this is a one-time password: log in again with new_password beside it")
        else:
            await self.users.succeeded(found.name)
            if self._passwords.is_outdated(found.password_hash):
                newer = await self._passwords.hash(password)
                await self.users.set_password(found.name, newer, old_hash=found.password_hash)
        pair = await self.tokens.issue(_identity(found))
        if self._who(found.name) != _identity(found):  # disabled, reset or made another while the password was hashed
            await self.tokens.revoke(pair.refresh_token)
            self.audit(found.name, "login", "", "refused", {"changed": True})
            raise Unauthenticated(LOGIN_REFUSED)
        self.audit(found.name, "login", "", "ok")
        return pair

    async def refresh(self, refresh_token: str) -> TokenPair:
        """The next pair, once for each refresh token, with the role that its user has now. Raises Unauthenticated."""
        try:
            return await self.tokens.refresh(refresh_token, self._who)
        except TokenReused as error:
            self.audit(error.subject, "refresh", "", "reused")
            raise

    async def revoke(self, token: str) -> None:
        """End the session of a token, or an API key, by its text: whoever holds it may. Raises Unauthenticated."""
        if looks_like_key(token):
            key = self.keys.verify(token)
            await self._revoke_key(key.id)
            self.audit(key.user, "revoke", f"keys/{key.id}", "ok")
        else:
            claims = await self.tokens.revoke(token)
            self.audit(claims.subject, "revoke", f"sessions/{claims.sid}", "ok")

    async def log_out(self, token: str) -> None:
        """End the session of an access or a refresh token. Raises Unauthenticated; InputError for an API key."""
        if looks_like_key(token):
            raise InputError("an API key has no session: revoke it, with DELETE /api/keys/ID")
        await self.revoke(token)

    async def create_api_key(
        self,
        user_id: str,
        role: Role,
        rate_limit: int = 50,
        *,
        by: Principal | None = None,
        scopes: Iterable[Permission] | None = None,
        lifetime_s: float | None = None,
        label: str = "",
    ) -> tuple[str, APIKey]:
        """A key for a user, and its text, which cannot be had again. `rate_limit` is requests a second.

        It has no more than its user's role has, nor than `by` has (None: the user's own doing). One that was made with
        a key ends with that, at the latest, and is no quicker. Raises Forbidden, NotThere, InputError.
        """
        place = f"users/{user_id}/keys"
        if by is not None:
            self.check(by, Permission.KEYS_CREATE, place)
        owner = self._owner(user_id, by)
        narrowed = None if scopes is None else frozenset(scopes)
        wanted = effective(role, narrowed)
        if not covers(owner.role, role) or not wanted <= (PERMISSIONS[role] if by is None else by.permissions):
            self._forbid(by, Permission.KEYS_CREATE, place, f"nobody hands out what they lack of the role {role}")
        made_by = by.token_id if by is not None and by.kind == "api_key" else None
        if made_by is not None and by is not None and by.expires_at is not None:
            left = by.expires_at - self._clock.now()
            lifetime_s = left if lifetime_s is None else min(left, lifetime_s)
        text, key = await self.keys.create(
            owner.name,
            role,
            rate_limit=rate_limit if by is None or by.rate_limit is None else min(rate_limit, by.rate_limit),
            scopes=narrowed,
            lifetime_s=lifetime_s,
            label=label,
            made_by=made_by,
        )
        actor = by.subject if by else owner.name
        self.audit(actor, Permission.KEYS_CREATE, f"keys/{key.id}", "ok", {"role": role.value})
        return text, key

    def list_keys(self, by: Principal, *, user_id: str = "", after: str = "", limit: int = 100) -> tuple[APIKey, ...]:
        """Keys without their secrets, by id: one's own, or with `keys:any` those of `user_id` or of all."""
        self.check(by, Permission.KEYS_READ, "keys")
        everybodys = by.may(Permission.KEYS_ANY)
        if user_id and user_id != by.subject and not everybodys:
            self._forbid(by, Permission.KEYS_READ, f"users/{user_id}/keys", "these are somebody else's keys")
        return self.keys.list(
            user=user_id or ("" if everybodys else by.subject), tenant=by.tenant, after=after, limit=limit
        )

    async def revoke_key(self, key_id: str, *, by: Principal) -> tuple[str, ...]:
        """Revoke one's own key, or with `keys:any` anybody's, and the keys made with it: their ids.

        Raises NotThere for a key there is not, or that is not one's own: the same.
        """
        self.check(by, Permission.KEYS_REVOKE, f"keys/{key_id}")
        key = self.keys.find(key_id)
        owner = None if key is None else self.users.find(key.user)
        mine = key is not None and key.user == by.subject
        if key is None or owner is None or not (mine or (by.may(Permission.KEYS_ANY) and _shares(by, owner.tenant))):
            raise NotThere("there is no such key of yours")
        ids = await self._revoke_key(key_id)
        self.audit(by.subject, Permission.KEYS_REVOKE, f"keys/{key_id}", "ok", {"keys": len(ids)})
        return ids

    async def create_user(self, name: str, password: str, role: Role, *, by: Principal, tenant: str = "") -> User:
        """Add a user, of a role that `by` has all of. Raises Forbidden, InputError."""
        self.check(by, Permission.USERS_MANAGE, f"users/{name}")
        if not PERMISSIONS[role] <= by.permissions or not _shares(by, tenant):
            self._forbid(by, Permission.USERS_MANAGE, f"users/{name}", f"you cannot make a {role} there")
        refuse_weak(name, password)
        await self.users.create(name, role, await self._passwords.hash(password), tenant=tenant)
        self.audit(by.subject, Permission.USERS_MANAGE, f"users/{name}", "created", {"role": role.value})
        return self._managed(name, by)

    async def bootstrap(self, name: str = "admin") -> str | None:
        """Make the first user, an administrator: the one-time password to print, once. None if there are users.

        It can be used for a day, and only together with a new password.
        """
        password = one_time_password()
        hashed = await self._passwords.hash(password)
        until = self._clock.now() + ONE_TIME_S
        if not await self.users.create(name, Role.ADMIN, hashed, one_time_until=until, only_first=True):
            return None
        self.audit(LOCAL.subject, Permission.USERS_MANAGE, f"users/{name}", "created", {"role": Role.ADMIN.value})
        return password

    async def reset_password(self, name: str, *, by: Principal) -> str:
        """A one-time password for a user who lost theirs. It ends their sessions, and their lock."""
        self._managed(name, by)
        password = one_time_password()
        until = self._clock.now() + ONE_TIME_S
        await self.users.set_password(name, await self._passwords.hash(password), one_time_until=until)
        await self._end(name, by, "password reset")
        return password

    async def set_role(self, name: str, role: Role, *, by: Principal) -> None:
        """Give a user another role. It ends their sessions; their keys keep only what the new role has."""
        self._managed(name, by)
        if not PERMISSIONS[role] <= by.permissions:
            self._forbid(by, Permission.USERS_MANAGE, f"users/{name}", f"you cannot make a {role}")
        await self.users.set_role(name, role)
        await self._end(name, by, f"role {role}")

    async def disable_user(self, name: str, *, by: Principal, disabled: bool = True) -> None:
        """Let a user in no more, by password, token or key; or again, with `disabled=False`."""
        if disabled and name == by.subject:
            raise InputError("nobody disables themselves: ask another administrator")
        self._managed(name, by)
        await self.users.set_disabled(name, disabled)
        await self._end(name, by, "disabled" if disabled else "enabled")

    async def rotate_signing_key(self, *, by: Principal, drop: str = "") -> None:
        """Sign with a new key; with `drop`, refuse at once all tokens of the key of that id, which others know."""
        self.check(by, Permission.SIGNING_ROTATE, "signing-keys")
        if drop:
            self.tokens.ring.drop(drop)
        else:
            self.tokens.ring.rotate()
        self.audit(by.subject, Permission.SIGNING_ROTATE, "signing-keys", "ok", {"dropped": drop})

    def issue_capability(
        self,
        by: Principal,
        operations: str | Iterable[str],
        resource: str,
        *,
        ttl_s: float,
        subject: str = "",
        caveats: Iterable[Caveat] = (),
    ) -> CapabilityToken:
        """A capability for `subject` (default: `by`, and of its tenant) out of what `by` may do. Waits for the disk.

        Raises Forbidden, InputError, Overloaded.
        """
        return issuing.issue(
            self, self._capabilities, by, operations, resource, ttl_s=ttl_s, subject=subject, caveats=caveats
        )

    async def revoke_capability(self, revocation_id: str, *, by: Principal) -> None:
        """Refuse a capability that `by` has issued, or with `capability:any` anybody's. Raises NotThere."""
        await issuing.revoke(self, self._capabilities, revocation_id, by)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys that this Chimera's tokens can be verified with, to be published."""
        return self.tokens.jwks()

    def _verify_key(self, text: object) -> Principal:
        key = self.keys.verify(text)
        owner = self.users.find(key.user)
        if owner is None or owner.disabled or self._revocations.is_revoked(key.id):
            raise Unauthenticated("the API key is refused: it was revoked; make another")
        scopes = key.scopes
        if not covers(owner.role, key.role):  # its user has had more than now
            scopes = effective(key.role, key.scopes) & PERMISSIONS[owner.role]
        return Principal(
            subject=key.user,
            role=key.role,
            kind="node" if key.role is Role.NODE else "api_key",
            scopes=scopes,
            token_id=key.id,
            expires_at=key.expires_at,
            tenant=owner.tenant,
            rate_limit=key.rate_limit,
        )

    async def _change_password(self, user: User, old: str, new: str) -> None:
        refuse_weak(user.name, new)
        if new == old:
            raise InputError("the new password is the old one: choose another")
        if not await self.users.set_password(user.name, await self._passwords.hash(new), old_hash=user.password_hash):
            raise Unauthenticated(LOGIN_REFUSED)  # another login changed it meanwhile
        await self._end(user.name, LOCAL, "password changed")

    async def _revoke_key(self, key_id: str) -> tuple[str, ...]:
        ids = await self.keys.revoke(key_id)
        for id in ids:
            await self.tokens.refuse(id, self._clock.now() + MAX_LIFETIME_S)
        return ids

    async def _end(self, name: str, by: Principal, why: str) -> None:
        await self.tokens.end_sessions(name)
        self.audit(by.subject, Permission.USERS_MANAGE, f"users/{name}", why)

    def _managed(self, name: str, by: Principal) -> User:
        """The user, whom `by` may manage: nobody manages who has more than they, or is of another tenant."""
        self.check(by, Permission.USERS_MANAGE, f"users/{name}")
        user = self.users.find(name)
        if user is None or not _shares(by, user.tenant):
            raise NotThere("there is no such user")
        if not PERMISSIONS[user.role] <= by.permissions:
            self._forbid(by, Permission.USERS_MANAGE, f"users/{name}", "this user may do more than you")
        return user

    def _owner(self, user_id: str, by: Principal | None) -> User:
        owner = self.users.find(user_id)
        if by is not None and by.subject != user_id and not by.may(Permission.KEYS_ANY):
            self._forbid(by, Permission.KEYS_CREATE, f"users/{user_id}/keys", "you make keys for yourself only")
        if owner is None or owner.disabled or (by is not None and not _shares(by, owner.tenant)):
            raise NotThere("there is no such user")
        return owner

    def _forbid(self, by: Principal | None, action: str, resource: str, why: str) -> NoReturn:
        self.audit(by.subject if by else LOCAL.subject, action, resource, "forbidden")
        raise Forbidden(why)

    def _who(self, name: str) -> Identity | None:
        user = self.users.find(name)
        return None if user is None or user.disabled or user.one_time_until is not None else _identity(user)

    def _is_over(self, user: User) -> bool:
        return user.one_time_until is not None and user.one_time_until <= self._clock.now()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a SecurityManager does not leave its process: open its folder where it is needed")


def _identity(user: User) -> Identity:
    return Identity(user.name, user.role, "node" if user.role is Role.NODE else "user", None, user.tenant)


def _shares(by: Principal, tenant: str) -> bool:
    return not by.tenant or by.tenant == tenant
