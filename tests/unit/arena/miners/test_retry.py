"""A fault is asked about again, in time that is drawn and not measured, and never counts against the miner."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.arena.envs.challenge import deal
from chimera.arena.envs.mult8 import Mult8
from chimera.arena.miners.miner import Answer, Miner, Turn
from chimera.arena.miners.retry import Backoff, RetryingMiner
from chimera.core.errors import InputError, MinerError, ModelRefused
from chimera.llm.chat import ChatMessage


class Flaky(Miner):
    """Raises what stands in `faults`, one after the other, and then replies."""

    miner_id = "flaky"

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.asked: list[Turn] = []
        self.closed = False

    def supports(self, env_id: str) -> bool:
        return env_id == "mult8-v0"

    async def reply(self, turn: Turn) -> Answer:
        self.asked.append(turn)
        if self.faults:
            raise self.faults.pop(0)
        return Answer(text="42", request_id="r")

    async def close(self) -> None:
        self.closed = True


def turn() -> Turn:
    challenge = deal(Mult8, "seed:1")
    message = ChatMessage(role="user", content=challenge.prompt())
    return Turn(messages=(message,), seed=1, challenge_id="seed:1", challenge=challenge)


def patient(miner: Miner, slept: list[float], **backoff: float) -> RetryingMiner:
    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    policy = Backoff(**{"tries": 4, "base_s": 1.0, "longest_s": 3.0, **backoff})  # type: ignore[arg-type]
    return RetryingMiner(miner, rng=random.Random(7), backoff=policy, sleep=sleep)


async def test_it_asks_the_same_again_until_there_is_an_answer() -> None:
    flaky, slept, asked = Flaky(*(MinerError("busy"),) * 3), list[float](), turn()
    assert await patient(flaky, slept).reply(asked) == Answer(text="42", request_id="r")
    assert flaky.asked == [asked] * 4
    assert len(slept) == 3 and all(pause <= limit for pause, limit in zip(slept, (1.0, 2.0, 3.0), strict=True))
    drawn = random.Random(7)
    assert slept == [drawn.uniform(0, limit) for limit in (1.0, 2.0, 3.0)]


async def test_it_gives_up_after_its_tries_and_says_so() -> None:
    flaky, slept = Flaky(*(MinerError("busy", 9.0),) * 99), list[float]()
    with pytest.raises(MinerError, match=r"busy \(asked 4 times\)"):
        await patient(flaky, slept).reply(turn())
    assert (len(flaky.asked), slept) == (4, [3.0] * 3), "what the other side asks for is granted up to longest_s"


@pytest.mark.parametrize("error", [ModelRefused("401"), InputError("no"), ValueError("bug")])
async def test_what_is_no_fault_is_not_asked_again(error: Exception) -> None:
    flaky, slept = Flaky(error), list[float]()
    with pytest.raises(type(error)):
        await patient(flaky, slept).reply(turn())
    assert (len(flaky.asked), slept) == (1, [])


async def test_it_stands_for_the_miner_in_everything_else() -> None:
    flaky = Flaky()
    miner = patient(flaky, [])
    assert (miner.miner_id, miner.supports("mult8-v0"), miner.supports("other-v0")) == ("flaky", True, False)
    await miner.close()
    assert flaky.closed


@given(
    tries=st.integers(1, 100),
    base_s=st.floats(0, 10),
    more_s=st.floats(0, 100),
    failed=st.integers(1, 200),
    asked_s=st.floats(0, 1e9),
    seed=st.integers(),
)
def test_a_pause_is_bounded_and_ends_with_the_tries(
    tries: int, base_s: float, more_s: float, failed: int, asked_s: float, seed: int
) -> None:
    backoff = Backoff(tries=tries, base_s=base_s, longest_s=base_s + more_s)
    pause_s = backoff.pause_s(failed, random.Random(seed), asked_s)
    assert (pause_s is None) == (failed >= tries)
    if pause_s is not None:
        assert min(asked_s, base_s + more_s) <= pause_s <= base_s + more_s


def test_the_jitter_is_full() -> None:
    drawn = random.Random(1)
    pauses = [Backoff(base_s=1.0).pause_s(3, drawn) or 0.0 for _ in range(2_000)]
    assert 0.0 <= min(pauses) < 0.1 and 3.9 < max(pauses) <= 4.0


@pytest.mark.parametrize("wrong", [{"tries": 0}, {"tries": 101}, {"base_s": -1.0}, {"base_s": 2.0, "longest_s": 1.0}])
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="tries"):
        Backoff(**wrong)  # type: ignore[arg-type]
