"""Who asks: what a token was found to stand for. Made by a check of a token, never of a request."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from chimera.core.types import Frozen
from chimera.security.roles import Permission, Role, effective

Kind = Literal["user", "api_key", "node", "agent"]


class Principal(Frozen):
    """Somebody whose token was checked.

    `scopes` narrow the role and never widen it; None is all that the role has. `token_id` is what its token is revoked
    by; `expires_at` is in wall seconds since the epoch, None for a token without an end. `tenant` is whose things it
    may see, "" where there is one owner. `rate_limit` is requests a second, None for the limit that all have.
    """

    subject: str = Field(min_length=1, max_length=128)
    role: Role
    kind: Kind
    scopes: frozenset[Permission] | None = None
    token_id: str = Field(min_length=1, max_length=128)
    expires_at: float | None = None
    tenant: str = Field(default="", max_length=128)
    rate_limit: Annotated[int, Field(ge=1)] | None = None

    @property
    def permissions(self) -> frozenset[Permission]:
        """All that it may do: the table's row of its role, within its scopes."""
        return effective(self.role, self.scopes)

    def may(self, permission: Permission) -> bool:
        """Whether it has this permission, by its role and within its scopes."""
        return permission in self.permissions
