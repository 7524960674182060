"""A Python function as a model: called in the right way, and kept from doing harm."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from chimera.core.errors import InputError, ModelError, ModelOutage, ModelRefused, ModelTooLong
from chimera.core.types import Quote
from chimera.llm.chat import ChatMessage, ChatRequest, ToolSpec
from chimera.llm.python_model import PythonModel

FUNCTIONS = """
import asyncio, threading, time

go = threading.Event()

def prompt(text): return f"<{text}>"
def loud(text, *, voice="loud"): return text.upper()
def everything(messages, seed): return f"{seed}: {messages}"
async def later(text):
    await asyncio.sleep(0)
    return f"later {text}"
def waits(text):
    go.wait(30)
    return "waited"
async def sleeps(text): await asyncio.sleep(3_600)
async def times_out(text): raise TimeoutError("of my own")
def raises(text): raise ValueError("no idea")
def leaves(text): raise SystemExit(3)
def stops(text): raise StopIteration
def nothing(text): pass
def much(text): return "x" * 1_000_001
def odd(text): return "a\\ud800b"
def none(): return ""
def three(a, b, c): return ""
def named(*, text): return ""
def any_number(*texts): return ""
class Player:
    def __call__(self, text): return f"player {text}"
    async def play(self, text): return f"plays {text}"
player = Player()
number = 7
"""

ASKED = ChatRequest(
    messages=(ChatMessage(role="system", content="be short"), ChatMessage(role="user", content="hi")), seed=9
)


@pytest.fixture(scope="module", autouse=True)
def _functions(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder: Path = tmp_path_factory.mktemp("functions")
    (folder / "chat_functions.py").write_text(FUNCTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


def model(function: str, timeout_s: float = 20.0) -> PythonModel:
    return PythonModel(f"python:chat_functions:{function}", timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        ("prompt", "<hi>"),
        ("loud", "HI"),
        ("later", "later hi"),
        ("player", "player hi"),
        ("player.play", "plays hi"),
        ("odd", "a?b"),
        ("everything", "9: [{'role': 'system', 'content': 'be short'}, {'role': 'user', 'content': 'hi'}]"),
    ],
)
async def test_it_is_given_what_it_takes_and_its_text_is_the_answer(function: str, text: str) -> None:
    assert (await model(function).chat(ASKED)).text == text


async def test_documents_stand_in_the_prompt() -> None:
    quote = Quote(text="Ten.", file="a.txt", line=2)
    assert "Ten. [a.txt:2]" in (await model("prompt").chat(ASKED.model_copy(update={"documents": (quote,)}))).text


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("raises", "raised ValueError: no idea"),
        ("leaves", "SystemExit: 3"),
        ("stops", "StopIteration"),
        ("times_out", "raised TimeoutError: of my own"),
        ("nothing", "returned a NoneType"),
    ],
)
async def test_what_it_does_wrong_is_said(function: str, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        await model(function).chat(ASKED)
    assert type(caught.value) is ModelError


async def test_too_much_is_refused() -> None:
    with pytest.raises(ModelTooLong, match="1000001 characters"):
        await model("much").chat(ASKED)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("python:chat_functions", "python:MODULE:FUNCTION"),
        ("python:chat_functions:", "python:MODULE:FUNCTION"),
        ("python:no_such:f", "PYTHONPATH"),
        ("python:chat_functions:missing", "AttributeError"),
        ("python:chat_functions:number", "is a int"),
        ("python:chat_functions:none", "one argument"),
        ("python:chat_functions:three", "one argument"),
        ("python:chat_functions:named", "one argument"),
        ("python:chat_functions:any_number", "one argument"),
        ("python:builtins:print", "one argument"),
    ],
)
def test_what_is_no_such_function_is_refused_when_opened(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        PythonModel(name)


async def test_one_that_blocks_does_not_stop_the_loop() -> None:
    import chat_functions

    chat_functions.go.clear()
    blocked = asyncio.create_task(model("waits").chat(ASKED))
    assert (await model("later").chat(ASKED)).text == "later hi"  # while the other waits for what comes next
    chat_functions.go.set()
    assert (await blocked).text == "waited"


@pytest.mark.parametrize("function", ["waits", "sleeps"])
async def test_one_that_takes_too_long_is_an_outage(function: str) -> None:
    import chat_functions

    chat_functions.go.clear()
    with pytest.raises(ModelOutage, match=r"did not return within 0\.1 s"):
        await model(function, timeout_s=0.1).chat(ASKED)
    chat_functions.go.set()


async def test_calls_that_never_return_keep_a_bounded_number_of_threads() -> None:
    import chat_functions

    chat_functions.go.clear()
    before = threading.active_count()
    waiting = PythonModel("python:chat_functions:waits", timeout_s=0.3, threads=3)
    outcomes = await asyncio.gather(*(waiting.chat(ASKED) for _ in range(12)), return_exceptions=True)
    assert all(isinstance(outcome, ModelOutage) for outcome in outcomes)
    assert threading.active_count() <= before + 3
    chat_functions.go.set()
    while threading.active_count() > before:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert (await waiting.chat(ASKED)).text == "waited", "their places are free again"


@pytest.mark.parametrize("wanted", [{"tools": (ToolSpec(name="t"),)}, {"answer": {"type": "object"}}])
async def test_a_function_is_not_asked_for_what_it_would_not_be_told(wanted: dict[str, Any]) -> None:
    with pytest.raises(ModelRefused, match="no tools, and no schema"):
        await model("prompt").chat(ASKED.model_copy(update=wanted))
