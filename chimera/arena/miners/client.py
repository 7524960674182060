"""The one place where a miner's address becomes a miner."""

from __future__ import annotations

import asyncio
import random
import re

from pydantic import TypeAdapter, ValidationError

from chimera.arena.miners.local import MinimaxMiner, OracleMiner, RandomMiner
from chimera.arena.miners.miner import Miner
from chimera.arena.miners.model import ModelMiner
from chimera.arena.miners.retry import Backoff, RetryingMiner, Sleep
from chimera.arena.types import MinerId
from chimera.core.errors import InputError
from chimera.llm.models import open_model

FORMS = "random, minimax, oracle:p=0.7, python:MODULE:FUNCTION, chutes:MODEL, openai:MODEL@URL"

_MINER_ID: TypeAdapter[str] = TypeAdapter(MinerId)

_SHARE = re.compile(r"p=(0(?:\.[0-9]{1,6})?|1(?:\.0{1,6})?)")


def open_miner(
    spec: str, *, rng: random.Random | None = None, backoff: Backoff | None = None, sleep: Sleep = asyncio.sleep
) -> Miner:
    """The miner of this address, in one of the FORMS. Nothing is connected to yet.

    Models are asked again after a fault, as `backoff` says; `rng` draws the pauses (default: the machine's own chance,
    so that validators do not come back all at once; no evidence depends on it). Raises InputError for any other
    address, and for what `open_model` refuses: a missing key, no such function.
    """
    kind, _, rest = _checked(spec).partition(":")
    if spec == RandomMiner.miner_id:
        return RandomMiner()
    if spec == MinimaxMiner.miner_id:
        return MinimaxMiner()
    if kind == "oracle":
        if not (share := _SHARE.fullmatch(rest)):
            raise InputError(f"{spec}: give the share of challenges that it solves, from 0 to 1, as in oracle:p=0.7")
        return OracleMiner(spec, float(share[1]))
    miner = ModelMiner(spec, open_model(model_of(spec)))
    return RetryingMiner(miner, rng=rng or random.SystemRandom(), backoff=backoff or Backoff(), sleep=sleep)


def model_of(spec: str) -> str:
    """The name by which `open_model` knows the model behind a miner. Raises InputError for one that is no model."""
    kind, _, rest = _checked(spec).partition(":")
    if rest and kind in ("chutes", "python"):
        return spec
    if rest and kind == "openai":
        return f"compatible:{rest}"
    if spec in (RandomMiner.miner_id, MinimaxMiner.miner_id) or kind == "oracle":
        raise InputError(
            f"{spec} is no model: it replies to challenges of the arena only, whose rules or answers it knows; "
            "name a miner that is one, as in chutes:MODEL, openai:MODEL@URL or python:MODULE:FUNCTION"
        )
    raise InputError(f"{spec!r} is not a miner: use {FORMS}")


def _checked(spec: str) -> str:
    """Raises InputError for what cannot stand in evidence."""
    try:
        return _MINER_ID.validate_python(spec, strict=True)
    except ValidationError:
        raise InputError(
            f"{spec!a:.200} is not a miner: use {FORMS}, of at most 256 letters, digits and _ . : / = @ , -"
        ) from None
