"""ASGI middleware: what changes something, and whatever is refused, is written down with who asked for it.

What cannot be written down is answered as an error. What `SecurityManager` refused on the way is in the same entry, so
that a 403 stands there once: with who asked, for which permission, on what, and from where.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import JsonValue
from starlette.requests import Request

from chimera.api.bounds import App, Message, Receive, Scope, Send
from chimera.api.guard import services_of
from chimera.api.problems import of
from chimera.security.refusals import Refusal, Refusals, held

QUIET = frozenset({"/healthz", "/readyz"})
"""What anybody asks all the time."""


class Noted:
    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with held() as refusals:
            await self._answer(scope, receive, send, refusals)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, refusals: Refusals) -> None:
        begun = False
        unwritten: Exception | None = None

        async def sending(message: Message) -> None:
            nonlocal begun, unwritten
            if message["type"] == "http.response.start":
                try:
                    _note(scope, message["status"], refusals.take())
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
                _note(scope, response.status_code, refusals.take())
            await response(scope, receive, send)


def _note(scope: Scope, status: int, refusals: Sequence[Refusal]) -> None:
    note = services_of(Request(scope)).note
    client = scope["client"][0] if scope.get("client") else "-"
    last = ended_by(note, refusals, refused=status == 403, client=client)
    refused = status in (401, 403, 429)
    if scope["path"] in QUIET or (scope["method"] in ("GET", "HEAD", "OPTIONS") and not refused):
        return
    principal = scope.get("state", {}).get("principal")
    note(
        principal.subject if principal else last.actor if last else "-",
        f"{scope['method']} {_route(scope)}",
        scope["path"][:500],
        "refused" if refused else "done" if status < 400 else "failed",
        status=status,
        client=client,
        key=principal.token_id if principal else "",
        **told_of(last),
    )


def ended_by(note: Callable[..., None], refusals: Sequence[Refusal], *, refused: bool, client: str) -> Refusal | None:
    """What a request was `refused` for, to be told in its own entry. Others it went on after: they are written here."""
    last = refusals[-1] if refusals and refused else None
    for each in refusals:
        if each is not last:
            note(each.actor, each.permission, each.resource, "forbidden", client=client, **each.detail)
    return last


def told_of(refusal: Refusal | None) -> dict[str, JsonValue]:
    """What the entry of a refused request says of it."""
    if refusal is None:
        return {}
    return {"permission": refusal.permission, "on": refusal.resource[:500], **refusal.detail}


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return str(getattr(route, "path", "-"))
