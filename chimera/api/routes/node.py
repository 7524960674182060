"""Code, anomalies, reloads, the record of what was done, and whether the node is well."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query
from fastapi.responses import PlainTextResponse
from pydantic import JsonValue

from chimera.anomaly.forecast.engine import Forecast, ForecastEngine
from chimera.api.bodies import Generate, Page, Predict, ReloadModule
from chimera.api.guard import PUBLIC, Here, Needs
from chimera.api.idempotency import OnceRoute
from chimera.api.metrics import exposition
from chimera.api.services import Services
from chimera.core.errors import Forbidden, HealingError, InputError, NotBuilt
from chimera.healing.failure import Failure
from chimera.reload.messages import Reloaded, ReloadStatus
from chimera.security.principal import Principal
from chimera.security.roles import Permission

router = APIRouter(route_class=OnceRoute)

MAX_READINGS = 2_000


@router.post("/api/llm/generate", tags=["models"])
async def generate(
    body: Generate, here: Here, caller: Annotated[Principal, Depends(Needs(Permission.LLM_GENERATE))]
) -> dict[str, JsonValue]:
    """A patch, with tests, for a failure. It is made by a model, and neither tried nor applied."""
    return await patch_for(here, body)


async def patch_for(here: Services, body: Generate) -> dict[str, JsonValue]:
    """Raises NotBuilt where no model writes, HealingError, ModelError."""
    if here.generator is None:
        raise NotBuilt("this node has no model that writes code: start it with --model openai:NAME or another")
    failure = Failure(kind="description", module=body.module, text=body.failure)
    async for patch in here.generator.candidates(failure, body.files):
        return patch.model_dump(mode="json")
    raise HealingError("the model made no patch: ask again, or show it other files")


@router.get("/api/anomaly/detect", tags=["anomaly"])
async def detect(
    here: Here,
    caller: Annotated[Principal, Depends(Needs(Permission.ANOMALY_DETECT))],
    metric: Annotated[str | None, Query(max_length=256)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> dict[str, Any]:
    """The last alerts of this node's watch, and the metrics that it looks at; with `metric`, its last readings too."""
    if here.engine is None:
        raise NotBuilt("this node watches no metrics: start it without --no-watch")
    alerts = [alert for alert in here.alerts() if metric in (None, alert.metric)][-limit:]
    told: dict[str, Any] = {
        "alerts": [alert.model_dump(mode="json") for alert in alerts],
        "metrics": [view.metric for view in here.engine.views()][:10_000],
    }
    if metric is not None:
        times, values = here.engine.history(metric)
        told["readings"] = [
            [float(at), float(value)] for at, value in zip(times[-2_000:], values[-2_000:], strict=True)
        ]
    return told


@router.post("/api/anomaly/predict", tags=["anomaly"])
async def predict(
    body: Predict, here: Here, caller: Annotated[Principal, Depends(Needs(Permission.ANOMALY_PREDICT))]
) -> dict[str, Any]:
    """What comes next, with a band that should hold nine readings of ten."""
    if (body.metric is None) == (body.values is None):
        raise InputError("give either `metric` or `values`")
    if body.metric is not None:
        if here.engine is None:
            raise NotBuilt("this node watches no metrics: give `values`")
        forecast = here.engine.forecast(body.metric, body.horizon)
    else:
        forecast = await asyncio.to_thread(ForecastEngine().forecast, np.array(body.values, float), body.horizon)
    return forecast_told(forecast)


def forecast_told(forecast: Forecast) -> dict[str, Any]:
    return {name: getattr(forecast, name).tolist() for name in ("mean", "low", "high")}


@router.get("/api/reload/stats", tags=["reload"])
async def reload_stats(
    here: Here, caller: Annotated[Principal, Depends(Needs(Permission.RELOAD_READ))]
) -> ReloadStatus:
    """Which versions of which modules run in the swarm's cells."""
    return await here.swarm.reload_status()


@router.post("/api/reload/module", tags=["reload"])
async def reload_module(
    body: ReloadModule, here: Here, caller: Annotated[Principal, Depends(Needs(Permission.RELOAD_MODULE))]
) -> Reloaded:
    """Signed source of a module, into every cell or into none."""
    check_signature(here, body)
    return await here.swarm.reload(body.module, body.source)


def check_signature(here: Services, body: ReloadModule) -> None:
    """Raises Forbidden unless one of the node's keys signed exactly this."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not here.settings.reload_keys:
        raise Forbidden("this node takes no code over the API: start it with --reload-key PUBLIC_KEY")
    try:
        signature = base64.b64decode(body.signature, validate=True)
    except (binascii.Error, ValueError):
        raise Forbidden("the signature is not base64") from None
    for key in here.settings.reload_keys:
        try:
            Ed25519PublicKey.from_public_bytes(base64.b64decode(key)).verify(signature, signed_text(body))
        except InvalidSignature:
            continue
        return
    raise Forbidden("the source is not signed by a key of this node")


def signed_text(body: ReloadModule) -> bytes:
    digest = hashlib.sha256(body.source.encode()).hexdigest()
    return f"chimera-reload\n{body.module}\n{digest}".encode()


@router.get("/api/audit", tags=["audit"])
async def audit(
    here: Here,
    caller: Annotated[Principal, Depends(Needs(Permission.AUDIT_READ))],
    actor: Annotated[str | None, Query(max_length=128)] = None,
    action: Annotated[str | None, Query(max_length=128)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
) -> Page:
    """What was done and refused, by whom, the oldest first."""
    if here.audit is None:
        raise NotBuilt("this node keeps no audit log")
    if caller.tenant:
        raise Forbidden("the record is of the whole node: who belongs to a tenant does not read it")
    found = here.audit.query(actor=actor, action=action, limit=limit + 1, after=after)
    items = [entry.model_dump(mode="json") for entry in found[:limit]]
    return Page(items=items, next=str(items[-1]["seq"]) if len(found) > limit else None)


@router.get("/healthz", tags=["health"], dependencies=[Depends(PUBLIC)])
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", tags=["health"], dependencies=[Depends(PUBLIC)])
async def readyz(here: Here) -> dict[str, str]:
    """The swarm answers too."""
    await here.swarm.status()
    return {"status": "ready"}


@router.get("/metrics", tags=["health"], response_class=PlainTextResponse)
async def metrics(
    here: Here, caller: Annotated[Principal, Depends(Needs(Permission.METRICS_READ))]
) -> PlainTextResponse:
    """The swarm's figures, as Prometheus reads them."""
    return PlainTextResponse(exposition(await here.swarm.status()), media_type="text/plain; version=0.0.4")
