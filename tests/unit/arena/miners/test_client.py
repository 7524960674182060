"""From an address to a miner, and what a miner behind a server or a function is told, and may do."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest

from chimera.arena.envs.challenge import deal
from chimera.arena.envs.episode import play
from chimera.arena.envs.ledger import Ledger
from chimera.arena.envs.mult8 import Mult8
from chimera.arena.miners.client import open_miner
from chimera.arena.miners.retry import Backoff
from chimera.arena.types import MAX_TEXT_CHARS
from chimera.core.clock import ManualClock
from chimera.core.errors import InputError, MinerError, ModelError, ModelRefused
from chimera.llm.remote import MAX_RESPONSE_BYTES
from tests.llm_server import LlmServer, Said

FUNCTIONS = """
import time

def constant(prompt): return "7"
def solver(messages, seed):
    factors = [int(word.strip(".:?")) for word in messages[0]["content"].split() if word.strip(".:?").isdigit()]
    return str(factors[0] * factors[1])
async def later(prompt): return "7"
def much(prompt): return "x" * 70_000
def raises(prompt): raise ValueError("a bug")
"""


async def no_sleep(seconds: float) -> None:
    """No test waits."""


@pytest.fixture(scope="module", autouse=True)
def _functions(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder: Path = tmp_path_factory.mktemp("functions")
    (folder / "miner_functions.py").write_text(FUNCTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@pytest.mark.parametrize(
    "spec",
    [
        "", "Random", "random:1", "minimax:deep", "oracle", "oracle:", "oracle:0.7", "oracle:p=1.1", "oracle:p=-0.1",
        "oracle:p=nan", "oracle:p=.5", "oracle:p=0.7,x=1", "python", "python:", "chutes:", "openai:", "gpt-5",
        "openai:m", "openai:m@ftp://h/v1", "openai:m@http://me:pw@h/v1", "compatible:m@http://h/v1",
        "random\n", " random", "python:a b:c", "openai:m@http://h/v1?key=1", "r" * 257,
    ],
)  # fmt: skip
def test_what_is_no_miner_is_refused_when_opened(spec: str) -> None:
    with pytest.raises(InputError):
        open_miner(spec)


@pytest.mark.parametrize("spec", ["", "gpt-5", "Random", "chutes:", "a b"])
def test_an_unknown_form_is_answered_with_the_forms(spec: str) -> None:
    forms = "use random, minimax, oracle:p=0.7, python:MODULE:FUNCTION, chutes:MODEL, openai:MODEL@URL"
    with pytest.raises(InputError, match=forms):
        open_miner(spec)


def test_chutes_needs_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHUTES_API_KEY", raising=False)
    with pytest.raises(InputError, match="set CHUTES_API_KEY"):
        open_miner("chutes:deepseek-ai/DeepSeek-V3")
    monkeypatch.setenv("CHUTES_API_KEY", "cpk_1")
    assert open_miner("chutes:deepseek-ai/DeepSeek-V3").miner_id == "chutes:deepseek-ai/DeepSeek-V3"


@pytest.mark.parametrize(("function", "ok"), [("solver", True), ("constant", False), ("later", False), ("much", False)])
async def test_a_function_plays(function: str, ok: bool) -> None:
    miner = open_miner(f"python:miner_functions:{function}")
    sample = await play(Mult8, "seed:5", miner, role="contender", clock=ManualClock())
    assert sample.verdict.ok == ok and sample.miner_id == f"python:miner_functions:{function}"


async def test_a_function_that_is_broken_ends_the_duel_and_is_not_asked_again() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    with pytest.raises(ModelError, match="raised ValueError: a bug"):
        await play(
            Mult8,
            "seed:5",
            open_miner("python:miner_functions:raises", sleep=sleep),
            role="champion",
            clock=ManualClock(),
        )
    assert slept == []


async def test_a_server_is_told_the_conversation_and_a_seed_and_never_which_challenge_it_is() -> None:
    headers = {"X-Chutes-InvocationID": "inv-9"}
    with LlmServer(lambda body: "hm", headers=headers) as server:
        miner = open_miner(f"openai:test/m@{server.url}")
        sample = await play(Ledger, "beacon/1/abcdef/17", miner, role="champion", clock=ManualClock())
        await miner.close()
    assert sample.request_id == "inv-9" and not sample.verdict.ok
    [first, *_] = server.requests
    assert first.keys() == {"model", "messages", "max_tokens", "temperature", "seed", "stream"}
    assert (first["temperature"], first["stream"], first["model"]) == (0, False, "test/m")
    assert first["messages"] == [{"role": "user", "content": deal(Ledger, "beacon/1/abcdef/17").prompt()}]
    told = json.dumps(server.requests) + json.dumps(server.headers)
    assert "abcdef" not in told and "beacon" not in told


async def test_champion_and_contender_are_asked_the_same() -> None:
    with LlmServer(lambda body: "7") as one, LlmServer(lambda body: "8") as other:
        for server in (one, other):
            miner = open_miner(f"openai:m@{server.url}")
            await play(Mult8, "seed:5", miner, role="champion", clock=ManualClock())
            await miner.close()
    assert one.requests == other.requests


@pytest.mark.parametrize(
    "fault",
    [Said(429, b"{}"), Said(500, b"oops"), Said(body=b"<html>"), Said(body=b'{"choices": []}')],
    ids=["429", "500", "html", "empty"],
)
async def test_a_fault_is_asked_about_again_and_never_counts_against_the_miner(fault: Said) -> None:
    challenge = deal(Mult8, "seed:5")
    with LlmServer(lambda body: challenge.gold()) as server:
        server.script = [fault] * 5
        miner = open_miner(f"openai:m@{server.url}", rng=random.Random(1), sleep=no_sleep)
        sample = await play(Mult8, "seed:5", miner, role="champion", clock=ManualClock())
        assert sample.verdict.ok and len(server.requests) == 6
        assert all(request == server.requests[0] for request in server.requests)
        server.script = [fault] * 6
        with pytest.raises(MinerError, match="asked 6 times"):
            await play(Mult8, "seed:5", miner, role="champion", clock=ManualClock())
        await miner.close()


async def test_nobody_there_is_a_fault() -> None:
    with LlmServer() as server:
        url = server.url
    miner = open_miner(f"openai:m@{url}", backoff=Backoff(tries=2), sleep=no_sleep)
    with pytest.raises(MinerError, match="no connection"):
        await play(Mult8, "seed:5", miner, role="champion", clock=ManualClock())
    await miner.close()


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_a_refusal_ends_the_duel_and_is_not_asked_again(status: int) -> None:
    with LlmServer() as server:
        server.script = [Said(status, b'{"error": {"message": "no such thing"}}')]
        miner = open_miner(f"openai:m@{server.url}", sleep=no_sleep)
        with pytest.raises(ModelRefused, match="no such thing"):
            await play(Mult8, "seed:5", miner, role="champion", clock=ManualClock())
        assert len(server.requests) == 1
        await miner.close()


@pytest.mark.parametrize("length", [MAX_TEXT_CHARS + 1, 200_000, 2 * MAX_RESPONSE_BYTES])
async def test_too_long_an_answer_is_the_miners_own_failure_even_if_it_begins_well(length: int) -> None:
    answer = deal(Mult8, "seed:5").gold()
    with LlmServer(lambda body: answer + " " * (length - len(answer))) as server:
        miner = open_miner(f"openai:m@{server.url}", sleep=no_sleep)
        sample = await play(Mult8, "seed:5", miner, role="champion", clock=ManualClock())
        assert not sample.verdict.ok and len(server.requests) == 1
        await miner.close()


async def test_many_are_asked_at_a_time_over_connections_that_are_kept() -> None:
    with LlmServer(lambda body: "7") as server:
        miner = open_miner(f"openai:m@{server.url}", sleep=no_sleep)
        plays = (play(Mult8, f"seed:{i}", miner, role="champion", clock=ManualClock()) for i in range(64))
        samples = await asyncio.gather(*plays)
        await miner.close()
    assert [sample.challenge_id for sample in samples] == [f"seed:{i}" for i in range(64)]
    assert len(server.requests) == 64
