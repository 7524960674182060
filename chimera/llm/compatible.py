"""Models behind any server that speaks OpenAI's chat completions: Chutes, vLLM, llama.cpp, Ollama, OpenRouter ...

Nothing is left to a server's defaults: `stream`, `seed`, `temperature` and `max_tokens` are always sent. Nothing that a
server says is believed to be small, quick, JSON, or free of the key that it was sent. Source of the interface: OpenAI's
API reference, "Create chat completion".
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from chimera.core.errors import InputError, MissingExtra, ModelError, ModelOutage, ModelRefused, ModelTooLong
from chimera.llm.chat import ChatModel, ChatRequest, ChatResponse

if TYPE_CHECKING:
    import openai

TIMEOUT_S = 120.0

MAX_RESPONSE_BYTES = 4_000_000

MAX_SAID_CHARS = 200
"""What is kept of an error's message, and of a request's id."""

REQUEST_ID_HEADERS = ("X-Chutes-InvocationID", "x-request-id")

ACCOUNT_HEADERS = ("OpenAI-Organization", "OpenAI-Project")
"""The `openai` package reads these from the environment; they are no other server's business."""

MAY_PASS = frozenset({408, 409, 425, 429})
"""Refusals that are no refusal of the request itself. So are all from 500 on."""


class CompatibleModel(ChatModel):
    """The model `model` at `base_url`, such as `http://127.0.0.1:8000/v1`.

    `api_key` is only sent over https, or to this machine; `key_from` is the variable that it was read from. Never asks
    twice: that is for the caller to decide. Raises InputError for an address or a key that cannot be used.
    """

    writes = True

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
        if find_spec("openai") is None:
            raise MissingExtra("openai", "llm")
        if api_key and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise InputError(f"{key_from} is not a key: it has spaces in it, or characters that no key has")
        self.name = name
        self._model = model
        self._base_url = base_url
        self._may_send = _is_private(base_url)
        self._api_key = api_key if self._may_send else ""
        self._key_from = key_from
        self._timeout_s = timeout_s
        self._client: openai.AsyncOpenAI | None = None

    async def chat(self, request: ChatRequest) -> ChatResponse:
        """The answer. Raises ModelRefused, ModelOutage or ModelTooLong; no message of theirs holds the key."""
        import openai

        client = self._client = self._client or self._open()
        create: Any = client.chat.completions.with_raw_response.create  # its overloads want literal roles
        seed = {} if request.seed is None else {"seed": request.seed}
        try:
            async with asyncio.timeout(self._timeout_s):
                raw = await create(
                    model=self._model,
                    messages=request.conversation(),
                    max_tokens=request.max_tokens,
                    temperature=0,
                    stream=False,
                    **seed,
                )
        except (TimeoutError, openai.APITimeoutError):
            raise ModelOutage(f"{self.name} did not answer within {self._timeout_s:g} s") from None
        except openai.APIStatusError as error:
            raise self._refusal(error.status_code, error.response.text, error.response.headers) from None
        except openai.APIConnectionError:
            raise ModelOutage(f"{self.name}: no connection to {self._base_url}, or it broke off") from None
        except ModelTooLong as error:
            raise ModelTooLong(f"{self.name}: {error}") from None
        except (openai.OpenAIError, ValueError) as error:
            raise ModelError(f"{self.name}: {self._clean(str(error))}") from None
        return self._read(raw.content, raw.headers)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _open(self) -> openai.AsyncOpenAI:
        import openai

        from chimera.llm.bounded import BoundedClient

        withheld = ACCOUNT_HEADERS if self._api_key else (*ACCOUNT_HEADERS, "Authorization")
        http = BoundedClient(max_bytes=MAX_RESPONSE_BYTES, withheld=withheld, timeout_s=self._timeout_s)
        key = self._api_key or "none"  # which is then not sent: the package insists on one
        return openai.AsyncOpenAI(api_key=key, base_url=self._base_url, max_retries=0, http_client=http)

    def _read(self, data: bytes, headers: Mapping[str, str]) -> ChatResponse:
        try:
            body = json.loads(data)
            text = body["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            said = self._clean(data.decode("utf-8", "replace"))
            raise ModelOutage(f"{self.name} did not answer with a chat completion but with {said!r}") from None
        if text is not None and not isinstance(text, str):
            raise ModelOutage(f"{self.name} answered with content that is no text: {type(text).__name__}")
        usage = body.get("usage")
        return ChatResponse(
            text=(text or "").encode("utf-8", "replace").decode(),  # JSON can hold surrogates, which are no characters
            tokens_in=_count(usage, "prompt_tokens"),
            tokens_out=_count(usage, "completion_tokens"),
            request_id=next((self._clean(headers[name]) for name in REQUEST_ID_HEADERS if headers.get(name)), None),
        )

    def _refusal(self, status: int, text: str, headers: Mapping[str, str]) -> ModelError:
        said = f"{self.name}: the server answered {status}: {self._clean(_reason(text))}"
        if status in MAY_PASS or status >= 500:
            return ModelOutage(said, _seconds(headers.get("retry-after", "")))
        if status in (401, 403):
            withheld = "" if self._may_send else " (it is only sent over https, or to this machine)"
            return ModelRefused(f"{said}; is {self._key_from} set to a key of this server?{withheld}")
        if status == 404:
            return ModelRefused(f"{said}; is there a model {self._model!r} at {self._base_url}?")
        return ModelRefused(said)

    def _clean(self, text: str) -> str:
        """What a server said, fit for one line of a log, and without the key."""
        text = text.replace(self._api_key, "***") if self._api_key else text  # first: half a key is one too many
        return "".join(c for c in " ".join(text[:2_000].split()) if c.isprintable())[:MAX_SAID_CHARS]


def check_url(url: str) -> str:
    """`url`, if it is the base address of a server. Raises InputError that says what is wrong with it."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url.isprintable()
    except ValueError:
        fits = False
    if not fits or " " in url:
        raise InputError(f"{url!a:.200} is not an address such as https://HOST/v1 or http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError("an address of a model has no user, password or query in it: a key stands in OPENAI_API_KEY")
    return url


def _is_private(url: str) -> bool:
    """Whether nobody on the way can read what is sent there."""
    parts = urlsplit(url)
    if parts.scheme == "https" or parts.hostname == "localhost":
        return True
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _reason(text: str) -> str:
    """The message in an error's body, in the forms that servers give it; else the body."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for name in ("error", "detail", "message"):
        if isinstance(body, dict) and name in body:
            body = body[name]
    return body if isinstance(body, str) else text


def _seconds(text: str) -> float:
    """A Retry-After in seconds (RFC 9110, 10.2.3); 0 for a date or anything else."""
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0


def _count(usage: Any, name: str) -> int:
    number = usage.get(name) if isinstance(usage, dict) else 0
    return number if isinstance(number, int) and not isinstance(number, bool) and number >= 0 else 0
