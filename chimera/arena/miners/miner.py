"""The miner port: whoever answers challenges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from chimera.arena.envs.challenge import Challenge
from chimera.llm.chat import ChatMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a miner is asked.

    `messages` is the conversation so far, the last one the environment's. `seed` is for a model's sampling: the same
    for champion and contender, and for whoever asks the same again. `challenge` and `challenge_id` are for policies in
    this process only: a miner out there is never told them.
    """

    messages: tuple[ChatMessage, ...]
    seed: int
    challenge_id: str
    challenge: Challenge


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a miner replied; `request_id` is its provider's name for the call, if it gave one."""

    text: str
    request_id: str | None = None


class Miner(ABC):
    """Whoever answers challenges. `miner_id` is its address, such as `oracle:p=0.7`."""

    miner_id: str

    def supports(self, env_id: str) -> bool:
        """Whether it can play this environment at all, so that a duel can say so before it begins."""
        return True

    @abstractmethod
    async def reply(self, turn: Turn) -> Answer:
        """The next reply. Raises MinerError for a fault that is not the miner's: asking again may help."""

    async def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of connections."""
