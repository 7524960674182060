"""The least that each route and each message of the socket can be asked with. A new one must be given its own here."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi.routing import APIRoute

from chimera.api.app import ROUTERS
from chimera.api.bodies import ReloadModule
from chimera.api.guard import routes_of
from chimera.api.routes.node import signed_text
from tests.api.whole import PASSWORD, Node

ROUTES = {
    f"{method} {route.path_format}": route for route in routes_of(ROUTERS) for method in sorted(route.methods or ())
}

MODULE = "tests.policies"

RELOAD_KEY = Ed25519PrivateKey.generate()

RELOAD_KEYS = (base64.b64encode(RELOAD_KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode(),)

NO_MISSION = "mission-0123456789ab0123456789abcdef"

NO_REVIEW = "0123456789abcdef0123456789abcdef"

NO_PAYMENT = "costs/swarm-1/0123456789abcdef"


def reload_of(source: str, module: str = MODULE) -> dict[str, Any]:
    """A reload that the node's key has signed."""
    told = ReloadModule(module=module, source=source, signature="")
    return {**told.model_dump(), "signature": base64.b64encode(RELOAD_KEY.sign(signed_text(told))).decode()}


@dataclass(frozen=True)
class Ask:
    """`body` is made anew for each request: some can be sent once only."""

    path: str = ""
    body: Callable[[Node, str], dict[str, Any] | None] = lambda node, token: None


def fixed(body: dict[str, Any]) -> Ask:
    return Ask(body=lambda node, token: body)


def asked_of_nothing(command: str, body: dict[str, Any]) -> Ask:
    """A command about an item that is not there."""
    return Ask(f"/api/queue/{NO_REVIEW}/{command}", lambda node, token: body)


FILES = {"app/sum.py": "def total(a, b):\n    return a - b\n"}

ASKS: dict[str, Ask] = {
    "POST /api/auth/login": fixed({"user": "observer", "password": PASSWORD}),
    "POST /api/auth/token/verify": Ask(body=lambda node, token: {"token": token}),
    "POST /api/auth/refresh": Ask(body=lambda node, token: {"refresh_token": token}),
    "POST /api/auth/logout": Ask(body=lambda node, token: {"token": token}),
    "POST /api/capabilities": fixed({"operations": ["reads:search"], "resource": "web/*"}),
    "DELETE /api/capabilities/{revocation_id}": Ask(f"/api/capabilities/{NO_REVIEW}"),
    "POST /api/keys/create": fixed({"role": "api_client", "scopes": [], "expires_in_s": 60}),
    "GET /api/keys": Ask(),
    "DELETE /api/keys/{key_id}": Ask("/api/keys/aaaaaaaaaaaaaaaa"),
    "GET /.well-known/jwks.json": Ask(),
    "GET /api/swarm": Ask(),
    "POST /api/swarm/spawn": fixed({"policy": "chimera.swarm.roles:echo", "role": "spawned"}),
    "POST /api/swarm/task": fixed({"goal": "what is it?"}),
    "POST /api/swarm/missions": fixed({"goal": "what is it?", "tasks": [{"id": "a", "goal": "what is it?"}]}),
    "POST /api/swarm/consensus": fixed({"goal": "what is it?", "replicas": 3}),
    "GET /api/swarm/missions": Ask(),
    "GET /api/swarm/missions/{mission_id}": Ask(f"/api/swarm/missions/{NO_MISSION}"),
    "GET /api/swarm/missions/{mission_id}/events": Ask(f"/api/swarm/missions/{NO_MISSION}/events"),
    "POST /api/swarm/missions/{mission_id}/cancel": Ask(f"/api/swarm/missions/{NO_MISSION}/cancel"),
    "POST /api/llm/generate": fixed({"module": "app.sum", "failure": "it subtracts", "files": FILES}),
    "GET /api/anomaly/detect": Ask(),
    "POST /api/anomaly/predict": fixed({"values": [1, 2, 3, 4, 5, 6, 7, 8], "horizon": 2}),
    "GET /api/reload/stats": Ask(),
    "POST /api/reload/module": fixed(reload_of("VERSION = 2\n", "tests.reloadable_not_there")),
    "GET /api/audit": Ask(),
    "GET /api/arena/duels": Ask(),
    "GET /api/arena/duels/{duel_id}": Ask("/api/arena/duels/1767225600000-0a1b2c00"),
    "GET /api/reviews": Ask(),
    "GET /api/reviews/{review_id}": Ask(f"/api/reviews/{NO_REVIEW}"),
    "POST /api/reviews/{review_id}/approve": Ask(f"/api/reviews/{NO_REVIEW}/approve"),
    "POST /api/reviews/{review_id}/refuse": Ask(f"/api/reviews/{NO_REVIEW}/refuse"),
    "GET /api/queue": Ask(),
    "GET /api/queue/stats": Ask(),
    "GET /api/queue/calibration": Ask(),
    "GET /api/queue/{item_id}": Ask(f"/api/queue/{NO_REVIEW}"),
    "POST /api/queue/{item_id}/claim": Ask(f"/api/queue/{NO_REVIEW}/claim"),
    "POST /api/queue/{item_id}/release": Ask(f"/api/queue/{NO_REVIEW}/release"),
    "POST /api/queue/{item_id}/approve": asked_of_nothing("approve", {"version": 0}),
    "POST /api/queue/{item_id}/reject": asked_of_nothing("reject", {"reason": "it is wrong"}),
    "POST /api/queue/{item_id}/edit": asked_of_nothing("edit", {"version": 0, "payload": "better"}),
    "POST /api/queue/{item_id}/escalate": asked_of_nothing("escalate", {"to": "leads", "reason": "who knows?"}),
    "GET /api/content/report": Ask(),
    "GET /api/content/items": Ask(),
    "GET /api/treasury": Ask(),
    "GET /api/treasury/payments": Ask(),
    "GET /api/treasury/payments/{request_id}": Ask(f"/api/treasury/payments/{NO_PAYMENT}"),
    "POST /api/treasury/payments": fixed({"debit": "cash", "credit": "acme", "amount": "1.50", "category": "hosting"}),
    "POST /api/treasury/payments/{request_id}/approve": Ask(
        f"/api/treasury/payments/{NO_PAYMENT}/approve", lambda node, token: {}
    ),
    "POST /api/treasury/payments/{request_id}/refuse": Ask(
        f"/api/treasury/payments/{NO_PAYMENT}/refuse", lambda node, token: {}
    ),
    "POST /api/treasury/stop": fixed({"why": "a drill"}),
    "POST /api/treasury/resume": Ask(),
    "GET /api/treasury/entries": Ask(),
    "GET /api/treasury/statement/{month}": Ask("/api/treasury/statement/2026-11"),
    "GET /healthz": Ask(),
    "GET /readyz": Ask(),
    "GET /metrics": Ask(),
    "GET /": Ask(),
    "GET /console/{name}": Ask("/console/main.js"),
}

MESSAGES: dict[str, dict[str, Any]] = {
    "generate_code": {"module": "app.sum", "failure": "it subtracts", "files": FILES},
    "spawn_agent": {"policy": "chimera.swarm.roles:echo", "role": "spawned"},
    "submit_task": {"goal": "what is it?"},
    "reload_module": reload_of("VERSION = 2\n", "tests.reloadable_not_there"),
    "subscribe": {"mission_id": NO_MISSION},
}


def route_of(name: str) -> APIRoute:
    return ROUTES[name]
