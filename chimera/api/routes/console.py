"""The console's files: a page for people who would rather look than read. They use the public API and nothing else."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path
from fastapi.responses import Response

from chimera.api.guard import PUBLIC
from chimera.core.errors import NotThere

router = APIRouter(include_in_schema=False)

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@cache
def assets() -> dict[str, tuple[bytes, str, str]]:
    """Each file's bytes, type and ETag, by its name. Read once."""
    found = {}
    for file in files("chimera.api").joinpath("console").iterdir():
        kind = TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            content = file.read_bytes()
            found[file.name] = content, f"{kind}; charset=utf-8", f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return found


@router.get("/", dependencies=[Depends(PUBLIC)])
async def index(if_none_match: Annotated[str, Header()] = "") -> Response:
    return _sent("index.html", if_none_match)


@router.get("/console/{name}", dependencies=[Depends(PUBLIC)])
async def asset(name: Annotated[str, Path(max_length=64)], if_none_match: Annotated[str, Header()] = "") -> Response:
    return _sent(name, if_none_match)


def _sent(name: str, known: str) -> Response:
    if name not in assets():
        raise NotThere(f"the console has no {name[:64]!r}")
    content, kind, tag = assets()[name]
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if known == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)
