"""Randomness counts only if drand's quicknet signed it: recorded pulses over a real HTTP server, forged ones beside."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.canonical import MAX_INT
from chimera.arena.validators.beacon import (
    ENDPOINTS,
    GENESIS_S,
    MAX_PULSE_BYTES,
    QUICKNET,
    DrandBeacon,
    SeededBeacon,
    current_round,
    verified,
)
from chimera.core.errors import ChainError, InputError
from tests.unit.arena.validators.quicknet import (
    PUBLISHED_1000_S,
    RANDOMNESS_1000,
    SIGNATURES,
    negated,
    outside_the_group,
)


def pulse(round: int, signature: str) -> dict[str, Any]:
    """What a relay says of a round; the randomness always fits the signature."""
    randomness = hashlib.sha256(bytes.fromhex(signature)).hexdigest()
    return {"round": round, "randomness": randomness, "signature": signature}


Answer = Callable[[int], tuple[int, bytes]]
"""A round -> the status and the body that a relay answers with."""


class Relay:
    """An HTTP server on this machine."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[str] = []
        relay = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                relay.asked.append(self.path)
                status, body = answer(int(self.path.rpartition("/")[2]))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", body.decode())
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], Relay]]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    started: list[Relay] = []

    def start(answer: Answer) -> Relay:
        started.append(Relay(answer))
        return started[-1]

    yield start
    for each in started:
        each.close()


def says(value: Any) -> Answer:
    return lambda _round: (200, value if isinstance(value, bytes) else json.dumps(value).encode())


def honest(round: int) -> tuple[int, bytes]:
    if round not in SIGNATURES:
        return 404, b"{}"
    return 200, json.dumps(pulse(round, SIGNATURES[round])).encode()


def test_the_published_rounds_are_verified() -> None:
    assert verified(1000, SIGNATURES[1000]) == RANDOMNESS_1000
    for round, signature in SIGNATURES.items():
        assert verified(round, signature) == pulse(round, signature)["randomness"]


def test_a_signature_is_good_for_its_own_round_only() -> None:
    for round in SIGNATURES:
        for other, signature in SIGNATURES.items():
            if other != round:
                with pytest.raises(ChainError, match="not quicknet's signature"):
                    verified(round, signature)


@pytest.mark.parametrize(
    "change",
    [
        outside_the_group,
        negated,
        lambda signature: signature + "00",
        lambda signature: signature[:-2],
        str.upper,
        lambda signature: "c0" + 47 * "00",
        lambda signature: 96 * "0",
        lambda signature: "",
        lambda signature: " " + signature[:-1],
    ],
)
def test_other_forms_of_a_signature_are_refused(change: Callable[[str], str]) -> None:
    """Each would have another hash, so whoever could use it would choose among several randomnesses."""
    forged = change(SIGNATURES[1000])
    assert forged != SIGNATURES[1000]
    with pytest.raises(ChainError, match="signature of round 1000"):
        verified(1000, forged)


@given(st.integers(0, 383))
def test_a_flipped_bit_is_refused(bit: int) -> None:
    forged = (int(SIGNATURES[1000], 16) ^ 1 << bit).to_bytes(48, "big").hex()
    with pytest.raises(ChainError, match="not quicknet's signature"):
        verified(1000, forged)


@pytest.mark.parametrize("round", [0, -1, MAX_INT + 1, 2**64])
async def test_rounds_that_are_none_are_refused(round: int) -> None:
    for beacon in (SeededBeacon("x"), DrandBeacon(["http://127.0.0.1:1"])):
        with pytest.raises(ChainError, match="no round"):
            await beacon.randomness(round)
    with pytest.raises(ChainError, match="no round"):
        verified(round, SIGNATURES[1000])


async def test_a_relay_is_asked_once_a_round(relay: Callable[[Answer], Relay]) -> None:
    server = relay(honest)
    beacon = DrandBeacon([server.url + "/"])
    assert [await beacon.randomness(1000) for _ in range(3)] == [RANDOMNESS_1000] * 3
    assert server.asked == [f"/{QUICKNET}/public/1000"]


FORGED = {
    "another round's": pulse(1000, SIGNATURES[1001]),
    "another round": pulse(1001, SIGNATURES[1001]),
    "outside the group": pulse(1000, outside_the_group(SIGNATURES[1000])),
    "not its hash": {**pulse(1000, SIGNATURES[1000]), "randomness": "0" * 64},
    "no randomness": {"round": 1000, "signature": SIGNATURES[1000]},
    "no signature": {"round": 1000, "randomness": RANDOMNESS_1000},
    "a number": {**pulse(1000, SIGNATURES[1000]), "signature": 5},
    "a list": [],
    "not JSON": b"<html>",
    "deep": b"[" * MAX_PULSE_BYTES,
    "endless": json.dumps(pulse(1000, SIGNATURES[1000])).encode() + b" " * MAX_PULSE_BYTES,
}


