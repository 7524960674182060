"""The vault's sockets under attack: what is no frame, too large or half, floods, strangers. It goes on for others."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import select
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.core import errors
from chimera.core.errors import ChimeraError, Forbidden, InputError, LedgerError, LedgerUnavailable, Overloaded
from chimera.treasury.ledger import LedgerRole
from chimera.treasury.types import Account, AccountKind
from chimera.treasury.vault import server, wire
from chimera.treasury.vault.client import VaultLedger
from chimera.treasury.vault.server import MAX_CONNECTIONS, Door, VaultServer
from chimera.treasury.vault.shared import Shared
from tests.ledger_house import reason
from tests.ledgers_vault import Inside, inside


@pytest.fixture
async def vault() -> AsyncIterator[Inside]:
    async with inside() as found:
        yield found


async def raw(path: Path, data: bytes, *, closes: bool = False) -> bytes:
    """What comes back for these bytes, until the vault closes."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    if closes:
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def told(answer: bytes) -> dict[str, object]:
    return json.loads(answer[wire.HEADER :])


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"no json",
        b"[]",
        b'{"id": 1}',
        b'{"id": -1, "call": "head", "with": []}',
        b'{"id": 1, "call": "head", "with": {}}',
        b'{"id": 1, "call": "head", "with": [], "more": 1}',
        b'{"id": NaN, "call": "head", "with": []}',
        b"[" * 100_000,
        b"\xff\xfe" * 50,
    ],
)
async def test_what_is_no_call_ends_its_connection_and_no_other(vault: Inside, frame: bytes) -> None:
    head = await vault.app.head()
    answer = told(await raw(vault.app.path, wire.framed(frame)))
    assert answer["id"] == 0 and "no call to the vault" in json.dumps(answer["error"])
    assert await vault.app.head() == head


async def test_a_frame_that_is_too_large_is_not_read(vault: Inside) -> None:
    answer = told(await raw(vault.app.path, (wire.MAX_FRAME + 1).to_bytes(4) + b"x"))
    assert "too large" in json.dumps(answer)
    answer = told(await raw(vault.app.path, b"GET / HTTP/1.1\r\n\r\n"))
    assert "too large" in json.dumps(answer), "what another protocol says reads as a length"
    fat = [Account(id=f"a{i}", kind=AccountKind.FUND, title="\U0001f600" * 1_000) for i in range(1_000)]
    with pytest.raises(InputError, match="write fewer rows"):
        await vault.app.write(fat)
    assert len(await vault.app.write(fat[:500])) == 500


async def test_half_a_frame_holds_nobody_up_and_is_let_go(vault: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "FRAME_S", 0.05)
    for half in (b"\x00", b"\x00\x00\x00\x09", b"\x00\x00\x00\x09{}"):
        assert "half a call" in json.dumps(told(await raw(vault.app.path, half)))
        assert await raw(vault.app.path, half, closes=True) == b""
    assert (await vault.app.head()).seq > 0


@pytest.mark.parametrize(
    ("call", "values"),
    [
        ("drop", []),
        ("__class__", []),
        ("close", []),
        ("account", []),
        ("account", [1]),
        ("account", ["x", "y"]),
        ("write", [[{"id": "x"}]]),
        ("write", [[{"debit": "x", "risk": 1}]]),
        ("write", [[["account", {}]]]),
        ("write", [[1]]),
        ("write", ["x"]),
        ("write", [[{"id": "x", "kind": "fund", "more": 1}]]),
        ("decide", [[{"request_id": "x"}]]),
        ("rows", [0.5, 1]),
        ("rows", [2**80, 1]),
        ("rows", [0, 0]),
        ("set_cap", [{"window": "day", "limit": -1}]),
    ],
)
async def test_a_call_that_makes_no_sense_is_answered_and_the_connection_stays(
    vault: Inside, call: str, values: list[object]
) -> None:
    reader, writer = await asyncio.open_unix_connection(str(vault.owner.path))
    for number, (name, with_) in enumerate([(call, values), ("head", [])], 7):
        writer.write(wire.framed(json.dumps({"id": number, "call": name, "with": with_}).encode()))
        frame = await wire.read_frame(reader)
        assert frame is not None
        found, _, error = wire.answered(frame)
        assert found == number
        assert isinstance(error, InputError | Forbidden) if name == call else error is None, error
    writer.close()


async def test_a_flood_of_connections_is_bounded_and_only_at_its_own_socket(vault: Inside) -> None:
    await vault.app.head()
    held = [await asyncio.open_unix_connection(str(vault.app.path)) for _ in range(MAX_CONNECTIONS)]
    refused = [connection for connection in held if (await _first(connection[0])) is not None]
    assert len(refused) == 1, "one place was taken"
    assert (await vault.approver.head()).seq > 0
    other = VaultLedger(path=vault.app.path)
    with pytest.raises(Overloaded):
        await other.head()
    for _, writer in held:
        writer.close()
    assert (await vault.app.head()).seq > 0


