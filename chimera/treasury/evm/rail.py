"""A Safe as a rail of the CFO's desk: which network and node, and where the three keys answer, in a file for each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from chimera.core.errors import InputError
from chimera.core.types import Frozen
from chimera.treasury.evm.outbox import Outbox
from chimera.treasury.evm.payer import POLL_S, EvmPayments
from chimera.treasury.evm.remote import RemoteKey
from chimera.treasury.evm.rpc import RpcChain
from chimera.treasury.evm.types import Network
from chimera.treasury.keys import private_text
from chimera.treasury.ledger import Ledger
from chimera.treasury.payment import Payment, PaymentState
from chimera.treasury.types import Outcome, PaymentRequest, RefusalReason, Refused, Written

MAX_RAILS = 16
MAX_BYTES = 64_000

Pay = Callable[[PaymentRequest], Awaitable[Payment]]


class KeySockets(Frozen):
    """Where each of the keys answers (`python -m chimera.treasury.evm.keyholder`)."""

    cfo: Path
    approver: Path
    relayer: Path


class RailSettings(Frozen):
    """`name` is the file's; `node` is the URL of a node of the chain."""

    name: str
    network: Network
    node: Annotated[str, Field(max_length=2_000, repr=False)]
    keys: KeySockets


def read_rails(folder: Path) -> tuple[RailSettings, ...]:
    """Every `*.yaml` in a folder; none where there is no folder.

    Raises InputError for what is wrong in one, SecurityError where others can read it: a node's URL is often a secret.
    """
    files = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
    if len(files) > MAX_RAILS:
        raise InputError(f"{folder} holds {len(files)} chains: {MAX_RAILS} are the most")
    return tuple(_read(file) for file in files)


def open_rail(settings: RailSettings, *, ledger: Ledger, outbox: Path, pay: Pay, poll_s: float = POLL_S) -> EvmPayments:
    """The rail; it sets gas aside through `pay`, the desk's. Raises StorageError where another works on `outbox`."""
    keys = settings.keys
    return EvmPayments(
        chain=RpcChain(url=settings.node, chain_id=settings.network.chain_id),
        ledger=ledger,
        owners=[RemoteKey(keys.approver), RemoteKey(keys.cfo)],
        relayer=RemoteKey(keys.relayer),
        outbox=Outbox(outbox),
        network=settings.network,
        authorise=partial(set_aside, pay),
        poll_s=poll_s,
    )


async def set_aside(pay: Pay, request: PaymentRequest) -> Outcome:
    """What the desk makes of a request for gas. One that somebody else has filed under its id is refused, as any."""
    try:
        found = await pay(request)
    except InputError as error:
        return Refused(id=request.id, reason=RefusalReason.CONFLICT, detail=str(error))
    if found.state in (PaymentState.RESERVED, PaymentState.PAID):
        return Written(id=request.id, seq=0, hash=request.digest(), again=True)
    waits = found.state is PaymentState.WAITING
    reason = RefusalReason.UNAPPROVED if waits else RefusalReason.FORBIDDEN
    return Refused(id=request.id, reason=reason, detail=found.why)


def _read(file: Path) -> RailSettings:
    text = private_text(file, MAX_BYTES)
    try:
        told = yaml.safe_load(text)
        if not isinstance(told, dict):
            raise InputError(f"{file}: a table of settings is expected: network, node, keys")
        return RailSettings.model_validate({**told, "name": file.stem})
    except (yaml.YAMLError, RecursionError):
        raise InputError(f"{file} is not YAML: see docs/treasury-chain.md for what it holds") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise InputError(f"{file}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
