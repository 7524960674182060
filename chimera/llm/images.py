"""The port of image models, and the adapter to servers that speak as OpenAI's images interface does.

Only pictures that stand in the answer are taken (`b64_json`): an address in it is a stranger's, and is not asked.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from abc import ABC, abstractmethod
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from chimera.core.errors import InputError, MissingExtra, ModelError, ModelTooLong
from chimera.core.types import Frozen
from chimera.llm.chat import Money
from chimera.llm.meter import Meter
from chimera.llm.opened import Opened
from chimera.llm.remote import Remote, check_key, check_url, is_here, is_private
from chimera.llm.usage import IDLE, NOTHING, Usage, outcome_of

if TYPE_CHECKING:
    import httpx2

TIMEOUT_S: Final = 120.0
MAX_PROMPT_CHARS: Final = 4_000
MAX_ANSWER_BYTES: Final = 24_000_000
MAX_IMAGE_BYTES: Final = 16_000_000
CONNECTIONS: Final = 8


class ImageRequest(Frozen):
    """A picture in words, and its size in pixels."""

    prompt: str = Field(min_length=1, max_length=MAX_PROMPT_CHARS)
    width: int = Field(default=1_024, ge=256, le=2_048)
    height: int = Field(default=1_024, ge=256, le=2_048)


class ImageResponse(Frozen):
    """The bytes of a picture's file, not looked into: who opens them takes care. `cost_usd` None: not known."""

    data: bytes = Field(max_length=MAX_IMAGE_BYTES, repr=False)
    cost_usd: Money | None = None
    model: str = ""


class ImageModel(ABC):
    """A model that makes pictures."""

    name: str

    @abstractmethod
    async def image(self, request: ImageRequest) -> ImageResponse:
        """One picture. Raises ModelRefused if it never will, ModelOutage if it may later, else ModelError."""

    async def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of connections."""


class OpenAIImages(ImageModel):
    """The model `model` at `base_url`, whose `/images/generations` is asked once for each picture.

    The key is only sent over https, or to this machine. Raises InputError for an address or a key that is none,
    MissingExtra without `httpx2`.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str,
        base_url: str,
        api_key: str = "",
        key_from: str = "OPENAI_API_KEY",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        if find_spec("httpx2") is None:
            raise MissingExtra("httpx2", "llm")
        key = check_key(api_key, key_from)
        self.name = name
        self._model = model
        self._remote = Remote(name, base_url, key if is_private(check_url(base_url)) else "", key_from)
        self._timeout_s = timeout_s
        self._client = Opened(self._connect)

    async def image(self, request: ImageRequest) -> ImageResponse:
        import httpx2

        body = {"model": self._model, "prompt": request.prompt, "n": 1, "size": f"{request.width}x{request.height}"}
        if not self._model.startswith("gpt-image"):  # these always answer so, and refuse to be told
            body["response_format"] = "b64_json"
        headers = {"Authorization": f"Bearer {self._remote.key}"} if self._remote.key else {}
        url = f"{self._remote.base_url.rstrip('/')}/images/generations"
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.get().post(url, json=body, headers=headers)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise self._remote.late(self._timeout_s, error) from None
        except (httpx2.RequestError, httpx2.StreamError) as error:
            raise self._remote.unreachable(error) from None
        except ModelTooLong as error:
            raise ModelTooLong(f"{self.name}: {error}") from None
        if answer.status_code != 200:
            missing = f"is there a model {self._model!r} at {self._remote.base_url}?"
            raise self._remote.refusal(answer.status_code, answer.text, answer.headers, missing=missing)
        return ImageResponse(data=self._read(answer.content), model=self._model)

    async def close(self) -> None:
        if (client := self._client.take()) is not None:
            await client.aclose()

    def _read(self, content: bytes) -> bytes:
        try:
            told: Any = json.loads(content)
            data = base64.b64decode(told["data"][0]["b64_json"], validate=True)
        except (ValueError, LookupError, TypeError, RecursionError, binascii.Error):
            raise self._remote.garbled(content[:2_000]) from None
        if not 0 < len(data) <= MAX_IMAGE_BYTES:
            raise ModelError(f"{self.name} gave a picture of {len(data)} bytes: 1 to {MAX_IMAGE_BYTES} are taken")
        return data

    def _connect(self) -> httpx2.AsyncClient:
        from chimera.llm.bounded import BoundedClient

        return BoundedClient(
            max_bytes=MAX_ANSWER_BYTES,
            withheld=() if self._remote.key else ("Authorization",),
            timeout_s=self._timeout_s,
            direct=is_here(self._remote.base_url),
            connections=CONNECTIONS,
        )


class MeteredImages(ImageModel):
    """`model`, with each picture reserved and settled in `meter` at its price for a call.

    Besides what the model raises: BudgetExceeded where a cap is in the way, InputError where a cap is in USD and no
    price `call` above zero is known.
    """

    def __init__(self, model: ImageModel, meter: Meter) -> None:
        self.name = model.name
        self._model = model
        self._meter = meter

    async def image(self, request: ImageRequest) -> ImageResponse:
        held = self._meter.reserve(self.name, 0, 0)
        if held.price is not None and held.price.call == 0 and (held.price.input or held.price.output):
            self._meter.settle(held, "refused", NOTHING)
            raise InputError(f"{self.name} makes pictures: set its price for each `call` in USD, not for tokens")
        try:
            made = await self._model.image(request)
        except BaseException as error:
            outcome = outcome_of(error)
            self._meter.settle(held, outcome, NOTHING if outcome in IDLE else None)
            raise
        entry = self._meter.settle(held, "ok", Usage(0, 0, made.cost_usd))
        return made.model_copy(update={"cost_usd": entry.cost_usd if entry else made.cost_usd})

    async def close(self) -> None:
        await self._model.close()