@pytest.mark.parametrize("name", FORGED)
async def test_what_a_relay_forges_is_refused_and_the_next_is_asked(
    relay: Callable[[Answer], Relay], name: str
) -> None:
    liar, server = relay(says(FORGED[name])), relay(honest)
    with pytest.raises(ChainError, match="no relay of drand gave round 1000"):
        await DrandBeacon([liar.url]).randomness(1000)
    assert await DrandBeacon([liar.url, server.url]).randomness(1000) == RANDOMNESS_1000
    assert (len(liar.asked), len(server.asked)) == (2, 1)


async def test_a_relay_cannot_send_elsewhere(relay: Callable[[Answer], Relay]) -> None:
    server = relay(honest)
    sender = relay(lambda round: (302, f"{server.url}/{round}".encode()))
    with pytest.raises(ChainError, match="302"):
        await DrandBeacon([sender.url]).randomness(1000)
    assert server.asked == []


async def test_a_relay_that_is_down_or_has_no_such_round_is_passed_over(relay: Callable[[Answer], Relay]) -> None:
    gone = relay(honest)
    gone.close()
    gone.close = lambda: None  # type: ignore[method-assign]
    server = relay(honest)
    beacon = DrandBeacon([gone.url, server.url])
    assert await beacon.randomness(1002) == pulse(1002, SIGNATURES[1002])["randomness"]
    with pytest.raises(ChainError, match="404"):
        await beacon.randomness(999)


async def test_a_silent_relay_is_given_up(relay: Callable[[Answer], Relay]) -> None:
    waiting = threading.Event()

    def silent(round: int) -> tuple[int, bytes]:
        waiting.wait(30)
        return honest(round)

    hung, server = relay(silent), relay(honest)
    try:
        assert await DrandBeacon([hung.url, server.url], timeout_s=1.0).randomness(1000) == RANDOMNESS_1000
    finally:
        waiting.set()


@pytest.mark.parametrize("head", [b"HTTP/1.0 200 OK\r\nX: ", b"HTTP/1.0 200 OK\r\n\r\n"], ids=["header", "body"])
async def test_a_relay_that_drips_is_given_up(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    over, hung_up = threading.Event(), threading.Event()

    def drip(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.sendall(head)
            while not over.wait(0.05):
                connection.sendall(b" ")
            return
        hung_up.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=(listening,))
        thread.start()
        try:
            with pytest.raises(ChainError, match=r"no answer within 0\.3 s"):
                await DrandBeacon([f"http://127.0.0.1:{listening.getsockname()[1]}"], timeout_s=0.3).randomness(1000)
            if head.endswith(b"\r\n\r\n"):
                assert await asyncio.to_thread(hung_up.wait, 10), "its thread still reads"
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("endpoints", [[], ["file:///etc/passwd"], ["api.drand.sh"], ["https://x"] * 17])
def test_addresses_that_are_no_relays_are_refused(endpoints: list[str]) -> None:
    with pytest.raises(InputError, match="of drand"):
        DrandBeacon(endpoints)


def test_rounds_follow_the_clock() -> None:
    assert [current_round(GENESIS_S + s) for s in (-1e9, -0.001, 0, 2.9, 3, 6)] == [0, 0, 1, 1, 2, 3]
    assert [current_round(PUBLISHED_1000_S + s) for s in (-0.1, 0, 2.9, 3)] == [999, 1000, 1000, 1001]
    assert current_round(time.time()) > 10_000_000
    assert all(endpoint.startswith("https://") for endpoint in ENDPOINTS)


async def test_a_seeded_beacon_is_the_same_everywhere() -> None:
    assert await SeededBeacon("demo").randomness(1) == SEEDED_DEMO_1
    values = [await SeededBeacon(seed).randomness(round) for seed in ("", "a", "b", "2\na") for round in (1, 2, 21)]
    assert len(set(values)) == len(values)
    assert all(len(value) == 64 and value == value.lower() for value in values)


SEEDED_DEMO_1 = "f650f8874eeb06c5a3fbb4a0520fd189c53c17e6d6ced82a7750937412ff5e6f"
