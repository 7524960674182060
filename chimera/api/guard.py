"""Who asks, and whether they may: no route is reached without an answer to both.

A route declares the one permission that it asks for, or that it is public; one that does neither keeps the application
from starting. Who asks is checked before the body is looked at.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection

from chimera.api import strict
from chimera.api.services import Services
from chimera.core.errors import Forbidden, Unauthenticated
from chimera.security.buckets import Limit
from chimera.security.principal import Principal
from chimera.security.roles import Permission

UNGUARDED = frozenset({"/openapi.json", "/ws"})
"""The document of the API, which says nothing of this node; and the socket, which asks by itself."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def services_of(connection: HTTPConnection) -> Services:
    services: Services = connection.app.state.services
    return services


async def _services(request: Request) -> Services:  # a plain function would be called in another thread
    return services_of(request)


Here = Annotated[Services, Depends(_services)]


@dataclass(frozen=True)
class Needs:
    """A dependency: the caller, who has this permission. Raises Unauthenticated, Forbidden, RateLimited."""

    permission: Permission

    async def __call__(self, request: Request) -> Principal:
        principal: Principal
        if getattr(request.state, "passed", None) == self:
            principal = request.state.principal
            return principal
        services = services_of(request)
        principal = authenticate(services, request, bearer(request))
        request.state.principal = principal
        admit(services, principal)
        services.security.check(principal, self.permission, request.url.path)
        request.state.passed = self
        return principal


@dataclass(frozen=True)
class Public:
    """A dependency: anybody may ask, as often as one address may. `login`: and may log in."""

    login: bool = False

    async def __call__(self, request: Request) -> None:
        services = services_of(request)
        if getattr(request.state, "passed", None) == self or services.limiter is None:
            return
        address = address_of(request)
        services.limiter.take(f"address:{address}")
        if self.login:
            settings = services.settings
            services.limiter.take(f"login:{address}", limit=Limit(settings.logins_at_once, settings.logins_per_s))
        request.state.passed = self


PUBLIC = Public()

LOGIN = Public(login=True)


class Guarded(APIRoute):
    """A route that knows who asks before it reads what, and reads JSON strictly."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        guards = guards_of(self)

        async def guarded(request: Request) -> Response:
            for guard in guards:
                await guard(request)
            return await self.answer(StrictRequest(request.scope, request.receive), handle)

        return guarded

    async def answer(self, request: Request, handle: Handler) -> Response:
        return await handle(request)


class StrictRequest(Request):
    async def json(self) -> Any:
        return strict.loads(await self.body())


def authenticate(services: Services, connection: HTTPConnection, token: str) -> Principal:
    """Whom a token stands for. Raises Unauthenticated; RateLimited where an address tries too many."""
    try:
        return services.security.verify(token)
    except Unauthenticated:
        if services.limiter is not None:
            services.limiter.take(f"address:{address_of(connection)}")
        raise


def still(services: Services, principal: Principal, token: str) -> None:
    """Raises Unauthenticated unless the token still stands for just this: what its role and scopes permit too."""
    if services.security.verify(token) != principal:
        raise Unauthenticated("what the token permits has changed: connect again")


def admit(services: Services, principal: Principal) -> None:
    """Raises RateLimited if this client has asked too much: a key for itself, with the rate that it was made with."""
    if services.limiter is None:
        return
    rate = principal.rate_limit
    if rate is None:
        services.limiter.take(f"{principal.kind}:{principal.subject}")
    else:
        services.limiter.take(f"key:{principal.token_id}", limit=Limit(rate, rate))


def address_of(connection: HTTPConnection) -> str:
    """Where a connection comes from, as limits count it: of IPv6 the network, which one machine has all of."""
    told = connection.client.host if connection.client else "-"
    try:
        address = ipaddress.ip_address(told.partition("%")[0])
    except ValueError:
        return told[:64]
    if address.version == 6:
        return str(address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False))
    return str(address)


def bearer(request: Request) -> str:
    """The token of the Authorization header, and of nowhere else. Raises Unauthenticated."""
    told = request.headers.getlist("authorization")
    scheme, _, token = (told[0] if len(told) == 1 else "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("no token: send `Authorization: Bearer TOKEN`, from POST /api/auth/login or an API key")
    return token.strip()


def own(services: Services, principal: Principal, mission_id: str, any_of: Permission = Permission.SWARM_ANY) -> bool:
    """Whether a mission is the caller's, or they may deal with everybody's of their tenant."""
    if services.owned.is_of(mission_id, principal.subject):
        return True
    return principal.may(any_of) and (not principal.tenant or services.owned.is_in(mission_id, principal.tenant))


def guards_of(route: APIRoute) -> list[Needs | Public]:
    calls = [dependency.call for dependency in route.dependant.dependencies]
    return [call for call in calls if isinstance(call, Needs | Public)]


def permission_of(route: APIRoute) -> Permission | None:
    """What a route asks for; None if it is public. Raises Forbidden if it says neither, or both."""
    match guards_of(route):
        case [Needs() as need]:
            return need.permission
        case [Public()]:
            return None
    raise Forbidden(f"{route.path} does not say who may ask: declare Needs(permission) or PUBLIC, once")


def check_all(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Raises Forbidden unless every route says who may ask, and `app` has none besides those of `routers`."""
    for router in routers:
        for route in router.routes:
            if not isinstance(route, APIRoute):
                raise Forbidden(f"{getattr(route, 'path', route)} is no plain route: who may ask it is not known")
            permission_of(route)
    for other in app.routes:
        path = getattr(other, "path", None)
        if path is not None and path not in UNGUARDED:
            raise Forbidden(f"{path} is in none of the routers: declare it there, with who may ask")


def routes_of(routers: Sequence[APIRouter]) -> list[APIRoute]:
    return [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
