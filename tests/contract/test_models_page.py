"""The programs of docs/models.md, as they stand there, against a real server."""

from __future__ import annotations

import re
from typing import Any

import pytest

from chimera.llm.chat import ChatMessage, ChatRequest
from tests.conftest import ROOT
from tests.llama_server import LlamaServer


def programs() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "models_page"}
    for program in re.findall(r"```python\n(.*?)```", (ROOT / "docs/models.md").read_text(), re.DOTALL):
        exec(compile(program, "docs/models.md", "exec"), names)
    return names


async def test_they_run(capsys: pytest.CaptureFixture[str]) -> None:
    said = programs()
    with LlamaServer() as server:
        name = f"compatible:{server.model}@{server.url}/v1"
        await said["try_out"](name)
        request = ChatRequest(messages=(ChatMessage(role="user", content="hello"),), max_tokens=8)
        await said["with_fail_over"](["compatible:m@http://127.0.0.1:9/v1", name], request)
    assert f"{name} 0.0 " in (told := capsys.readouterr().out) and "['outage', 'ok']" in told
