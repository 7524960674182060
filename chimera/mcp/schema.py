"""Arguments held against a tool's input schema, before anything is sent.

The schema is a stranger's program, so it gets what a stranger's program gets: nothing from the network, so many steps,
and no regular expression that could run away. What cannot be checked within that is left to the server, which checks
its arguments anyhow; a schema that is broken is refused. JSON Schema 2020-12, 2019-09 and draft 7, as it says itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Final

from pydantic import JsonValue

from chimera.core.errors import InputError, MissingExtra
from chimera.core.hashing import canonical_json
from chimera.mcp.shown import shown

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

MAX_DEPTH: Final = 64
MAX_NODES: Final = 5_000
"""Values in a schema, in lists and objects of whatever depth."""

MAX_STEPS: Final = 20_000
"""What is looked at for one call, keywords and the members of their values and of the arguments: `$ref`s can double the
work at each level, as entities did in XML."""

MAX_SCHEMA_STEPS: Final = 400_000
"""The same for the schema itself, which is held against its own kind's once."""

MAX_PROBLEMS: Final = 5
MAX_PATTERN: Final = 500
MAX_TRIES: Final = 1_000_000
"""What a regular expression may try at one text, at worst."""

TRIES_A_STEP: Final = 10_000

TOLD: Final = frozenset(
    "enum const type minimum maximum exclusiveMinimum exclusiveMaximum minLength maxLength minItems maxItems "
    "minProperties maxProperties multipleOf pattern".split()
)
"""Keywords whose value says what is wanted."""

LEFT_TO_SERVER: Final = frozenset(("unevaluatedProperties", "unevaluatedItems", "format"))

_REFERENCES: Final = frozenset(("$ref", "$dynamicRef", "$recursiveRef"))
_ESCAPED: Final = re.compile(r"\\.", re.DOTALL)
_CLASS: Final = re.compile(r"\[\^?\]?[^\]]*\]")
_END: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\$", re.DOTALL)
_REPEATED_GROUP: Final = re.compile(r"\)[*+?{]")
_REPEATS: Final = re.compile(r"[*+?{|]")

_left: ContextVar[list[int]] = ContextVar("steps left")

Keyword = Callable[[Any, Any, Any, Any], "Iterator[ValidationError] | None"]


class _OutOfSteps(Exception):
    """A schema asks for more work than a call is worth."""


class InputSchema:
    """A tool's input schema, made ready once. Raises InputError where it cannot be used, and says why."""

    def __init__(self, schema: Mapping[str, JsonValue]) -> None:
        plain = _bounded(schema, 0, count())
        kind = _kind_of(schema.get("$schema"))
        before = _left.set([MAX_SCHEMA_STEPS])
        try:
            guarded = _guarded(kind)
            fits = guarded(_unnamed(kind.META_SCHEMA), registry=_specifications()).is_valid(plain)
            self._validator = guarded(plain, registry=_nothing())
        except _OutOfSteps:
            raise InputError("the tool's input schema is too large to be checked") from None
        except Exception as error:  # whatever a stranger's schema brings about in the library
            raise InputError(f"the tool's input schema is broken ({type(error).__name__})") from None
        finally:
            _left.reset(before)
        if not fits:
            raise InputError("the tool's input schema is broken: it is no JSON Schema of the kind that it says")

    def problems(self, arguments: Mapping[str, JsonValue]) -> tuple[str, ...]:
        """What is wrong with arguments, each with its path; at most MAX_PROBLEMS. InputError if it cannot be told."""
        before = _left.set([MAX_STEPS])
        try:
            return tuple(_told(error) for error in islice(self._validator.iter_errors(arguments), MAX_PROBLEMS))
        except _OutOfSteps:
            raise InputError("the tool's input schema takes too long to check these arguments") from None
        except Exception as error:  # references to nothing or to themselves, numbers beyond a float
            raise InputError(f"the tool's input schema cannot be applied ({type(error).__name__})") from None
        finally:
            _left.reset(before)


def _bounded(value: Any, depth: int, nodes: Iterator[int]) -> Any:
    """A copy without `$schema`, which could change the rules half-way. Refuses references to other documents."""
    if depth > MAX_DEPTH:
        raise InputError(f"the tool's input schema is nested deeper than {MAX_DEPTH}")
    if next(nodes) >= MAX_NODES:
        raise InputError(f"the tool's input schema has more than {MAX_NODES} values")
    if isinstance(value, list):
        return [_bounded(each, depth + 1, nodes) for each in value]
    if not isinstance(value, Mapping):
        return value
    if any(isinstance(value.get(name), str) and not value[name].startswith("#") for name in _REFERENCES):
        raise InputError("the tool's input schema refers to another document, and none is fetched")
    return {
        name: _bounded(each, depth + 1, nodes)
        for name, each in value.items()
        if not (name == "$schema" and isinstance(each, str))
    }


def _kind_of(declared: JsonValue) -> Any:
    try:
        import jsonschema
    except ImportError as error:
        raise MissingExtra("jsonschema", "mcp") from error
    said = declared if isinstance(declared, str) else ""
    if "draft-07" in said:
        return jsonschema.Draft7Validator
    return jsonschema.Draft201909Validator if "2019-09" in said else jsonschema.Draft202012Validator


