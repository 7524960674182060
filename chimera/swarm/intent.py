"""From what a person says to a mission.

Without a model, rules read it: the question is the goal, and only an instruction after it ("decide by majority within
30 seconds") is understood as settings. Words that no rule understands stay in the goal, so that nothing said is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from chimera.core.errors import MissionError
from chimera.llm.chat import ChatMessage, ChatModel, ChatRequest
from chimera.swarm.mission import Limits, Mission, Spawn, TaskDraft
from chimera.swarm.mission_file import MAX_FILE_BYTES, load_mission, parse_json, parse_mission

__all__ = ["IntentCompiler", "Limits", "Mission", "Spawn", "TaskDraft", "load_mission", "parse_mission"]

MAX_INTENT_CHARS = 20_000
ANSWER_TOKENS = 8_000

SYSTEM_PROMPT = """\
Turn the user's request into a mission: one JSON document, and nothing else, that is valid under the schema below.
Keep the user's own words for `goal`. Leave out every field that the request says nothing about.
`docs` and `model` only if the request names them, word for word. Never `spawn`.

"""


class IntentCompiler:
    """Compiles a sentence, with a model that writes or by rules, or checks a mission document."""

    def __init__(self, model: ChatModel | None = None) -> None:
        self._model = model if model is not None and model.writes else None

    async def compile(self, source: str | Mapping[str, Any]) -> Mission:
        """The mission that `source` asks for. Raises MissionError naming what cannot be used, and ModelError."""
        if not isinstance(source, str):
            return parse_mission(source)
        if not source.strip():
            raise MissionError("goal: is empty")
        if len(source) > MAX_INTENT_CHARS:
            raise MissionError(f"goal: must have at most {MAX_INTENT_CHARS} characters (got {len(source)})")
        if self._model is None:
            return read_sentence(source)
        return await self._ask(self._model, source)

    async def _ask(self, model: ChatModel, sentence: str) -> Mission:
        """Ask the model; if its document is not valid, tell it why and ask once more."""
        schema = json.dumps(Mission.model_json_schema(), separators=(",", ":"))
        asked = (
            ChatMessage(role="system", content=SYSTEM_PROMPT + schema),
            ChatMessage(role="user", content=sentence),
        )
        first = (await model.chat(ChatRequest(messages=asked, max_tokens=ANSWER_TOKENS))).text
        try:
            return _read_answer(first, sentence)
        except MissionError as error:
            repair = f"That is not valid:\n{error}\nAnswer with the corrected JSON document, and nothing else."
        again = (
            *asked,
            ChatMessage(role="assistant", content=first[:MAX_FILE_BYTES]),
            ChatMessage(role="user", content=repair),
        )
        second = (await model.chat(ChatRequest(messages=again, max_tokens=ANSWER_TOKENS))).text
        try:
            return _read_answer(second, sentence)
        except MissionError as error:
            raise MissionError(f"the model {model.name} wrote no valid mission, twice: {error}") from error


def _read_answer(text: str, sentence: str) -> Mission:
    """The mission in a model's answer.

    A model may have read words of others, so it does not choose the code that runs, and the documents and the model
    that it names must stand in what the user said.
    """
    if len(text) > MAX_FILE_BYTES:
        raise MissionError(f"larger than {MAX_FILE_BYTES} characters")
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", text, re.DOTALL)
    mission = parse_mission(parse_json(fenced[1] if fenced else text))
    if mission.spawn:
        raise MissionError("spawn: is not for a model to choose")
    if mission.docs is not None and not _names(sentence, mission.docs):
        raise MissionError("docs: must stand in the request word for word")
    if "model" in mission.model_fields_set and not _names(sentence, mission.model):
        raise MissionError("model: must stand in the request word for word")
    return mission


def _names(sentence: str, words: str) -> bool:
    """Whether `words` stand in the sentence by themselves, and not as a part of a longer name."""
    return re.search(rf"(?<![^\s\"'(]){re.escape(words)}(?![^\s\"'),;.:!?])", sentence) is not None


_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)"
_METHODS = {"majority": "majority", "unanim": "unanimous", "weighted": "weighted", "quorum": "quorum"}
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0}

Fields = dict[str, Any]


def _decide(match: re.Match[str]) -> Fields:
    word = match[1].lower()
    fields: Fields = {"consensus": next(method for start, method in _METHODS.items() if start in word)}
    if match[2]:
        fields["threshold"] = float(match[2]) / 100
    return fields


def _within(match: re.Match[str]) -> Fields:
    return {"limits": {"deadline_s": float(match[1]) * _UNIT_S[match[2][0].lower()]}}


def _docs(match: re.Match[str]) -> Fields:
    return {"docs": match[1] or match[2]}


_DIRECTIVES: tuple[tuple[str, Callable[[re.Match[str]], Fields]], ...] = (
    (
        r"decide\s+(unanimously|by\s+(?:a\s+)?(?:majority|unanimity|weighted|quorum)(?:\s+(?:vote|consensus))?)"
        rf"(?:(?<=quorum)\s+of\s+{_NUMBER}\s*(?:%|percent\b|per\s+cent\b))?(?!\w)",
        _decide,
    ),
    (rf"within\s+{_NUMBER}\s*(seconds?|secs?|s|minutes?|mins?|hours?|h)\b", _within),
    (r"with\s+(\d{1,9})\s+replicas?\b", lambda match: {"replicas": int(match[1])}),
    (r"with\s+(\d{1,9})\s+agents?\b", lambda match: {"agents": int(match[1])}),
    (r"(?:over|in)\s+(?:the\s+)?docs\s+(?:\"([^\"]+)\"|(\S*[^\s.,;:!?\"]))", _docs),
)
_JOINT = r"(?:^|[\s,;.]+)(?:(?:and|then)\s+)?"


def read_sentence(sentence: str) -> Mission:
    """The mission in a sentence, by rules. Raises MissionError: a directive out of range, or said twice."""
    goal, mark, tail = sentence.strip().rpartition("?")
    if not mark:
        return parse_mission({"goal": tail})
    fields: Fields = {}
    for pattern, read in _DIRECTIVES:
        found = list(re.finditer(_JOINT + pattern, tail, re.IGNORECASE))
        if len(found) > 1:
            said = " and ".join(repr(match[0].strip(" ,;.")) for match in found)
            raise MissionError(f"which one: {said}?")
        for match in found:
            fields.update(read(match))
            tail = f"{tail[: match.start()]} {tail[match.end() :]}"
    if not fields:
        return parse_mission({"goal": sentence.strip()})
    space = " " if tail.startswith(" ") else ""
    rest = " ".join(tail.split()).strip(" ,;.")
    return parse_mission({"goal": goal + mark + (space + rest if rest else ""), **fields})
