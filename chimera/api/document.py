"""The OpenAPI document: what each route answers besides, who may ask, and what problems look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi

from chimera.api.guard import permission_of, routes_of
from chimera.api.idempotency import MAX_KEY, OnceRoute
from chimera.api.problems import MEDIA_TYPE, Problem

WHY = {
    400: "The request cannot be used.",
    401: "Who asks cannot be told.",
    402: "The budget has nothing left.",
    403: "The caller may not do this.",
    404: "Nothing of that name is here, or it is somebody else's.",
    408: "The body did not arrive in time.",
    409: "It does not fit what is there now.",
    413: "The body is too large.",
    422: "The request does not fit this document.",
    429: "Too much was asked for; `Retry-After` says when to ask again.",
    500: "An internal fault.",
    501: "This node does not do this.",
    502: "Another server that this needs gave no answer.",
    503: "It cannot be done now; ask again.",
}

GUARDED_ONLY = {401, 403}

ONCE = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY, "pattern": "^[!-~]+$"},
    "description": "A request that is sent again with the same key is done once.",
}


def of(app: FastAPI, routers: Sequence[APIRouter]) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _made(app, routers)
    return app.openapi_schema


def _made(app: FastAPI, routers: Sequence[APIRouter]) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    parts = document["components"]
    parts["schemas"]["Problem"] = Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(unused, None)
    parts["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A token, or an API key."}
    }
    for route in routes_of(routers):
        for method in (route.methods or ()) if route.include_in_schema else ():
            operation = document["paths"][route.path_format][method.lower()]
            need = permission_of(route)
            if need is not None:
                operation["security"] = [{"bearer": []}]
                operation["x-permission"] = need.value
            if isinstance(route, OnceRoute) and method == "POST":
                operation.setdefault("parameters", []).append(ONCE)
            operation["responses"].pop("422", None)
            for status in _statuses(method, need is not None):
                operation["responses"][str(status)] = {
                    "description": WHY[status],
                    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
    return document


def _statuses(method: str, guarded: bool) -> list[int]:
    """A public POST is one that a password or a token is sent to, which may be wrong."""
    return [status for status in WHY if guarded or method == "POST" or status not in GUARDED_ONLY]
