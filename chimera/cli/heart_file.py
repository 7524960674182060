"""The settings of a `chimera heart run`: a TOML, YAML or JSON file, and over it the options that were given."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from chimera.anomaly.forecast.warning import MAX_LIMITS
from chimera.anomaly.options import WatchOptions
from chimera.anomaly.sources.source import SourceOptions
from chimera.cli.model import read_text
from chimera.cli.settings import explain
from chimera.core.config import Settings
from chimera.core.errors import InputError
from chimera.healing.generator import GeneratorOptions
from chimera.llm.prices import Price
from chimera.swarm.mission_file import parse_json, parse_yaml
from chimera.system.heart import HeartSettings

PATHS = ("workspace", "hidden_tests", "home")

MAX_NAMES = 1_000

MAX_FILE_BYTES = 1_000_000


class HeartFile(HeartSettings):
    """A node, whole: what it heals and how, what it watches, whom it asks, and what that may cost.

    `model` is the settings' own where none is named. `max_usd_a_day` needs the model's price among the `prices`.
    """

    home: Path = Field(default_factory=lambda: Settings().home / "heart")
    owners: dict[str, str] = Field(min_length=1, max_length=MAX_NAMES)
    source: str = Field(min_length=1)
    model: str = Field(default_factory=lambda: Settings().model)
    max_usd_a_day: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None
    prices: dict[str, Price] = Field(default_factory=dict, max_length=MAX_NAMES)
    sandbox: Literal["bwrap", "landlock"] | None = None
    reading: SourceOptions = SourceOptions()
    limits: tuple[str, ...] = Field(default=(), max_length=MAX_LIMITS)
    watching: WatchOptions = WatchOptions()
    generating: GeneratorOptions = GeneratorOptions()


def read_heart_file(path: Path | None, given: Mapping[str, Any]) -> HeartFile:
    """The node in a `.toml`, `.yaml`, `.yml` or `.json` file, with what was `given` instead of what stands there.

    Paths in the file are relative to its folder. Raises InputError, which names the file and each wrong field.
    """
    folder = Path.cwd() if path is None else path.absolute().parent
    try:
        document: object = {} if path is None else _document(path)
        if not isinstance(document, dict):
            raise InputError("a node is a table of settings: source, workspace, hidden_tests, owners")
        fields = {**document, **given}
        file = HeartFile.model_validate_json(json.dumps(fields, allow_nan=False))
    except ValidationError as error:
        lacks = path is None and any(details["type"] == "missing" for details in error.errors())
        hint = "; name a file that holds them with --config, or give each as an option" if lacks else ""
        raise InputError(f"{_named(path)}{explain(error)}{hint}") from None
    except InputError as error:
        raise InputError(f"{_named(path)}{str(error).removeprefix(f'{path} ')}") from None
    except (ValueError, TypeError, RecursionError) as error:  # a date, nan, nested without end
        raise InputError(f"{_named(path)}no plain data: {error}") from None
    found: dict[str, Any] = {name: folder / getattr(file, name).expanduser() for name in PATHS}
    if "source" not in given and (folder / file.source).is_file():
        found["source"] = str(folder / file.source)
    return file.model_copy(update=found)


def _named(path: Path | None) -> str:
    return "" if path is None else f"{path}: "


def _document(path: Path) -> object:
    suffix = path.suffix.lower()
    if suffix not in (".toml", ".yaml", ".yml", ".json"):
        raise InputError("the settings of a node end in .toml, .yaml, .yml or .json")
    text = read_text(path, MAX_FILE_BYTES)
    if suffix == ".toml":
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"not TOML: {error}") from None
    return parse_json(text) if suffix == ".json" else _yaml(text)


def _yaml(text: str) -> object:
    """Without aliases: a few lines of them stand for more than any memory holds."""
    document = parse_yaml(text)
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
        raise InputError("aliases (*name) are not for settings")
    return document
