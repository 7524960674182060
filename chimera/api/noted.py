"""ASGI middleware: what changes something, and whatever is refused, is written down with who asked for it.

What cannot be written down is answered as an error.
"""

from __future__ import annotations

from starlette.requests import Request

from chimera.api.bounds import App, Message, Receive, Scope, Send
from chimera.api.guard import services_of
from chimera.api.problems import of

QUIET = frozenset({"/healthz", "/readyz"})
"""What anybody asks all the time."""


class Noted:
    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False
        unwritten: Exception | None = None

        async def sending(message: Message) -> None:
            nonlocal begun, unwritten
            if message["type"] == "http.response.start":
                try:
                    _note(scope, message["status"])
                except Exception as error:
                    unwritten = error
                    raise
                begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:  # ours, or the record's
            if begun:
                raise
            response = of(unwritten or error)
            if unwritten is None:
                _note(scope, response.status_code)
            await response(scope, receive, send)


def _note(scope: Scope, status: int) -> None:
    refused = status in (401, 403, 429)
    if scope["path"] in QUIET or (scope["method"] in ("GET", "HEAD", "OPTIONS") and not refused):
        return
    principal = scope.get("state", {}).get("principal")
    client = scope.get("client")
    services_of(Request(scope)).note(
        principal.subject if principal else "-",
        f"{scope['method']} {_route(scope)}",
        scope["path"][:500],
        "refused" if refused else "done" if status < 400 else "failed",
        status=status,
        client=client[0] if client else "-",
        key=principal.token_id if principal else "",
    )


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return str(getattr(route, "path", "-"))
