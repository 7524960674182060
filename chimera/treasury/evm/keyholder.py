"""`python -m chimera.treasury.evm.keyholder --home DIR --role cfo|approver|relayer`: one key, in a process of its own.

It serves `DIR/ROLE.sock` until it is told to end (SIGTERM). With `--new` it makes the key, shows its address, and ends.
Give each role a folder and a user of its own: then no other process of the swarm reads its key.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import logging
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from chimera.core.clock import SystemClock
from chimera.core.errors import ChimeraError, Forbidden, InputError, Overloaded, SecurityError
from chimera.treasury.evm.holder import KeyHolder
from chimera.treasury.evm.keys import EvmKey
from chimera.treasury.evm.memory import Memory
from chimera.treasury.evm.remote import ANSWERS, ARGUMENTS
from chimera.treasury.evm.rpc import RpcChain
from chimera.treasury.evm.rules import KeyRole
from chimera.treasury.evm.settings import HolderHome, HolderSettings
from chimera.treasury.keys import private_text
from chimera.treasury.vault import hardening, wire
from chimera.treasury.vault.client import VaultLedger
from chimera.treasury.vault.server import MAX_PATH, ROOT, peer

MAX_CONNECTIONS = 16
IDLE_S = 3_600.0
SEND_S = 30.0

log = logging.getLogger(__name__)


class KeyServer:
    """Serves `holder` at `path` to `uids`, root, and our own user. Calls of a connection are answered in turn."""

    def __init__(self, *, holder: KeyHolder, path: Path, uids: frozenset[int] = frozenset()) -> None:
        self._holder = holder
        self._path = path
        self._uids = uids | {os.geteuid(), ROOT}
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen, in place of a socket that was left. Raises InputError for a path that is too long."""
        if len(os.fsencode(self._path)) > MAX_PATH:
            raise InputError(f"{self._path} is too long for a socket: {MAX_PATH} bytes; use a shorter home")
        self._path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(self._path))
        self._path.chmod(0o600 if self._uids <= {ROOT, os.geteuid()} else 0o666)  # who connects is asked besides
        self._server = await asyncio.start_unix_server(self._welcome, sock=listening)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if (uid := peer(writer)) not in self._uids:
                raise Forbidden(f"user {uid} may not ask for signatures: evm.yaml says who may")
            if len(self._open) >= MAX_CONNECTIONS:
                raise Overloaded(f"{MAX_CONNECTIONS} connections to {self._path} are open: close some", 1.0)
            self._open.add(task)
            await self._serve(reader, writer)
        except ChimeraError as error:
            writer.write(wire.framed(wire.failing(0, error)))
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(IDLE_S):
                frame = await wire.read_frame(reader)
            if frame is None:
                return
            ask = wire.asked(frame)
            try:
                answer = await self._answer(ask.call, ask.with_)
                reply = b'{"id":%d,"answer":%s}' % (ask.id, ANSWERS[ask.call].dump_json(answer))
            except ChimeraError as error:
                reply = wire.failing(ask.id, error)
            except Exception as error:
                log.exception("the call %s", ask.call)
                reply = wire.failing(ask.id, SecurityError(f"the key failed at {ask.call} ({type(error).__name__})"))
            writer.write(wire.framed(reply))
            async with asyncio.timeout(SEND_S):
                await writer.drain()

    async def _answer(self, call: str, told: list[Any]) -> Any:
        if call not in ARGUMENTS:
            raise InputError(f"a key has no call {call!r:.40}: it knows {', '.join(ARGUMENTS)}")
        try:
            values = ARGUMENTS[call].validate_python(told)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{call}: {where:.200}: {first['msg']:.300}") from None
        if call == "address":
            return self._holder.address
        return await getattr(self._holder, call)(*values)


async def serve(home: HolderHome, role: KeyRole, settings: HolderSettings, passphrase: str = "") -> None:
    """Until SIGTERM or SIGINT. Raises InputError, SecurityError, StorageError."""
    ended = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, ended.set)
    key = EvmKey.open(home.key(role), passphrase)
    if role is KeyRole.RELAYER and key.address != settings.network.relayer:
        raise InputError(f"the relayer's key is that of {key.address}, and evm.yaml names {settings.network.relayer}")
    async with AsyncExitStack() as stack:
        stack.callback(os.close, _alone(home.memory(role)))
        memory = Memory(home.memory(role))
        stack.callback(memory.close)
        chain = RpcChain(url=settings.node, chain_id=settings.network.chain_id)
        stack.push_async_callback(chain.close)
        ledger = VaultLedger(path=settings.ledger)
        stack.push_async_callback(ledger.close)
        holder = KeyHolder(
            role=role,
            key=key,
            network=settings.network,
            ledger=ledger,
            chain=chain,
            memory=memory,
            verify=settings.keyring().verify,
            clock=SystemClock(),
        )
        server = KeyServer(holder=holder, path=home.socket(role), uids=settings.uids)
        stack.push_async_callback(server.close)
        await server.start()
        await ended.wait()


def main() -> int:
    """The exit code: 2 for bad input, 1 for another fault."""
    parser = argparse.ArgumentParser(prog="python -m chimera.treasury.evm.keyholder", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="the folder with its key, its memory and evm.yaml")
    parser.add_argument("--role", type=KeyRole, choices=list(KeyRole), required=True)
    parser.add_argument("--new", action="store_true", help="make the key, show its address, and end")
    parser.add_argument("--user", default="", help="run as that user (root only)")
    parser.add_argument("--passphrase-file", type=Path, help="of the key: it is a keystore (version 3) then")
    parser.add_argument("--end-with", type=int, metavar="PID", help="end when this process does, which started it")
    told = parser.parse_args()
    try:
        if told.user:
            hardening.become(told.user)
        hardening.harden()
        if told.end_with:
            hardening.end_with(told.end_with)
        home = HolderHome(told.home.expanduser().absolute())
        passphrase = private_text(told.passphrase_file).rstrip("\n") if told.passphrase_file else ""
        if told.new:
            sys.stdout.write(f"{EvmKey.create(home.key(told.role), passphrase).address}\n")
        else:
            asyncio.run(serve(home, told.role, home.settings(), passphrase))
    except ChimeraError as error:
        sys.stderr.write(f"{error}\n")
        return 2 if isinstance(error, InputError | SecurityError) else 1
    return 0


def _alone(memory: Path) -> int:
    """A lock: two processes with one key and one memory would each look before the other signs."""
    file = os.open(f"{memory}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with suppress(OSError):
            os.close(file)
        raise SecurityError(f"{memory}: another process holds this key: there is one") from None
    return file


if __name__ == "__main__":
    sys.exit(main())