def _nothing() -> Any:
    from referencing import Registry

    return Registry()  # one that fetches nothing; the library's default would


@cache
def _specifications() -> Any:
    """The kinds' own schemas."""
    from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]
    from referencing import Registry
    from referencing.jsonschema import specification_with

    held = ((uri, REGISTRY.contents(uri)) for uri in REGISTRY)
    return Registry().with_resources(
        (uri, specification_with(schema["$schema"]).create_resource(_unnamed(schema))) for uri, schema in held
    )


def _unnamed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Without its `$schema`: at each that it meets the library goes back to its own rules, which are not guarded."""
    return {name: value for name, value in schema.items() if name != "$schema"}


def _guarded(kind: Any) -> Any:
    """The same rules with a bound on their work."""
    from jsonschema import validators

    own: dict[str, Keyword] = {
        "additionalProperties": _additional_properties,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "uniqueItems": _unique,
    }
    keywords: dict[str, Any] = {name: _counted(own.get(name, rule)) for name, rule in kind.VALIDATORS.items()}
    return validators.extend(kind, keywords | dict.fromkeys(LEFT_TO_SERVER, _unchecked))  # type: ignore[no-untyped-call]


def _counted(rule: Keyword) -> Keyword:
    def step(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        _charge(1 + _members(value) + _members(instance))
        yield from rule(validator, value, instance, schema) or ()

    return step


def _charge(steps: int) -> None:
    left = _left.get()
    left[0] -= steps
    if left[0] < 0:
        raise _OutOfSteps


def _members(value: Any) -> int:
    return len(value) if isinstance(value, (list, dict)) else 0


def _unchecked(_validator: Any, _value: Any, _instance: Any, _schema: Any) -> None:
    return None


def _pattern(validator: Any, value: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    from jsonschema.exceptions import ValidationError

    if isinstance(instance, str) and (regex := _runnable(value, len(instance))) and not regex.search(instance):
        yield ValidationError("")


def _pattern_properties(validator: Any, value: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for pattern, schema in value.items():
        for name, each in instance.items():
            if (regex := _runnable(pattern, len(name))) and regex.search(name):
                yield from validator.descend(each, schema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    from jsonschema.exceptions import ValidationError

    if not isinstance(instance, dict):
        return
    names = _additional(instance, schema)
    if isinstance(value, dict):
        for name in names:
            yield from validator.descend(instance[name], value, path=name)
    elif value is False and names:
        yield ValidationError("")


def _additional(instance: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """The names that the schema does not speak of; with a pattern that cannot be run it might, so none is told."""
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    found = []
    for name in instance:
        if name not in known:
            regexes = (_runnable(pattern, len(name)) for pattern in patterns)
            if not any(regex is None or regex.search(name) for regex in regexes):
                found.append(name)
    return found


def _unique(_validator: Any, value: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    from jsonschema.exceptions import ValidationError

    if value and isinstance(instance, list) and len({canonical_json(each) for each in instance}) < len(instance):
        yield ValidationError("")


def _runnable(pattern: str, chars: int) -> re.Pattern[str] | None:
    """The expression, if at worst it tries MAX_TRIES places in so many characters; None leaves it to the server.

    A backtracking matcher can try each repeat and each alternative at every place of the text: that is chars to the
    power of their number, and once more for where it begins. Repeated groups can be worse, so they are not run at all.
    """
    bare = _CLASS.sub("c", _ESCAPED.sub("c", pattern))
    if len(pattern) > MAX_PATTERN or _REPEATED_GROUP.search(bare):
        return None
    tries = (chars + 2) ** (len(_REPEATS.findall(bare)) + 1)
    if tries > MAX_TRIES:
        return None
    _charge(1 + tries // TRIES_A_STEP)
    try:
        return _compiled(pattern)
    except (re.error, OverflowError, RecursionError, ValueError):  # ECMA's expressions are not all Python's
        return None


def _compiled(pattern: str) -> re.Pattern[str]:
    """As ECMA means it: `\\d` is an ASCII digit, and `$` the end, where Python's comes before a last newline too."""
    return re.compile(_END.sub(lambda found: r"\Z" if found[0] == "$" else found[0], pattern), re.ASCII)


def _told(error: Any) -> str:
    """What is wrong in our words: where, which keyword, and what that says. Of the value nothing is repeated."""
    path = "/".join(("arguments", *(shown(str(part), 64) for part in islice(error.absolute_path, 8))))
    match error.validator:
        case "required":
            missing = [name for name in error.validator_value if name not in error.instance]
            return f"{path} lacks {_names(missing)}"
        case "additionalProperties" if isinstance(error.instance, dict):
            return f"{path} has {_names(_additional(error.instance, error.schema))}, unknown here"
        case str(keyword) if keyword in TOLD:
            return f"{path} is not of the {keyword} {shown(json.dumps(error.validator_value))}"
        case None:
            return f"{path} is not allowed"
        case keyword:
            return f"{path} does not keep to {shown(str(keyword), 32)}"


def _names(names: list[str]) -> str:
    return ", ".join(json.dumps(shown(name, 64), ensure_ascii=False) for name in names[:8])
