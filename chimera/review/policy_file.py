"""A review policy in a file, YAML or JSON, read strictly: a name unknown, or written twice, is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from chimera.core.errors import InputError
from chimera.review.policy import KINDS, ReviewPolicy

MAX_BYTES = 1_000_000


class _Strict(yaml.SafeLoader):
    """YAML without its silent losses: of two equal keys the first would be forgotten."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        _once(names)
        return super().construct_mapping(node, deep=deep)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not for policies: write it out")
        return super().compose_node(parent, index)


def load_policy(path: Path) -> ReviewPolicy:
    """The policy in a file; its `kinds` are added to the built-in ones, or take their place. Raises InputError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InputError(f"{path}: a policy has at most {MAX_BYTES:,} bytes")
        return parse_policy(data.decode("utf-8"), is_json=path.suffix == ".json")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (InputError, ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path}: {error}") from None


def parse_policy(text: str, *, is_json: bool = False) -> ReviewPolicy:
    """The policy that `text` is. Raises InputError naming what is wrong, ValueError and YAMLError for its syntax."""
    told = json.loads(text, object_pairs_hook=_object) if is_json else yaml.load(text, _Strict)
    if told is None:
        told = {}
    if not isinstance(told, dict):
        raise InputError("a policy is a mapping, such as automatic_above: 0.95")
    kinds = told.get("kinds")
    if isinstance(kinds, dict):
        told = {**told, "kinds": {**KINDS, **kinds}}
    try:
        return ReviewPolicy.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {what}" if where else what) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _once([name for name, _ in pairs])
    return dict(pairs)


def _once(names: list[Any]) -> None:
    seen: set[Any] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{name} stands there twice")
        seen.add(name)
