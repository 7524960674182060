"""A validator's plan from a file: plain data, bounded before it is looked at, with errors that name the field."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from pydantic import ValidationError

from chimera.arena.validators.terms import ValidatorPlan
from chimera.cli.settings import explain
from chimera.core.errors import InputError
from chimera.swarm.mission_file import parse_json, parse_yaml

MAX_FILE_BYTES = 1_000_000


def load_plan(path: Path) -> ValidatorPlan:
    """The plan in a `.yaml`, `.yml` or `.json` file. Raises InputError, which names the file and each wrong field."""
    suffix = path.suffix.lower()
    if suffix not in (".yaml", ".yml", ".json"):
        raise InputError(f"{path}: a validator's plan ends in .yaml, .yml or .json")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise InputError(f"larger than {MAX_FILE_BYTES} bytes")
        text = content.decode("utf-8-sig")
        document = parse_json(text) if suffix == ".json" else _yaml(text)
        return ValidatorPlan.model_validate_json(json.dumps(document, allow_nan=False), strict=True)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error)}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (ValueError, TypeError, RecursionError) as error:  # no UTF-8, a date, nan, nested without end
        raise InputError(f"{path} is no plain data: {error}") from error


def _yaml(text: str) -> object:
    """Without aliases: a few lines of them stand for more than any memory holds."""
    document = parse_yaml(text)
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
        raise InputError("aliases (*name) are not for plans")
    return document