async def _first(reader: asyncio.StreamReader) -> bytes | None:
    try:
        return await asyncio.wait_for(reader.read(1), 0.01)
    except TimeoutError:
        return None


async def test_a_flood_of_calls_from_one_leaves_the_others_answered(vault: Inside) -> None:
    _, writer = await asyncio.open_unix_connection(str(vault.app.path))
    call = wire.framed(wire.asking(1, "rows", (0, 1_000)))
    writer.write(call * 5_000)  # and nothing of the answers is read
    for _ in range(20):
        assert (await vault.app.head()).seq > 0
    assert reason(*await vault.app.write([Account(id="later", kind=AccountKind.OUTSIDE)])) is None
    writer.transport.abort()


async def test_who_does_not_read_is_hung_up_on(vault: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SEND_S", 0.05)
    await vault.app.write([Account(id=f"a{i}", kind=AccountKind.FUND, title="x" * 1_000) for i in range(1_000)])
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(str(vault.app.path))
        end.sendall(wire.framed(wire.asking(1, "rows", (0, 1_000))) * 20)
        watched = select.poll()
        watched.register(end, select.POLLRDHUP)
        while not watched.poll(0):  # nothing is read; the test's own time limit ends it
            await vault.app.head()
            await asyncio.sleep(0.01)


async def test_another_user_is_refused_whatever_the_sockets_mode(vault: Inside) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    path = vault.app.path
    for each in (path, *path.parents[:3]):
        each.chmod(0o777)
    answer = await asyncio.to_thread(_as_user, 65534, path, wire.framed(wire.asking(1, "head", ())))
    assert "may not connect" in answer, answer
    allowed = Door(path=path.with_name("any.sock"), role=LedgerRole.APP, uids=frozenset({65534}))
    serving = VaultServer(doors=[allowed], ledgers={}, reading=vault.app)
    await serving.start()
    answer = await asyncio.to_thread(_as_user, 65534, allowed.path, wire.framed(wire.asking(1, "head", ())))
    assert '"seq"' in answer, "and who is on the list is let in"
    await serving.close()


def _as_user(uid: int, path: Path, data: bytes) -> str:
    """What a process of that user is answered."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            with socket.socket(socket.AF_UNIX) as end:
                end.settimeout(20)
                end.connect(str(path))
                with contextlib.suppress(BrokenPipeError):  # who is refused is told so, and not listened to
                    end.sendall(data)
                os.write(writes, end.recv(10_000))
        except BaseException as error:
            os.write(writes, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as answer:
        found = answer.read()
    os.waitpid(child, 0)
    return found.decode("utf-8", "replace")


async def test_errors_come_back_as_they_are(vault: Inside) -> None:
    with pytest.raises(errors.NotThere, match="no account nobody"):
        await vault.app.balance("nobody")
    with pytest.raises(InputError, match="limit must be"):
        await vault.app.waiting("", 0)
    nobody = VaultLedger(path=vault.place.folder / "nobody.sock")
    with pytest.raises(LedgerUnavailable, match="start it"):
        await nobody.head()
    await nobody.close()
    with pytest.raises(LedgerError, match="closed"):
        await nobody.head()


VALUES = {"str": "x", "float": 1.5, "int": 3, "tuple[str, ...]": ("x",), "tuple[object, ...]": ("x",)}


@given(st.sampled_from([each for each in vars(errors).values() if isinstance(each, type)]), st.text(max_size=50))
def test_every_error_survives_the_way(kind: type, text: str) -> None:
    if not issubclass(kind, ChimeraError):
        return
    more = list(inspect.signature(kind).parameters.values())[1:]
    error = kind(text, *(VALUES[str(each.annotation)] for each in more))
    number, _, found = wire.answered(wire.failing(3, error))
    assert number == 3 and type(found) is kind and found.args == error.args


async def test_calls_that_wait_share_the_next_and_are_answered_each_its_own() -> None:
    runs: list[list[int]] = []

    async def double(items: list[int]) -> list[int]:
        runs.append(list(items))
        await asyncio.sleep(0)
        if 13 in items:
            raise LedgerError("unlucky")
        return [2 * item for item in items]

    shared = Shared[int, int](double, most=4)  # type: ignore[arg-type]
    answers = await asyncio.gather(
        *(shared.ask(each) for each in ([1], [2, 3], [4], [5, 6, 7, 8], [13], [])), return_exceptions=True
    )
    assert answers[:4] == [[2], [4, 6], [8], [10, 12, 14, 16]] and isinstance(answers[4], LedgerError)
    assert answers[5] == [] and runs == [[1, 2, 3, 4], [5, 6, 7, 8], [13]]
    leaves = asyncio.create_task(shared.ask([9]))
    await asyncio.sleep(0)
    leaves.cancel()
    assert await shared.ask([10]) == [20], "who leaves takes nobody along"
    with pytest.raises(Overloaded):
        await shared.ask(list(range(20_001)))
