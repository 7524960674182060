"""A language model as a miner. It is told the conversation and a seed, and never which challenge it is."""

from __future__ import annotations

from chimera.arena.miners.miner import Answer, Miner, Turn
from chimera.arena.types import MAX_TEXT_CHARS
from chimera.core.errors import MinerError, ModelOutage, ModelTooLong
from chimera.llm.chat import ChatModel, ChatRequest

ANSWER_TOKENS = 4_096


class ModelMiner(Miner):
    """Asks `model`, and closes it when it is closed itself.

    An outage is a MinerError. A refusal is raised as it is (ModelRefused), since no other challenge would fare better.
    Too long an answer is the miner's own failure: its first MAX_TEXT_CHARS + 1 characters, or none where it was not
    even read, are its reply, which solves nothing.
    """

    def __init__(self, miner_id: str, model: ChatModel) -> None:
        self.miner_id = miner_id
        self._model = model

    async def reply(self, turn: Turn) -> Answer:
        request = ChatRequest(messages=turn.messages, max_tokens=ANSWER_TOKENS, seed=turn.seed)
        try:
            response = await self._model.chat(request)
        except ModelOutage as error:
            raise MinerError(error.message, error.retry_after_s) from error
        except ModelTooLong:
            return Answer(text="")
        return Answer(text=response.text[: MAX_TEXT_CHARS + 1], request_id=response.request_id)

    async def close(self) -> None:
        await self._model.close()
