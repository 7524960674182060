"""A key in another process, as the payer has it: calls over the key's Unix socket, one after the other.

Frames are the vault's (four bytes of length, JSON): `{"call": "sign", "with": [...]}`, answered by `answer` or `error`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from chimera.core.errors import SecurityError
from chimera.treasury.evm.rules import MAX_GAS_REQUESTS
from chimera.treasury.evm.types import Address, Declined, Envelope, SafeSignature, SafeTx, Sealed, SignedTx
from chimera.treasury.types import Id
from chimera.treasury.vault import wire

CONNECT_S = 5.0
ANSWER_S = 60.0

FORMS: Mapping[str, tuple[Any, Any]] = {
    "address": (tuple[()], Address),
    "sign": (tuple[Id, SafeTx], SafeSignature | Declined),
    "signed": (tuple[Id], SignedTx | None),
    "seal": (tuple[Id, Annotated[list[Id], Field(max_length=MAX_GAS_REQUESTS)], Envelope], Sealed | Declined),
}
"""Each call: what it is called with, and what it answers."""
ARGUMENTS = {call: TypeAdapter(form[0]) for call, form in FORMS.items()}
ANSWERS = {call: TypeAdapter(form[1]) for call, form in FORMS.items()}


class RemoteKey:
    """The key behind the socket at `path`: an `Owner`, or the `Relayer`. The first call connects; a later one anew.

    Raises SecurityError where nobody answers there; asking again is safe.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._one = asyncio.Lock()

    async def address(self) -> str:
        return str(await self._ask("address"))

    async def sign(self, request_id: str, tx: SafeTx) -> SafeSignature | Declined:
        answer: SafeSignature | Declined = await self._ask("sign", request_id, tx)
        return answer

    async def signed(self, request_id: str) -> SignedTx | None:
        answer: SignedTx | None = await self._ask("signed", request_id)
        return answer

    async def seal(self, request_id: str, gas: Sequence[str], envelope: Envelope) -> Sealed | Declined:
        answer: Sealed | Declined = await self._ask("seal", request_id, list(gas), envelope)
        return answer

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _ask(self, call: str, *values: Any) -> Any:
        frame = to_json({"id": 1, "call": call, "with": ARGUMENTS[call].dump_python(values, mode="json")})
        async with self._one:
            try:
                told = await self._exchange(frame)
                return ANSWERS[call].validate_python(told)
            except (OSError, TimeoutError, EOFError) as error:
                await self.close()
                raise SecurityError(
                    f"{self._path}: no key answers ({type(error).__name__}): start it with"
                    " python -m chimera.treasury.evm.keyholder"
                ) from None
            except ValidationError as error:
                await self.close()
                raise SecurityError(f"{self._path}: this is no answer to {call}: {error!s:.300}") from None
            except asyncio.CancelledError:
                await self.close()  # else the next call would read this one's answer
                raise

    async def _exchange(self, frame: bytes) -> Any:
        """Once more over a new connection if the one there was had been closed: the key's process was started anew."""
        if self._streams is not None:
            try:
                return await self._over(frame)
            except (OSError, EOFError):
                await self.close()
        return await self._over(frame)

    async def _over(self, frame: bytes) -> Any:
        if self._streams is None:
            async with asyncio.timeout(CONNECT_S):
                self._streams = await asyncio.open_unix_connection(str(self._path))
        reader, writer = self._streams
        async with asyncio.timeout(ANSWER_S):
            writer.write(wire.framed(frame))
            await writer.drain()
            answer = await wire.read_frame(reader)
        if answer is None:
            raise EOFError
        _, told, error = wire.answered(answer)
        if error is not None:
            raise error
        return told
