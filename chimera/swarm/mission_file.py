"""Mission documents: from YAML, JSON or a mapping to a Mission, with errors that name the field.

A mission file may come from anywhere, so its size, depth and number of values are bounded before they are looked at,
and only plain data is built from it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from chimera.core.errors import MissionError
from chimera.core.types import Equality
from chimera.swarm.mission import Limits, Mission, Spawn, TaskDraft

MAX_FILE_BYTES = 1_000_000
MAX_VALUES = 100_000
"""Values in one document, counting what a YAML alias stands for each time that it stands there."""
MAX_CHARS = 4 * MAX_FILE_BYTES
"""Characters in its texts and names, counted in the same way."""
MAX_DEPTH = 50
MAX_ERRORS_SHOWN = 10

_PLAIN: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])
_FIELDS_AT: dict[tuple[str, ...], type[BaseModel]] = {
    (): Mission,
    ("limits",): Limits,
    ("spawn",): Spawn,
    ("tasks",): TaskDraft,
    ("tasks", "equality"): Equality,
}


def load_mission(path: Path) -> Mission:
    """The mission in a `.yaml`, `.yml` or `.json` file. Raises MissionError, which names the file."""
    parsers: dict[str, Callable[[str], object]] = {".yaml": parse_yaml, ".yml": parse_yaml, ".json": parse_json}
    parse = parsers.get(path.suffix.lower())
    if parse is None:
        raise MissionError(f"{path}: a mission file ends in .yaml, .yml or .json")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise MissionError(f"larger than {MAX_FILE_BYTES} bytes")
        return parse_mission(parse(content.decode("utf-8-sig")))
    except OSError as error:
        raise MissionError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise MissionError(f"{path}: not UTF-8 text: {error}") from error
    except MissionError as error:
        raise MissionError(f"{path}: {error}") from error


def parse_mission(document: object) -> Mission:
    """The mission that a document of plain data describes. Raises MissionError naming each field at fault.

    Types are strict: `replicas: "3"` and `goal: yes` are mistakes, not a number and a text.
    """
    if not isinstance(document, Mapping):
        raise MissionError(f"a mission is a mapping of fields, such as `goal: ...`, not {_kind(document)}")
    document = dict(document)
    _check_size(document)
    try:
        plain = _PLAIN.validate_python(document, strict=True)
        text = json.dumps(plain, allow_nan=False, ensure_ascii=False).encode()
        return Mission.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise MissionError(_explain(error)) from error
    except ValueError as error:  # not finite, thousands of digits, half a character
        raise MissionError(f"a value has no JSON form: {error}") from error


def parse_json(text: str) -> object:
    """Plain data from JSON. Raises MissionError; a field that stands there twice is an error."""
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError as error:
        raise MissionError("nested too deeply") from error
    except ValueError as error:
        raise MissionError(f"not JSON: {error}") from error


def parse_yaml(text: str) -> object:
    """Plain data from YAML. Raises MissionError; a field that stands there twice is an error."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise MissionError("nested too deeply") from error
    except Exception as error:  # PyYAML's own constructors raise IndexError, KeyError and more on odd tags
        raise MissionError(f"not YAML: {type(error).__name__}: {error}") from error


class _Loader(yaml.SafeLoader):
    """The safe loader, less what lets a small file grow or a field hide."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Called before a mapping is built. Merge keys (`<<`) are refused: a few lines of them fill the memory."""
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise MissionError(f"merge keys (<<) are not for mission files (line {key.start_mark.line + 1})")
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise MissionError(f"{key.value}: stands there twice (line {key.start_mark.line + 1})")
                seen.add(key.value)


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, value in pairs:
        if name in fields:
            raise MissionError(f"{name}: stands there twice")
        fields[name] = value
    return fields


def _check_size(document: object) -> None:
    """Refuse what is too deep or too much. An alias is followed each time, as everything that comes later does."""
    values = chars = 0
    level = [document]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inside = [*value.keys(), *value.values()]
            elif isinstance(value, (list, tuple)):
                inside = list(value)
            else:
                chars += len(value) if isinstance(value, str) else 0
                continue
            values += len(inside)
            if values > MAX_VALUES:
                raise MissionError(f"more than {MAX_VALUES} values")
            below += inside
        level = below
    if level:
        raise MissionError(f"nested more than {MAX_DEPTH} deep")
    if chars > MAX_CHARS:
        raise MissionError(f"more than {MAX_CHARS} characters")


def _explain(error: ValidationError) -> str:
    """pydantic's findings as `field: what is wrong (got what)`, one per line."""
    found = [_explain_one(dict(details)) for details in error.errors(include_url=False)]
    more = [f"... and {len(found) - MAX_ERRORS_SHOWN} more"] if len(found) > MAX_ERRORS_SHOWN else []
    return "\n".join([*found[:MAX_ERRORS_SHOWN], *more])


def _explain_one(details: dict[str, Any]) -> str:
    loc, kind, got = details["loc"], details["type"], details["input"]
    context = details.get("ctx", {})
    if kind == "invalid-json-value":
        loc = loc[::2]  # every other part is only pydantic's word for what the one before it is
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    if loc and loc[-1] == "[key]":
        return f"{_shown(got)}: the name of a field must be text"
    if kind == "extra_forbidden":
        return f"{field}: unknown field{_suggestion(loc)}"
    if kind == "missing":
        return f"{field}: is required"
    if kind == "value_error":
        return f"{field}: {context['error']}" if field else str(context["error"])
    bounds = {
        "greater_than_equal": ("at least", "ge"),
        "greater_than": ("more than", "gt"),
        "less_than_equal": ("at most", "le"),
        "less_than": ("less than", "lt"),
    }
    if kind in bounds:
        word, key = bounds[kind]
        what = f"must be {word} {context[key]:g}"
    elif kind == "invalid-json-value":
        what = "must be text, a number, true, false, nothing, a list or a mapping"
    elif kind in ("enum", "literal_error"):
        what = f"must be {context['expected']}"
    elif kind.endswith("_type"):
        what = f"must be {_EXPECTED.get(kind, kind.removesuffix('_type'))}"
    else:
        what = str(details["msg"])[:1].lower() + str(details["msg"])[1:]
    return f"{field}: {what} (got {_shown(got)})"


_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}


def _suggestion(loc: tuple[int | str, ...]) -> str:
    *above, name = [part for part in loc if isinstance(part, str)]
    model = _FIELDS_AT.get(tuple(above))
    close = difflib.get_close_matches(str(name), list(model.model_fields) if model else [], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _kind(value: object) -> str:
    kinds = {dict: "a mapping", list: "a list", str: "text", int: "a number", float: "a number"}
    return "nothing" if value is None else kinds.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    """A short text for a value of any size; what holds other values is only called by its kind."""
    if isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if isinstance(value, str):
        return json.dumps(value if len(value) <= 60 else value[:57] + "...", ensure_ascii=False)
    return _kind(value)
