"""The model that a command asks: named, metered, under a cap, and telling on standard error what it is asked."""

from __future__ import annotations

from pathlib import Path

from chimera.cli import render
from chimera.core.clock import Clock
from chimera.core.errors import InputError
from chimera.llm.chat import ChatModel, ChatRequest, ChatResponse
from chimera.llm.meter import Caps, Meter, Metered
from chimera.llm.models import open_model
from chimera.llm.prices import EXAMPLE, MAX_CHARS, Prices


class Told(ChatModel):
    """`model`, with a line for each question and each answer."""

    def __init__(self, model: ChatModel, clock: Clock) -> None:
        self.name, self.writes = model.name, model.writes
        self._model, self._clock = model, clock
        self._asked = 0

    async def chat(self, request: ChatRequest) -> ChatResponse:
        self._asked += 1
        number, began = self._asked, self._clock.monotonic()
        render.note(f"question {number} to {self.name}: {sum(len(each.content) for each in request.messages):,} chars")
        response = await self._model.chat(request)
        cost = "cost unknown" if response.cost_usd is None else f"${response.cost_usd:.4f}"
        took_s = self._clock.monotonic() - began
        render.note(f"answer {number}: {response.tokens_out or 0:,} tokens in {took_s:.1f} s, {cost}")
        return response

    async def close(self) -> None:
        await self._model.close()


def open_writer(name: str, prices: Prices, caps: Caps, clock: Clock) -> tuple[ChatModel, Meter]:
    """A model that writes, and its meter. Raises InputError for one that does not, has no key, or no price to cap by;
    MissingExtra."""
    model = open_model(name)
    if not model.writes:
        raise InputError(
            f"the model {name!r} writes nothing of its own, so it cannot write a patch: name one that does with "
            "--model or CHIMERA_MODEL, such as openai:MODEL, anthropic:MODEL or local:MODEL (docs/models.md has all)"
        )
    capped = any(cap.usd is not None for cap in (caps.mission, caps.agent, caps.day))
    if capped and prices.find(model.name) is None:
        raise InputError(
            f"the price of {model.name} is not known, so no cap in USD can be kept: set one in the prices, such as "
            f"{model.name!r}: {EXAMPLE} in USD per million tokens (zeros for a model of your own), or leave the cap out"
        )
    meter = Meter(prices, caps, clock)
    return Told(Metered(model, meter), clock), meter


def read_prices(path: Path | None) -> Prices:
    """The prices in a YAML or JSON file; none are known without one. Raises InputError."""
    return Prices() if path is None else Prices.parse(read_text(path, MAX_CHARS))


def read_text(path: Path, most_bytes: int) -> str:
    """A file of UTF-8 of a bounded size; a pipe too. Raises InputError that says what is wrong with it."""
    try:
        with path.open("rb") as file:
            return decoded(file.read(most_bytes + 1), str(path), most_bytes)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def decoded(data: bytes, name: str, most_bytes: int) -> str:
    """Text, of what was read of `name`. Raises InputError where that is more than `most_bytes`, or no UTF-8."""
    if len(data) > most_bytes:
        raise InputError(f"{name} is larger than {most_bytes:,} bytes: give a part of it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is no text in UTF-8 ({error.reason} at byte {error.start})") from None
