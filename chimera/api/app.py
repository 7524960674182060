"""The application: routes, limits, errors, and that nothing is reached without a permission."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI

from chimera.api import document, problems
from chimera.api.answers import Answers
from chimera.api.bounds import Bounds
from chimera.api.guard import check_all
from chimera.api.idempotency import Remembered
from chimera.api.noted import Noted
from chimera.api.routes import arena, auth, capabilities, console, content, node, queue, reviews, swarm, treasury
from chimera.api.services import ApiSettings, Services
from chimera.api.socket import Sockets
from chimera.api.streams import Open

ROUTERS = (
    auth.router,
    auth.keys,
    auth.jwks,
    capabilities.router,
    swarm.router,
    node.router,
    arena.router,
    reviews.router,
    queue.router,
    content.router,
    treasury.router,
    console.router,
)

Opening = Callable[[], AbstractAsyncContextManager[Services]]

DESCRIPTION = """
Every call carries `Authorization: Bearer TOKEN` (from `POST /api/auth/login`, or an API key), but for those that say
otherwise. Errors are `application/problem+json`. A POST with an `Idempotency-Key` is done once.
"""


def create_app(opening: Opening, settings: ApiSettings | None = None) -> FastAPI:
    """The API over what `opening` opens when the server starts, and closes when it ends.

    Raises Forbidden if a route does not say who may ask.
    """
    settings = settings or ApiSettings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opening() as services:
            app.state.services = services
            answers = services.answers
            if answers is None:
                answers = await asyncio.to_thread(Answers.of_this_process)
            app.state.remembered = Remembered(answers)
            app.state.sockets = Sockets(services)
            app.state.streams = Open(settings.max_streams, settings.max_streams_each)
            yield
            await app.state.sockets.close()
            if services.answers is None:
                await asyncio.to_thread(answers.close)

    app = FastAPI(
        title="Chimera",
        version=version("chimera"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # these load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # they redirect to whatever the Host header says
    )
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_api_websocket_route("/ws", Sockets.serve)
    app.add_middleware(Noted)
    app.add_middleware(
        Bounds,
        max_bytes=settings.max_body_bytes,
        max_depth=settings.max_depth,
        body_s=settings.body_s,
        hosts=settings.hosts,
    )
    if settings.origins:
        from fastapi.middleware.cors import CORSMiddleware

        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
        )
    check_all(app, ROUTERS)
    app.openapi = partial(document.of, app, ROUTERS)  # type: ignore[method-assign]
    return app
